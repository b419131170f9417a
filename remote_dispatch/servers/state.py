"""How the OpenCode server of a host is: ours, found through SSH, or somebody else's, reached by its URL."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from remote_dispatch.errors import CommandError, HostNotReadyError, HostUnreachableError, LoginError
from remote_dispatch.servers import on_host

if TYPE_CHECKING:
    from remote_dispatch.errors import RemoteDispatchError
    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.servers.on_host import Activity, Running
    from remote_dispatch.servers.reach import Servers

ANSWER_TRIES = 3
RECENT_MS = 86_400_000
"""For a server whose start is not known: sessions that were not changed for so long are not asked after."""


class Condition(StrEnum):
    """Whether a server can be used."""

    UP = "up"
    DOWN = "down"
    SILENT = "silent"
    """Its process lives, and it answers nothing."""
    REFUSED = "refused"
    """It answers, and not to us: the password is wrong, or it is no OpenCode server."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """What one look at a host's server shows."""

    condition: Condition
    is_ours: bool
    """Whether it is, or would be, one that we start and stop."""
    running: Running | None = None
    version: str = ""
    activity: Activity | None = None
    error: RemoteDispatchError | None = None
    """Why it cannot be used."""
    remarks: tuple[str, ...] = ()
    """What is to be told of a server that works."""


def is_ours(host: Host) -> bool:
    """Whether the host's server is one that we start and stop; one that its entry names by URL is somebody else's."""
    return host.server is None


async def look_at_server(servers: Servers, host: Host) -> ServerState:
    """Look at the server of a host. Raises what a connection to the host raises; what the server says is returned."""
    if not is_ours(host):
        return await _look_by_url(servers, host)
    connection = await servers.connection(host)
    running = await on_host.find(connection)
    if running is None:
        return ServerState(Condition.DOWN, is_ours=True)
    async with our_api(connection, running) as api:
        return await _look_at_ours(api, running)


def our_api(connection: Connection, running: Running) -> Api:
    """Return a client of our server through an open connection; use it as a context manager."""
    from remote_dispatch.opencode.wire import api_through  # noqa: PLC0415 - httpx is for those who ask a server

    return api_through(connection, connection.name, running.port, running.password, user=on_host.USER)


async def _look_at_ours(api: Api, running: Running) -> ServerState:
    """The process lives, so one that does not answer is silent, not down."""
    try:
        version = await _version(api)
        active = await on_host.activity(api, since_ms=int(running.started.timestamp() * 1000) - 1000)
    except (LoginError, CommandError) as error:
        return ServerState(Condition.REFUSED, is_ours=True, running=running, error=error)
    except (HostUnreachableError, HostNotReadyError) as error:
        error.hint = f"start it anew with `remote-dispatch session server restart {api.name} --force`"
        return ServerState(Condition.SILENT, is_ours=True, running=running, version=running.version, error=error)
    return ServerState(
        Condition.UP, is_ours=True, running=running, version=version, activity=active, remarks=api.remarks
    )


async def _look_by_url(servers: Servers, host: Host) -> ServerState:
    try:
        api = await servers.api(host)
        version = await _version(api)
        active = await on_host.activity(api, since_ms=int(time.time() * 1000) - RECENT_MS)
    except (LoginError, CommandError) as error:
        return ServerState(Condition.REFUSED, is_ours=False, error=error)
    except (HostUnreachableError, HostNotReadyError) as error:
        error.hint = "start it where it runs, or correct `server` with `remote-dispatch hosts edit`"
        return ServerState(Condition.DOWN, is_ours=False, error=error)
    return ServerState(Condition.UP, is_ours=False, version=version, activity=active, remarks=api.remarks)


async def _version(api: Api) -> str:
    """Ask for its health; under load an answer may take longer than one try waits."""
    for _ in range(ANSWER_TRIES - 1):
        try:
            return (await api.health()).version
        except HostUnreachableError:
            await asyncio.sleep(0.2)
    return (await api.health()).version
