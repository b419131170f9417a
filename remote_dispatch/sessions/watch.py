"""Watch sessions on several hosts at once: one monitor a host, one stream of updates, until all turns have ended."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from remote_dispatch.errors import HostUnreachableError, RemoteDispatchError, UnknownNameError
from remote_dispatch.opencode.api import RefusedError
from remote_dispatch.sessions.gate import settled
from remote_dispatch.sessions.happening import Changed, Gone, Happened, LinkBack, LinkLost
from remote_dispatch.sessions.monitor import Monitor
from remote_dispatch.sessions.reading import read
from remote_dispatch.sessions.values import Look

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.sessions.happening import Happening, Update
    from remote_dispatch.sessions.values import NamedSession

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A session was read, and stands as the look says."""

    look: Look


@dataclass(frozen=True, slots=True)
class Active:
    """Something happened in a session or in a sub-agent of it."""

    named: NamedSession
    what: Happening
    source_id: str
    """Whose it is: the session's own id, or a sub-agent's."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more happens in this session by itself; the look has the end. It is not watched any longer."""

    look: Look


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A session was over already, and only those at work are wanted."""

    named: NamedSession


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A host does not answer; its sessions go on, and it is asked again."""

    host: str
    names: tuple[str, ...]
    since: datetime


@dataclass(frozen=True, slots=True)
class Back:
    """A host answers again; all its sessions are read anew."""

    host: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unwatched:
    """A session cannot be watched: its host is not known or not ready, or it does not have the session any more."""

    named: NamedSession
    error: RemoteDispatchError


class Watcher(Protocol):
    """As much of a Monitor as is needed."""

    def add(self, session_id: str, directory: str) -> None:
        """Watch a session from now on."""

    def remove(self, session_id: str) -> None:
        """Watch a session no longer."""

    def updates(self) -> AsyncGenerator[Update, None]:
        """Yield what happens until nothing is left to watch."""
        ...


class Reach(Protocol):
    """As much of Servers as is needed."""

    async def api(self, host: Host) -> Api:
        """Return the server of a host."""
        ...


WatchUpdate = StateChanged | Active | Ended | LeftOut | Unreachable | Back | Unwatched


async def watch(
    servers: Reach,
    host_of: Callable[[str], Host],
    named: Sequence[NamedSession],
    tell: Callable[[WatchUpdate], None],
    *,
    busy_only: bool = False,
    monitor: Callable[[Api], Watcher] = Monitor,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Watch until every one of these sessions is over; the last update of each is Ended, LeftOut or Unwatched.

    Its last turn counts, whoever asked for it: in OpenCode itself, say.
    With `busy_only` those that are over already are left out. A host that cannot be reached is told
    of once, and tried again with a growing delay for as long as it takes; the others go on. A turn that would never
    end by itself is aborted.
    """
    hosts: dict[str, list[NamedSession]] = {}
    for one in named:
        hosts.setdefault(one.host, []).append(one)
    async with asyncio.TaskGroup() as group:
        for name, sessions in hosts.items():
            watched = _Watched(name, {one.session_id: one for one in sessions}, tell, busy_only)
            group.create_task(_watch_host(watched, servers, host_of, monitor, sleep))


@dataclass(slots=True)
class _Watched:
    """The sessions of one host that are still watched."""

    host: str
    open: dict[str, NamedSession]
    tell: Callable[[WatchUpdate], None]
    busy_only: bool
    seen: set[str] = field(default_factory=set)
    aborted: set[str] = field(default_factory=set)
    lost_since: datetime | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.open.values())

    def lost(self, since: datetime) -> None:
        """Tell it once, however often it is noticed."""
        if self.lost_since is None:
            self.lost_since = since
            self.tell(Unreachable(self.host, self.names, since))

    def back(self) -> None:
        if self.lost_since is not None:
            self.lost_since = None
            self.tell(Back(self.host, self.names))

    def give_up(self, error: RemoteDispatchError) -> None:
        for one in self.open.values():
            self.tell(Unwatched(one, error))
        self.open.clear()


async def _watch_host(
    watched: _Watched,
    servers: Reach,
    host_of: Callable[[str], Host],
    make_monitor: Callable[[Api], Watcher],
    sleep: Callable[[float], Awaitable[object]],
) -> None:
    try:
        api = await _reach(watched, servers, host_of(watched.host), sleep)
        while watched.open:
            try:
                await _monitor(watched, api, make_monitor(api))
            except RefusedError as error:
                await _leave_refused(watched, api, error)
    except RemoteDispatchError as error:
        watched.give_up(error)


async def _leave_refused(watched: _Watched, api: Api, error: RefusedError) -> None:
    """Leave those sessions alone that the server will not show; the others are watched again."""
    refused = [one for one in watched.open.values() if await _is_refused(api, one)]
    if not refused:
        raise error
    for one in refused:
        del watched.open[one.session_id]
        watched.tell(Unwatched(one, error))


async def _is_refused(api: Api, named: NamedSession) -> bool:
    try:
        await read(api, named.session_id, named.directory)
    except RefusedError:
        return True
    return False


async def _monitor(watched: _Watched, api: Api, monitor: Watcher) -> None:
    """Pass on what one monitor tells, until nothing is left to watch, or its server is gone."""
    for one in watched.open.values():
        monitor.add(one.session_id, one.directory)
    aborts: set[asyncio.Task[None]] = set()
    try:
        async with aclosing(monitor.updates()) as updates:
            async for update in updates:
                if session_id := _take(update, watched, monitor):
                    aborts.add(asyncio.create_task(_abort(api, session_id, watched)))
    finally:
        for task in aborts:
            task.cancel()
        await asyncio.gather(*aborts, return_exceptions=True)


async def _reach(watched: _Watched, servers: Reach, host: Host, sleep: Callable[[float], Awaitable[object]]) -> Api:
    """Reach the server, for as long as it takes. Raises HostNotReadyError where none runs."""
    delay_s = FIRST_DELAY_S
    while True:
        try:
            api = await servers.api(host)
            await api.health()
        except HostUnreachableError:
            watched.lost(datetime.now(UTC))
        else:
            watched.back()
            return api
        await sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        delay_s = min(delay_s * 2, LONGEST_DELAY_S)


def _take(update: Update, watched: _Watched, monitor: Watcher) -> str | None:
    """Pass an update on. Returns the session that has to be aborted, once for each."""
    match update:
        case Changed():
            return _changed(update, watched, monitor)
        case Happened():
            if update.session_id in watched.open:
                watched.tell(Active(watched.open[update.session_id], update.what, update.source_id))
        case LinkLost():
            watched.lost(update.since)
        case LinkBack():
            watched.back()
        case Gone():
            _gone(update, watched)
    return None


def _gone(update: Gone, watched: _Watched) -> None:
    if named := watched.open.pop(update.session_id, None):
        error = UnknownNameError(
            f"{named.name}: {named.host} does not have this session any more",
            hint=f"forget its name with `remote-dispatch session forget {named.name}`",
        )
        watched.tell(Unwatched(named, error))


def _changed(update: Changed, watched: _Watched, monitor: Watcher) -> str | None:
    named = watched.open.get(update.session_id)
    if named is None:
        return None
    look = Look(named, update.reading, update.standing)
    is_first = update.session_id not in watched.seen
    watched.seen.add(update.session_id)
    is_left_out = is_first and watched.busy_only and settled(update.reading).is_over
    if is_left_out or update.standing.is_over:
        del watched.open[update.session_id]
        monitor.remove(update.session_id)
        watched.tell(LeftOut(named) if is_left_out else Ended(look))
        return None
    watched.tell(StateChanged(look))
    if update.standing.must_abort and update.session_id not in watched.aborted:
        watched.aborted.add(update.session_id)
        return update.session_id
    return None


async def _abort(api: Api, session_id: str, watched: _Watched) -> None:
    """What is not heard is asked again at the next reading that shows no end."""
    try:
        await api.abort(session_id)
    except RemoteDispatchError:
        watched.aborted.discard(session_id)
