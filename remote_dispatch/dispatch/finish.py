"""Lines 8 to 11 of the main path: from a run that ended to a result that is proved to be home."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from remote_dispatch.dispatch.code_home import bring_code
from remote_dispatch.dispatch.collect import fetch, fetch_log
from remote_dispatch.dispatch.follow import delivered, watch
from remote_dispatch.dispatch.home import Homecoming, describe_refusals, merge
from remote_dispatch.dispatch.journal import journaled
from remote_dispatch.dispatch.life import await_quiet
from remote_dispatch.dispatch.report import Step
from remote_dispatch.dispatch.settle import (
    NEVER_BEGAN,
    is_code_due,
    is_code_there,
    is_collected,
    is_recoverable,
    settle,
)
from remote_dispatch.dispatch.stages import clean_up, recover
from remote_dispatch.errors import ConfigurationError, ConnectionLostError, DeadlinePassedError, RemoteDispatchError
from remote_dispatch.model import Collected, Dispatch, State

if TYPE_CHECKING:
    from remote_dispatch.dispatch.collect import Back
    from remote_dispatch.dispatch.passage import Passage
    from remote_dispatch.runner.outcome import Outcome
    from remote_dispatch.runner.status import RunStatus


async def bring_home(passage: Passage) -> bool:
    """Do the next thing that brings the result home; False when nothing more can be brought.

    Raises IntegrityError when a copy is not equal to its source: then both are kept, and the next call begins anew.
    """
    if is_collected(passage.record):
        # What is there only keeps the host from being cleaned up.
        return await bring_code(passage) and not is_code_there(passage.record) and await _release(passage)
    status = (await delivered(passage)).status
    record = passage.update(lambda current: settle(current, status))
    if is_recoverable(status) or status.is_recovering:
        return await _recover(passage, status)
    if status.outcome is not None and status.outcome.back_sha256 is not None:
        await _collect(passage, record, status.outcome)
        return True
    if status.outcome is not None and is_code_due(record):
        await bring_code(passage)
    elif status.exists and not status.started and not record.is_cleaned_up:
        await _release(passage)
    elif not status.exists and record.kind in NEVER_BEGAN:
        passage.update(lambda current: current.but(is_cleaned_up=True))
    return False


async def _recover(passage: Passage, status: RunStatus) -> bool:
    """The run left no result: OpenCode there is asked again for what it has, once. Its own end is waited for."""
    record = passage.record
    if passage.has_recovered:
        return False
    if status.is_opencode_alive and not passage.is_waiting:
        raise DeadlinePassedError(
            f"the runner of `{record.name}` was killed, but OpenCode still works on {record.host}",
            hint=f"`remote-dispatch collect {record.name}` waits for it, `cancel` ends it",
        )
    async with journaled("recover", record.id, passage.store), passage.waiting():
        await await_quiet(passage)
        passage.report(Step("collect", f"{record.host} exports what OpenCode there has of it", record.name))
        await recover(await passage.connection(), record)
        await watch(passage, record)
    passage.has_recovered = True
    return True


async def _collect(passage: Passage, record: Dispatch, outcome: Outcome) -> None:
    """Alone with the local session, until all of it is proved to be there."""
    async with passage.store.held(record.session_id or record.id):
        record = passage.record
        if is_collected(record):
            return
        try:
            back = await _fetched(passage, record, outcome)
            homecoming = await _merged(passage, record, back)
        except OSError as error:
            raise ConfigurationError(
                f"this machine: {(error.strerror or type(error).__name__).lower()}",
                hint=_safe(record),
            ) from error
        finally:
            passage.folder.clear_scratch()
        async with journaled("judge", record.id, passage.store):
            passage.update(lambda current: _judged(current, homecoming, outcome))


async def _fetched(passage: Passage, record: Dispatch, outcome: Outcome) -> Back:
    async with journaled("fetch", record.id, passage.store):
        passage.report(Step("collect", f"bringing the result from {record.host}", record.name))
        return await fetch(await passage.connection(), record, passage.folder, outcome, passage.delivery)


async def _merged(passage: Passage, record: Dispatch, back: Back) -> Homecoming:
    """Merge; whatever fails on this machine, the error says where the result is."""
    assert passage.program is not None
    async with journaled("merge", record.id, passage.store):
        passage.report(Step("merge", "merging it into the local session", record.name))
        try:
            return await merge(record, back, passage.folder, passage.program)
        except ConnectionLostError:
            raise
        except RemoteDispatchError as error:
            error.hint = f"{error.hint}; {_safe(record)}" if error.hint else _safe(record)
            raise


def _safe(record: Dispatch) -> str:
    return f"the result is safe on {record.host}; try again with `remote-dispatch collect {record.name}`"


def _judged(record: Dispatch, homecoming: Homecoming, outcome: Outcome) -> Dispatch:
    verdict = homecoming.verdict
    end = State.DONE if verdict.kind is None else State.FAILED
    if outcome.problem == "terminated":
        end = State.CANCELLED
    warnings = (
        *record.warnings,
        *homecoming.warnings,
        *verdict.warnings,
        *describe_refusals(verdict),
        *_other_choice(record, homecoming),
        *_left_behind(record, outcome),
    )
    changes: dict[str, Any] = {
        "kind": None if end is State.DONE else verdict.kind or outcome.problem,
        "detail": None if end is State.DONE else verdict.detail,
    }
    if record.state in (State.LOST, State.FAILED):
        changes = {"detail": _after_all(outcome, homecoming)}
    return record.advance(
        end,
        datetime.now(UTC),
        **changes,
        collected=_collected(homecoming, outcome),
        stays_there=homecoming.is_partial,
        session_id=record.session_id or homecoming.session_id,
        copy_session_id=homecoming.session_id if homecoming.is_copy else None,
        new_messages=homecoming.new_messages,
        last_message_id=homecoming.last_message_id,
        answer=verdict.answer,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _collected(homecoming: Homecoming, outcome: Outcome) -> Collected:
    """What a killed runner left may not be all that was meant to be."""
    if outcome.problem == "lost" or homecoming.is_partial:
        return Collected.PARTIAL
    return Collected.COPY if homecoming.is_copy else Collected.WHOLE


def _after_all(outcome: Outcome, homecoming: Homecoming) -> str:
    """Why it ended as it did, now that what there is came home."""
    if outcome.problem != "lost":
        return homecoming.verdict.detail or "OpenCode there could not export the session at first; it is home now"
    if homecoming.new_messages == 0:
        return "the runner was killed on the host before OpenCode began: nothing ran there"
    return "the runner was killed on the host; what OpenCode there had stored by then is home"


def _left_behind(record: Dispatch, outcome: Outcome) -> tuple[str, ...]:
    count = outcome.left_processes or 0
    if count < 1:
        return ()
    what = "1 process that the task started still runs" if count == 1 else f"{count} processes of the task still run"
    return (f"{what} on {record.host}",)


def _other_choice(record: Dispatch, homecoming: Homecoming) -> tuple[str, ...]:
    """Read back which agent and model answered: OpenCode falls back in silence."""
    verdict, travel = homecoming.verdict, record.travel
    if travel is None:
        return ()
    pairs = (("agent", travel.agent, verdict.agent), ("model", travel.model, verdict.model))
    return tuple(
        f"{what} `{used}` answered instead of `{asked}`" for what, asked, used in pairs if used not in (None, asked)
    )


async def _release(passage: Passage) -> bool:
    """Remove the run directory: everything in it is proved to be home, or nothing ran. A failure costs only space."""
    record = passage.record
    async with journaled("release", record.id, passage.store):
        try:
            connection = await passage.connection()
            if is_collected(record):
                await fetch_log(connection, record, passage.folder, passage.delivery)
            is_removed = await clean_up(connection, record)
        except (RemoteDispatchError, OSError):
            is_removed = False
        passage.update(lambda current: _cleaned(current, is_removed=is_removed))
    return is_removed


def _cleaned(record: Dispatch, *, is_removed: bool) -> Dispatch:
    warning = f"the run directory on {record.host} is still there; `remote-dispatch collect {record.name}` removes it"
    kept = tuple(text for text in record.warnings if text != warning)
    return record.but(is_cleaned_up=is_removed, warnings=kept if is_removed else (*kept, warning))
