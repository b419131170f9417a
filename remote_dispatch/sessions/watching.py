"""Watching one turn to its end: requests are put to somebody, and what would never end is aborted."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.tasks import as_itself
from remote_dispatch.errors import TurnFailedError
from remote_dispatch.failure import Failure
from remote_dispatch.opencode.api import NoSuchSessionError
from remote_dispatch.sessions.happening import Changed, Gone, Happened, LinkLost, ToolChanged
from remote_dispatch.sessions.monitor import AWAY, Monitor
from remote_dispatch.sessions.reading import read
from remote_dispatch.sessions.values import Phase
from remote_dispatch.transcript.shape import mapping, state_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.sessions.happening import Update
    from remote_dispatch.sessions.prompt import Sent
    from remote_dispatch.sessions.values import Reading, Standing

LOOK_S = 1.0
"""How often silence is looked for, at most."""
GRACE_S = 0.5
"""A request may be answered by somebody else at once."""
ABORT_AGAIN_S = 15.0
MOST_ABORTS = 3
_TASK = "task"
"""The tool that waits for a sub-agent: what that one does is what counts."""


class Watching:
    """One turn that is followed; made for one use."""

    def __init__(
        self,
        api: Api,
        session_id: str,
        directory: str,
        sent: Sent | None,
        idle_timeout_s: float | None,
        tell: Callable[[Update], None],
        answer: Callable[[Reading], Awaitable[bool]] | None,
    ) -> None:
        self._api = api
        self._session_id = session_id
        self._directory = directory
        self._idle_timeout_s = idle_timeout_s
        self._tell = tell
        self._answer = answer
        self._monitor = Monitor(api)
        self._monitor.add(session_id, directory, sent.message_id if sent else None, began_s=sent.at_s if sent else 0.0)
        self._calls: set[str] = set()
        self._last: Changed | None = None
        self._aborts = 0

    async def to_the_end(self) -> tuple[Standing, Reading]:
        """Follow it until it has ended, or waits for somebody who does not answer."""
        with as_itself():
            async with asyncio.TaskGroup() as group:
                guard = group.create_task(self._guard())
                await self._follow()
                guard.cancel()
        assert self._last is not None, "a session leaves the monitor after it was read"
        return self._last.standing, self._last.reading

    async def _follow(self) -> None:
        async with aclosing(self._monitor.updates()) as updates:
            async for update in updates:
                self._tell(update)
                if await self._take(update):
                    return

    async def _take(self, update: Update) -> bool:
        """Act on an update; return whether that was the last one."""
        match update:
            case Changed():
                self._last = update
                return await self._changed(update.standing, update.reading)
            case Happened(what=ToolChanged() as what) if what.tool != _TASK:
                (self._calls.add if what.status == "running" else self._calls.discard)(what.call_id)
            case LinkLost():
                self._calls.clear()
            case Gone():
                raise NoSuchSessionError(f"{self._api.name}: the session was deleted while its turn was followed")
        return False

    async def _changed(self, standing: Standing, reading: Reading) -> bool:
        if standing.is_over:
            return True
        if standing.must_abort and self._aborts == 0:
            await self._abort()
        return standing.phase is Phase.WAITING and await self._is_left_waiting(reading)

    async def _is_left_waiting(self, seen: Reading) -> bool:
        """Put what still waits to whoever answers; when the connection breaks meanwhile, at the next look."""
        await asyncio.sleep(GRACE_S)
        try:
            reading = await read(self._api, self._session_id, self._directory)
        except AWAY:
            self._monitor.tell_again(self._session_id)
            return False
        if not {one.id for one in seen.requests} & {one.id for one in reading.requests}:
            return False
        return self._answer is None or not await self._answer(reading)

    async def _guard(self) -> None:
        """Abort what gives no sign of life, and what was aborted once more when that did not help."""
        silent_s = aborted_s = 0.0
        while True:
            step_s = min(LOOK_S, (self._idle_timeout_s or LOOK_S) / 4)
            await asyncio.sleep(step_s)
            aborted_s = aborted_s + step_s if self._aborts else 0.0
            silent_s = 0.0 if self._is_excused() else silent_s + step_s
            if aborted_s >= ABORT_AGAIN_S:
                aborted_s = 0.0
                await self._abort()
            elif not self._aborts and (blame := self._blame(min(silent_s, self._quiet_s()))) is not None:
                self._monitor.blame(self._session_id, *blame)
                await self._abort()

    def _is_excused(self) -> bool:
        """Whether silence means nothing: a tool runs, somebody has to answer, or OpenCode waits for its provider."""
        standing = self._last.standing if self._last else None
        if self._last is None or standing is None:
            return False
        is_running = bool(self._calls) or any(_running_calls(self._last.reading))
        return is_running or standing.phase is Phase.WAITING or standing.phase is Phase.RETRYING

    def _quiet_s(self) -> float:
        return self._monitor.quiet_s(self._session_id)

    def _blame(self, quiet_s: float) -> tuple[Failure, str] | None:
        """Why the turn is to be aborted; None while it may go on."""
        if self._idle_timeout_s is None:
            return None
        pause_s = self._pause_s()
        if pause_s > self._idle_timeout_s and self._last:
            failure = self._last.standing.failure or Failure.RATE_LIMITED
            return failure, f"the provider is to be asked again only in {_span(pause_s)}; the turn was aborted"
        if quiet_s < self._idle_timeout_s:
            return None
        return Failure.TIMEOUT, f"no sign of life for {_span(self._idle_timeout_s)}; the turn was aborted"

    def _pause_s(self) -> float:
        """How long OpenCode waits, from now, before it tries the provider again."""
        status = self._last.standing.status if self._last else None
        if self._last is None or status is None or status.next_ms is None:
            return 0.0
        reading = self._last.reading
        return (status.next_ms - reading.now_ms - reading.server_offset_ms) / 1000

    async def _abort(self) -> None:
        if self._aborts >= MOST_ABORTS:
            raise TurnFailedError(
                Failure.TIMEOUT,
                f"{self._api.name}: the turn was aborted, and OpenCode does not end it",
                hint=f"see how its server is with `remote-dispatch session server status {self._api.name}`",
            )
        with suppress(*AWAY):
            await self._api.abort(self._session_id)
            self._aborts += 1


def _running_calls(reading: Reading) -> Iterator[str]:
    last = reading.messages[-1] if reading.messages else {}
    parts = last.get("parts")
    for part in map(mapping, parts if isinstance(parts, list) else ()):
        if part.get("tool") != _TASK and state_of(part).get("status") == "running":
            yield str(part.get("callID"))


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
