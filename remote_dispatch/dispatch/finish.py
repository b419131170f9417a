"""Lines 8 to 11 of the main path: from a run that ended to a result that is proved to be home."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from remote_dispatch.dispatch.collect import fetch, fetch_logs
from remote_dispatch.dispatch.home import Homecoming, describe_refusals, merge
from remote_dispatch.dispatch.report import Report, Step
from remote_dispatch.dispatch.stages import PROBLEMS, clean_up, look
from remote_dispatch.errors import DeadlinePassedError, RemoteDispatchError, TaskFailedError
from remote_dispatch.model import Collected, Dispatch, Outcome, State

if TYPE_CHECKING:
    from remote_dispatch.dispatch.collect import Back
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.store import Folder, Store
    from remote_dispatch.opencode.program import Program
    from remote_dispatch.runner.status import RunStatus


async def bring_home(record: Dispatch, link: Link, store: Store, program: Program, report: Report) -> Dispatch:
    """Collect, merge, verify and clean up a dispatch whose run ended. Again changes nothing.

    Raises DeadlinePassedError while it still runs, IntegrityError when a copy is not equal to its source: then both
    are kept, and the next call begins anew.
    """
    async with store.held(record):
        record = store.load(record.id)
        if is_home(record):
            return record
        if record.collected in (Collected.WHOLE, Collected.COPY):
            return store.save(await _released(record, link))
        return await _bring(record, link, store, program, report)


async def _bring(record: Dispatch, link: Link, store: Store, program: Program, report: Report) -> Dispatch:
    connection = await link.connection()
    status = await look(connection, record)
    record = store.save(settle(record, status))
    if record.state in (State.STAGING, State.RUNNING):
        raise DeadlinePassedError(
            f"dispatch `{record.name}` is still running on {record.host}",
            hint=f"look on with `remote-dispatch logs -f {record.name}`; `collect` without `--no-wait` waits",
        )
    outcome = status.outcome
    if outcome is None or outcome.back_sha256 is None:
        return record
    folder = store.folder(record.id)
    report(Step("collect", f"bringing the result from {record.host}"))
    back = await fetch(connection, record, folder, outcome)
    await fetch_logs(connection, record, folder)
    report(Step("merge", "merging it into the local session"))
    homecoming = await _merged(record, back, folder, program)
    record = store.save(_judged(record, homecoming, outcome))
    folder.clear_scratch()
    return store.save(await _released(record, link))


async def _merged(record: Dispatch, back: Back, folder: Folder, program: Program) -> Homecoming:
    """Merge; whatever fails on this machine, the error says where the result is."""
    try:
        return await merge(record, back, folder, program)
    except RemoteDispatchError as error:
        kept = f"the result is safe on {record.host}; try again with `remote-dispatch collect {record.name}`"
        error.hint = f"{error.hint}; {kept}" if error.hint else kept
        raise


def is_home(record: Dispatch) -> bool:
    """Whether the whole result is home, and nothing is left to do on the host."""
    return record.state.is_end and record.collected in (Collected.WHOLE, Collected.COPY) and record.is_cleaned_up


def settle(record: Dispatch, status: RunStatus) -> Dispatch:
    """Bring the stored state up to what the run directory shows. Raises TaskFailedError when that is gone."""
    now = datetime.now(UTC)
    if not status.exists:
        if record.state.is_end or record.is_cleaned_up:
            return record
        raise TaskFailedError(
            f"{record.host}: the run directory of `{record.name}` is gone",
            hint="was it collected from another machine, or removed by hand?",
        )
    changes: dict[str, Any] = {"unreachable_since": None}
    if status.directory is not None:
        changes["remote_directory"] = str(status.directory)
    if status.outcome is not None:
        return _ended(record, status.outcome, now, changes)
    if status.is_lost and not record.state.is_end:
        detail = "the runner was killed on the host: it left no outcome"
        return record.advance(State.LOST, now, kind="lost", detail=detail, **changes)
    is_under_way = status.started or status.held == "yes"
    return record.advance(State.RUNNING if is_under_way else record.state, now, **changes)


def _ended(record: Dispatch, outcome: Outcome, now: datetime, changes: dict[str, Any]) -> Dispatch:
    """A run without a back-file has failed; with one, the verdict waits for it. A cancelled run is that anyway."""
    if outcome.back_sha256 is not None and outcome.problem != "terminated":
        if outcome.problem is not None and not record.state.is_end:
            changes |= {"kind": outcome.problem, "detail": f"the run on {record.host} ended with a fault"}
        return record.advance(State.FINISHED, now, **changes)
    if record.state.is_end:
        return record.but(**changes)
    end = State.CANCELLED if outcome.problem == "terminated" else State.FAILED
    detail = PROBLEMS.get(outcome.problem or "", "the runner could not export the session")
    return record.advance(end, now, kind=outcome.problem or "export-failed", detail=detail, **changes)


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


async def _released(record: Dispatch, link: Link) -> Dispatch:
    """Remove the run directory, now that everything in it is proved to be home. A failure costs only space there."""
    try:
        is_removed = await clean_up(await link.connection(), record)
    except RemoteDispatchError:
        is_removed = False
    if is_removed:
        return record.but(is_cleaned_up=True)
    warning = f"the run directory on {record.host} is still there; `remote-dispatch collect {record.name}` removes it"
    return record.but(warnings=tuple(dict.fromkeys((*record.warnings, warning))))
