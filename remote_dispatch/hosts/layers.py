"""Where hosts files are looked for, and in which order. Opens a project's alone, to compare it with what is trusted."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError
from remote_dispatch.hosts.files import UnreadableError, real
from remote_dispatch.hosts.opencode_files import expanded, global_directory, user_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from remote_dispatch.hosts.pins import Content, Pin, Trust

FILE_NAMES = ("hosts.jsonc", "hosts.json")
ENVIRONMENT_VARIABLE = "REMOTE_DISPATCH_HOSTS"
UNTRUSTED = "it belongs to a project and is not trusted"
CHANGED = "it belongs to a project and changed since you trusted it"
REPLACED = "replaced by `--hosts` or REMOTE_DISPATCH_HOSTS"


class LayerKind(StrEnum):
    """Whose file it is."""

    USER = "user"
    PROJECT = "project"
    GIVEN = "given"
    """Named by `--hosts` or REMOTE_DISPATCH_HOSTS."""
    INLINE = "inline"
    """The user's configuration of OpenCode, which may hold hosts as an option of our plugin."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One file that may hold hosts. `ignored` is the reason why nothing in it counts, or None.

    A project's file that exists has `trust`, and `content` unless it is refused: what was compared with the pins must
    be what is parsed, whatever the file holds by then. `project` is the directory to which it belongs.
    """

    path: Path
    kind: LayerKind
    ignored: str | None = None
    project: Path | None = None
    trust: Trust | None = None
    content: Content | None = field(default=None, repr=False)

    @property
    def exists(self) -> bool:
        """Whether something has this name (a symlink counts, wherever it leads)."""
        return os.path.lexists(self.path)


@dataclass(frozen=True, slots=True)
class Places:
    """All layers, the later over the earlier, and the directory in which a new file of the user goes."""

    layers: tuple[Layer, ...]
    directory: Path
    given: Path | None = None

    @property
    def target(self) -> Path:
        """The file that an edit changes: the given one, else the user's `hosts.jsonc`, else `hosts.json`."""
        if self.given:
            return self.given
        candidates = [self.directory / name for name in FILE_NAMES]
        return next((path for path in candidates if os.path.lexists(path)), candidates[0])


def locate(*, environment: Mapping[str, str], project: Path | None, hosts_file: Path | None, platform: str) -> Places:
    """Name every layer. `platform` is `sys.platform`; `hosts_file` wins over REMOTE_DISPATCH_HOSTS.

    OPENCODE_CONFIG_DIR stands for the user's directory alone, as in OpenCode; without it macOS has a second one.
    `project` is the working directory: its own files count and those of its git top level, once the user trusts them.
    """
    home = home_of(environment)
    directory = configuration_directory(environment, home)
    given = _given(environment, home, hosts_file)
    reason = REPLACED if given else None
    users = [
        Layer(folder / name, LayerKind.USER, reason)
        for folder in _user_directories(environment, home, directory, platform)
        for name in FILE_NAMES
    ]
    others = {_place(path) for path in (*(layer.path for layer in users), given) if path}
    projects = _weighed((layer for layer in _project_layers(project) if _place(layer.path) not in others), reason)
    inline = [Layer(path, LayerKind.INLINE, reason) for path in user_files(environment, home) if os.path.lexists(path)]
    named = [Layer(given, LayerKind.GIVEN)] if given else []
    return Places((*users, *projects, *inline, *named), directory, given)


def home_of(environment: Mapping[str, str]) -> Path:
    """Return the user's home: HOME, else the user database's."""
    return Path(environment["HOME"]) if environment.get("HOME") else Path.home()


def configuration_directory(environment: Mapping[str, str], home: Path) -> Path:
    """Return the directory in which files of the user go: OPENCODE_CONFIG_DIR, else OpenCode's own."""
    if own := environment.get("OPENCODE_CONFIG_DIR"):
        return expanded(own, home)
    return global_directory(environment, home)


def _user_directories(environment: Mapping[str, str], home: Path, directory: Path, platform: str) -> tuple[Path, ...]:
    if platform == "darwin" and not environment.get("OPENCODE_CONFIG_DIR"):
        return (home / "Library" / "Application Support" / "opencode", directory)
    return (directory,)


def _given(environment: Mapping[str, str], home: Path, hosts_file: Path | None) -> Path | None:
    named = str(hosts_file) if hosts_file else environment.get(ENVIRONMENT_VARIABLE)
    return expanded(named, home) if named else None


def top_level(directory: Path) -> Path:
    """Return the nearest directory upwards with a `.git` in it (a worktree's is a file), else the directory itself."""
    return next((one for one in (directory, *directory.parents) if os.path.lexists(one / ".git")), directory)


def _place(path: Path) -> Path:
    return real(path.parent) / path.name


def _project_layers(directory: Path | None) -> Iterator[Layer]:
    if directory is None:
        return
    top = top_level(directory.absolute())
    for folder in dict.fromkeys((top, directory.absolute())):
        for place in (folder, folder / ".opencode"):
            yield from (Layer(place / name, LayerKind.PROJECT, UNTRUSTED, top) for name in FILE_NAMES)


def _weighed(layers: Iterable[Layer], replaced: str | None) -> tuple[Layer, ...]:
    """Compare the files that are there with what is trusted; most directories have none, and pay nothing."""
    found = tuple(layers)
    if not any(layer.exists for layer in found):
        return found
    from remote_dispatch.hosts import pins  # noqa: PLC0415 - 10 ms

    try:
        known = pins.read_pins()
    except ConfigurationError as error:
        return tuple(replace(layer, ignored=error.message) for layer in found)
    return tuple(_compared(layer, known, replaced) if layer.exists else layer for layer in found)


def _compared(layer: Layer, known: Mapping[Path, Pin], replaced: str | None) -> Layer:
    from remote_dispatch.hosts import pins  # noqa: PLC0415 - as above

    assert layer.project is not None
    try:
        content = pins.read_content(layer.path, layer.project)
    except UnreadableError as error:
        return replace(layer, ignored=f"it belongs to a project and {error}", trust=pins.Trust.REFUSED)
    if content is None:
        return layer
    trust = pins.judge(content, known)
    reasons = {pins.Trust.TRUSTED: replaced, pins.Trust.CHANGED: CHANGED, pins.Trust.UNTRUSTED: UNTRUSTED}
    return replace(layer, ignored=reasons[trust], trust=trust, content=content)
