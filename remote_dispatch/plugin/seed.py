"""Keeps OpenCode from waiting for a package registry at every start, where nothing needs packages.

OpenCode 1.18 installs `@opencode-ai/plugin` in each directory of configuration, and with any plugin it waits for that:
74 s at every start without network. A directory with `node_modules/` and a lock file that names the package is taken
for installed. The price: OpenCode never installs there, so what needs the package would miss it; therefore a seed is
recognised by its bytes, and goes as soon as another plugin or tool is there. The plugin's `tendSeeds` does the same at
each start of OpenCode, also for projects that the installation does not know: it leaves a note of each.
"""

from __future__ import annotations

import contextlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.hosts.files import replace_text
from remote_dispatch.hosts.layers import home_of
from remote_dispatch.hosts.opencode_files import PLUGIN_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGES = "node_modules"
LOCK_FILE = "package-lock.json"
LOCK_TEXT = '{"name":"seeded-by-remote-dispatch","packages":{"":{"dependencies":{"@opencode-ai/plugin":"*"}}}}\n'
NOTE_FILE = "seeded-by-remote-dispatch.txt"
NOTE_TEXT = (
    "Empty on purpose: with this directory and ../package-lock.json OpenCode awaits no package registry at its start.\n"
    "`remote-dispatch plugin status` says more. Remove both when a plugin or tool of yours needs packages.\n"
)
_SCRIPT_FOLDERS = ("plugin", "plugins", "tool", "tools")


class Packages(StrEnum):
    """What a directory of configuration has of packages."""

    SEEDED = "seeded"
    OWN = "own"
    """Installed by OpenCode, or put there by the user."""
    MISSING = "missing"
    ABSENT = "absent"
    """The directory is not there: OpenCode makes its own one, and of a project's only what exists counts."""


def packages_of(directory: Path) -> Packages:
    """Say what the directory has."""
    if is_seeded(directory):
        return Packages.SEEDED
    if not directory.is_dir():
        return Packages.ABSENT
    # A seed that was interrupted has its lock file alone.
    is_own = any((directory / name).exists() for name in (PACKAGES, "package.json")) or (
        (directory / LOCK_FILE).exists() and not _has_our_lock(directory)
    )
    return Packages.OWN if is_own else Packages.MISSING


def is_seeded(directory: Path) -> bool:
    """Whether what is there is our seed and nothing else."""
    with contextlib.suppress(OSError):
        return all(path.name == NOTE_FILE for path in (directory / PACKAGES).iterdir()) and _has_our_lock(directory)
    return False


def has_other_scripts(directory: Path) -> bool:
    """Whether the directory holds a plugin or tool that is not ours."""
    found = (path for folder in _SCRIPT_FOLDERS for path in (directory / folder).glob("*.[jt]s"))
    return any(path.name != PLUGIN_FILE for path in found)


def plant(directory: Path) -> bool:
    """Seed the directory unless it has packages; return whether it was done."""
    if packages_of(directory) not in (Packages.MISSING, Packages.ABSENT):
        return False
    directory.mkdir(parents=True, exist_ok=True)
    replace_text(directory / LOCK_FILE, LOCK_TEXT, new_mode=0o644)
    (directory / PACKAGES).mkdir()
    replace_text(directory / PACKAGES / NOTE_FILE, NOTE_TEXT, new_mode=0o644)
    return True


def clear(directory: Path) -> bool:
    """Take our seed away; return whether there was one."""
    if not is_seeded(directory):
        return False
    (directory / LOCK_FILE).unlink()
    (directory / PACKAGES / NOTE_FILE).unlink(missing_ok=True)
    (directory / PACKAGES).rmdir()
    return True


def planted_by_plugin(environment: Mapping[str, str]) -> dict[Path, Path]:
    """Return the directories that the plugin seeded by itself, each with the note that tells it."""
    base = environment.get("XDG_STATE_HOME") or home_of(environment) / ".local" / "state"
    notes = (Path(base) / "remote-dispatch" / "plugin" / "seeds").glob("*")
    return {Path(note.read_text(encoding="utf-8", errors="surrogateescape")): note for note in notes}


def _has_our_lock(directory: Path) -> bool:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return (directory / LOCK_FILE).read_text(encoding="utf-8") == LOCK_TEXT
    return False
