"""One command's part in a dispatch: what every step of the main path works with."""

from __future__ import annotations

import asyncio
import math
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.link import LONGEST_DELAY_S
from remote_dispatch.dispatch.report import Step
from remote_dispatch.errors import DeadlinePassedError
from remote_dispatch.model import State
from remote_dispatch.runner.events import EventReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from remote_dispatch.dispatch.delivery import Delivery
    from remote_dispatch.dispatch.life import Life
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.report import Report
    from remote_dispatch.dispatch.store import Folder, Store
    from remote_dispatch.errors import ConnectionLostError, HostUnreachableError
    from remote_dispatch.model import Dispatch
    from remote_dispatch.opencode.program import Program
    from remote_dispatch.remote.connection import Connection

PATIENCE_S = 300.0
"""How long a lost connection is made anew while a command has something to move."""
FOLLOWING_PATIENCE_S = 24 * 3600.0
"""The same while it only watches."""
HELD_A_WHILE_S = 10.0


@dataclass(slots=True)
class Losses:
    """A connection that breaks at once is no connection: patience comes back only after one that held a while."""

    began: float = 0.0
    count: int = 0
    last_made: float = -math.inf

    def left_s(self, patience_s: float) -> float:
        """Note a loss and return how long to go on trying."""
        now = time.monotonic()
        if now - self.last_made > HELD_A_WHILE_S:
            self.began, self.count = now, 0
        self.count += 1
        return self.began + patience_s - now

    @property
    def pause_s(self) -> float:
        """How long to wait before the next try: not at all after the first loss."""
        return 0.0 if self.count < 2 else min(0.25 * 2**self.count, LONGEST_DELAY_S) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret

    def made(self) -> None:
        """Note that there is a connection again."""
        self.last_made = time.monotonic()


@dataclass(slots=True)
class Passage:
    """What a command has at hand. Nothing here outlives it: whatever must not be lost is in the store."""

    dispatch_id: str
    link: Link
    store: Store
    program: Program | None
    report: Report
    is_waiting: bool = True
    """Whether to wait for the end of a run."""
    timeout_s: float | None = None
    """How long to wait for it, from the first waiting on."""
    deadline: float | None = None
    """Until when, as `time.monotonic` counts."""
    reader: EventReader = field(default_factory=EventReader)
    """The events that were shown: after a lost connection they go on behind the last one."""
    is_fresh: bool = False
    """Whether this command planned the dispatch itself, a moment ago."""
    is_new_run: bool = False
    """Whether this command launched the run, so that its events are wanted although it may be over already."""
    losses: Losses = field(default_factory=Losses)
    life: Life | None = None
    """What keeps live dispatches on servers."""
    has_recovered: bool = False
    """Whether this command had the host export the session again."""
    delivery: Delivery | None = None
    """What the host said last of the run, and nobody used yet."""

    @property
    def record(self) -> Dispatch:
        """The record as it is now: other commands may look after the same dispatch."""
        return self.store.load(self.dispatch_id)

    @property
    def folder(self) -> Folder:
        """Its files on this machine."""
        return self.store.folder(self.dispatch_id)

    @property
    def is_push_wanted(self) -> bool:
        """Whether the host shall send the result along: this command brings it home, and the connection held so far.

        After a loss it is downloaded file by file: a download can be resumed.
        """
        return self.program is not None and not self.losses.count

    @property
    def is_unseen(self) -> bool:
        """Whether this command launched the run and has shown nothing of it yet."""
        return self.is_new_run and self.reader.offset == 0

    def update(self, change: Callable[[Dispatch], Dispatch]) -> Dispatch:
        """Change the record."""
        return self.store.update(self.dispatch_id, change)

    async def connection(self) -> Connection:
        """The connection to the host."""
        return await self.link.connection()

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Wait for the work on the host, as long as the command has time. Raises DeadlinePassedError."""
        if self.deadline is None and self.timeout_s is not None:
            self.deadline = time.monotonic() + self.timeout_s
        left_s = None if self.deadline is None else self.deadline - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                yield
        except TimeoutError as error:
            raise self._late() from error

    async def reconnect(self, lost: ConnectionLostError) -> None:
        """Connect anew, with a growing delay. Raises HostUnreachableError when patience ends, DeadlinePassedError."""
        record = self.update(lambda current: current.but(unreachable_since=datetime.now(UTC)))

        def note(error: HostUnreachableError) -> None:
            self.report(Step("unreachable", f"{error.message}; nothing is lost, trying again", record.name))

        note(lost)
        patience_s = FOLLOWING_PATIENCE_S if record.state is State.RUNNING else PATIENCE_S
        left_s = self.losses.left_s(patience_s)
        if left_s <= 0:
            raise lost
        async with self.waiting():
            await asyncio.sleep(self.losses.pause_s)
            await self.link.again(note, patience_s=left_s)
        self.losses.made()
        self.update(lambda current: current.but(unreachable_since=None))
        self.report(Step("note", f"connected to {record.host} again", record.name))

    def _late(self) -> DeadlinePassedError:
        record = self.record
        return DeadlinePassedError(
            f"dispatch `{record.name}` is still running on {record.host}",
            hint=f"the work goes on; wait again with `remote-dispatch wait {record.name}`",
        )
