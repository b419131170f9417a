"""Line 7 of the main path: watch a run to its end, over lost connections, without missing or repeating an event."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from remote_dispatch.dispatch.report import Report, Step, silent
from remote_dispatch.dispatch.settle import is_idle, settle
from remote_dispatch.dispatch.stages import launch, look, path_of
from remote_dispatch.dispatch.tasks import together
from remote_dispatch.errors import ConnectionLostError, DeadlinePassedError, HostUnreachableError
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
            return await _followed(record, link, store, watch)
    except TimeoutError as error:
        raise DeadlinePassedError(
            f"dispatch `{record.name}` is still running on {record.host}",
            hint=f"the work goes on; wait again with `remote-dispatch wait {record.name}`",
        ) from error


async def _followed(record: Dispatch, link: Link, store: Store, watch: Watch) -> Dispatch:
    """The follower says when to look; what the run directory shows then decides."""

    def remark(*, is_lost: bool) -> None:
        since = datetime.now(UTC) if is_lost else None
        store.update(record.id, lambda current: current.but(unreachable_since=since))

    await until_the_end(record, link, watch, remark)
    status = await look(await link.connection(), record)
    while is_idle(status):
        # Whoever sent it ended before it was launched.
        watch.report(Step("launch", f"{record.host} imports it", record.name))
        await launch(await link.connection(), record)
        watch.end = None
        await until_the_end(record, link, watch, remark)
        status = await look(await link.connection(), record)
    return store.update(record.id, lambda current: settle(current, status))


class Remark(Protocol):
    """Told when the connection is lost, and when it is there again."""

    def __call__(self, *, is_lost: bool) -> None:
        """Note it."""
        ...


def _no_remark(*, is_lost: bool) -> None:
    del is_lost


async def until_the_end(record: Dispatch, link: Link, watch: Watch, remark: Remark = _no_remark) -> None:
    """Read until the follower on the host says that nothing more will come, over as many connections as it takes."""

    def note_unreachable(error: HostUnreachableError) -> None:
        watch.report(Step("unreachable", f"{error.message}; the work there goes on, trying again"))

    connection = await link.connection()
    while watch.end is None:
        try:
            await _watch(connection, record, watch)
        except ConnectionLostError as error:
            note_unreachable(error)
            remark(is_lost=True)
            connection = await link.again(note_unreachable)
            remark(is_lost=False)
            watch.report(Step("note", f"connected to {record.host} again"))


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
