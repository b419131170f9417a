"""What the facts of a run directory mean for the record. Forward only: an end state never changes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from remote_dispatch.errors import TaskFailedError
from remote_dispatch.model import CodeHome, Collected, Dispatch, State
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from remote_dispatch.runner.outcome import Outcome
    from remote_dispatch.runner.status import RunStatus

_PATH_LIMIT = 4096
PROBLEMS = {
    "opencode-missing": "OpenCode is not there any more",
    "directory": "the working directory can neither be entered nor made",
    "code-refused": "the code that travelled along could not be unpacked there",
    "import-refused": "OpenCode there refused the session",
    "import-unproved": "OpenCode there said it imported the session, but does not have it whole",
    "no-space": "no space is left on the disk there",
    "terminated": "the runner was ended",
    "export-failed": "OpenCode there could not export the session afterwards",
}
"""What the runner's words for a problem mean."""
NEVER_BEGAN = frozenset(
    {
        *("opencode-missing", "directory", "import-refused", "import-unproved", "code-refused"),
        *("host-not-ready", "integrity", "diverged", "never-sent", "cancelled"),
    }
)
"""Kinds of an end before OpenCode was started on the brief."""


def is_home(record: Dispatch) -> bool:
    """Whether the whole result is home, and nothing is left to do on the host."""
    return record.state.is_end and is_collected(record) and record.is_cleaned_up


def is_collected(record: Dispatch) -> bool:
    """Whether all that the host has of the result is in a session of this machine."""
    return record.collected is not Collected.NONE


def is_code_due(record: Dispatch) -> bool:
    """Whether the host may have work on the code that is not here yet."""
    if record.code is None or record.kind in NEVER_BEGAN or record.state.rank <= State.STAGING.rank:
        return False
    return record.code.home in (CodeHome.AWAY, CodeHome.PARTIAL, CodeHome.LOST)


def is_code_there(record: Dispatch) -> bool:
    """Whether the host's working tree is the only place of something: it must not go unasked."""
    return is_code_due(record) or (record.code is not None and record.code.left_there > 0)


def is_recoverable(status: RunStatus) -> bool:
    """Whether it was started, and the host has more than the run directory shows: exporting anew brings it."""
    if status.outcome is None:
        return status.is_lost
    return status.outcome.is_started and status.outcome.back_sha256 is None


def is_idle(status: RunStatus) -> bool:
    """Whether the dispatch lies on its host and was never begun: launching it is safe, and is what it waits for."""
    return status.exists and status.outcome is None and not status.started and status.held != "yes"


def needs_begin(record: Dispatch) -> bool:
    """Whether the host waits for the brief of a live dispatch."""
    return record.request.is_live and record.state is State.RUNNING and record.turn_id is None


def settle(record: Dispatch, status: RunStatus) -> Dispatch:
    """Bring the stored state up to what the run directory shows. Raises TaskFailedError when that is gone too early."""
    if not status.exists:
        return _gone(record)
    now = datetime.now(UTC)
    changes: dict[str, Any] = {"unreachable_since": None}
    if status.directory is not None:
        changes["remote_directory"] = clean(str(status.directory), _PATH_LIMIT)
    if record.state.is_end:
        return record.but(**changes)
    if status.outcome is not None:
        return _ended(record, status.outcome, now, changes)
    if status.is_lost:
        return _lost(record, now, changes)
    return record.advance(State.RUNNING, now, **changes) if status.started else record.but(**changes)


def whereabouts(record: Dispatch) -> str:
    """Where on the host the conversation is, when it could not be brought home."""
    session = record.travel.session_id if record.travel else record.session_id
    return (
        f"what was done is in OpenCode there, session {session} in {record.remote_directory}, "
        f"and the run directory is kept: {record.run_directory}"
    )


def _gone(record: Dispatch) -> Dispatch:
    if record.state.is_end or record.is_cleaned_up:
        return record
    if record.state.rank <= State.STAGING.rank:
        return record.but(unreachable_since=None)
    raise TaskFailedError(
        f"{record.host}: the run directory of `{record.name}` is gone",
        hint=f"collected from another machine, or removed by hand? `remote-dispatch remove {record.name}` forgets it",
    )


def _lost(record: Dispatch, now: datetime, changes: dict[str, Any]) -> Dispatch:
    detail = f"the runner was killed on the host; {whereabouts(record)}"
    return record.advance(State.LOST, now, kind="lost", detail=detail, **changes)


def _ended(record: Dispatch, outcome: Outcome, now: datetime, changes: dict[str, Any]) -> Dispatch:
    """A run without a back-file has failed; with one, the verdict waits for it. A cancelled run is that anyway."""
    if outcome.problem == "lost":
        return _lost(record, now, changes)
    if outcome.back_sha256 is not None and outcome.problem != "terminated":
        if outcome.problem is not None:
            changes |= {"kind": outcome.problem, "detail": f"the run on {record.host} ended with a fault"}
        return record.advance(State.FINISHED, now, **changes)
    end = State.CANCELLED if outcome.problem == "terminated" else State.FAILED
    kind = outcome.problem or "export-failed"
    detail = PROBLEMS.get(kind, "the runner could not export the session")
    if outcome.code_problem and kind == "code-refused":
        detail = f"{detail} ({clean(outcome.code_problem, 40)})"
    if outcome.is_started and outcome.back_sha256 is None:
        detail = f"{detail}; {whereabouts(record)}"
    return record.advance(end, now, kind=kind, detail=detail, **changes)
