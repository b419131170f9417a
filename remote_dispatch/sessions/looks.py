"""Look at sessions on several hosts at once. What one host does not say is a remark, never a failure of the others."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from remote_dispatch.errors import HostNotReadyError, HostUnreachableError, RemoteDispatchError
from remote_dispatch.opencode.api import NoSuchSessionError
from remote_dispatch.servers.reach import host_named
from remote_dispatch.sessions.gate import settled
from remote_dispatch.sessions.reading import read
from remote_dispatch.sessions.values import Look

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from remote_dispatch.hosts import Registry
    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Served, Status
    from remote_dispatch.servers.reach import Servers
    from remote_dispatch.sessions.values import NamedSession

HOST_PATIENCE_S = 30.0
"""How long one host may take to be reached and asked, before a list goes on without it."""
SESSIONS_AT_ONCE = 4
NEWEST = 100


class Missing(StrEnum):
    """Why nothing is known of a session now."""

    SERVER_DOWN = "server down"
    UNREACHABLE = "unreachable"
    GONE = "gone"
    """The server is there and does not have it."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Unseen:
    """A session that could not be looked at. `remark` says why, in a sentence without addresses."""

    named: NamedSession
    state: Missing
    remark: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Stranger:
    """A session on a host's server that has no name here."""

    host: str
    session: Served
    status: Status | None


@dataclass(frozen=True, slots=True)
class Strangers:
    """The sessions of one host that have no name; without them, why."""

    host: str
    found: tuple[Stranger, ...] = ()
    remark: str | None = None


async def look(
    servers: Servers,
    registry: Registry,
    named_sessions: Sequence[NamedSession],
    *,
    environment: Mapping[str, str] | None = None,
) -> list[Look | Unseen]:
    """Look at every session, all hosts in parallel; the answer is in the order of the question.

    No server is started for it. `environment` may name a server by OPENCODE_API_URL.
    """
    by_host: dict[str, list[NamedSession]] = {}
    for named in named_sessions:
        by_host.setdefault(named.host, []).append(named)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_look_on_host(servers, registry, environment or {}, some)) for some in by_host.values()
        ]
    found = {one.named.name: one for task in tasks for one in task.result()}
    return [found[named.name] for named in named_sessions]


async def look_at(api: Api, named: NamedSession) -> Look:
    """Look at one session: at its last turn, whoever asked for it. Raises what Api raises."""
    reading = await read(api, named.session_id, named.directory, message_id=named.message_id)
    return Look(named, reading, settled(reading))


async def strangers(servers: Servers, hosts: Iterable[Host], known: Collection[tuple[str, str]]) -> list[Strangers]:
    """Return the newest sessions of these hosts' servers that are not `known` (host and id), sub-agents' left out."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_strangers_on(servers, host, known)) for host in hosts]
    return [task.result() for task in tasks]


def unseen(named: NamedSession, error: RemoteDispatchError) -> Unseen:
    """Say what an error means for a session that was to be looked at."""
    state, hint = Missing.UNKNOWN, error.hint
    if isinstance(error, NoSuchSessionError):
        state, hint = Missing.GONE, f"forget its name with `remote-dispatch session forget {named.name}`"
    elif isinstance(error, HostUnreachableError):
        state = Missing.UNREACHABLE
    elif isinstance(error, HostNotReadyError):
        state = Missing.SERVER_DOWN
    return Unseen(named, state, error.message, hint)


async def _look_on_host(
    servers: Servers, registry: Registry, environment: Mapping[str, str], some: Sequence[NamedSession]
) -> list[Look | Unseen]:
    name = some[0].host
    try:
        async with asyncio.timeout(HOST_PATIENCE_S):
            api = await servers.api(host_named(registry, environment, name))
            return await _all_on(api, some)
    except TimeoutError:
        slow = HostUnreachableError(name, "it did not answer in time")
        return [unseen(one, slow) for one in some]
    except RemoteDispatchError as error:
        return [unseen(one, error) for one in some]


async def _all_on(api: Api, some: Sequence[NamedSession]) -> list[Look | Unseen]:
    gate = asyncio.Semaphore(SESSIONS_AT_ONCE)

    async def one(named: NamedSession) -> Look | Unseen:
        async with gate:
            try:
                return await look_at(api, named)
            except RemoteDispatchError as error:
                return unseen(named, error)

    return await asyncio.gather(*(one(named) for named in some))


async def _strangers_on(servers: Servers, host: Host, known: Collection[tuple[str, str]]) -> Strangers:
    try:
        async with asyncio.timeout(HOST_PATIENCE_S):
            api = await servers.api(host)
            sessions = [one for one in await api.sessions(NEWEST) if one.parent_id is None]
            unnamed = [one for one in sessions if (host.name, one.id) not in known]
            statuses: dict[str, Status] = {}
            for directory in {one.directory for one in unnamed}:
                statuses |= await api.statuses(directory)
    except TimeoutError:
        return Strangers(host.name, remark=f"{host.name}: it did not answer in time")
    except RemoteDispatchError as error:
        return Strangers(host.name, remark=error.message)
    return Strangers(host.name, tuple(Stranger(host.name, one, statuses.get(one.id)) for one in unnamed))
