"""Lines 5 and 6 of the main path: the files go to the host, and the runner begins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.journal import journaled
from remote_dispatch.dispatch.report import Step
from remote_dispatch.dispatch.settle import is_idle, settle
from remote_dispatch.dispatch.stages import clean_up, launch, look, stage_in, stop
from remote_dispatch.errors import HostNotReadyError, IntegrityError, RemoteDispatchError
from remote_dispatch.model import State
from remote_dispatch.runner.status import LaunchState

if TYPE_CHECKING:
    from remote_dispatch.dispatch.passage import Passage
    from remote_dispatch.model import Dispatch
    from remote_dispatch.runner.status import RunStatus

_NOTHING_RAN = "nothing ran there, and the local session is as it was; put the cause right and send it again"


async def hand_over(passage: Passage) -> None:
    """Stage and launch a dispatch that is not known to run. What an earlier try brought there is not sent again.

    Raises HostNotReadyError or IntegrityError when the host cannot begin: then the dispatch has failed, nothing ran,
    and what was copied is removed.
    """
    async with passage.store.held(f"dispatch-{passage.dispatch_id}"):
        record = passage.record
        if record.state.rank > State.STAGING.rank:
            return
        try:
            status = await _begin(passage, record)
        except (HostNotReadyError, IntegrityError) as error:
            await _abandon(passage, error.kind, error.message)
            raise
        if status is not None:
            await _note(passage, status)


async def begin_again(passage: Passage) -> None:
    """Launch what lies on the host: its runner ended before it began, as after a reboot."""
    passage.update(lambda current: current.but(unreachable_since=None))
    async with passage.store.held(f"dispatch-{passage.dispatch_id}"):
        await _note(passage, await _launched(passage))


async def _begin(passage: Passage, record: Dispatch) -> RunStatus | None:
    status = await look(await passage.connection(), record) if record.state is State.STAGING else None
    if status is not None and (status.started or status.outcome is not None):
        return status
    if status is None or not status.exists or is_idle(status):
        await _stage(passage, is_resumed=status is not None)
    if passage.record.state is State.CANCELLED:
        await _clean_after_cancel(passage)
        return None
    return await _launched(passage)


async def _clean_after_cancel(passage: Passage) -> None:
    """It was cancelled while the files were on their way."""
    is_removed = await clean_up(await passage.connection(), passage.record)
    passage.folder.drop_outgoing()
    passage.update(lambda current: current.but(is_cleaned_up=is_removed))


async def _stage(passage: Passage, *, is_resumed: bool) -> None:
    record = passage.update(lambda current: current.advance(State.STAGING, datetime.now(UTC)))
    files = passage.folder.outgoing_files()
    if record.state.is_end or not files:
        return
    async with journaled("stage", record.id, passage.store):
        passage.report(Step("stage", f"copying the session to {record.host} as `{record.name}`", record.name))
        await stage_in(await passage.connection(), record, files, is_resumed=is_resumed)


async def _launched(passage: Passage) -> RunStatus:
    record = passage.record
    async with journaled("launch", record.id, passage.store):
        chosen = f"`{record.travel.agent}` with {record.travel.model}" if record.travel else "OpenCode"
        passage.report(Step("launch", f"{record.host} imports it, {chosen} will work on it", record.name))
        connection = await passage.connection()
        state = await launch(connection, record)
        if state is LaunchState.DAMAGED and (files := passage.folder.outgoing_files()):
            passage.report(Step("note", f"a file arrived damaged on {record.host}: copying anew", record.name))
            await stage_in(connection, record, files, is_resumed=False)
            state = await launch(connection, record)
        if state is LaunchState.DAMAGED:
            raise IntegrityError(f"{record.host}: a file arrived damaged", hint="nothing ran there; send it again")
        passage.is_new_run = True
        return await look(connection, record)


async def _note(passage: Passage, status: RunStatus) -> None:
    """Record what the host does now. Once it is seen at work, nothing has to be sent again."""
    was_cancelled = passage.record.state is State.CANCELLED
    if was_cancelled and status.outcome is None:
        await stop(await passage.connection(), passage.record)
        return
    record = passage.update(lambda current: settle(current, status))
    if status.started or status.outcome is not None:
        passage.folder.drop_outgoing()
    if status.outcome is not None and not status.outcome.is_started:
        await _abandon(passage, record.kind, record.detail)
        raise HostNotReadyError(record.host, record.detail or "the runner ended before it began", hint=_NOTHING_RAN)


async def _abandon(passage: Passage, kind: str | None, why: str | None) -> None:
    """Remove what was copied, since nothing ran; otherwise the record says where it is."""
    record = passage.record
    try:
        is_removed = await clean_up(await passage.connection(), record)
    except RemoteDispatchError:
        is_removed = False
    left = "" if is_removed else f"; the copied files are still there, in {record.run_directory}"
    detail = f"{(why or '').removeprefix(f'{record.host}: ')}{left}"
    now = datetime.now(UTC)
    passage.update(
        lambda current: current.advance(State.FAILED, now, kind=kind, detail=detail, is_cleaned_up=is_removed)
    )
    passage.folder.drop_outgoing()
