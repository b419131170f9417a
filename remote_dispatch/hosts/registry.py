"""The host registry: all hosts files as one mapping from public names to hosts, read anew at each use."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from remote_dispatch.errors import ConfigurationError, UnknownNameError
from remote_dispatch.hosts.entries import Entry, HostsFile, Problem, parse_hosts_file, read_hosts_file
from remote_dispatch.hosts.inline import read_inline_hosts
from remote_dispatch.hosts.layers import Layer, LayerKind, Places, locate
from remote_dispatch.hosts.names import is_speakable
from remote_dispatch.hosts.suggest import guess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from remote_dispatch.model import Host

_MOST_NAMES = 40


def _no_alias(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an entry stands: the file and whose it is, and the line of its name."""

    file: Path
    line: int
    kind: LayerKind

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Standing:
    """One entry of one layer. Of several that have a name the last one counts, as a whole."""

    entry: Entry
    origin: Origin


@dataclass(frozen=True, slots=True)
class Registry:
    """The merged view of the hosts files. `registry[name]` is the host.

    `problems` are all that was found, in the order of the files; loading never fails, using a bad entry does.
    """

    places: Places
    problems: tuple[Problem, ...]
    _standings: Mapping[str, tuple[Standing, ...]] = field(repr=False)
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

        `project` is the directory whose own hosts files count once they are trusted, and are reported otherwise;
        `is_alias` says whether a name is an alias of ~/.ssh/config, for hints.
        """
        places = locate(environment=environment, project=project, hosts_file=hosts_file, platform=platform)
        return cls.read(places, is_alias=is_alias)

    @classmethod
    def read(cls, places: Places, *, is_alias: Callable[[str], bool] = _no_alias) -> Self:
        """Read the files of these places, later over earlier, a whole entry at a time."""
        files = [(layer, _read(layer)) for layer in places.layers if layer.ignored is None]
        standings: dict[str, tuple[Standing, ...]] = {}
        for layer, file in files:
            for entry in file.entries:
                standing = Standing(entry, Origin(entry.file, entry.line, layer.kind))
                standings[entry.name] = (*standings.get(entry.name, ()), standing)
        file_problems = tuple(problem for _, file in files for problem in file.problems)
        problems = tuple(problem for _, file in files for problem in _all_problems(file))
        return cls(places, problems, standings, file_problems, is_alias)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the usable hosts, sorted."""
        return tuple(sorted(name for name in self._standings if self.problem_of(name) is None))

    @property
    def all_names(self) -> tuple[str, ...]:
        """The names of all entries that may be repeated, those that disable themselves too, sorted."""
        return tuple(sorted(filter(is_speakable, self._standings)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know though nothing is wrong: what files of projects would do, and what they do."""
        return (*self._ignored(), *self._overridden())

    @property
    def overrides(self) -> dict[str, Origin]:
        """The names that a trusted project's file redefines, and where the user's own entry stands."""
        return {
            name: owned[-1].origin
            for name, (*hidden, last) in self._standings.items()
            if last.origin.kind is LayerKind.PROJECT
            and (owned := [one for one in hidden if one.origin.kind is not LayerKind.PROJECT])
        }

    def __contains__(self, name: object) -> bool:
        return name in self._standings

    def __getitem__(self, name: str) -> Host:
        """Return the host. Raises UnknownNameError, and ConfigurationError when its entry or a whole file is wrong."""
        value = self.standings(name)[-1].entry.value
        if isinstance(value, Problem):
            raise _configuration_error(value)
        return value

    def standings(self, name: str) -> tuple[Standing, ...]:
        """Return every entry of this name, the one that counts last. Raises as `registry[name]` for an unknown one."""
        if name not in self._standings:
            raise self._unknown(name)
        return self._standings[name]

    def origin(self, name: str) -> Origin:
        """Return where the entry of this name stands, usable or not. Raises as `registry[name]` for an unknown one."""
        return self.standings(name)[-1].origin

    def hidden(self, name: str) -> tuple[Origin, ...]:
        """Return where earlier entries of this name stand, which the one that counts hides."""
        return tuple(one.origin for one in self.standings(name)[:-1])

    def problem_of(self, name: str) -> Problem | None:
        """Return what disables this entry, or None. Raises as `registry[name]` for an unknown one."""
        value = self.standings(name)[-1].entry.value
        return value if isinstance(value, Problem) else None

    def twin(self, name: str) -> str | None:
        """Return another name of the registry that differs only in case, or None."""
        return next((known for known in self._standings if known != name and known.lower() == name.lower()), None)

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
        close = guess(name, self.all_names)
        if is_speakable(name) and self._is_alias(name):
            other = f", or {close}" if close else ""
            return f"it is an alias of ~/.ssh/config: `remote-dispatch hosts add {name} {name}` makes it a host{other}"
        return close or "add it with `remote-dispatch hosts add NAME ADDRESS`"

    def _ignored(self) -> tuple[str, ...]:
        if not any(layer.kind is LayerKind.PROJECT and layer.ignored and layer.exists for layer in self.places.layers):
            return ()
        from remote_dispatch.hosts.trust import project_notes  # noqa: PLC0415 - it reads registries itself

        return project_notes(self.places, self.all_names)

    def _overridden(self) -> tuple[str, ...]:
        return tuple(
            f"host `{name}` is that of a trusted project's file ({self.origin(name)}), not your own ({own})"
            for name, own in self.overrides.items()
            if is_speakable(name)
        )


def _read(layer: Layer) -> HostsFile:
    if layer.kind is LayerKind.PROJECT:  # never read again: it may have changed since it was compared
        return parse_hosts_file(layer.path, layer.content.text) if layer.content else HostsFile()
    if layer.kind is LayerKind.INLINE:
        return read_inline_hosts(layer.path) or HostsFile()
    found = read_hosts_file(layer.path)
    if found is None and layer.kind is LayerKind.GIVEN:
        return HostsFile(problems=(Problem(layer.path, None, "there is no such file"),))
    return found or HostsFile()


def _all_problems(file: HostsFile) -> tuple[Problem, ...]:
    return (*file.problems, *(problem for entry in file.entries for problem in entry.problems))


def _configuration_error(problem: Problem) -> ConfigurationError:
    return ConfigurationError(str(problem), hint="correct the file, then see `remote-dispatch hosts validate`")
