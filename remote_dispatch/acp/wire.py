"""The messages of one `opencode acp`, over the open stdin and stdout of a command on its machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

from remote_dispatch.acp.lines import LineReader, Message, line_of
from remote_dispatch.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from remote_dispatch.remote.connection import Duplex

_ROOM = 256
"""How many messages wait at most; the other side is not read meanwhile."""


logger = logging.getLogger(__name__)


class Inbox:
    """What arrived and was not received yet. It outlives the channel that fills it: see `reopen`."""

    def __init__(self) -> None:
        self.reader = LineReader(on_noise=_log)
        self.bytes_read = 0
        """How much of the output was taken, since it began or since `restart`."""
        self._messages: deque[Message] = deque()
        self._changed = asyncio.Condition()
        self._is_over = False
        self._problem: Exception | None = None

    async def fill(self, chunks: AsyncIterator[bytes]) -> None:
        """Take everything to the end, or to what breaks it; `take` then says so, after all that came before it."""
        problem: Exception | None = None
        try:
            async for chunk in chunks:
                await self.feed(chunk)
        except Exception as error:  # noqa: BLE001 - raised by `take`, to whoever reads
            problem = error
        await self.end(problem)

    async def feed(self, chunk: bytes) -> None:
        """Take a chunk, and wait while too much lies here. Nothing of the chunk is lost when the wait is cancelled."""
        self.bytes_read += len(chunk)
        self._messages.extend(self.reader.feed(chunk))
        async with self._changed:
            self._changed.notify_all()
            await self._changed.wait_for(lambda: len(self._messages) < _ROOM)

    async def end(self, problem: Exception | None) -> None:
        """Say that nothing more comes, and why."""
        self._is_over, self._problem = True, problem
        async with self._changed:
            self._changed.notify_all()

    def reopen(self) -> None:
        """Go on: another channel brings what comes next."""
        self._is_over, self._problem = False, None

    @property
    def problem(self) -> Exception | None:
        """What broke the channel, if anything did."""
        return self._problem

    async def over(self) -> None:
        """Wait until nothing more comes; what was not taken may still lie here."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_over)

    async def take(self) -> Message | None:
        """Return the next message; None at the end. Raises what broke the channel."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._messages or self._is_over)
            self._changed.notify_all()
            if self._messages:
                return self._messages.popleft()
        if self._problem is not None:
            raise self._problem
        return None


class AgentWire:
    """The Wire to an agent. `on_message` sees each message that is received, `on_send` each line before it is sent."""

    def __init__(
        self,
        duplex: Duplex,
        inbox: Inbox,
        *,
        on_message: Callable[[Message], None] = lambda _: None,
        on_send: Callable[[Message, bytes], None] | None = None,
    ) -> None:
        """With `on_send` a lost link does not fail `send`: what it was told will be sent anew."""
        self._duplex = duplex
        self._inbox = inbox
        self._on_message = on_message
        self._on_send = on_send
        self._may_send = asyncio.Event()
        self._may_send.set()

    async def send(self, message: Message) -> None:
        """Send a message. See `Wire.send`; what an agent that has ended does not read is dropped."""
        line = line_of(message)
        await self._may_send.wait()
        if self._on_send is None:
            await self._duplex.write(line)
            return
        self._on_send(message, line)
        with contextlib.suppress(ConnectionLostError):
            await self._duplex.write(line)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let what is sent wait."""
        self._may_send.clear()
        try:
            yield
        finally:
            self._may_send.set()

    async def receive(self) -> Message | None:
        """Return the next message. See `Wire.receive`."""
        message = await self._inbox.take()
        if message is not None:
            self._on_message(message)
        return message

    async def close(self) -> None:
        """Close the agent's stdin: it ends by itself, and saves what it has (OpenCode 1.18)."""
        self._duplex.write_eof()


def _log(line: bytes) -> None:
    logger.debug("skipped a line that is no message: %r", line)
