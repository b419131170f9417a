"""One watcher for all sessions of a server: its events wake, reading decides.

An event is believed only as a reason to look; a broken or silent stream is opened anew, and then everything is read.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from remote_dispatch.errors import HostNotReadyError, HostUnreachableError
from remote_dispatch.opencode.api import NoSuchSessionError, RefusedError
from remote_dispatch.sessions.gate import Gate
from remote_dispatch.sessions.happening import Changed, Gone, LinkBack, LinkLost
from remote_dispatch.sessions.reading import read
from remote_dispatch.sessions.story import Story, is_decisive
from remote_dispatch.sessions.values import Phase
from remote_dispatch.transcript.shape import mapping

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine

    from remote_dispatch.failure import Failure
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Event
    from remote_dispatch.sessions.happening import Update
    from remote_dispatch.sessions.values import Reading, Standing

READ_EVERY_S = {Phase.STARTING: 0.5, Phase.ENDING: 0.12, Phase.IDLE: 60.0, Phase.ENDED: 60.0}
"""How long after a reading, and LEAST_GAP_S, the next one is made when no event asks for one."""
READ_BUSY_EVERY_S = 10.0
"""Events tell what happens; this is for the one that was lost. Twenty sessions read so cost 4 % of a core."""
LEAST_GAP_S = 0.15
"""Events come in bursts."""
READINGS_AT_ONCE = 4
LONGEST_DELAY_S = 15.0
REFUSALS = 3
"""A server that refuses to show a session is asked again so often."""
AWAY = (HostUnreachableError, HostNotReadyError)
"""What a server that is started anew meanwhile looks like from here."""
DISPOSED = frozenset({"server.instance.disposed", "global.disposed"})


@dataclass(slots=True)
class _Watched:
    directory: str
    message_id: str | None
    gate: Gate
    story: Story
    stays: bool
    life_s: float
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    picture: tuple[object, ...] = ()
    standing: Standing | None = None
    refusals: int = 0


class Monitor:
    """Watches sessions of one server. `updates` is iterated by one consumer, inside `contextlib.aclosing`."""

    def __init__(
        self,
        api: Api,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._clock = clock
        self._sleep = sleep
        self._watched: dict[str, _Watched] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._queue: asyncio.Queue[Update | BaseException | None] = asyncio.Queue()
        self._connected = asyncio.Event()
        self._readings = asyncio.Semaphore(READINGS_AT_ONCE)
        self._is_running = False

    def add(
        self,
        session_id: str,
        directory: str,
        message_id: str | None = None,
        *,
        began_s: float = 0.0,
        stays: bool = False,
    ) -> None:
        """Watch a session from now on; at any time, again with another message too.

        `message_id` is the prompt whose turn is meant, `began_s` when it was sent; None takes the last turn. A session
        leaves by itself once its turn has ended, unless it `stays`.
        """
        self.remove(session_id)
        story, gate = Story(session_id, message_id), Gate(message_id, began_s=began_s)
        self._watched[session_id] = _Watched(directory, message_id, gate, story, stays, self._clock())
        if self._is_running:
            self._begin(session_id, self._attend(session_id))

    def remove(self, session_id: str) -> None:
        """Watch a session no longer."""
        self._watched.pop(session_id, None)
        if task := self._tasks.pop(session_id, None):
            task.cancel()
        self._queue.put_nowait(None)

    def blame(self, session_id: str, failure: Failure, detail: str) -> None:
        """Say why the caller aborts the turn: its end is called so, and not `aborted`."""
        if watched := self._watched.get(session_id):
            watched.gate.blame(failure, detail)

    def tell_again(self, session_id: str) -> None:
        """Read it anew, and tell how it stands although nothing has changed."""
        if watched := self._watched.get(session_id):
            watched.picture, watched.standing = (), None
            watched.wake.set()

    def quiet_s(self, session_id: str) -> float:
        """How long, in seconds, there was no sign of life: no event of the session or its sub-agents', no new picture.

        Nothing is known of a server that does not answer: 0 then.
        """
        watched = self._watched.get(session_id)
        return self._clock() - watched.life_s if watched and self._connected.is_set() else 0.0

    async def updates(self) -> AsyncGenerator[Update, None]:
        """Yield what happens until nothing is left to watch.

        A server that cannot be reached is waited for without an end. Raises AuthenticationError and RefusedError.
        """
        self._is_running = True
        self._begin("", self._listen())
        for session_id in self._watched:
            self._begin(session_id, self._attend(session_id))
        try:
            while self._watched or not self._queue.empty():
                update = await self._queue.get()
                if isinstance(update, BaseException):
                    raise update
                if update is not None:
                    yield update
        finally:
            self._is_running = False
            tasks = list(self._tasks.values())
            self._tasks.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # --- tasks

    def _begin(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[key] = asyncio.create_task(work)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A fault of a task is the consumer's to hear."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._queue.put_nowait(error)

    async def _listen(self) -> None:
        """Keep the event stream open."""
        delay_s, is_lost = 0.5, False
        while True:
            try:
                async for event in self._api.events():
                    if not self._connected.is_set():
                        self._connect(is_back=is_lost)
                        delay_s, is_lost = 0.5, False
                    self._hear(event)
            except AWAY as error:
                self._disconnect()
                if not is_lost:
                    is_lost = True
                    self._queue.put_nowait(LinkLost(datetime.now(UTC), error.message))
            await self._sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            delay_s = min(delay_s * 2, LONGEST_DELAY_S)

    def _connect(self, *, is_back: bool) -> None:
        self._connected.set()
        if is_back:
            self._queue.put_nowait(LinkBack())
        for watched in self._watched.values():
            watched.life_s = self._clock()
            watched.wake.set()

    def _disconnect(self) -> None:
        self._connected.clear()
        for watched in self._watched.values():
            watched.story.lost()

    def _hear(self, event: Event) -> None:
        is_disposed = event.type in DISPOSED
        for session_id, watched in self._watched.items():
            if is_disposed:
                watched.wake.set()
            elif watched.story.concerns(event):
                watched.life_s = self._clock()
                for happened in watched.story.event(event, self._clock()):
                    self._queue.put_nowait(happened)
                if event.type == "session.error" and event.session_id == session_id:
                    watched.gate.heard(mapping(event.properties.get("error")))
                if is_decisive(event):
                    watched.wake.set()

    async def _attend(self, session_id: str) -> None:
        """Read one session whenever there is reason to, until its turn has ended."""
        watched = self._watched[session_id]
        while session_id in self._watched:
            await self._connected.wait()
            watched.wake.clear()
            try:
                async with self._readings:
                    reading = await read(self._api, session_id, watched.directory, message_id=watched.message_id)
            except NoSuchSessionError:
                self._leave(session_id, Gone(session_id))
                return
            except AWAY:
                await self._sleep(1.0)
                continue
            except RefusedError:
                watched.refusals += 1
                if watched.refusals >= REFUSALS:
                    raise
                await self._sleep(1.0)
                continue
            if self._take(session_id, watched, reading):
                return
            await self._sleep(LEAST_GAP_S)
            await self._pause(watched)

    def _take(self, session_id: str, watched: _Watched, reading: Reading) -> bool:
        """Tell what a reading shows; return whether the session is watched no longer."""
        watched.refusals = 0
        standing = watched.gate.judge(reading)
        for happened in watched.story.reading(reading):
            self._queue.put_nowait(happened)
        picture = picture_of(reading)
        if picture != watched.picture:
            watched.life_s = self._clock()
        is_over = standing.is_over and not watched.stays
        changed = Changed(session_id, standing, reading)
        if is_over:
            self._leave(session_id, changed)
        elif picture != watched.picture or standing != watched.standing:
            self._queue.put_nowait(changed)
        watched.picture, watched.standing = picture, standing
        return is_over

    def _leave(self, session_id: str, update: Update) -> None:
        self._watched.pop(session_id, None)
        self._tasks.pop(session_id, None)
        self._queue.put_nowait(update)

    async def _pause(self, watched: _Watched) -> None:
        """Wait for an event that asks for a reading, or until the next one is due."""
        phase = watched.standing.phase if watched.standing else Phase.STARTING
        due = asyncio.ensure_future(self._sleep(READ_EVERY_S.get(phase, READ_BUSY_EVERY_S)))
        woken = asyncio.ensure_future(watched.wake.wait())
        try:
            await asyncio.wait({due, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            due.cancel()
            woken.cancel()


def picture_of(reading: Reading) -> tuple[object, ...]:
    """Return what of a reading has to stay the same for it to be the same picture."""
    last = reading.messages[-1] if reading.messages else {}
    parts = last.get("parts")
    return (
        reading.session.updated_ms,
        reading.session.usage,
        reading.status,
        tuple(one.id for one in reading.requests),
        reading.todos,
        tuple((one.id, one.updated_ms) for one in reading.descendants),
        hash(repr(last.get("info"))),
        len(reading.messages),
        hash(repr(parts)),
    )
