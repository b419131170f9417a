"""How requests travel: by a URL, or through byte streams that somebody else opens, such as channels of SSH.

httpx asks, httpcore keeps the connections; what they log is quietened, for it holds addresses and logins. Callers
import this module inside functions: httpx takes 100 ms to import.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

from remote_dispatch.errors import ConnectionLostError
from remote_dispatch.opencode.api import Api

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.remote.stream import ByteStream

    Dial = Callable[[], Awaitable[ByteStream]]

DEFAULT_USER = "opencode"
BEHIND_A_STREAM = "http://127.0.0.1"
"""The base URL where a stream leads: OpenCode 1.18 does not look at the Host header."""
_MOST_CONNECTIONS = 64
_MOST_IDLE = 16
_IDLE_S = 15.0
_KINDS: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.ConnectTimeout, httpx.ConnectTimeout),
    (httpcore.ReadTimeout, httpx.ReadTimeout),
    (httpcore.WriteTimeout, httpx.WriteTimeout),
    (httpcore.PoolTimeout, httpx.PoolTimeout),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.LocalProtocolError, httpx.LocalProtocolError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
    (httpcore.NetworkError, httpx.NetworkError),
    (httpcore.TimeoutException, httpx.TimeoutException),
)


@dataclass(frozen=True, slots=True)
class Login:
    """User name and password of a server. No repr shows them."""

    user: str = field(repr=False)
    password: str = field(repr=False)


class Access(httpx.Auth):
    """Signs each request. A login that is refused is asked for once more: the server may have been started anew."""

    def __init__(
        self,
        login: Callable[[], Awaitable[Login | None]],
        renewed: Callable[[Login | None], Awaitable[Login | None]] | None = None,
    ) -> None:
        """`renewed` gets the login that was refused; what it returns is tried when it is another one."""
        self._login = login
        self._renewed = renewed

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send it, and once more where a refused login was out of date."""
        login = await self._login()
        _sign(request, login)
        answer = yield request
        if answer.status_code != httpx.codes.UNAUTHORIZED or self._renewed is None:
            return
        other = await self._renewed(login)
        if other != login:
            _sign(request, other)
            yield request


def client(
    url: str, access: httpx.Auth | None, *, dial: Dial | None = None, certificates: str | None = None
) -> httpx.AsyncClient:
    """Return a client of a URL; with `dial` every connection is made by it instead, and the URL's host is not used.

    Neither proxies nor `.netrc` are looked at, and no redirection is followed: it could carry the password away.
    `certificates` is a file of authorities to trust instead of the usual ones. Raises OSError when it is not readable.
    """
    quieten()
    trusted = ssl.create_default_context(cafile=certificates) if certificates else True
    return httpx.AsyncClient(
        base_url=url,
        auth=access,
        transport=Wire(dial) if dial else None,
        trust_env=False,
        follow_redirects=False,
        verify=trusted,
        limits=httpx.Limits(
            max_connections=_MOST_CONNECTIONS, max_keepalive_connections=_MOST_IDLE, keepalive_expiry=_IDLE_S
        ),
    )


def api_through(connection: Connection, name: str, port: int, password: str, *, user: str = DEFAULT_USER) -> Api:
    """Return a client of the server at a port of the machine behind an open connection; its context closes the client.

    Its methods raise what `Connection.stream` raises besides.
    """

    async def login() -> Login:
        return Login(user, password)

    return Api(name, client(BEHIND_A_STREAM, Access(login), dial=lambda: connection.stream(port)))


def quieten() -> None:
    """Let httpx and httpcore log warnings only: below that they log URLs and headers, the login among them."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


class Wire(httpx.AsyncBaseTransport):
    """HTTP/1.1 over the streams that `dial` opens. What `dial` raises of ours passes unchanged."""

    def __init__(self, dial: Dial) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=_MOST_CONNECTIONS,
            max_keepalive_connections=_MOST_IDLE,
            keepalive_expiry=_IDLE_S,
            network_backend=_Backend(dial),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request, and return its answer with a body that is still to be read."""
        url = request.url
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        with _as_httpx():
            answer = await self._pool.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=target,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions)

    async def aclose(self) -> None:
        """Close every stream."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    """The body of an answer. Closing it gives its stream back, or closes that when something is left to read."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._answer.stream
        assert not isinstance(body, bytes)
        with _as_httpx():
            async for piece in _asynchronous(body):
                yield piece

    async def aclose(self) -> None:
        """Let go of it."""
        await self._answer.aclose()


class _Backend(httpcore.AsyncNetworkBackend):
    """What httpcore takes for the network."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - httpcore's words, here and below: where it leads, only `dial` knows
        port: int,  # noqa: ARG002
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Open a stream."""
        with _timed_out(httpcore.ConnectTimeout):
            async with asyncio.timeout(timeout):
                return _Stream(await self._dial())

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """A byte stream as httpcore wants it."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the next bytes."""
        with _timed_out(httpcore.ReadTimeout), _broken(httpcore.ReadError):
            async with asyncio.timeout(timeout):
                return await self._stream.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes."""
        if not buffer:
            return
        with _timed_out(httpcore.WriteTimeout), _broken(httpcore.WriteError):
            async with asyncio.timeout(timeout):
                await self._stream.write(buffer)

    async def aclose(self) -> None:
        """Close it before anything is waited for: the caller may have been cancelled."""
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        """Say whether an idle stream has something to read: nothing else can come then but its end."""
        return self._stream.is_over if info == "is_readable" else None


def _sign(request: httpx.Request, login: Login | None) -> None:
    request.headers.pop("Authorization", None)
    if login is not None:
        words = b64encode(f"{login.user}:{login.password}".encode()).decode()
        request.headers["Authorization"] = f"Basic {words}"


async def _asynchronous(body: AsyncIterable[bytes] | Iterable[bytes]) -> AsyncIterator[bytes]:
    if hasattr(body, "__aiter__"):
        async for piece in body:
            yield piece


@contextmanager
def _as_httpx() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        kind = next((to for known, to in _KINDS if isinstance(error, known)), None)
        if kind is None:
            raise
        raise kind(str(error)) from error


@contextmanager
def _timed_out(kind: type[httpcore.TimeoutException]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise kind from error


@contextmanager
def _broken(kind: type[httpcore.NetworkError]) -> Iterator[None]:
    try:
        yield
    except ConnectionLostError as error:
        raise kind from error
