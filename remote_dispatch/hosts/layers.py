"""Where hosts files are looked for, and in which order. Reads no file: whether a name exists is all it asks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.hosts.opencode_files import expanded, global_directory, user_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE_NAMES = ("hosts.jsonc", "hosts.json")
ENVIRONMENT_VARIABLE = "REMOTE_DISPATCH_HOSTS"
UNTRUSTED = "it belongs to a project and is not trusted"
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
    """One file that may hold hosts. `ignored` is the reason why it is never opened, or None."""

    path: Path
    kind: LayerKind
    ignored: str | None = None

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
    projects = [
        Layer(path, LayerKind.PROJECT, UNTRUSTED)
        for path in _project_files(project)
        if path not in [layer.path for layer in users] and path != given
    ]
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


def _project_files(project: Path | None) -> Iterator[Path]:
    if project:
        for folder in (project.absolute(), project.absolute() / ".opencode"):
            yield from (folder / name for name in FILE_NAMES)
