"""A dispatch goes forward only; what was reached, and when, is never rewritten."""

from __future__ import annotations

from datetime import timedelta

import pytest

from remote_dispatch.model import Collected, State
from tests.dispatch.values import NOON, a_record

ENDS = [State.DONE, State.FAILED, State.CANCELLED, State.LOST]
LATER = NOON + timedelta(minutes=5)


def test_every_state_goes_on_to_every_later_one() -> None:
    for before in State:
        for after in State:
            moved = a_record(before).advance(after, LATER)
            is_forward = not before.is_end and after.rank > before.rank
            assert moved.state is (after if is_forward else before)
            assert moved.reached(before) == NOON


def test_states_keep_their_times() -> None:
    record = a_record(State.STAGING).advance(State.RUNNING, LATER)
    assert [moment.state for moment in record.history] == [State.NEW, State.STAGING, State.RUNNING]
    assert (record.reached(State.STAGING), record.reached(State.RUNNING)) == (NOON, LATER)
    assert record.reached(State.DONE) is None


@pytest.mark.parametrize("end", ENDS)
def test_an_end_never_changes_but_what_is_home_may_grow(end: State) -> None:
    record = a_record(end, collected=Collected.NONE)
    for other in State:
        moved = record.advance(other, LATER, collected=Collected.WHOLE)
        assert (moved.state, moved.history, moved.collected) == (end, record.history, Collected.WHOLE)


def test_a_change_is_checked() -> None:
    with pytest.raises(ValueError, match="collected"):
        a_record().but(collected="half")
