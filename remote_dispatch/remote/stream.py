"""One TCP connection on the machine behind a connection, as bytes. Nothing listens on this machine for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from remote_dispatch.errors import ConnectionLostError, HostNotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

OPEN_S = 10.0
"""A port of the loopback answers at once: whatever takes longer is a link that is frozen."""
LOOPBACK = "127.0.0.1"


class ByteStream(Protocol):
    """An open TCP connection. Reading and writing raise ConnectionLostError when it, or the link under it, breaks."""

    async def read(self, limit: int) -> bytes:
        """Return the next bytes, `limit` at most; nothing at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send bytes; it waits while the other end takes none."""
        ...

    def close(self) -> None:
        """Close it at once, whatever is still on its way. Calling it again does nothing."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the other end has closed it, or the link broke; asked while nothing is read."""
        ...


class NothingListensError(HostNotReadyError):
    """Nobody listens at that port of the host."""

    def __init__(self, host: str) -> None:
        super().__init__(host, "nothing listens at that port there")


class Reader(Protocol):
    """What asyncio's and asyncssh's readers have in common."""

    async def read(self, n: int = -1) -> bytes:
        """Return some bytes."""
        ...

    def at_eof(self) -> bool:
        """Whether the end was seen and everything was read."""
        ...


class Writer(Protocol):
    """What asyncio's and asyncssh's writers have in common."""

    def write(self, data: bytes) -> None:
        """Send some bytes."""
        ...

    async def drain(self) -> None:
        """Wait until more may be sent."""
        ...

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        ...


class OpenStream:
    """A reader and a writer as a ByteStream.

    `abort` closes them at once; `translated` turns what they raise into ConnectionLostError.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        abort: Callable[[], None],
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._abort = abort
        self._translated = translated

    async def read(self, limit: int) -> bytes:
        """Return the next bytes. See `ByteStream.read`."""
        with self._translated():
            return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        """Send bytes. See `ByteStream.write`."""
        with self._translated():
            self._writer.write(data)
            await self._writer.drain()

    def close(self) -> None:
        """Close it at once. See `ByteStream.close`."""
        self._abort()

    @property
    def is_over(self) -> bool:
        """Whether it has ended. See `ByteStream.is_over`."""
        return self._writer.is_closing() or self._reader.at_eof()


class _Translation:
    """A context in which the system's errors become ConnectionLostError."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise ConnectionLostError(self._name, "the connection to a port there broke") from error


async def open_here(name: str, port: int) -> ByteStream:
    """Connect to a port of this machine's loopback. Raises as `Connection.stream`."""
    try:
        async with asyncio.timeout(OPEN_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
    except ConnectionRefusedError as error:
        raise NothingListensError(name) from error
    except OSError as error:  # TimeoutError is one
        raise ConnectionLostError(name, "a port there does not answer") from error
    return OpenStream(reader, writer, writer.transport.abort, lambda: _Translation(name))
