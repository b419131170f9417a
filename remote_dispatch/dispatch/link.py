"""One SSH connection per dispatch: opened once, shared by its steps, opened anew after a loss."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol, Self

from remote_dispatch.errors import HostUnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection

LONGEST_DELAY_S = 30.0


class Connect(Protocol):
    """How a connection is opened: `remote.ssh.connect`, or another way in for tests."""

    def __call__(self, host: Host) -> AbstractAsyncContextManager[Connection]:
        """Open a connection to this host, and close it at the end."""
        ...


class Link:
    """The connection to one host. Leaving the context closes it."""

    def __init__(
        self, host: Host, connect: Connect, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.host = host
        self._connect = connect
        self._sleep = sleep
        self._stack = AsyncExitStack()
        self._opening: asyncio.Task[Connection] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drop()

    def begin(self) -> None:
        """Open the connection in the background. Calling it again does nothing; what fails, `connection` tells."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._stack.enter_async_context(self._connect(self.host)))
            self._opening.add_done_callback(_look_at)

    async def connection(self) -> Connection:
        """Return the open connection; open it first where there is none.

        What failed in the background is raised here and not tried again at once: no host shall see two failed logins
        of one command. The next call opens it anew.
        """
        self.begin()
        opening = self._opening
        assert opening is not None
        try:
            return await asyncio.shield(opening)
        finally:
            if self._opening is opening and _has_failed(opening):
                self._opening = None

    async def drop(self) -> None:
        """Forget a broken connection; the next call of `connection` opens a new one."""
        opening, self._opening = self._opening, None
        if opening is not None and not opening.done():
            opening.cancel()
            await asyncio.wait([opening])
        await self._stack.aclose()

    async def again(self, on_failure: Callable[[HostUnreachableError], None], *, patience_s: float) -> Connection:
        """Connect anew until it works, with a growing, jittered delay.

        Raises the last HostUnreachableError once `patience_s` seconds have passed.
        """
        await self.drop()
        delay_s, end = 0.5, time.monotonic() + patience_s
        while True:
            try:
                return await self.connection()
            except HostUnreachableError as error:
                on_failure(error)
                if time.monotonic() > end:
                    raise
            await self._sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)


def _has_failed(opening: asyncio.Task[Connection]) -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)


def _look_at(opening: asyncio.Task[Connection]) -> None:
    """Retrieve an exception: nobody may ask for the connection any more."""
    if not opening.cancelled():
        opening.exception()
