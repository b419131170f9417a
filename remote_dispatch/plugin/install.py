"""Puts the plugin in its place and takes it away again. OpenCode's configuration is edited last and restored first."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from remote_dispatch.hosts.files import locked, real, replace_text
from remote_dispatch.plugin import configuration, seed
from remote_dispatch.plugin.entry import NEW_TEXT, Removed, with_entry, without_entry
from remote_dispatch.plugin.places import PlaceKind, data_directory, new_configuration, shipped
from remote_dispatch.plugin.receipt import Receipt, load, make_directories, remove_empty, save

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from remote_dispatch.plugin.entry import Written
    from remote_dispatch.plugin.places import Place

IGNORE_TEXT = "node_modules\npackage.json\npackage-lock.json\nbun.lock\n.gitignore"
"""What OpenCode 1.18 itself writes into `.opencode/.gitignore` at its next start."""


@dataclass(slots=True)
class Done:
    """What an installation or its removal did. Empty: everything was as asked for already."""

    changed: list[Path] = field(default_factory=list)
    """Files and directories that were written."""
    restored: list[Path] = field(default_factory=list)
    """Configurations that are without our entry again."""
    removed: list[Path] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """What stays and why, a sentence each."""


def install(place: Place, command: Sequence[str], environment: Mapping[str, str]) -> Done:
    """Install the plugin or bring it up to date; repeating it changes nothing.

    `command` is how the plugin starts this program; a project's plugin finds it in PATH, so that no path of this
    machine is committed. Raises ConfigurationError before anything is changed when a configuration is broken.
    """
    done = Done()
    made = [*make_directories(data_directory()), *make_directories(place.root)]
    try:
        with _held(place):
            _install(place, command, environment, made, done)
    finally:
        remove_empty(made)
    return done


def uninstall(place: Place, environment: Mapping[str, str]) -> Done:
    """Take the plugin away; what the user changed stays. Repeating it changes nothing."""
    done = Done()
    with _held(place):
        receipt = load(place.receipt)
        if place.kind is PlaceKind.USER:
            _take_entry(place, receipt, done)
        _take_file(place, receipt, done)
        _unseed(place, environment, done)
        remove_empty(one for one in receipt.made if one == place.plugin_file.parent)
        _take_ignore(receipt, done)
        place.receipt.unlink(missing_ok=True)
    remove_empty([*receipt.made, data_directory()])
    return done


def _install(
    place: Place, command: Sequence[str], environment: Mapping[str, str], made: list[Path], done: Done
) -> None:
    receipt = load(place.receipt)
    receipt.made += made
    written = _planned(place, receipt, command, environment)
    _put_file(place, receipt, done)
    if written:
        _put_entry(place, receipt, written, done)
    _seed(place, receipt, done)
    save(place.receipt, receipt)


@contextlib.contextmanager
def _held(place: Place) -> Iterator[None]:
    """One edit at a time, of our files and of the configuration."""
    with contextlib.ExitStack() as locks:
        for directory in (data_directory(), real(place.root)):
            if directory.is_dir():
                locks.enter_context(locked(directory))
        yield


def _planned(
    place: Place, receipt: Receipt, command: Sequence[str], environment: Mapping[str, str]
) -> tuple[Path, Written] | None:
    """Decide on the edit of the configuration, and change nothing."""
    if place.kind is PlaceKind.PROJECT:
        return None
    target = configuration.target_of(place)
    path = target or new_configuration(place.root, environment)
    earlier = receipt.entry if receipt.configuration == path else None
    with configuration.explained(path):
        written = with_entry(configuration.read(path) or NEW_TEXT, place.spec, command, earlier)
    return (path, written) if written else None


def _put_file(place: Place, receipt: Receipt, done: Done) -> None:
    text = shipped()
    if configuration.read(place.plugin_file) != text:
        receipt.made += make_directories(place.plugin_file.parent)
        replace_text(place.plugin_file, text, new_mode=0o644)
        done.changed.append(place.plugin_file)
    receipt.plugin_digest = _digest(text)


def _put_entry(place: Place, receipt: Receipt, planned: tuple[Path, Written], done: Done) -> None:
    path, written = planned
    if receipt.configuration and receipt.configuration != path:
        _take_entry(place, receipt, done)
    receipt.made_configuration |= not os.path.lexists(path)
    receipt.configuration = path
    receipt.entry = written.receipt
    save(place.receipt, receipt)
    configuration.write(path, written.text)
    done.changed.append(path)


def _take_entry(place: Place, receipt: Receipt, done: Done) -> None:
    paths = dict.fromkeys((*([receipt.configuration] if receipt.configuration else []), *place.candidates))
    for path in paths:
        text = configuration.read(path)
        if text is None or place.spec not in text.replace("\\/", "/"):
            continue
        with configuration.explained(path):
            removed = without_entry(text, place.spec, receipt.entry if path == receipt.configuration else None)
        if removed:
            _restore(path, removed, done, is_made=receipt.made_configuration and path == receipt.configuration)
    receipt.configuration, receipt.entry, receipt.made_configuration = None, None, False


def _restore(path: Path, removed: Removed, done: Done, *, is_made: bool) -> None:
    if removed.options:
        _keep_options(removed.options, done)
    if is_made and removed.text == NEW_TEXT:
        path.unlink()
        done.removed.append(path)
    else:
        configuration.write(path, removed.text)
        done.restored.append(path)


def _keep_options(options: dict[str, Any], done: Done) -> None:
    path = data_directory() / "options.json"
    replace_text(path, json.dumps(options, indent=2) + "\n")
    done.kept.append(f"the options that you gave the plugin ({', '.join(sorted(options))}) are kept in {path}")


def _take_file(place: Place, receipt: Receipt, done: Done) -> None:
    text = configuration.read(place.plugin_file)
    others = [path for path in data_directory().glob(f"{PlaceKind.USER}-*.json") if path != place.receipt]
    if text is None or (place.kind is PlaceKind.USER and others):
        return
    if _digest(text) in (receipt.plugin_digest, _digest(shipped())):
        place.plugin_file.unlink()
        done.removed.append(place.plugin_file)
    else:
        done.kept.append(f"{place.plugin_file} was changed since it was installed, so it stays")


def _seed(place: Place, receipt: Receipt, done: Done) -> None:
    """Seed the directories, or take a seed away that would stand in the way of another plugin or tool.

    A project's plugin makes OpenCode wait for the user's directories too.
    """
    for one in place.chain:
        if configuration.needs_packages(one):
            _clear(one, done)
            continue
        for directory in one.directories:
            made = make_directories(directory)
            receipt.made += made
            if seed.plant(directory):
                done.changed.append(directory / seed.PACKAGES)
    _ignore(place, receipt)


def _ignore(place: Place, receipt: Receipt) -> None:
    """OpenCode makes this file at its next start; until then git would see the seed."""
    for directory in place.directories if place.kind is PlaceKind.PROJECT else ():
        ignore = directory / ".gitignore"
        if seed.is_seeded(directory) and not ignore.exists():
            replace_text(ignore, IGNORE_TEXT, new_mode=0o644)
            receipt.made.append(ignore)


def _unseed(place: Place, environment: Mapping[str, str], done: Done) -> None:
    """What the user's own installation needs a project's leaves."""
    is_user_installed = any(path != place.receipt for path in data_directory().glob(f"{PlaceKind.USER}-*.json"))
    for one in place.chain:
        if one is place or not is_user_installed:
            _clear(one, done)
    if is_user_installed:
        return
    for directory, note in seed.planted_by_plugin(environment).items():
        done.removed += [directory / seed.PACKAGES] if seed.clear(directory) else []
        note.unlink()
        remove_empty((note.parent, note.parent.parent))


def _clear(place: Place, done: Done) -> None:
    done.removed += [directory / seed.PACKAGES for directory in place.directories if seed.clear(directory)]


def _take_ignore(receipt: Receipt, done: Done) -> None:
    """It stays beside anything that is not ours: OpenCode would make it again."""
    for path in (one for one in receipt.made if one.name == ".gitignore"):
        if list(path.parent.iterdir()) == [path] and configuration.read(path) == IGNORE_TEXT:
            path.unlink()
            done.removed.append(path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
