"""Where the plugin goes, for the user or for one project. Writes nothing."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from remote_dispatch.hosts.layers import configuration_directory, home_of, top_level
from remote_dispatch.hosts.opencode_files import (
    FURTHER_FILES,
    GLOBAL_FILES,
    PLUGIN_FILE,
    PLUGIN_NAME,
    global_directory,
    home_folder,
    project_files,
    user_files,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class PlaceKind(StrEnum):
    """For whom it is."""

    USER = "user"
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class Place:
    """One place in which the plugin can be installed."""

    kind: PlaceKind
    plugin_file: Path
    receipt: Path
    """What is needed to leave everything as it was; never in OpenCode's own directories."""
    root: Path
    """OpenCode's directory of configuration, or the project's top directory."""
    directories: tuple[Path, ...]
    """Those that OpenCode 1.18 fills with packages at its start, and waits for when there is a plugin."""
    configurations: tuple[Path, ...]
    """The files whose lists of plugins count here, the later over the earlier."""
    user: Place | None = None
    """The place of the user, which counts in every project too."""

    @property
    def chain(self) -> tuple[Place, ...]:
        """The places that count here: before a project's that of the user."""
        return (self.user, self) if self.user else (self,)

    @property
    def candidates(self) -> tuple[Path, ...]:
        """The files of which one gets the entry. Of two lists in the global directory the later alone counts."""
        return tuple(path for path in self.configurations if path.parent == self.root and path.name in GLOBAL_FILES)

    @property
    def spec(self) -> str:
        """How OpenCode's configuration names the plugin."""
        return self.plugin_file.as_uri()


def user_place(environment: Mapping[str, str]) -> Place:
    """Return the place for everything that this user opens."""
    home = home_of(environment)
    root = configuration_directory(environment, home)
    further = home_folder(home)
    return Place(
        PlaceKind.USER,
        data_directory() / PLUGIN_FILE,
        _receipt(PlaceKind.USER, root),
        root,
        tuple(dict.fromkeys((global_directory(environment, home), root, *([further] if further.is_dir() else [])))),
        user_files(environment, home),
    )


def project_place(environment: Mapping[str, str], directory: Path) -> Place:
    """Return the place for the project of this directory: its git top level, else the directory itself."""
    top = top_level(directory)
    return Place(
        PlaceKind.PROJECT,
        top / ".opencode" / "plugin" / PLUGIN_FILE,
        _receipt(PlaceKind.PROJECT, top),
        top,
        (top / ".opencode",),
        project_files(top),
        user_place(environment),
    )


def new_configuration(root: Path, environment: Mapping[str, str]) -> Path:
    """Return the file that an installation makes when there is none: the one that OpenCode makes itself."""
    names = GLOBAL_FILES if root == global_directory(environment, home_of(environment)) else FURTHER_FILES
    return root / names[-1]


def data_directory() -> Path:
    """Return where the plugin's file and what belongs to it are kept."""
    return platformdirs.user_data_path("remote-dispatch") / "plugin"


def shipped() -> str:
    """Return the plugin as this version ships it."""
    return files("remote_dispatch.plugin").joinpath(PLUGIN_FILE).read_text(encoding="utf-8")


def this_command() -> tuple[str, ...]:
    """Return how this program is started from anywhere: its absolute path, else by this Python."""
    for candidate in (shutil.which(sys.argv[0]), str(Path(sys.executable).with_name(PLUGIN_NAME))):
        if candidate and Path(candidate).name == PLUGIN_NAME and os.access(candidate, os.X_OK):
            return (str(Path(candidate).absolute()),)
    return (sys.executable, "-m", "remote_dispatch")


def _receipt(kind: PlaceKind, root: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    return data_directory() / f"{kind}-{digest}.json"
