"""A transcript between two clocks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.transcript import Message, Transcript, fit, in_order, newest_ms, outward_shift_ms, shift
from tests.transcript.samples import assistant, exported, part, session, tool, transcripts, user


def _created(messages: list[Message]) -> list[int]:
    return [message["info"]["time"]["created"] for message in messages]


def _all_times(value: Any) -> list[int]:
    """Every time that OpenCode wrote, in the order of the text."""
    found: list[int] = []
    for message in value:
        holders = [message["info"], *message["parts"], *(one.get("state", {}) for one in message["parts"])]
        found += [time for holder in holders for time in holder.get("time", {}).values()]
    return found


def test_the_newest_time_of_a_real_session_is_that_of_its_last_running_call() -> None:
    assert newest_ms(exported("killed")) == 1795224705113


def test_the_newest_time_of_an_empty_session_is_its_creation() -> None:
    assert newest_ms(session()) == 500


def test_shifting_moves_opencodes_times_and_nothing_that_a_tool_said() -> None:
    said = {"input": {"time": {"start": 7}}, "metadata": {"time": 7, "start": 7}, "output": "7"}
    call = tool(201, 2, "bash", status="completed", time={"start": 10, "end": 20, "compacted": 30}, **said)
    before = session(assistant(2, part(200, 2, text="7", time={"start": 5, "end": 6}), call))
    after = shift(before, -3)
    text, moved = after["messages"][0]["parts"]
    assert after["info"]["time"] == {"created": 497, "updated": 597}
    assert after["messages"][0]["info"]["time"] == {"created": 1997, "completed": 2497}
    assert text == part(200, 2, text="7", time={"start": 2, "end": 3})
    assert moved["state"] == {"status": "completed", "time": {"start": 7, "end": 17, "compacted": 27}, **said}


@given(transcripts(), st.integers(-(10**9), 10**9))
def test_shifting_back_restores_every_time(transcript: Transcript, delta: int) -> None:
    assert shift(shift(transcript, delta), -delta) == transcript


@given(st.integers(0, 10**13), st.integers(0, 10**13), st.integers(0, 5000))
def test_the_history_ends_before_the_hosts_present_and_moves_no_further_than_needed(
    newest: int, now: int, margin: int
) -> None:
    delta = outward_shift_ms(newest, now, margin)
    assert delta <= 0
    assert newest + delta <= now - margin
    assert delta == 0 or newest + delta == now - margin


def test_messages_that_fit_are_only_shifted() -> None:
    messages = [user(5), assistant(6)]
    assert fit(messages, delta_ms=-100, after_ms=4000, before_ms=9000) == shift(session(*messages), -100)["messages"]


def test_messages_from_a_clock_ahead_are_moved_before_the_present() -> None:
    fitted = fit([user(50), assistant(52)], delta_ms=0, after_ms=4000, before_ms=9000)
    assert _created(fitted) == [6499, 8499]
    assert max(_all_times(fitted)) == 8999


def test_messages_from_a_clock_behind_are_moved_after_the_local_ones() -> None:
    assert _created(fit([user(1), assistant(2)], delta_ms=0, after_ms=4000, before_ms=9000)) == [4001, 5001]


def test_days_are_pressed_into_the_gap_that_there_is() -> None:
    messages = [user(number) for number in range(100, 200)]
    created = _created(fit(messages, delta_ms=0, after_ms=4000, before_ms=4200))
    assert created == sorted(set(created))
    assert created[0] > 4000
    assert created[-1] < 4200


def test_with_few_milliseconds_the_messages_stay_apart_before_their_parts_do() -> None:
    messages = [
        assistant(number, part(number, number, text="", time={"start": number * 1000 + 1})) for number in (1, 2, 3)
    ]
    created = _created(fit(messages, delta_ms=0, after_ms=100, before_ms=104))
    assert created == [101, 102, 103]


def test_without_any_gap_everything_lies_just_after_the_local_messages() -> None:
    assert set(_all_times(fit([user(1), assistant(2)], delta_ms=0, after_ms=100, before_ms=90))) == {101}


def test_a_prompt_that_was_posted_twice_stays_before_its_answer() -> None:
    ordered = in_order([user(1), user(9), assistant(5), user(7)])
    assert _created(ordered) == [1000, 5000, 5000, 7000]
    assert in_order(ordered) == ordered


def test_nothing_is_fitted_into_nothing() -> None:
    assert fit([], delta_ms=5, after_ms=1, before_ms=2) == []


@given(transcripts(), st.integers(-(10**8), 10**8), st.integers(0, 10**7), st.integers(2, 10**7))
def test_what_comes_home_lies_in_the_gap_in_its_order(transcript: Transcript, delta: int, after: int, gap: int) -> None:
    messages = transcript["messages"]
    fitted = fit(messages, delta_ms=delta, after_ms=after, before_ms=after + gap)
    pairs = sorted(zip(_all_times(messages), _all_times(fitted), strict=True))
    assert all(after < time < after + gap for _, time in pairs)
    assert all(one[1] <= other[1] for one, other in pairwise(pairs))
    distinct = set(_created(messages))
    if len(distinct) < gap:
        assert len(set(_created(fitted))) == len(distinct)


@given(transcripts(), st.integers(-1000, 1000))
def test_fitting_changes_nothing_but_times(transcript: Transcript, delta: int) -> None:
    messages = transcript["messages"]
    fitted = fit(messages, delta_ms=delta, after_ms=0, before_ms=5)
    clock = dict(zip(_all_times(fitted), _all_times(fitted), strict=True))
    assert len(_all_times(fitted)) == len(_all_times(messages))
    assert set(clock) <= {1, 2, 3, 4}
    assert _without_times(fitted) == _without_times(messages)


def _without_times(messages: list[Message]) -> list[Any]:
    def bare(holder: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in holder.items() if name not in ("time", "state")}

    return [(bare(one["info"]), [bare(part) for part in one["parts"]]) for one in messages]
