"""TCP connections on the machine behind a connection: one conformance suite, and what only SSH can meet."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

import pytest

from remote_dispatch.errors import ConnectionLostError, HostNotReadyError
from remote_dispatch.model import Host
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.remote.ssh import connect
from remote_dispatch.remote.stream import ByteStream, NothingListensError
from tests.rig.sshd import Sshd, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from remote_dispatch.remote.connection import Connection

BOX = Host(name="box", host="box")
MEGABYTES = bytes(range(256)) * 4096 * 3


class Echo:
    """A server that says back what it hears. A context manager; `is_open` counts its connections."""

    async def __aenter__(self) -> Self:
        self.connections = self.is_open = 0
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.until(lambda: self.is_open == 0)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.is_open += 1
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
                if piece.endswith(b"bye"):
                    break
        writer.close()
        self.is_open -= 1


@pytest.fixture(params=["local", "ssh"])
async def connection(request: pytest.FixtureRequest, server: Sshd, client_home: Path) -> AsyncIterator[Connection]:
    if request.param == "local":
        yield LocalConnection()
        return
    server.write_client_home(client_home)
    async with connect(BOX) as link:
        yield link


async def read_all(stream: ByteStream, size: int) -> bytes:
    content = bytearray()
    while len(content) < size and (piece := await stream.read(65536)):
        assert len(piece) <= 65536
        content += piece
    return bytes(content)


async def test_bytes_go_there_and_come_back(connection: Connection) -> None:
    async with Echo() as echo:
        stream = await connection.stream(echo.port)
        sending = asyncio.create_task(stream.write(MEGABYTES))
        assert await read_all(stream, len(MEGABYTES)) == MEGABYTES
        await sending
        assert not stream.is_over
        stream.close()
        stream.close()
        await echo.until(lambda: echo.is_open == 0)


async def test_the_end_of_the_other_side_is_seen_without_reading(connection: Connection) -> None:
    async with Echo() as echo:
        stream = await connection.stream(echo.port)
        await stream.write(b"bye")
        assert await read_all(stream, 3) == b"bye"
        await echo.until(lambda: stream.is_over)
        assert await stream.read(10) == b""
        stream.close()


async def test_a_port_where_nothing_listens_is_told_apart(connection: Connection) -> None:
    port = free_port()
    with pytest.raises(NothingListensError) as caught:
        await connection.stream(port)
    assert str(port) not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(NothingListensError):
        async with connection.forward(port):
            raise AssertionError


async def test_a_port_here_leads_there_for_other_programs(connection: Connection) -> None:
    async with Echo() as echo:
        async with connection.forward(echo.port) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.close()
            await writer.wait_closed()
        if port != echo.port:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)


async def test_a_stream_whose_caller_was_cancelled_is_closed_once_it_opens(server: Sshd, client_home: Path) -> None:
    server.write_client_home(client_home)
    async with Echo() as echo, connect(BOX) as link:
        opening = asyncio.create_task(link.stream(echo.port))
        for _ in range(3):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await echo.until(lambda: echo.connections == 1)
        await echo.until(lambda: echo.is_open == 0)


async def test_a_server_that_forbids_it_is_told_apart(own_server: Callable[..., Sshd], client_home: Path) -> None:
    own_server(extra=("AllowTcpForwarding no",)).write_client_home(client_home)
    async with Echo() as echo, connect(BOX) as link:
        with pytest.raises(HostNotReadyError, match="lets no connection through") as caught:
            await link.stream(echo.port)
        assert not isinstance(caught.value, NothingListensError)
        assert "AllowTcpForwarding" in str(caught.value.hint)


async def test_a_link_that_breaks_ends_every_stream(own_server: Callable[..., Sshd], client_home: Path) -> None:
    server = own_server()
    server.write_client_home(client_home)
    async with Echo() as echo, connect(BOX) as link:
        idle, busy = await link.stream(echo.port), await link.stream(echo.port)
        reading = asyncio.create_task(busy.read(1))
        await echo.until(lambda: echo.is_open == 2)
        assert server.drop_connections()
        with pytest.raises(ConnectionLostError):
            assert await reading == b"something"
        assert idle.is_over
        with pytest.raises(ConnectionLostError):
            await idle.write(b"x")
        with pytest.raises(ConnectionLostError):
            await link.stream(echo.port)
