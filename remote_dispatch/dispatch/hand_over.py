"""Lines 5 and 6 of the main path: the files go to the host, and the runner begins."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.journal import journaled
from remote_dispatch.dispatch.memory import give_back
from remote_dispatch.dispatch.report import Step
from remote_dispatch.dispatch.settle import is_idle, needs_begin, settle
from remote_dispatch.dispatch.stages import clean_up, launch, look, stage_each, stage_in, stop
from remote_dispatch.errors import DivergedError, HostNotReadyError, IntegrityError, RemoteDispatchError
from remote_dispatch.model import State
from remote_dispatch.opencode.far import list_far
from remote_dispatch.runner.status import LaunchState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from remote_dispatch.dispatch.passage import Passage
    from remote_dispatch.model import Dispatch
    from remote_dispatch.runner.status import RunStatus

_NOTHING_RAN = "nothing ran there, and the local session is as it was; put the cause right and send it again"


async def hand_over(passage: Passage) -> None:
    """Stage and launch a dispatch that is not known to run. What an earlier try brought there is not sent again.

    Raises HostNotReadyError, IntegrityError or DivergedError when the host cannot begin: then the dispatch has failed,
    nothing ran, and what was copied is removed.
    """
    # The planning is over; from here on the process mostly waits, perhaps for days.
    give_back()
    async with passage.store.held(f"dispatch-{passage.dispatch_id}"):
        record = passage.record
        if record.state.rank > State.STAGING.rank:
            return
        if record.run_directory is None:
            passage.update(_never_sent)
            return
        status = await look(await passage.connection(), record) if record.state is State.STAGING else None
        if status is None or not (status.started or status.outcome is not None):
            status = await _begun(passage, status)
        if status is not None:
            await _note(passage, status)


def _never_sent(record: Dispatch) -> Dispatch:
    """The sender of an earlier version ended before it kept what was to leave."""
    detail = "it never reached the host; nothing ran: send it again"
    return record.advance(State.FAILED, datetime.now(UTC), kind="never-sent", detail=detail, is_cleaned_up=True)


async def begin_again(passage: Passage) -> None:
    """Launch what lies on the host: its runner ended before it began, as after a reboot."""
    async with passage.store.held(f"dispatch-{passage.dispatch_id}"):
        await _note(passage, await _launched(passage))


async def _begun(passage: Passage, seen: RunStatus | None) -> RunStatus | None:
    """None when it was cancelled while the files were on their way."""
    try:
        if seen is None or not seen.exists or is_idle(seen):
            await _check_old_copy(passage, seen)
            async with _staged(passage, is_resumed=seen is not None) as has_parcel:
                status = await _launched_unless_cancelled(passage, has_parcel=has_parcel)
        else:
            status = await _launched_unless_cancelled(passage, has_parcel=False)
    except (HostNotReadyError, IntegrityError, DivergedError) as error:
        if passage.record.state is State.CANCELLED:
            # It was taken away under our hands.
            await _clean_after_cancel(passage)
            return None
        await _abandon(passage, error.kind, error.message)
        raise
    if status is None:
        await _clean_after_cancel(passage)
    return status


async def _launched_unless_cancelled(passage: Passage, *, has_parcel: bool) -> RunStatus | None:
    if passage.record.state is State.CANCELLED:
        return None
    return await _launched(passage, has_parcel=has_parcel)


async def _check_old_copy(passage: Passage, seen: RunStatus | None) -> None:
    """What is deleted there was looked at when the dispatch was planned. Later, it has to be looked at again."""
    record = passage.record
    travel = record.travel
    if passage.is_fresh or travel is None or not travel.replaces or (seen is not None and seen.held == "dead"):
        return
    connection, environment = await passage.connection(), passage.link.host.env or {}
    far = await list_far(connection, travel.opencode or "opencode", travel.session_id, environment)
    if sum(far.messages.values()) not in (0, travel.held_messages):
        raise DivergedError(
            f"{record.host}: the session there has changed since this dispatch was planned",
            hint="nothing ran there; send the session again",
        )


async def _clean_after_cancel(passage: Passage) -> None:
    """It was cancelled while the files were on their way."""
    is_removed = await clean_up(await passage.connection(), passage.record, is_unbegun=True)
    passage.folder.drop_outgoing()
    passage.update(lambda current: current.but(is_cleaned_up=is_removed))


@asynccontextmanager
async def _staged(passage: Passage, *, is_resumed: bool) -> AsyncIterator[bool]:
    """Send the files, and go on when they are on their way: say whether there are any. At the end they are there."""
    record = passage.update(lambda current: current.advance(State.STAGING, datetime.now(UTC)))
    files = passage.folder.outgoing_files()
    if record.state.is_end or not files:
        yield False
        return
    async with AsyncExitStack() as stack:
        async with journaled("stage", record.id, passage.store):
            passage.report(Step("stage", f"copying the session to {record.host} as `{record.name}`", record.name))
            connection = await passage.connection()
            await stack.enter_async_context(stage_in(connection, record, files, is_resumed=is_resumed))
        yield True


async def _launched(passage: Passage, *, has_parcel: bool = False) -> RunStatus:
    record = passage.record
    async with journaled("launch", record.id, passage.store):
        chosen = f"`{record.travel.agent}` with {record.travel.model}" if record.travel else "OpenCode"
        passage.report(Step("launch", f"{record.host} imports it, {chosen} will work on it", record.name))
        connection = await passage.connection()
        launched = await launch(connection, record, has_parcel=has_parcel)
        if launched.state is LaunchState.DAMAGED and (files := passage.folder.outgoing_files()):
            passage.report(
                Step("note", f"not everything arrived whole on {record.host}: copying each file by itself", record.name)
            )
            await stage_each(connection, record, files)
            launched = await launch(connection, record)
        if launched.state is LaunchState.DAMAGED:
            raise IntegrityError(f"{record.host}: a file arrived damaged", hint="nothing ran there; send it again")
        passage.is_new_run = True
        return launched.status


async def _note(passage: Passage, status: RunStatus) -> None:
    """Record what the host does now. Once it is seen at work, nothing has to be sent again."""
    was_cancelled = passage.record.state is State.CANCELLED
    if was_cancelled and status.outcome is None:
        await stop(await passage.connection(), passage.record)
        return
    record = passage.update(lambda current: settle(current, status))
    if (status.started and not needs_begin(record)) or status.outcome is not None:
        passage.folder.drop_outgoing()
    if status.outcome is not None and not status.outcome.is_started:
        await _abandon(passage, record.kind, record.detail)
        raise HostNotReadyError(record.host, record.detail or "the runner ended before it began", hint=_NOTHING_RAN)


async def _abandon(passage: Passage, kind: str | None, why: str | None) -> None:
    """Remove what was copied, since nothing ran. Where that is not sure, the dispatch stays as it is."""
    record = passage.record
    try:
        connection = await passage.connection()
        is_removed = await clean_up(connection, record, is_unbegun=True)
        status = None if is_removed else await look(connection, record)
    except RemoteDispatchError:
        return
    if status is not None and (status.started or status.held == "yes"):
        return
    left = "" if is_removed else f"; the copied files are still there, in {record.run_directory}"
    detail = f"{(why or '').removeprefix(f'{record.host}: ')}{left}"
    now = datetime.now(UTC)
    passage.update(
        lambda current: current.advance(State.FAILED, now, kind=kind, detail=detail, is_cleaned_up=is_removed)
    )
    passage.folder.drop_outgoing()
