"""From what the run directory shows to the stored state: forward only, and nothing is lost over an odd answer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest

from remote_dispatch.dispatch.settle import is_home, is_recoverable, settle
from remote_dispatch.errors import TaskFailedError
from remote_dispatch.model import Collected, Dispatch, State
from remote_dispatch.runner.outcome import Outcome
from remote_dispatch.runner.status import RunStatus
from tests.dispatch.values import DISPATCH_ID, SESSION, a_record

ENDS = [State.DONE, State.FAILED, State.CANCELLED, State.LOST]
DIGEST = "0" * 64
RUN = {"run_directory": f"/home/ada/runs/{DISPATCH_ID}"}


def _outcome(**fields: Any) -> Outcome:
    return Outcome.model_validate({"dispatch": DISPATCH_ID, "session": SESSION, "started": True, **fields})


def _settled(record: Dispatch, **shown: Any) -> Dispatch:
    return settle(record, RunStatus(exists=True, **shown))


def test_what_is_not_started_yet_stays_where_it_is() -> None:
    assert _settled(a_record(State.STAGING)).state is State.STAGING


def test_a_living_runner_is_running_once_it_has_begun() -> None:
    assert _settled(a_record(State.STAGING), held="yes").state is State.STAGING
    record = _settled(a_record(State.STAGING), held="yes", started=True)
    assert record.state is State.RUNNING
    assert _settled(record, held="yes", started=True).history == record.history


def test_where_it_works_is_kept() -> None:
    record = _settled(a_record(State.RUNNING), held="yes", directory=PurePosixPath("/data/my dir"))
    assert record.remote_directory == "/data/my dir"
    assert _settled(record, held="yes").remote_directory == "/data/my dir"


def test_an_answer_ends_the_remark_that_the_host_is_silent() -> None:
    record = a_record(State.RUNNING, unreachable_since=datetime.now(UTC))
    assert _settled(record, held="yes").unreachable_since is None


def test_a_back_file_makes_it_finished_and_the_verdict_waits() -> None:
    record = _settled(a_record(State.RUNNING), outcome=_outcome(back_sha256=DIGEST))
    assert (record.state, record.kind) == (State.FINISHED, None)


def test_a_fault_beside_a_back_file_is_remembered() -> None:
    record = _settled(a_record(State.RUNNING), outcome=_outcome(back_sha256=DIGEST, problem="run-failed"))
    assert (record.state, record.kind) == (State.FINISHED, "run-failed")


@pytest.mark.parametrize(
    "problem",
    ["opencode-missing", "directory", "import-refused", "import-unproved", "no-space", "export-failed", "brand-new"],
)
def test_an_end_without_a_back_file_has_failed_and_says_why(problem: str) -> None:
    record = _settled(a_record(State.STAGING), outcome=_outcome(problem=problem, started=False))
    assert (record.state, record.kind) == (State.FAILED, problem)
    assert record.detail


@pytest.mark.parametrize("back", [None, DIGEST])
def test_a_run_that_was_ended_is_cancelled(back: str | None) -> None:
    record = _settled(a_record(State.RUNNING), outcome=_outcome(problem="terminated", back_sha256=back))
    assert (record.state, record.kind) == (State.CANCELLED, "terminated")


@pytest.mark.parametrize("held", ["no", "dead"])
def test_started_without_an_outcome_and_without_a_runner_is_lost(held: str) -> None:
    record = _settled(a_record(State.RUNNING), started=True, held=held)
    assert (record.state, record.kind) == (State.LOST, "lost")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    "shown",
    [
        {"held": "yes", "started": True},
        {"started": True},
        {"outcome": _outcome(back_sha256=DIGEST)},
        {"outcome": _outcome(problem="import-refused")},
        {"outcome": _outcome(problem="terminated")},
        {"outcome": _outcome(problem="run-failed", back_sha256=DIGEST)},
    ],
)
def test_an_end_never_changes_whatever_the_host_shows(end: State, shown: dict[str, Any]) -> None:
    before = a_record(State.RUNNING, end, kind="timeout", detail="why")
    after = _settled(before, **shown)
    assert (after.state, after.history, after.kind, after.detail) == (end, before.history, "timeout", "why")


def test_a_finished_run_does_not_go_back() -> None:
    for shown in ({"held": "yes"}, {"held": "yes", "started": True}):
        assert _settled(a_record(State.FINISHED), **shown).state is State.FINISHED


def test_a_run_directory_that_is_gone_is_an_error_while_something_is_expected_there() -> None:
    for state in (State.RUNNING, State.FINISHED):
        with pytest.raises(TaskFailedError, match="run directory of `kumo` is gone"):
            settle(a_record(state, **RUN), RunStatus(exists=False))


@pytest.mark.parametrize("state", [State.NEW, State.STAGING])
def test_a_dispatch_that_never_reached_its_host_can_still_be_sent(state: State) -> None:
    settled = settle(a_record(*([] if state is State.NEW else [state]), **RUN), RunStatus(exists=False))
    assert settled.state is state


def test_a_run_whose_session_was_exported_after_its_runner_was_killed_is_lost() -> None:
    record = _settled(a_record(State.RUNNING, **RUN), outcome=_outcome(problem="lost", back_sha256=DIGEST))
    assert (record.state, record.kind) == (State.LOST, "lost")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({"started": True, "held": "dead"}, True),
        ({"started": True, "held": "yes"}, False),
        ({"held": "dead"}, False),
        ({"outcome": _outcome(problem="export-failed")}, True),
        ({"outcome": _outcome(back_sha256=DIGEST)}, False),
        ({"outcome": _outcome(problem="import-refused", started=False)}, False),
    ],
)
def test_only_what_was_started_and_left_no_result_is_exported_again(*, shown: dict[str, Any], expected: bool) -> None:
    assert is_recoverable(RunStatus(exists=True, **shown)) is expected


def test_a_dispatch_that_was_staged_and_never_launched_is_neither_running_nor_lost() -> None:
    for held in ("no", "dead"):
        settled = settle(a_record(State.STAGING, **RUN), RunStatus(exists=True, held=held))
        assert settled.state is State.STAGING


def test_a_lost_run_says_where_its_conversation_is() -> None:
    settled = settle(a_record(State.RUNNING, **RUN), RunStatus(exists=True, started=True, held="dead"))
    assert settled.state is State.LOST
    assert settled.detail is not None
    assert str(settled.run_directory) in settled.detail


def test_a_run_directory_that_we_removed_may_be_gone() -> None:
    for end in ENDS:
        record = a_record(end)
        assert settle(record, RunStatus(exists=False)) == record
    cleaned = a_record(State.FINISHED, is_cleaned_up=True)
    assert settle(cleaned, RunStatus(exists=False)) == cleaned


@pytest.mark.parametrize(
    ("end", "collected", "is_cleaned_up", "expected"),
    [
        (State.DONE, Collected.WHOLE, True, True),
        (State.CANCELLED, Collected.COPY, True, True),
        (State.DONE, Collected.WHOLE, False, False),
        (State.LOST, Collected.NONE, True, False),
        (State.LOST, Collected.PARTIAL, True, True),
        (State.FINISHED, Collected.WHOLE, True, False),
    ],
)
def test_home_is_what_ended_is_whole_and_cleaned_up(
    *, end: State, collected: Collected, is_cleaned_up: bool, expected: bool
) -> None:
    assert is_home(a_record(end, collected=collected, is_cleaned_up=is_cleaned_up)) is expected
