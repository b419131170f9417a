"""The OpenCode servers of hosts: through SSH, where we keep one running, or by the URL of one that somebody else keeps.

Every host's server is reached once and shared. An SSH connection that broke is opened anew by the next request, and a
server that was started anew meanwhile is found again, with its new port and password.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urlsplit

from remote_dispatch.errors import (
    ConfigurationError,
    ConnectionLostError,
    DeadlinePassedError,
    HostNotReadyError,
    UnknownNameError,
)
from remote_dispatch.hosts.entries import host_from
from remote_dispatch.opencode.api import is_loopback
from remote_dispatch.remote.stream import LOOPBACK, ByteStream, NothingListensError
from remote_dispatch.servers.keyring import PASSWORD_VARIABLE, USER_VARIABLE, Keyring

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.hosts import Registry
    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.wire import Login
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.servers.on_host import Running

URL_VARIABLE = "OPENCODE_API_URL"
URL_HOST = "server"
"""The host that OPENCODE_API_URL stands for."""
_HEALTH_TRIES = 4
"""A server that starts leaves a request without an answer: each try has a connection of its own (OpenCode 1.18)."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where other programs of this machine reach a server, and how to log in. No repr shows any of it."""

    url: str = field(repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    """None: it asks for none, or none is set."""


class Servers:
    """The servers of all hosts; an async context manager that closes whatever was opened."""

    def __init__(self, link: Callable[[Host], Link], environment: Mapping[str, str]) -> None:
        """`link` makes the link to a host; `environment` holds passwords and the like."""
        self._link = link
        self._environment = environment
        self._ways: dict[str, _Way] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ways.clear()
        await self._stack.aclose()

    async def api(self, host: Host, *, starts: bool = False) -> Api:
        """Return a client of the host's server that has just answered; it is shared, and closed with the context.

        With `starts` a host that is reached by SSH gets a server where none of ours runs. Raises HostNotReadyError
        where none runs, LoginError, HostUnreachableError, ConfigurationError, and CommandError for what is no OpenCode
        server, or for a command that prints no password.
        """
        return await self._way(host).api(starts=starts)

    async def connection(self, host: Host) -> Connection:
        """Return the SSH connection that the requests travel through. Raises ConfigurationError when there is none."""
        return await self._way(host).connection()

    @asynccontextmanager
    async def tunnel(self, host: Host) -> AsyncIterator[Door]:
        """Let other programs of this machine reach the server while the context is open. Raises as `api`."""
        way = self._way(host)
        await way.api()
        async with way.door() as door:
            yield door

    def _way(self, host: Host) -> _Way:
        way = self._ways.get(host.name)
        if way is None:
            self._ways[host.name] = way = _way_to(host, self._link, self._environment)
            self._stack.push_async_callback(way.close)
        return way


def url_host(environment: Mapping[str, str]) -> Host | None:
    """Return the host that OPENCODE_API_URL stands for, or None. Raises ConfigurationError when it is no such URL."""
    url = environment.get(URL_VARIABLE)
    if not url:
        return None
    try:
        return host_from(URL_HOST, {"server": url})
    except ValueError as error:
        raise ConfigurationError(
            f"{URL_VARIABLE} is not the URL of a server: {error}",
            hint=f"user name and password go to {USER_VARIABLE} and {PASSWORD_VARIABLE}",
        ) from None


def host_named(registry: Registry, environment: Mapping[str, str], name: str) -> Host:
    """Return a host of the registry, or the server of OPENCODE_API_URL. Raises as `registry[name]`."""
    if name != URL_HOST or name in registry:
        return registry[name]
    if found := url_host(environment):
        return found
    raise UnknownNameError(
        f"no host is named `{URL_HOST}`", hint=f"it stands for the server of {URL_VARIABLE}, which is not set"
    )


def is_by_url(host: Host) -> bool:
    """Whether its server is reached by its URL; everything else goes through SSH."""
    return host.server is not None and (host.host is None or not is_loopback(urlsplit(host.server).hostname))


class _Way(Protocol):
    """How one host's server is reached."""

    async def api(self, *, starts: bool = False) -> Api: ...

    async def connection(self) -> Connection: ...

    def door(self) -> AbstractAsyncContextManager[Door]: ...

    async def close(self) -> None: ...


class _ByUrl:
    """A server whose URL stands in the hosts file. Somebody else starts and stops it."""

    def __init__(self, host: Host, url: str, environment: Mapping[str, str]) -> None:
        self._host = host
        self._url = urlsplit(url)._replace(query="", fragment="").geturl().rstrip("/")
        self._environment = environment
        self._keyring = Keyring(host, environment)
        self._making = asyncio.Lock()
        self._api: Api | None = None

    async def api(self, *, starts: bool = False) -> Api:  # noqa: ARG002 - it is not ours to start
        async with self._making:
            if self._api is None:
                self._api = await self._made()
            if self._api.version is None:
                await _answering(self._api)
        return self._api

    async def _made(self) -> Api:
        from remote_dispatch.opencode.api import Api  # noqa: PLC0415 - httpx is not for who only lists names
        from remote_dispatch.opencode.wire import Access, client  # noqa: PLC0415 - as above

        await self._keyring.login()
        certificates = self._environment.get("SSL_CERT_FILE")
        try:
            made = client(self._url, Access(self._keyring.login), certificates=certificates)
        except OSError as error:
            raise ConfigurationError("SSL_CERT_FILE names no file of certificates that can be read") from error
        return Api(self._host.name, made, login_hint=self._keyring.hint)

    async def connection(self) -> Connection:
        raise ConfigurationError(
            f"{self._host.name} is reached by a URL, not by SSH",
            hint=f"`remote-dispatch hosts set {self._host.name} host ADDRESS` gives it an address",
        )

    @asynccontextmanager
    async def door(self) -> AsyncIterator[Door]:
        login = await self._keyring.login()
        yield _door(self._url, login)

    async def close(self) -> None:
        if self._api is not None:
            await self._api.__aexit__()


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a server is just now."""

    connection: Connection
    port: int
    login: Login | None


class _ThroughSsh:
    """A server on the loopback of a host, reached through channels of one SSH connection."""

    def __init__(self, host: Host, link: Link, place: _Place) -> None:
        self._host = host
        self._link = link
        self._place = place
        self._spot: _Spot | None = None
        self._seeking: asyncio.Task[_Spot] | None = None
        self._is_starting = False
        self._connecting = asyncio.Lock()
        self._api: Api | None = None

    async def api(self, *, starts: bool = False) -> Api:
        if starts:
            await self._seek(starts=True)
        else:
            await self._here()
        if self._api is None:
            self._api = self._made()
        if self._api.version is None:
            await _answering(self._api)
        return self._api

    def _made(self) -> Api:
        from remote_dispatch.opencode.api import Api  # noqa: PLC0415 - httpx is not for who only lists names
        from remote_dispatch.opencode.wire import BEHIND_A_STREAM, Access, client  # noqa: PLC0415 - as above

        made = client(BEHIND_A_STREAM, Access(self._login, self._renewed), dial=self._dial)
        return Api(self._host.name, made, login_hint=self._place.login_hint)

    async def connection(self) -> Connection:
        async with self._connecting:
            return await self._link.connection()

    @asynccontextmanager
    async def door(self) -> AsyncIterator[Door]:
        spot = await self._here()
        async with spot.connection.forward(spot.port) as port:
            yield _door(f"http://{LOOPBACK}:{port}", spot.login)

    async def close(self) -> None:
        if self._seeking is not None:
            self._seeking.cancel()
            await asyncio.gather(self._seeking, return_exceptions=True)
        async with self._link:
            if self._api is not None:
                await self._api.__aexit__()

    async def _dial(self) -> ByteStream:
        """Open a stream to the server; where that fails, once more to where it is now. Nothing was sent before."""
        spot = await self._here()
        try:
            return await spot.connection.stream(spot.port)
        except ConnectionLostError:
            spot = await self._elsewhere(spot, is_lost=True)
        except NothingListensError:
            spot = await self._elsewhere(spot)
        return await spot.connection.stream(spot.port)

    async def _login(self) -> Login | None:
        return (await self._here()).login

    async def _renewed(self, refused: Login | None) -> Login | None:
        spot = await self._here()
        return spot.login if spot.login != refused else (await self._elsewhere(spot)).login

    async def _here(self) -> _Spot:
        return self._spot or await self._seek()

    async def _elsewhere(self, stale: _Spot, *, is_lost: bool = False) -> _Spot:
        """Return where the server is, knowing that it is not there any more."""
        if self._spot is stale:
            self._spot = None
            return await self._seek(is_lost=is_lost)
        return await self._here()

    async def _seek(self, *, starts: bool = False, is_lost: bool = False) -> _Spot:
        """Look for the server, once for all who wait. A caller that gives up does not stop it for the others."""
        if self._seeking is not None and starts and not self._is_starting:
            # That none runs is no answer to who wants one started.
            with suppress(HostNotReadyError):
                return await asyncio.shield(self._seeking)
        if self._seeking is None:
            self._is_starting = starts
            self._seeking = asyncio.create_task(self._sought(starts=starts, is_lost=is_lost))
            self._seeking.add_done_callback(self._found)
        return await asyncio.shield(self._seeking)

    def _found(self, seeking: asyncio.Task[_Spot]) -> None:
        self._seeking = None
        if not seeking.cancelled() and seeking.exception() is None:
            self._spot = seeking.result()

    async def _sought(self, *, starts: bool, is_lost: bool) -> _Spot:
        if not is_lost:
            try:
                return await self._located(starts=starts)
            except ConnectionLostError:
                pass
        async with self._connecting:
            await self._link.drop()
        return await self._located(starts=starts)

    async def _located(self, *, starts: bool) -> _Spot:
        connection = await self.connection()
        port, login = await self._place.find(connection, starts=starts)
        return _Spot(connection, port, login)


class _Place(Protocol):
    """Where on a host a server is, and how to log in."""

    async def find(self, connection: Connection, *, starts: bool) -> tuple[int, Login | None]: ...

    @property
    def login_hint(self) -> str: ...


class _Ours:
    """The server that we started there."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def find(self, connection: Connection, *, starts: bool) -> tuple[int, Login | None]:
        from remote_dispatch.opencode.wire import DEFAULT_USER, Login  # noqa: PLC0415 - as above
        from remote_dispatch.servers import on_host  # noqa: PLC0415 - only hosts by SSH need it

        running = await (on_host.start(connection, self._host) if starts else self._found(connection))
        if running is None:
            raise HostNotReadyError(
                self._host.name,
                "no OpenCode server of ours runs there",
                hint=f"start one with `remote-dispatch session server start {self._host.name}`",
            )
        return running.port, Login(DEFAULT_USER, running.password)

    async def _found(self, connection: Connection) -> Running | None:
        """A link that is frozen, or a host that is overloaded, is out of reach: it may answer later."""
        from remote_dispatch.servers import on_host  # noqa: PLC0415 - as above

        try:
            return await on_host.find(connection)
        except DeadlinePassedError as error:
            raise ConnectionLostError(self._host.name, "it did not say in time whether its server runs") from error

    @property
    def login_hint(self) -> str:
        return f"start it anew with `remote-dispatch session server restart {self._host.name}`"


class _Fixed:
    """A server at a port of the host's loopback that the hosts file names."""

    def __init__(self, host: Host, port: int, environment: Mapping[str, str]) -> None:
        self._port = port
        self._keyring = Keyring(host, environment)

    async def find(self, connection: Connection, *, starts: bool) -> tuple[int, Login | None]:  # noqa: ARG002 - it is not ours to start, and where it is stands fast
        return self._port, await self._keyring.login()

    @property
    def login_hint(self) -> str:
        return self._keyring.hint


def _way_to(host: Host, link: Callable[[Host], Link], environment: Mapping[str, str]) -> _Way:
    if host.server is None:
        return _ThroughSsh(host, link(host), _Ours(host))
    if is_by_url(host):
        return _ByUrl(host, host.server, environment)
    url = urlsplit(host.server)
    if url.scheme != "http" or url.path.strip("/"):
        raise ConfigurationError(
            f"{host.name}: a server on the host's own loopback is reached through SSH, by `http` and without a path",
            hint=f"such as `remote-dispatch hosts set {host.name} server http://127.0.0.1:4096`",
        )
    return _ThroughSsh(host, link(host), _Fixed(host, url.port or 80, environment))


def _door(url: str, login: Login | None) -> Door:
    return Door(url, login.user, login.password) if login else Door(url)


async def _answering(api: Api) -> None:
    """Ask for a sign of life, patiently: see `_HEALTH_TRIES`."""
    for _ in range(_HEALTH_TRIES - 1):
        try:
            await api.health()
        except ConnectionLostError:
            continue
        return
    await api.health()
