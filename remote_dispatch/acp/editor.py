"""The editor's end of the bridge: messages over two file descriptors of this process, without holding up the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import stat
import threading
from collections import deque
from typing import TYPE_CHECKING, BinaryIO, Self

from remote_dispatch.acp.lines import LineReader, line_of
from remote_dispatch.errors import RemoteDispatchError
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from remote_dispatch.acp.lines import Message

_PIECE_BYTES = 256 * 1024
_LAST_WORDS_S = 2.0
_LOG_LINES = 2000
_LOG_TEXT = 256 * 1024
_LOG_END_S = 1.0


class EditorGoneError(RemoteDispatchError):
    """The editor reads no more. What it started is ended as if it had closed its side."""

    exit_code = 0
    kind = "editor-gone"


class StdioWire:
    """A wire to whoever started this process. Make it with `stdio_wire`."""

    def __init__(
        self, chunks: AsyncIterator[bytes], writer: asyncio.StreamWriter | BinaryIO, on_noise: Callable[[bytes], None]
    ) -> None:
        self._chunks = chunks
        self._writer = writer
        self._lines = LineReader(on_noise=on_noise)
        self._messages: deque[Message] = deque()

    async def send(self, message: Message) -> None:
        """Write one message at once. Raises EditorGoneError."""
        try:
            self._writer.write(line_of(message))
            if isinstance(self._writer, asyncio.StreamWriter):
                await self._writer.drain()
        except OSError as error:
            raise EditorGoneError("the editor reads no more") from error

    async def receive(self) -> Message | None:
        """Return the next message; None once the editor has closed its side."""
        while not self._messages:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                return None
            self._messages.extend(self._lines.feed(chunk))
        return self._messages.popleft()

    async def close(self) -> None:
        """Write what is still held, for two seconds at most, and close."""
        if isinstance(self._writer, asyncio.StreamWriter):
            self._writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._writer.wait_closed()


class Log:
    """Lines for the editor's log, which some editors never read: nothing waits for them, what finds no room is lost.

    Use as a context manager: what is still held at the end is written for at most a second.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(_LOG_LINES)
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)

    def __enter__(self) -> Self:
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._writer.join(_LOG_END_S)

    def say(self, text: str) -> None:
        """Write lines, cleaned of what a terminal would obey and of addresses."""
        for line in clean(mask_addresses(text), _LOG_TEXT).splitlines():
            with contextlib.suppress(queue.Full):
                self._lines.put_nowait(line.encode(errors="replace") + b"\n")

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            while (line := self._lines.get()) is not None:
                left = memoryview(line)
                while left:
                    left = left[os.write(self._descriptor, left) :]


async def stdio_wire(source: BinaryIO, target: BinaryIO, *, on_noise: Callable[[bytes], None]) -> StdioWire:
    """Return a wire that reads `source` and writes `target`: both unbuffered, and its own from now on.

    `on_noise` gets the first 200 bytes of each line that is no message.
    """
    return StdioWire(await _reading(source), await _writing(target), on_noise)


async def _reading(source: BinaryIO) -> AsyncIterator[bytes]:
    if _is_file(source):
        return _chunks_of_file(source)
    reader = asyncio.StreamReader(limit=_PIECE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
    return _chunks(reader)


async def _writing(target: BinaryIO) -> asyncio.StreamWriter | BinaryIO:
    if _is_file(target):
        return target
    loop = asyncio.get_running_loop()
    # The protocol of a reader that nothing feeds: asyncio has no public one for writing alone.
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), target
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while chunk := await reader.read(_PIECE_BYTES):
        yield chunk


async def _chunks_of_file(source: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(source.read, _PIECE_BYTES):
        yield chunk


def _is_file(stream: BinaryIO) -> bool:
    """Whether the loop cannot wait for it: a file, or `/dev/null`, which counts as one."""
    mode = os.fstat(stream.fileno()).st_mode
    return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not stream.isatty())
