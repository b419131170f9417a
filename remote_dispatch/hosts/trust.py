"""Trust in the hosts files of projects: what one would add or redefine, agreed to by its hash, and taken back.

What is said unasked of a file that is not trusted repeats no word of it but names that the user's own registry has.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError, UnknownNameError, UsageError
from remote_dispatch.hosts.entries import FIELDS, Problem, parse_hosts_file
from remote_dispatch.hosts.files import UnreadableError, real
from remote_dispatch.hosts.layers import (
    ENVIRONMENT_VARIABLE,
    FILE_NAMES,
    REPLACED,
    UNTRUSTED,
    LayerKind,
    locate,
    top_level,
)
from remote_dispatch.hosts.names import is_speakable
from remote_dispatch.hosts.pins import Trust, add_pins, judge, read_content, read_pins, remove_pins

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from remote_dispatch.hosts.entries import Entry
    from remote_dispatch.hosts.layers import Layer, Places
    from remote_dispatch.hosts.pins import Content, Pin
    from remote_dispatch.hosts.registry import Origin, Registry
    from remote_dispatch.model import Host

_MOST_NAMES = 8
_LIST = "`remote-dispatch hosts trust --list` shows what is trusted"


class Effect(StrEnum):
    """What an entry of a project's file does to the registry."""

    ADDS = "adds"
    REDEFINES = "redefines"
    REPEATS = "repeats"
    """The registry has the very same under this name."""
    DISABLES = "disables"
    """It is wrong, so a name that can be used now could not be used any more."""
    IS_HIDDEN = "is hidden"
    """A later entry of the same name wins, so it does nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """What one entry would do. `fields` are those that it sets or that differ; `origin` is where the other entry is."""

    name: str
    effect: Effect
    fields: tuple[str, ...] = ()
    origin: Origin | None = None
    new: Host | None = None
    old: Host | None = None


@dataclass(frozen=True, slots=True)
class Review:
    """What one file of a project would do. `refusal` says why it cannot be trusted, or is None."""

    path: Path
    trust: Trust
    sha256: str | None = None
    real_path: Path | None = None
    changes: tuple[Change, ...] = ()
    problems: tuple[Problem, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Trusted:
    """A pin, and how its file stands now: `state` is `trusted`, `changed`, `missing` or `refused`."""

    pin: Pin
    state: str
    names: tuple[str, ...] = ()


def project_notes(places: Places, names: Collection[str]) -> tuple[str, ...]:
    """Say of each project's file that is ignored why, and which of these names of the user it would redefine."""
    found = (layer for layer in places.layers if layer.kind is LayerKind.PROJECT and layer.ignored and layer.exists)
    return tuple(_note(layer, names, places) for layer in found if layer.ignored != REPLACED)


def review(environment: Mapping[str, str], path: Path) -> tuple[Review, ...]:
    """Compare the hosts files of a directory's project, or one of them, with the rest of the registry.

    Each is compared as if those before it were trusted. Raises UsageError for what is no project's hosts file, and
    ConfigurationError when the record of what is trusted is broken: then nothing can be added to it.
    """
    read_pins()
    folder, file = (path, None) if path.is_dir() else _split(path)
    plain = {name: value for name, value in environment.items() if name != ENVIRONMENT_VARIABLE}
    places = locate(environment=plain, project=folder, hosts_file=None, platform=sys.platform)
    reviews: list[Review] = []
    for place, layer in enumerate(places.layers):
        if layer.kind is LayerKind.PROJECT and layer.exists and file in (None, layer.path):
            reviews.append(_review(places, place))
            places = _with_layer(places, place, is_read=not reviews[-1].refusal)
    return tuple(reviews)


def trust(reviews: Sequence[Review]) -> None:
    """Trust these files as they were reviewed: one that has changed meanwhile stays ignored."""
    if refused := next((review for review in reviews if review.refusal), None):
        raise ConfigurationError(f"{refused.path} cannot be trusted: it {refused.refusal}")
    add_pins({one.real_path: one.sha256 for one in reviews if one.real_path and one.sha256})


def untrust(path: Path) -> tuple[Path, ...]:
    """Take back the trust in a file, or in all files of the project of a directory; return what was trusted.

    Raises UnknownNameError when nothing of it was.
    """
    gone = {path for path in _files_of(path) if path in read_pins()}
    if not gone:
        raise UnknownNameError(f"nothing is trusted at {path}", hint=_LIST)
    remove_pins(frozenset(gone))
    return tuple(sorted(gone))


def untrust_all() -> tuple[Path, ...]:
    """Take back all trust, and return the files that were trusted."""
    gone = frozenset(read_pins())
    remove_pins(gone)
    return tuple(sorted(gone))


def list_trusted() -> tuple[Trusted, ...]:
    """Return what is trusted, by path, and how each file stands now."""
    return tuple(_standing(pin) for _, pin in sorted(read_pins().items()))


def _split(path: Path) -> tuple[Path, Path]:
    """Return the directory in which a file of a project counts, and the file."""
    file = real(path.parent) / path.name
    if file.name not in FILE_NAMES or not os.path.lexists(file):
        raise UsageError(
            f"{path} is no project's hosts file" if os.path.lexists(file) else f"there is no file {path}",
            hint="a project's hosts files are `hosts.json`, `hosts.jsonc` and the same in `.opencode/`",
        )
    return (file.parent.parent if file.parent.name == ".opencode" else file.parent), file


def _note(layer: Layer, names: Collection[str], places: Places) -> str:
    claimed = [] if places.given else [name for name in _names_in(layer.content) if name in names]
    shown = ", ".join(f"`{name}`" for name in claimed[:_MOST_NAMES])
    more = f" and {len(claimed) - _MOST_NAMES} more" if len(claimed) > _MOST_NAMES else ""
    attempt = f"; it would redefine {shown}{more}" if claimed else ""
    way = ": see `remote-dispatch hosts trust`" if layer.trust in (Trust.UNTRUSTED, Trust.CHANGED) else ""
    return f"{layer.path} is ignored: {layer.ignored}{attempt}{way}"


def _names_in(content: Content | None) -> list[str]:
    entries = parse_hosts_file(content.path, content.text).entries if content else ()
    return [entry.name for entry in entries if is_speakable(entry.name)]


def _review(places: Places, place: int) -> Review:
    layer = places.layers[place]
    if layer.content is None:
        return Review(layer.path, Trust.REFUSED, refusal=_refusal(layer))
    file = parse_hosts_file(layer.path, layer.content.text)
    problems = (*file.problems, *(problem for entry in file.entries for problem in entry.problems))
    before = _registry(_with_layer(places, place, is_read=False))
    after = _registry(_with_layer(places, place, is_read=True))
    return Review(
        layer.path,
        layer.trust or Trust.UNTRUSTED,
        layer.content.sha256,
        layer.content.path,
        tuple(_changes(file.entries, before, after)),
        problems,
        None if file.entries or not file.problems else "holds no hosts that can be read",
    )


def _refusal(layer: Layer) -> str:
    return (layer.ignored or "cannot be read").removeprefix("it belongs to a project and ")


def _changes(entries: Sequence[Entry], before: Registry, after: Registry) -> Iterator[Change]:
    for entry in entries:
        if isinstance(entry.value, Problem):
            if entry.name in before.names and entry.name not in after.names:
                yield Change(entry.name, Effect.DISABLES, origin=before.origin(entry.name))
        elif not _wins(entry, after):
            yield Change(entry.name, Effect.IS_HIDDEN, origin=after.origin(entry.name), new=entry.value)
        else:
            yield _change(entry.value, before)


def _wins(entry: Entry, registry: Registry) -> bool:
    origin = registry.origin(entry.name)
    return (origin.file, origin.line) == (entry.file, entry.line)


def _change(new: Host, before: Registry) -> Change:
    if new.name not in before:
        return Change(new.name, Effect.ADDS, _fields_set(new), new=new)
    old = before[new.name] if new.name in before.names else None
    differing = tuple(name for name in FIELDS if getattr(new, name) != getattr(old, name, None))
    effect = Effect.REDEFINES if differing else Effect.REPEATS
    return Change(new.name, effect, differing, before.origin(new.name), new, old)


def _fields_set(host: Host) -> tuple[str, ...]:
    return tuple(name for name in FIELDS if getattr(host, name) is not None)


def _registry(places: Places) -> Registry:
    from remote_dispatch.hosts.registry import Registry  # noqa: PLC0415 - it imports this module for its notes

    return Registry.read(places)


def _with_layer(places: Places, place: int, *, is_read: bool) -> Places:
    layers = list(places.layers)
    layers[place] = replace(layers[place], ignored=None if is_read else UNTRUSTED)
    return replace(places, layers=tuple(layers))


def _files_of(path: Path) -> set[Path]:
    """Name the files that a path means, by their real paths: itself, or those of a directory's project."""
    if not path.is_dir():
        return {real(path)}
    folders = {path.absolute(), top_level(path.absolute())}
    return {real(one / below / name) for one in folders for below in ("", ".opencode") for name in FILE_NAMES}


def _standing(pin: Pin) -> Trusted:
    try:
        content = read_content(pin.path, pin.path.parent)
    except UnreadableError:
        return Trusted(pin, Trust.REFUSED)
    if content is None:
        return Trusted(pin, "missing")
    state = judge(content, {pin.path: pin})
    entries = parse_hosts_file(content.path, content.text).entries if state is Trust.TRUSTED else ()
    return Trusted(pin, state, tuple(entry.name for entry in entries if not isinstance(entry.value, Problem)))
