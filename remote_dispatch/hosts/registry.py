"""The host registry: all hosts files as one mapping from public names to hosts, read anew at each use."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from remote_dispatch.errors import ConfigurationError, UnknownNameError
from remote_dispatch.hosts.entries import Entry, HostsFile, Problem, read_hosts_file
from remote_dispatch.hosts.inline import read_inline_hosts
from remote_dispatch.hosts.layers import LayerKind, Places, locate
from remote_dispatch.hosts.names import is_speakable
from remote_dispatch.model import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_MOST_NAMES = 40


def _no_alias(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry stands: the file, and the line of its name."""

    file: Path
    line: int


@dataclass(frozen=True, slots=True)
class Registry:
    """The merged view of the hosts files. `registry[name]` is the host.

    `problems` are all that was found, in the order of the files; loading never fails, using a bad entry does.
    """

    places: Places
    problems: tuple[Problem, ...]
    _entries: Mapping[str, Entry] = field(repr=False)
    _file_problems: tuple[Problem, ...] = field(repr=False)
    _is_alias: Callable[[str], bool] = field(repr=False)

    @classmethod
    def load(
        cls,
        *,
        environment: Mapping[str, str],
        project: Path | None = None,
        hosts_file: Path | None = None,
        is_alias: Callable[[str], bool] = _no_alias,
        platform: str = sys.platform,
    ) -> Self:
        """Read the files that the environment names, or only `hosts_file`.

        `project` is the directory whose own hosts files are reported, never opened; `is_alias` says whether a name is
        an alias of ~/.ssh/config, for hints.
        """
        places = locate(environment=environment, project=project, hosts_file=hosts_file, platform=platform)
        return cls.read(places, is_alias=is_alias)

    @classmethod
    def read(cls, places: Places, *, is_alias: Callable[[str], bool] = _no_alias) -> Self:
        """Read the files of these places, later over earlier, a whole entry at a time."""
        files = [_read(layer.path, layer.kind) for layer in places.layers if layer.ignored is None]
        entries = {entry.name: entry for file in files for entry in file.entries}
        file_problems = tuple(problem for file in files for problem in file.problems)
        problems = tuple(problem for file in files for problem in _all_problems(file))
        return cls(places, problems, entries, file_problems, is_alias)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the usable hosts, sorted."""
        return tuple(sorted(name for name, entry in self._entries.items() if isinstance(entry.value, Host)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know though nothing is wrong: the project's files that are ignored."""
        found = [layer for layer in self.places.layers if layer.kind is LayerKind.PROJECT and layer.exists]
        return tuple(f"{layer.path} is ignored: {layer.ignored}" for layer in found)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Host:
        """Return the host. Raises UnknownNameError, and ConfigurationError when its entry or a whole file is wrong."""
        entry = self._entries.get(name)
        if entry is None:
            raise self._unknown(name)
        if isinstance(entry.value, Problem):
            raise _configuration_error(entry.value)
        return entry.value

    def origin(self, name: str) -> Origin:
        """Return where the entry of this name stands, usable or not. Raises as `registry[name]` for an unknown one."""
        entry = self._entries.get(name)
        if entry is None:
            raise self._unknown(name)
        return Origin(entry.file, entry.line)

    def twin(self, name: str) -> str | None:
        """Return another name of the registry that differs only in case, or None."""
        return next((known for known in self._entries if known != name and known.lower() == name.lower()), None)

    def _unknown(self, name: str) -> ConfigurationError | UnknownNameError:
        if self._file_problems:
            return _configuration_error(self._file_problems[0])
        asked = f"no host is named `{name}`" if is_speakable(name) else "no host has such a name"
        return UnknownNameError(f"{asked}; {self._known()}", hint=self._hint(name))

    def _known(self) -> str:
        names = [f"`{name}`" for name in self.names[:_MOST_NAMES]]
        more = f" and {len(self.names) - _MOST_NAMES} more" if len(self.names) > _MOST_NAMES else ""
        return f"known: {', '.join(names)}{more}" if names else "no hosts are configured"

    def _hint(self, name: str) -> str:
        close = _closest(name, self.names)
        if is_speakable(name) and self._is_alias(name):
            other = f", or did you mean `{close}`?" if close else ""
            return f"it is an alias of ~/.ssh/config: `remote-dispatch hosts add {name} {name}` makes it a host{other}"
        if close:
            return f"did you mean `{close}`?"
        return "add it with `remote-dispatch hosts add NAME ADDRESS`"


def _read(path: Path, kind: LayerKind) -> HostsFile:
    if kind is LayerKind.INLINE:
        return read_inline_hosts(path) or HostsFile()
    found = read_hosts_file(path)
    if found is None and kind is LayerKind.GIVEN:
        return HostsFile(problems=(Problem(path, None, "there is no such file"),))
    return found or HostsFile()


def _all_problems(file: HostsFile) -> tuple[Problem, ...]:
    return (*file.problems, *(entry.value for entry in file.entries if isinstance(entry.value, Problem)))


def _configuration_error(problem: Problem) -> ConfigurationError:
    return ConfigurationError(str(problem), hint="correct the file, then see `remote-dispatch hosts list`")


def _closest(name: str, names: tuple[str, ...]) -> str | None:
    same = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower()[:64], same, n=1)
    return same[close[0]] if close else None
