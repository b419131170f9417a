"""OpenCode's configuration files as the installer reads and edits them: bounded, locked, all or nothing."""

from __future__ import annotations

import codecs
import contextlib
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError
from remote_dispatch.hosts.files import UnreadableError, read_text, replace_text
from remote_dispatch.hosts.jsonc import JsoncError, parse
from remote_dispatch.hosts.opencode_files import PluginEntry, plugin_entries
from remote_dispatch.plugin import seed
from remote_dispatch.plugin.entry import has_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from remote_dispatch.plugin.places import Place

_MARK = codecs.BOM_UTF8.decode()
_UNCHANGED = "correct that first; nothing was changed"


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """An item of a list of plugins, and where it stands."""

    path: Path
    entry: PluginEntry


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what is wrong with this file into a ConfigurationError that names file and line."""
    try:
        yield
    except UnreadableError as error:
        raise ConfigurationError(f"{path} {error}", hint=_UNCHANGED) from None
    except JsoncError as error:
        raise ConfigurationError(f"{path}:{error.line}: {error.message}", hint=_UNCHANGED) from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}", hint=_UNCHANGED) from None


def read(path: Path) -> str | None:
    """Return the text, with its byte order mark removed, or None. Raises ConfigurationError."""
    with explained(path):
        return read_text(path)


def write(path: Path, text: str) -> None:
    """Replace the text; mode, owner and a byte order mark stay, a symlink's target is replaced."""
    mark = _MARK if path.exists() and path.read_bytes().startswith(codecs.BOM_UTF8) else ""
    replace_text(path, mark + text, new_mode=stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH)


def target_of(place: Place) -> Path | None:
    """Return the file whose list of plugins counts, else the one that can get one; None when there is neither.

    OpenCode 1.18: of the lists in the global directory the last alone counts, so a list in a later file would hide that
    of an earlier one. Raises ConfigurationError for a file that cannot be understood.
    """
    there = []
    listed = []
    for path in place.candidates:
        text = read(path)
        if text is None:
            continue
        there.append(path)
        with explained(path):
            listed += [path] if has_plugins(text) else []
    return next(reversed(listed or [path for path in there if path.name != "config.json"]), None)


def entries_in(paths: tuple[Path, ...]) -> tuple[FoundEntry, ...]:
    """Return every item of every list of plugins; a file that cannot be understood has none."""
    found = []
    for path in paths:
        with contextlib.suppress(ConfigurationError):
            text = read(path)
            with explained(path):
                found += [FoundEntry(path, entry) for entry in plugin_entries(parse(text))] if text else []
    return tuple(found)


def needs_packages(place: Place) -> bool:
    """Whether another plugin or tool of this place may need what OpenCode installs into its directories."""
    listed = entries_in(place.configurations)
    return any(not found.entry.is_ours for found in listed) or any(map(seed.has_other_scripts, place.directories))
