"""How the plugin stands: installed, current, able to start this program, and what a model will see of it."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError, RemoteDispatchError
from remote_dispatch.hosts.inline import read_inline_hosts
from remote_dispatch.hosts.layers import LayerKind
from remote_dispatch.hosts.opencode_files import PLUGIN_FILE, PLUGIN_NAME
from remote_dispatch.model import Host
from remote_dispatch.plugin import configuration, seed
from remote_dispatch.plugin.entry import entry_of
from remote_dispatch.plugin.places import PlaceKind, project_place, shipped, user_place
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from remote_dispatch.hosts import Registry
    from remote_dispatch.plugin.places import Place

TOOL = "remote_dispatch"
PEER = "opencode-remote-login"
_VERSION_TIMEOUT_S = 10.0
_NO_NAMES = "none yet"
_DESCRIPTION = re.compile(r"const description = \(names\) =>\s*`((?:[^`\\]|\\.)*)`")


@dataclass(frozen=True, slots=True)
class Standing:
    """How the plugin stands in one place."""

    kind: PlaceKind
    plugin_file: Path
    configuration: Path | None
    """The file that holds the entry; a project's installation has none."""
    is_installed: bool
    is_current: bool
    """Whether the file has the bytes that this version ships."""
    command: tuple[str, ...]
    version: str | None
    """What the command answers to `--version`, or None when it cannot be started."""


@dataclass(frozen=True, slots=True)
class Status:
    """Everything there is to say."""

    user: Standing
    project: Standing
    opencode: Path | None
    opencode_version: str | None
    description: str
    """What a model is told of the tool, host names included."""
    names: tuple[str, ...]
    packages: dict[Path, seed.Packages]
    is_waiting: bool
    """Whether OpenCode may wait for a package registry at its start."""
    inline_hosts: dict[Path, tuple[str, ...]]
    """Names by file of the user's hosts that stand in OpenCode's configuration."""
    remarks: tuple[str, ...]
    """What the user should know or do, a sentence each."""

    @property
    def standings(self) -> tuple[Standing, ...]:
        """The installations that count here."""
        return tuple(one for one in (self.user, self.project) if one.is_installed)


def read_status(environment: Mapping[str, str], directory: Path, registry: Registry) -> Status:
    """Look at the user's place and that of this directory's project. Starts the command and OpenCode to learn versions.

    Takes a seed away that would stand in the way of another plugin or tool, and says so.
    """
    places = (user_place(environment), project_place(environment, directory))
    user, project = (_standing(place, environment, directory) for place in places)
    remarks = [*_unseeded(places), *_copies(places), *_strangers(places), *_ignored_hosts(places)]
    opencode = _opencode(environment)
    packages = {path: seed.packages_of(path) for place in places for path in place.directories}
    return Status(
        user,
        project,
        opencode,
        version_of((str(opencode),), environment, directory) if opencode else None,
        description(registry.names),
        registry.names,
        packages,
        (user.is_installed or project.is_installed) and seed.Packages.MISSING in packages.values(),
        _inline_hosts(registry),
        tuple(remarks),
    )


def problem_of(status: Status, kind: PlaceKind | None = None) -> ConfigurationError | None:
    """Return what keeps the plugin from working as this version would, or None. `kind` asks for one place alone."""
    standings = [one for one in status.standings if kind in (None, one.kind)]
    flag = " --project" if kind is PlaceKind.PROJECT else ""
    if not standings:
        return ConfigurationError("the plugin is not installed", hint=f"run `remote-dispatch plugin install{flag}`")
    for one in standings:
        again = f"run `remote-dispatch plugin install{' --project' if one.kind is PlaceKind.PROJECT else ''}` again"
        if not one.is_current:
            return ConfigurationError(f"the plugin of the {one.kind} is not that of this version", hint=again)
        if one.version is None:
            return ConfigurationError(
                f"the plugin of the {one.kind} cannot start `{' '.join(one.command)}`", hint=again
            )
    return None


def description(names: Sequence[str]) -> str:
    """Return what the plugin tells a model of its tool; the words are those of the plugin's file."""
    found = _DESCRIPTION.search(shipped())
    if found is None:
        raise RemoteDispatchError("the plugin's file has no description")
    listed = ", ".join(f"`{name}`" for name in names) or _NO_NAMES
    return re.sub(r"\\(.)", r"\1", found[1]).replace("${listed(names)}", listed)


def version_of(command: Sequence[str], environment: Mapping[str, str], directory: Path) -> str | None:
    """Return the first line that `COMMAND --version` prints, or None when it fails or takes over ten seconds."""
    try:
        completed = subprocess.run(
            [*command, "--version"],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=_VERSION_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return mask_addresses(clean(completed.stdout.decode(errors="replace"), 80)).strip().partition("\n")[0] or None


def _standing(place: Place, environment: Mapping[str, str], directory: Path) -> Standing:
    text = configuration.read(place.plugin_file)
    path, command = _entry(place) if place.kind is PlaceKind.USER else (None, (PLUGIN_NAME,))
    is_installed = text is not None and (path is not None or place.kind is PlaceKind.PROJECT)
    return Standing(
        place.kind,
        place.plugin_file,
        path,
        is_installed,
        is_current=text == shipped(),
        command=command,
        version=version_of(command, environment, directory) if is_installed else None,
    )


def _entry(place: Place) -> tuple[Path | None, tuple[str, ...]]:
    path = configuration.target_of(place)
    text = configuration.read(path) if path else None
    if path is None or text is None:
        return None, ()
    with configuration.explained(path):
        found = entry_of(text, place.spec)
    if found is None or found[0].spec != place.spec:
        return None, ()
    return path, found[1] or (PLUGIN_NAME,)


def _opencode(environment: Mapping[str, str]) -> Path | None:
    from remote_dispatch.opencode.program import find_binary  # noqa: PLC0415 - asyncio, for `status` alone

    try:
        return find_binary(environment)
    except RemoteDispatchError:
        return None


def _inline_hosts(registry: Registry) -> dict[Path, tuple[str, ...]]:
    paths = [one.path for one in registry.places.layers if one.kind is LayerKind.INLINE and one.ignored is None]
    return {path: names for path in paths if (names := _names_in(path))}


def _names_in(path: Path) -> tuple[str, ...]:
    file = read_inline_hosts(path)
    return tuple(entry.name for entry in file.entries if isinstance(entry.value, Host)) if file else ()


def _unseeded(places: Sequence[Place]) -> list[str]:
    """A seed goes from the directories of a place as soon as anything there may need packages."""
    gone = {
        one for place in places if configuration.needs_packages(place) for one in place.directories if seed.clear(one)
    }
    return [
        f"another plugin or tool is there, so OpenCode installs its packages into {one} again" for one in sorted(gone)
    ]


def _copies(places: Sequence[Place]) -> list[str]:
    """Name further copies of the plugin: OpenCode starts each, and only one of them works."""
    mine = {place.plugin_file for place in places}
    listed = [one for place in places for one in configuration.entries_in(place.configurations)]
    found = [one.path for one in listed if _is_another(one.entry.file, mine)]
    folders = {folder for place in places for folder in place.directories}
    loose = [path for folder in folders for path in folder.glob(f"plugin*/{PLUGIN_FILE}") if path not in mine]
    return [f"{path} names another copy of the plugin" for path in found] + [
        f"{path} is another copy of the plugin" for path in loose
    ]


def _is_another(file: Path | None, mine: set[Path]) -> bool:
    return file is not None and file.name == PLUGIN_FILE and file not in mine


def _strangers(places: Sequence[Place]) -> list[str]:
    """Name entries that OpenCode takes for packages, and what they would do."""
    remarks = []
    for found in (one for place in places for one in configuration.entries_in(place.configurations)):
        where = f"{found.path}:{found.entry.node.line}"
        if found.entry.package == PEER:
            remarks.append(f"{where} names `{PEER}`: remove that entry, or a model is offered two tools for one thing")
        if found.entry.package == PLUGIN_NAME:
            remarks.append(
                f"{where} names `{PLUGIN_NAME}`, which OpenCode looks for in a package registry at every start: "
                "`remote-dispatch plugin install` makes it name the installed file, and keeps its options"
            )
    return remarks


def _ignored_hosts(places: Sequence[Place]) -> list[str]:
    return [
        f"the hosts in {path} are ignored: it belongs to a project and is not trusted"
        for path in places[1].configurations
        if path not in places[0].configurations and read_inline_hosts(path)
    ]
