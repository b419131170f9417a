"""Hosts from elsewhere: the aliases of ~/.ssh/config, and the entries of another hosts file, the npm plugin's too.

An alias becomes the address of an entry: ssh goes on to say what it stands for, and nothing of that is copied.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError, UnknownNameError, UsageError
from remote_dispatch.hosts.edit import add_many
from remote_dispatch.hosts.entries import read_hosts_file
from remote_dispatch.hosts.names import check_name, is_speakable
from remote_dispatch.hosts.suggest import guess
from remote_dispatch.model import Host
from remote_dispatch.remote.address import parse_address
from remote_dispatch.remote.ssh_aliases import names
from remote_dispatch.remote.ssh_config import destination

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from remote_dispatch.hosts.entries import Problem
    from remote_dispatch.hosts.registry import Registry
    from remote_dispatch.remote.address import Address

SSH_CONFIG = "~/.ssh/config"
_AT_ONCE = 8
_MOST_NAMES = 20
_FORGES = (
    "github.com", "gitlab.com", "bitbucket.org", "codeberg.org", "dev.azure.com", "visualstudio.com", "sr.ht",
    "gitee.com", "sourceforge.net", "launchpad.net", "savannah.gnu.org", "aur.archlinux.org", "huggingface.co", "hf.co",
)  # fmt: skip
_FORGE_USERS = frozenset({"git", "aur"})


class Obstacle(StrEnum):
    """Why an entry comes only when the user names it."""

    TAKEN = "there is a host of this name or address already"
    FORGE = "it looks like a code forge, on which nothing can run"
    NEEDS_NAME = "its own name cannot be a host's name, or is its address"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One entry that can be imported. `source` is what it is called there, and may be an address: it is never shown.

    `name` is what it would be called here; None where the user must choose.
    """

    source: str = field(repr=False)
    name: str | None
    entry: dict[str, object] = field(repr=False)
    obstacle: Obstacle | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What can be imported from one place, in its order. `title` names the place."""

    title: str
    candidates: tuple[Candidate, ...]
    problems: tuple[Problem, ...] = ()
    _covers: Callable[[str], bool] = field(default=lambda _: False, repr=False)

    @property
    def usual(self) -> tuple[Candidate, ...]:
        """Those that nothing speaks against."""
        return tuple(one for one in self.candidates if one.obstacle is None)

    def pick(self, words: Sequence[str]) -> tuple[Candidate, ...]:
        """Return what these words mean: `NAME`, or `NAME=SOURCE` for another name here.

        Raises UnknownNameError for what is not there, ConfigurationError for an entry that is wrong, and UsageError for
        a name that cannot be one or comes twice.
        """
        picked = [self._picked(word) for word in words]
        for place, one in enumerate(picked):
            if one.name in [other.name for other in picked[:place]]:
                raise UsageError(f"`{one.name}` is asked for twice", hint="name each host once")
        return tuple(picked)

    def _picked(self, word: str) -> Candidate:
        name, given, source = word.partition("=")
        found = self._find(source if given else word)
        if given:
            _check_name(name)
            return replace(found, name=name)
        if found.name is None:
            raise UsageError(
                "this alias cannot be a host's name: names are public, addresses are not",
                hint="choose a name for it: `remote-dispatch hosts import NAME=ALIAS`",
            )
        return found

    def _find(self, source: str) -> Candidate:
        for one in self.candidates:
            if one.source == source:
                return one
        if self._covers(source):
            return _judged(_from_alias(source), None)
        if problem := next((one for one in self.problems if one.host == source), None):
            raise ConfigurationError(str(problem), hint="correct the file, then import it again")
        asked = f"`{source}`" if is_speakable(source) else "such a name"
        known = [one.name for one in self.candidates if one.name]
        raise UnknownNameError(f"{self.title} has no {asked}", hint=guess(source, known) or _known(known))


async def from_ssh_config(registry: Registry) -> Source:
    """Read the aliases of ~/.ssh/config, and ask `ssh -G` for what each stands for, to know code forges."""
    found = names()
    candidates = [_from_alias(alias) for alias in found.aliases if _is_address(alias)]
    limit = asyncio.Semaphore(_AT_ONCE)
    places = await asyncio.gather(*(_destination(one.source, limit) for one in candidates))
    judged = (_judged(one, place) for one, place in zip(candidates, places, strict=True))
    return Source(
        SSH_CONFIG,
        _marked(judged, registry, _addresses(registry)),
        _covers=lambda word: _is_address(word) and found.covers(word),
    )


def from_file(path: Path, registry: Registry) -> Source:
    """Read the entries of a hosts file. Raises UsageError for none, ConfigurationError for one that cannot be read."""
    file = read_hosts_file(path)
    if file is None:
        raise UsageError(f"there is no file {path}", hint="`--from` takes a hosts file")
    if file.problems and not file.entries:
        raise ConfigurationError(str(file.problems[0]), hint="correct the file, then import it again")
    candidates = [
        Candidate(one.name, one.name, one.value.model_dump(exclude={"name"}, exclude_none=True))
        for one in file.entries
        if isinstance(one.value, Host)
    ]
    problems = (*file.problems, *(problem for entry in file.entries for problem in entry.problems))
    return Source(str(path), _marked(candidates, registry), problems)


def add_candidates(registry: Registry, candidates: Sequence[Candidate]) -> Path:
    """Add them to the user's own file, all or none. Raises as `edit.add_many`."""
    return add_many(registry.places, {one.name: _short(one.entry) for one in candidates if one.name})


def _short(entry: dict[str, object]) -> str | dict[str, object]:
    address = entry.get("host")
    return address if isinstance(address, str) and len(entry) == 1 else entry


def _from_alias(alias: str) -> Candidate:
    try:
        check_name(alias)
    except ValueError:
        return Candidate(alias, None, {"host": alias}, Obstacle.NEEDS_NAME)
    return Candidate(alias, alias, {"host": alias})


async def _destination(alias: str, limit: asyncio.Semaphore) -> Address | None:
    async with limit:
        try:
            return await destination(alias)
        except ConfigurationError:
            return None


def _judged(one: Candidate, place: Address | None) -> Candidate:
    """Where `ssh` does not say what an alias stands for, it stands for itself."""
    if one.obstacle:
        return one
    host = (place.host if place else one.source).lower().rstrip(".")
    user = place.user if place else None
    if user in _FORGE_USERS or any(host == forge or host.endswith(f".{forge}") for forge in _FORGES):
        return replace(one, obstacle=Obstacle.FORGE)
    if "." in host and host == one.source.lower().rstrip("."):
        return replace(one, name=None, obstacle=Obstacle.NEEDS_NAME)
    return one


def _marked(
    candidates: Iterable[Candidate], registry: Registry, addresses: frozenset[object] = frozenset()
) -> tuple[Candidate, ...]:
    """Mark what is there already, also when its name differs only in case, or its address is one of these."""
    taken = {name.lower() for name in registry.all_names}
    marked: list[Candidate] = []
    for one in candidates:
        is_taken = (one.name and one.name.lower() in taken) or one.entry.get("host") in addresses
        marked.append(replace(one, obstacle=Obstacle.TAKEN) if is_taken else one)
        taken |= {one.name.lower()} if one.name else set()
    return tuple(marked)


def _addresses(registry: Registry) -> frozenset[object]:
    return frozenset(registry[name].host for name in registry.names) - {None}


def _is_address(alias: str) -> bool:
    try:
        parse_address(alias)
    except ValueError:
        return False
    return True


def _check_name(name: str) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise UsageError(str(error), hint="choose another name: it is public, and stands for the address") from None


def _known(known: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in known[:_MOST_NAMES])
    more = f" and {len(known) - _MOST_NAMES} more" if len(known) > _MOST_NAMES else ""
    return f"it has {shown}{more}" if known else "it has no hosts"
