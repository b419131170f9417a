"""Line 7 of the main path: watch a run to its end, over lost connections, without missing or repeating an event."""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from remote_dispatch.dispatch.delivery import LIMIT_BYTES, PUSHED_BYTES, Delivery, glance, parse_delivery
from remote_dispatch.dispatch.event_log import event_log
from remote_dispatch.dispatch.hand_over import begin_again
from remote_dispatch.dispatch.journal import journaled
from remote_dispatch.dispatch.life import await_turn
from remote_dispatch.dispatch.report import Report, Step, silent
from remote_dispatch.dispatch.settle import is_idle, settle
from remote_dispatch.dispatch.stages import path_of
from remote_dispatch.dispatch.tasks import together
from remote_dispatch.errors import ConnectionLostError, DeadlinePassedError
from remote_dispatch.model import State
from remote_dispatch.runner.events import EventReader, describe
from remote_dispatch.runner.scripts import script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from remote_dispatch.dispatch.passage import Passage
    from remote_dispatch.model import Dispatch
    from remote_dispatch.remote.connection import Channel, Connection

HEARTBEAT_S = 10
"""So often the host says `alive`: some 55 KB an hour, with all that carries it."""
SILENCE_S = 28.0
"""After this long without a word the link counts as lost. Nothing is asked meanwhile."""
_END = re.compile(rb"^ended (outcome|lost|gone) (\d{1,18})\s*?\n", re.MULTILINE)
_TAIL_BYTES = 200


async def follow(passage: Passage) -> None:
    """Wait until the run ended, and note how. Without waiting, only look.

    What the host sends along is kept for the next step. Raises DeadlinePassedError when the command's time is over,
    ConnectionLostError: the work on the host goes on.
    """
    record = passage.record
    if record.request.is_live:
        await await_turn(passage)
    if passage.is_waiting or record.request.is_live:
        async with journaled("follow", record.id, passage.store), passage.waiting():
            await watch(passage, record)
    status = (await delivered(passage)).status
    if is_idle(status):
        passage.delivery = None
        await begin_again(passage)
        return
    record = passage.update(lambda current: settle(current, status))
    if record.state is State.RUNNING and not passage.is_waiting:
        raise DeadlinePassedError(
            f"dispatch `{record.name}` is still running on {record.host}",
            hint=f"look on with `remote-dispatch logs -f {record.name}`; `collect` without `--no-wait` waits",
        )


async def delivered(passage: Passage) -> Delivery:
    """Return what the host sent at the end of a watch; ask it where there was none.

    A run that this command launched, and that is over already, is watched after all: its events are wanted.
    """
    if passage.delivery is None and passage.is_unseen and passage.record.state is not State.RUNNING:
        async with passage.waiting():
            await watch(passage, passage.record)
    if passage.delivery is None:
        connection = await passage.connection()
        passage.delivery = await glance(connection, passage.record, is_result_wanted=passage.is_push_wanted)
    return passage.delivery


async def watch(passage: Passage, record: Dispatch) -> None:
    """Show the events until the follower on the host says that nothing more will come, and keep what it says then."""

    def show(event: dict[str, Any]) -> None:
        if (progress := describe(event)) is not None:
            passage.report(progress)

    passage.delivery = None
    passage.reader = EventReader(offset=passage.reader.offset)
    with event_log(passage.folder, passage.reader.offset) as log:
        said = await watch_events(
            await passage.connection(),
            record,
            passage.reader,
            show,
            passage.report,
            limit_bytes=PUSHED_BYTES if passage.is_push_wanted else 0,
            on_bytes=log.write,
        )
        try:
            passage.delivery = parse_delivery(said, record.id)
        except ValueError:
            return
        log.complete(passage.delivery.status)


async def watch_events(
    connection: Connection,
    record: Dispatch,
    reader: EventReader,
    on_event: Callable[[dict[str, Any]], None],
    report: Report = silent,
    *,
    limit_bytes: int | None = None,
    on_bytes: Callable[[bytes], None] | None = None,
) -> bytes:
    """Read the events from the reader's offset to their end. Raises ConnectionLostError.

    `on_bytes` gets them as they come. With a limit, returns what the host says of the run behind their end, with files
    of at most so many bytes together: see `parse_delivery`.
    """
    limit = () if limit_bytes is None else (str(limit_bytes),)
    values = (path_of(record), str(reader.offset), str(HEARTBEAT_S), *limit)
    async with connection.open(script("follow"), *values) as channel:
        signs = _Signs(record.host, report)
        with _resting(connection):
            await together(_read_events(channel, reader, on_event, on_bytes, signs), signs.read(channel))
    if signs.behind is None:
        raise ConnectionLostError(record.host, "the connection was lost")
    return bytes(signs.behind)


@contextmanager
def _resting(connection: Connection) -> Iterator[None]:
    """Have the connection ask for no sign of life: the follower gives them."""
    connection.rest(is_resting=True)
    try:
        yield
    finally:
        connection.rest(is_resting=False)


async def _read_events(
    channel: Channel,
    reader: EventReader,
    on_event: Callable[[dict[str, Any]], None],
    on_bytes: Callable[[bytes], None] | None,
    signs: _Signs,
) -> None:
    async for chunk in channel.stdout():
        signs.came()
        if on_bytes is not None:
            on_bytes(chunk)
        for event in reader.feed(chunk):
            on_event(event)


@dataclass(slots=True)
class _Signs:
    """The follower's second stream: signs of life, the line that it is over, and what comes behind it."""

    host: str
    report: Report
    limit: asyncio.Timeout | None = None
    behind: bytearray | None = None
    """What came behind the last line; None before it. Nothing of it when it is more than was asked for."""
    _tail: bytes = field(default=b"")
    _is_too_much: bool = False

    def came(self) -> None:
        """Put the limit of silence off: something came, on whichever stream."""
        if self.limit is not None and not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time() + SILENCE_S)

    async def read(self, channel: Channel) -> None:
        """Read to the end. Raises ConnectionLostError after a long silence."""
        chunks = aiter(channel.stderr())
        while True:
            try:
                async with asyncio.timeout(SILENCE_S) as self.limit:
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                # The other stream may go on for a moment: no limit is left to put off.
                self.limit = None
                return
            except TimeoutError as error:
                raise ConnectionLostError(self.host, "no sign of life for half a minute") from error
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        if self.behind is not None:
            self._keep(chunk)
            return
        self._tail += chunk
        end = _END.search(self._tail)
        if end is None:
            self._tail = self._tail[-_TAIL_BYTES:]
            self.report(Step("alive", f"{self.host} is working"))
            return
        self.behind = bytearray()
        self._keep(self._tail[end.end() :])

    def _keep(self, chunk: bytes) -> None:
        assert self.behind is not None
        self._is_too_much |= len(self.behind) + len(chunk) > LIMIT_BYTES
        if self._is_too_much:
            self.behind.clear()
        else:
            self.behind += chunk
