"""How many sessions one connection may have at once: ours to begin with, fewer once the host has refused one.

sshd's MaxSessions cannot be asked for. A refused session waits until another one has ended; what is only kept ready,
and SFTP, which holds one for as long as it is open, give theirs away.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    Process = asyncssh.SSHClientProcess[bytes]

_MOST = 8
"""sshd allows ten a connection by default; the rest is for others."""
_PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.4)
_LONGEST_PAUSE_S = 1.0
_PATIENCE_S = 20.0
"""sshd keeps the session of a channel that was closed until its command ends; our own notice within ten seconds."""


class Sessions:
    """The sessions of one connection. `allowed` is how many there may be at once, as far as it is known."""

    def __init__(self, link: asyncssh.SSHClientConnection, give_away: Callable[[], Awaitable[bool]]) -> None:
        """`give_away` closes what is kept ready, or SFTP once nobody uses it, and says whether that freed a session."""
        self._link = link
        self._give_away = give_away
        self._taken = 0
        self._open = 0
        self._waiting: list[asyncio.Future[None]] = []
        self.allowed = _MOST

    @property
    def is_full(self) -> bool:
        """Whether the host has shown its limit, and it is reached."""
        return self.allowed < _MOST and self._taken >= self.allowed

    @property
    def limit(self) -> str:
        """What the host allows, in words."""
        number = "one session at a time" if self.allowed == 1 else f"{self.allowed} sessions at once"
        return f"the host allows {number}"

    @contextlib.asynccontextmanager
    async def start(self, command: str, first: bytes) -> AsyncIterator[Process]:
        """Start a command, with what its stdin begins with, as soon as there is a session for it.

        Raises ChannelOpenError when the host refuses even the only one, or the connection is lost.
        """
        process: Process | None = None
        while process is None:
            await self._take()
            try:
                process = await self._opened(command, first)
                if process is None:
                    self.allowed = max(1, min(self.allowed, self._open))
                    continue
                self._open += 1
                try:
                    yield process
                finally:
                    self._open -= 1
            finally:
                self._give()

    async def try_once(self, command: str, first: bytes) -> Process:
        """Start a command that may as well not be started; `adopted` counts it from when it is needed.

        Its first word comes after three round trips: OpenSSH takes no byte on a channel that runs nothing yet.
        """
        process = await self._link.create_process(command, encoding=None)
        with contextlib.suppress(OSError):
            process.stdin.write(first)
        return process

    @contextlib.contextmanager
    def adopted(self) -> Iterator[None]:
        """Count a session that was opened before it was needed."""
        self._taken += 1
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            self._give()

    async def _take(self) -> None:
        while self._taken >= self.allowed:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            finally:
                self._waiting.remove(turn)
        self._taken += 1

    def _give(self) -> None:
        self._taken -= 1
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)

    async def _opened(self, command: str, first: bytes) -> Process | None:
        """Start it; None when others of ours hold all sessions that the host allows."""
        while (process := await self._tried(command, first, _PAUSES_S)) is None:
            if await self._give_away():
                continue
            return None if self._taken > 1 else await self._patiently(command, first)
        return process

    async def _tried(self, command: str, first: bytes, pauses_s: tuple[float, ...]) -> Process | None:
        """Start a session. sshd frees one a moment after it ended, so a refusal is tried again."""
        for pause_s in pauses_s:
            try:
                return await self.try_once(command, first)
            except asyncssh.ChannelOpenError as error:
                if self._link.is_closed() or error.code == asyncssh.OPEN_REQUEST_SESSION_FAILED:
                    raise
            await asyncio.sleep(pause_s)
        return None

    async def _patiently(self, command: str, first: bytes) -> Process:
        tries = int(_PATIENCE_S / _LONGEST_PAUSE_S)
        if (process := await self._tried(command, first, (_LONGEST_PAUSE_S,) * tries)) is not None:
            return process
        return await self.try_once(command, first)
