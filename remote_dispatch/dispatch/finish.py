"""Lines 8 to 11 of the main path: from a run that ended to a result that is proved to be home."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.collect import fetch, fetch_logs
from remote_dispatch.dispatch.home import Homecoming, describe_refusals, merge
from remote_dispatch.dispatch.report import Report, Step
from remote_dispatch.dispatch.settle import is_collected, is_home, is_idle, settle
from remote_dispatch.dispatch.stages import clean_up, look
from remote_dispatch.errors import ConfigurationError, ConnectionLostError, DeadlinePassedError, RemoteDispatchError
from remote_dispatch.model import Collected, Dispatch, Outcome, State

if TYPE_CHECKING:
    from remote_dispatch.dispatch.collect import Back
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.store import Folder, Store
    from remote_dispatch.opencode.program import Program
    from remote_dispatch.runner.status import RunStatus


ATTEMPTS = 3


async def bring_home(record: Dispatch, link: Link, store: Store, program: Program, report: Report) -> Dispatch:
    """Collect, merge, verify and clean up a dispatch whose run ended. Again changes nothing.

    Raises DeadlinePassedError while it still runs, IntegrityError when a copy is not equal to its source: then both
    are kept, and the next call begins anew. A lost connection is made anew a few times.
    """
    async with store.held(record.session_id or record.id):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await _bring_once(record.id, link, store, program, report)
            except ConnectionLostError as error:
                error.hint = f"the result is on {record.host}; `remote-dispatch collect {record.name}` brings it home"
                if attempt == ATTEMPTS:
                    raise
                await link.drop()
    raise AssertionError("unreachable")


async def _bring_once(dispatch_id: str, link: Link, store: Store, program: Program, report: Report) -> Dispatch:
    record = store.load(dispatch_id)
    if is_home(record):
        return record
    if is_collected(record):
        return await _released(record, link, store)
    connection = await link.connection()
    status = await look(connection, record)
    record = store.update(record.id, lambda current: settle(current, status))
    if not record.state.is_end and record.state is not State.FINISHED:
        raise _not_ended(record, status)
    if status.outcome is None or status.outcome.back_sha256 is None:
        return await _without_result(record, status, link, store)
    return await _bring(record, status.outcome, link, store, program, report)


def _not_ended(record: Dispatch, status: RunStatus) -> DeadlinePassedError:
    if is_idle(status):
        return DeadlinePassedError(
            f"dispatch `{record.name}` lies on {record.host} and was not launched yet",
            hint=f"`remote-dispatch wait {record.name}` launches it, `remote-dispatch cancel {record.name}` removes it",
        )
    return DeadlinePassedError(
        f"dispatch `{record.name}` is still running on {record.host}",
        hint=f"look on with `remote-dispatch logs -f {record.name}`; `collect` without `--no-wait` waits",
    )


async def _without_result(record: Dispatch, status: RunStatus, link: Link, store: Store) -> Dispatch:
    """Nothing can come home. Where nothing ran, the copied files go; otherwise the record says where all of it is."""
    if status.exists and not status.started and not record.is_cleaned_up:
        return await _released(record, link, store)
    return record


async def _bring(
    record: Dispatch, outcome: Outcome, link: Link, store: Store, program: Program, report: Report
) -> Dispatch:
    folder = store.folder(record.id)
    connection = await link.connection()
    report(Step("collect", f"bringing the result from {record.host}"))
    try:
        back = await fetch(connection, record, folder, outcome)
        await fetch_logs(connection, record, folder)
        report(Step("merge", "merging it into the local session"))
        homecoming = await _merged(record, back, folder, program)
    except OSError as error:
        raise ConfigurationError(
            f"this machine: {(error.strerror or type(error).__name__).lower()}",
            hint=f"the result is safe on {record.host}; then try again with `remote-dispatch collect {record.name}`",
        ) from error
    finally:
        folder.clear_scratch()
    record = store.update(record.id, lambda current: _judged(current, homecoming, outcome))
    return await _released(record, link, store)


async def _merged(record: Dispatch, back: Back, folder: Folder, program: Program) -> Homecoming:
    """Merge; whatever fails on this machine, the error says where the result is."""
    try:
        return await merge(record, back, folder, program)
    except RemoteDispatchError as error:
        kept = f"the result is safe on {record.host}; try again with `remote-dispatch collect {record.name}`"
        error.hint = f"{error.hint}; {kept}" if error.hint else kept
        raise


def _judged(record: Dispatch, homecoming: Homecoming, outcome: Outcome) -> Dispatch:
    verdict = homecoming.verdict
    end = State.DONE if verdict.kind is None else State.FAILED
    if outcome.problem == "terminated":
        end = State.CANCELLED
    warnings = (*record.warnings, *homecoming.warnings, *describe_refusals(verdict), *_other_choice(record, homecoming))
    return record.advance(
        end,
        datetime.now(UTC),
        kind=None if end is State.DONE else verdict.kind or outcome.problem,
        detail=None if end is State.DONE else verdict.detail,
        collected=Collected.COPY if homecoming.is_copy else Collected.WHOLE,
        session_id=record.session_id or homecoming.session_id,
        copy_session_id=homecoming.session_id if homecoming.is_copy else None,
        new_messages=homecoming.new_messages,
        answer=verdict.answer,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _other_choice(record: Dispatch, homecoming: Homecoming) -> tuple[str, ...]:
    """Read back which agent and model answered: OpenCode falls back in silence."""
    verdict, travel = homecoming.verdict, record.travel
    if travel is None:
        return ()
    pairs = (("agent", travel.agent, verdict.agent), ("model", travel.model, verdict.model))
    return tuple(
        f"{what} `{used}` answered instead of `{asked}`" for what, asked, used in pairs if used not in (None, asked)
    )


async def _released(record: Dispatch, link: Link, store: Store) -> Dispatch:
    """Remove the run directory: everything in it is proved to be home, or nothing ran. A failure costs only space."""
    try:
        is_removed = await clean_up(await link.connection(), record)
    except RemoteDispatchError:
        is_removed = False
    warning = f"the run directory on {record.host} is still there; `remote-dispatch collect {record.name}` removes it"

    def change(current: Dispatch) -> Dispatch:
        kept = tuple(text for text in current.warnings if text != warning)
        return current.but(is_cleaned_up=is_removed, warnings=kept if is_removed else (*kept, warning))

    return store.update(record.id, change)
