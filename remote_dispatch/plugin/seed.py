"""Keeps OpenCode from waiting for a package registry at every start, where nothing needs packages.

OpenCode 1.18 installs `@opencode-ai/plugin` in each directory of configuration, and with any plugin it waits for that:
74 s at every start without network. A directory with `node_modules/` and a lock file that names the package is taken
for installed. The price: OpenCode never installs there, so what needs the package would miss it; therefore a seed is
recognised by its bytes, and goes as soon as another plugin or tool is there. The plugin's `unseed` does the same.
"""

from __future__ import annotations

import contextlib
from enum import StrEnum
from typing import TYPE_CHECKING

from remote_dispatch.hosts.files import replace_text
from remote_dispatch.hosts.opencode_files import PLUGIN_FILE

if TYPE_CHECKING:
    from pathlib import Path

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
    if any((directory / name).exists() for name in (PACKAGES, LOCK_FILE, "package.json")):
        return Packages.OWN
    return Packages.MISSING if directory.is_dir() else Packages.ABSENT


def is_seeded(directory: Path) -> bool:
    """Whether what is there is our seed and nothing else."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        names = [path.name for path in (directory / PACKAGES).iterdir()]
        return names == [NOTE_FILE] and (directory / LOCK_FILE).read_text(encoding="utf-8") == LOCK_TEXT
    return False


def has_other_scripts(directory: Path) -> bool:
    """Whether the directory holds a plugin or tool that is not ours."""
    found = (path for folder in _SCRIPT_FOLDERS for path in (directory / folder).glob("*.[jt]s"))
    return any(path.name != PLUGIN_FILE for path in found)


def plant(directory: Path) -> bool:
    """Seed the directory unless it has packages; return whether it was done."""
    if packages_of(directory) not in (Packages.MISSING, Packages.ABSENT):
        return False
    (directory / PACKAGES).mkdir(parents=True, exist_ok=True)
    replace_text(directory / PACKAGES / NOTE_FILE, NOTE_TEXT, new_mode=0o644)
    replace_text(directory / LOCK_FILE, LOCK_TEXT, new_mode=0o644)
    return True


def clear(directory: Path) -> bool:
    """Take our seed away; return whether there was one."""
    if not is_seeded(directory):
        return False
    (directory / LOCK_FILE).unlink()
    (directory / PACKAGES / NOTE_FILE).unlink()
    (directory / PACKAGES).rmdir()
    return True
