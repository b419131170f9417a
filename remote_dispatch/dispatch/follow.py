"""Line 7 of the main path: watch a run to its end, over lost connections, without missing or repeating an event."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remote_dispatch.dispatch.hand_over import begin_again
from remote_dispatch.dispatch.journal import journaled
from remote_dispatch.dispatch.life import await_turn
from remote_dispatch.dispatch.report import Report, Step, silent
from remote_dispatch.dispatch.settle import is_idle, settle
from remote_dispatch.dispatch.stages import look, path_of
from remote_dispatch.dispatch.tasks import together
from remote_dispatch.errors import ConnectionLostError, DeadlinePassedError
from remote_dispatch.model import State
from remote_dispatch.runner.events import EventReader, describe
from remote_dispatch.runner.scripts import script

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_dispatch.dispatch.passage import Passage
    from remote_dispatch.model import Dispatch
    from remote_dispatch.remote.connection import Channel, Connection

_END = re.compile(rb"^ended (outcome|lost|gone) (\d+)\s*$", re.MULTILINE)
SILENCE_S = 28.0
"""The host says `alive` every ten seconds; after this long without a word the link counts as lost."""


async def follow(passage: Passage) -> None:
    """Wait until the run ended, and note how. Without waiting, only look.

    Raises DeadlinePassedError when the command's time is over, ConnectionLostError: the work on the host goes on.
    """
    record = passage.record
    if record.request.is_live:
        await await_turn(passage)
    if passage.is_waiting or record.request.is_live:
        async with journaled("follow", record.id, passage.store), passage.waiting():
            await watch(passage, record)
    status = await look(await passage.connection(), record)
    if is_idle(status):
        await begin_again(passage)
        return
    record = passage.update(lambda current: settle(current, status))
    if record.state is State.RUNNING and not passage.is_waiting:
        raise DeadlinePassedError(
            f"dispatch `{record.name}` is still running on {record.host}",
            hint=f"look on with `remote-dispatch logs -f {record.name}`; `collect` without `--no-wait` waits",
        )


async def watch(passage: Passage, record: Dispatch) -> None:
    """Show the events until the follower on the host says that nothing more will come."""

    def show(event: dict[str, Any]) -> None:
        if (progress := describe(event)) is not None:
            passage.report(progress)

    passage.reader = EventReader(offset=passage.reader.offset)
    await watch_events(await passage.connection(), record, passage.reader, show, passage.report)


async def watch_events(
    connection: Connection,
    record: Dispatch,
    reader: EventReader,
    on_event: Callable[[dict[str, Any]], None],
    report: Report = silent,
) -> None:
    """Read the events from the reader's offset to their end. Raises ConnectionLostError."""
    async with connection.open(script("follow"), path_of(record), str(reader.offset)) as channel:
        heard = Heard()
        _, said = await together(
            _read_events(channel, reader, on_event, heard), _read_signs(channel, record.host, report, heard)
        )
    if not _END.search(said):
        raise ConnectionLostError(record.host, "the connection was lost")


@dataclass(slots=True)
class Heard:
    """What came last, on either stream, puts the limit of silence off."""

    limit: asyncio.Timeout | None = None

    def now(self) -> None:
        """Something came."""
        if self.limit is not None and not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time() + SILENCE_S)


async def _read_events(
    channel: Channel, reader: EventReader, on_event: Callable[[dict[str, Any]], None], heard: Heard
) -> None:
    async for chunk in channel.stdout():
        heard.now()
        for event in reader.feed(chunk):
            on_event(event)


async def _read_signs(channel: Channel, host: str, report: Report, heard: Heard) -> bytes:
    """Read the signs of life; keep what may be the last line."""
    tail = b""
    signs = aiter(channel.stderr())
    while True:
        try:
            async with asyncio.timeout(SILENCE_S) as heard.limit:
                tail = (tail + await anext(signs))[-200:]
            report(Step("alive", f"{host} is working"))
        except StopAsyncIteration:
            return tail
        except TimeoutError as error:
            raise ConnectionLostError(host, "no sign of life for half a minute") from error
