"""Line 7 of the main path: watch a run to its end, over lost connections, without missing or repeating an event."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from remote_dispatch.dispatch.report import Report, Step, silent
from remote_dispatch.dispatch.stages import path_of
from remote_dispatch.dispatch.tasks import together
from remote_dispatch.errors import ConnectionLostError, DeadlinePassedError, HostUnreachableError, TaskFailedError
from remote_dispatch.model import State
from remote_dispatch.runner.events import EventReader, describe
from remote_dispatch.runner.scripts import script

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.store import Store
    from remote_dispatch.model import Dispatch
    from remote_dispatch.remote.connection import Channel, Connection

_END = re.compile(rb"^ended (outcome|lost|gone) (\d+)\s*$", re.MULTILINE)
SILENCE_S = 60.0
"""The host says `alive` every ten seconds; after this long without a word the link counts as lost."""


@dataclass(slots=True)
class Watch:
    """What one follower wants to hear, and has seen so far."""

    on_event: Callable[[dict[str, Any]], None]
    report: Report = silent
    reader: EventReader = field(default_factory=EventReader)
    end: str | None = None


async def follow(
    record: Dispatch, link: Link, store: Store, report: Report, *, timeout_s: float | None = None
) -> Dispatch:
    """Wait until the run ended and return the record as `finished`, or `lost`.

    A lost connection is made anew for as long as it takes: the work does not depend on it. Raises DeadlinePassedError
    after `timeout_s` seconds of waiting; the work goes on.
    """

    def show(event: dict[str, Any]) -> None:
        if (progress := describe(event)) is not None:
            report(progress)

    watch = Watch(show, report)
    try:
        async with asyncio.timeout(timeout_s):
            await until_the_end(record, link, watch, lambda: _remark(record, store))
    except TimeoutError as error:
        raise DeadlinePassedError(
            f"dispatch `{record.name}` is still running on {record.host}",
            hint=f"the work goes on; wait again with `remote-dispatch wait {record.name}`",
        ) from error
    now = datetime.now(UTC)
    if watch.end == "gone":
        raise TaskFailedError(
            f"{record.host}: the run directory of `{record.name}` is gone",
            hint="was it collected from another machine?",
        )
    if watch.end == "lost":
        return store.save(
            record.advance(
                State.LOST, now, kind="lost", detail="the runner was killed: it left no outcome", unreachable_since=None
            )
        )
    return store.save(record.advance(State.FINISHED, now, unreachable_since=None))


async def until_the_end(record: Dispatch, link: Link, watch: Watch, on_lost: Callable[[], None] = lambda: None) -> None:
    """Read until the run ended, over as many connections as it takes. `on_lost` is called once for each loss."""

    def note_unreachable(error: HostUnreachableError) -> None:
        watch.report(Step("unreachable", f"{error.message}; the work there goes on, trying again"))

    connection = await link.connection()
    while watch.end is None:
        try:
            await _watch(connection, record, watch)
        except ConnectionLostError as error:
            note_unreachable(error)
            on_lost()
            connection = await link.again(note_unreachable)


def _remark(record: Dispatch, store: Store) -> None:
    stored = store.load(record.id)
    if stored.unreachable_since is None:
        store.save(stored.but(unreachable_since=datetime.now(UTC)))


async def _watch(connection: Connection, record: Dispatch, watch: Watch) -> None:
    """Read one channel to its end. The events are continued from the last whole line."""
    watch.reader = EventReader(offset=watch.reader.offset)
    async with connection.open(script("follow"), path_of(record), str(watch.reader.offset)) as channel:
        _, said = await together(_read_events(channel, watch), _read_signs(channel, record.host, watch.report))
    if end := _END.search(said):
        watch.end = end[1].decode()
    else:
        raise ConnectionLostError(record.host, "the connection was lost")


async def _read_events(channel: Channel, watch: Watch) -> None:
    async for chunk in channel.stdout():
        for event in watch.reader.feed(chunk):
            watch.on_event(event)


async def _read_signs(channel: Channel, host: str, report: Report) -> bytes:
    """Read the signs of life; keep what may be the last line."""
    tail = b""
    signs = aiter(channel.stderr())
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                tail = (tail + await anext(signs))[-200:]
            report(Step("alive", f"{host} is working"))
        except StopAsyncIteration:
            return tail
        except TimeoutError as error:
            raise ConnectionLostError(host, "no sign of life for a minute") from error
