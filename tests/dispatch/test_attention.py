"""What needs a user's hand, and the next command."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from remote_dispatch.dispatch.attention import attention
from remote_dispatch.model import Collected, State
from tests.dispatch.values import a_record, a_request

HOME = {"collected": Collected.WHOLE, "is_cleaned_up": True}


@pytest.mark.parametrize("states", [(), (State.STAGING,)])
def test_what_has_not_begun_is_resumed(states: tuple[State, ...]) -> None:
    needed = attention(a_record(*states))
    assert needed is not None
    assert needed.command == "remote-dispatch resume kumo"
    assert "box" in needed.reason


def test_a_live_dispatch_whose_brief_was_not_said_is_resumed() -> None:
    request = a_request(is_live=True)
    needed = attention(a_record(State.STAGING, State.RUNNING, request=request))
    assert needed is not None
    assert (needed.command, "brief" in needed.reason) == ("remote-dispatch resume kumo", True)
    assert attention(a_record(State.STAGING, State.RUNNING, request=request, turn_id="msg_1")) is None


@pytest.mark.parametrize(
    ("state", "fields", "reason"),
    [
        (State.FINISHED, {}, "the result is only on box"),
        (State.LOST, {"kind": "lost"}, "runner was killed"),
        (State.FAILED, {"kind": "export-failed"}, "could not export"),
        (State.CANCELLED, {"kind": "terminated"}, "what was done before the end is only on box"),
        (State.FAILED, {"kind": "import-refused"}, "run directory on box is still there"),
        (State.CANCELLED, {"kind": "cancelled"}, "run directory on box is still there"),
        (State.DONE, {"collected": Collected.WHOLE}, "home, and its run directory"),
        (State.LOST, {"collected": Collected.PARTIAL}, "home, and its run directory"),
        (State.DONE, {"collected": Collected.COPY}, "home, and its run directory"),
    ],
)
def test_what_ended_and_is_not_home_is_collected(state: State, fields: dict[str, Any], reason: str) -> None:
    needed = attention(a_record(State.RUNNING, state, **fields))
    assert needed is not None
    assert needed.command == "remote-dispatch collect kumo"
    assert reason in needed.reason


@pytest.mark.parametrize(
    "record",
    [
        a_record(State.RUNNING),
        a_record(State.RUNNING, State.DONE, **HOME),
        a_record(State.RUNNING, State.FAILED, kind="timeout", **HOME),
        a_record(State.FAILED, kind="host-not-ready", is_cleaned_up=True),
        a_record(State.CANCELLED, kind="cancelled", is_cleaned_up=True),
    ],
    ids=lambda record: f"{record.state}-{record.collected}",
)
def test_what_runs_is_home_or_left_nothing_needs_nobody(record: Any) -> None:
    assert attention(record) is None


def test_a_silent_host_is_no_reason_by_itself() -> None:
    assert attention(a_record(State.RUNNING, unreachable_since=datetime.now(UTC))) is None
