"""The completion gate: on recorded readings, on each trap, and on turns of a model of OpenCode read at any moment."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_dispatch.failure import Failure
from remote_dispatch.opencode.served import PermissionRequest, QuestionRequest, Status
from remote_dispatch.sessions.gate import QUIET_S, STALE_S, STARTING_COLD_S, STARTING_S, Gate, settled
from remote_dispatch.sessions.values import Phase, Standing
from tests.sessions import recordings
from tests.sessions.recordings import SESSION, reading
from tests.sessions.turns import (
    ASKED,
    BUSY,
    ENDINGS,
    MIDDLES,
    OURS,
    REJECTED,
    RETRY,
    State,
    begun,
    error,
    interrupted,
    ours,
    said,
    turn,
)
from tests.transcript.samples import assistant, message_id, part, tool, user

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from remote_dispatch.opencode.served import Raw

PAST = (user(1), said(2, 1, "earlier"))
PROMPT = user(OURS, "our prompt")


def judged(*looks: tuple[float, Sequence[Raw], Status | None], message: str | None = None) -> Standing:
    """Return what the gate says at the last of these looks: `(when, messages, status)`."""
    gate = Gate(message or ours())
    return [gate.judge(reading(at_s, messages, status)) for at_s, messages, status in looks][-1]


def at_rest(*messages: Raw, message: str | None = None) -> Standing:
    """Return what the gate says of an idle session that shows the same again after the quiet time."""
    return judged((0, messages, None), (QUIET_S, messages, None), message=message)


def failure_of(standing: Standing) -> Failure | None:
    assert standing.phase is Phase.ENDED, standing
    assert standing.end
    assert standing.end.failure is standing.failure
    return standing.failure


# --- what a real server showed


@pytest.mark.parametrize("name", recordings.names())
def test_a_recorded_turn_is_judged_as_it_ended_and_not_before(name: str) -> None:
    truth, readings = recordings.sample(name)
    gate = Gate(truth["message_id"])
    standings = [gate.judge(one) for one in readings]
    assert [one.phase for one in standings].index(Phase.ENDED) == len(standings) - 1
    end = standings[-1].end
    assert end
    assert (end.failure, end.answer) == (truth["failure"], truth["answer"])
    on_the_way = {one.failure for one in standings[:-1] if one.failure}
    assert on_the_way == set(truth["on_the_way"])


@pytest.mark.parametrize("name", sorted(set(recordings.names()) - {"unknown-agent"}))
def test_a_recorded_turn_that_is_over_is_judged_by_one_look(name: str) -> None:
    truth, readings = recordings.sample(name)
    assert failure_of(settled(readings[-1], truth["message_id"])) == truth["failure"]


# --- before the turn


def test_a_session_without_a_prompt_is_idle() -> None:
    assert Gate().judge(reading(0, ())).phase is Phase.IDLE
    assert settled(reading(0, ())).phase is Phase.IDLE


def test_an_idle_status_before_the_turn_begins_is_no_end() -> None:
    assert judged((0, PAST, None), (1, (*PAST, PROMPT), None)).phase is Phase.STARTING


def test_an_earlier_answer_is_never_taken_for_ours() -> None:
    assert judged((0, PAST, None), (1, PAST, None)).phase is Phase.STARTING


def test_a_prompt_that_nothing_comes_of_has_a_wrong_model() -> None:
    looks = [(0.0, (*PAST, PROMPT), None), (STARTING_S - 0.1, (*PAST, PROMPT), None)]
    assert judged(*looks).phase is Phase.STARTING
    assert failure_of(judged(*looks, (STARTING_S, (*PAST, PROMPT), None))) is Failure.CONFIG_ERROR


def test_a_prompt_that_is_never_stored_has_a_wrong_agent() -> None:
    standing = judged((0, PAST, None), (STARTING_S, PAST, None))
    assert failure_of(standing) is Failure.CONFIG_ERROR
    assert "agent" in str(standing.detail)


def test_the_first_prompt_of_a_session_may_start_slowly() -> None:
    looks = [(0.0, (PROMPT,), None), (STARTING_S, (PROMPT,), None)]
    assert judged(*looks).phase is Phase.STARTING
    assert failure_of(judged(*looks, (STARTING_COLD_S, (PROMPT,), None))) is Failure.CONFIG_ERROR


def test_the_words_of_a_turn_that_never_began_come_from_the_event() -> None:
    gate = Gate(ours())
    gate.judge(reading(0, (*PAST, PROMPT)))
    gate.heard({"name": "UnknownError", "data": {"message": "Model not found: scripted/none."}})
    standing = gate.judge(reading(2, (*PAST, PROMPT)))
    assert (failure_of(standing), standing.detail) == (Failure.CONFIG_ERROR, "Model not found: scripted/none.")


def test_an_error_event_of_a_turn_that_goes_on_means_nothing() -> None:
    gate = Gate(ours())
    gate.heard(error("ContextOverflowError"))
    final = (PROMPT, said(12, OURS))
    assert gate.judge(reading(0, (PROMPT, begun(11, OURS)), BUSY)).phase is Phase.BUSY
    gate.judge(reading(5, final))
    assert failure_of(gate.judge(reading(6, final))) is None


# --- while it runs


def test_a_completed_step_is_no_end_while_the_session_is_busy() -> None:
    step = assistant(11, tool(1, 11, "bash", status="completed"), parent=OURS, finish="tool-calls")
    assert judged((0, (PROMPT, step), BUSY), (9, (PROMPT, step), BUSY)).phase is Phase.BUSY


def test_a_completed_answer_is_no_end_while_the_session_is_busy() -> None:
    assert judged((0, (PROMPT, said(11, OURS)), BUSY), (9, (PROMPT, said(11, OURS)), BUSY)).phase is Phase.BUSY


def test_what_a_sub_agent_asks_keeps_the_session_waiting() -> None:
    below = QuestionRequest("que_1", "ses_below", ())
    look = reading(0, (PROMPT, begun(11, OURS)), BUSY, requests=(below,))
    standing = Gate(ours()).judge(look)
    assert (standing.phase, standing.failure, standing.requests) == (Phase.WAITING, Failure.PENDING_QUESTION, (below,))
    both = reading(0, look.messages, BUSY, requests=(below, PermissionRequest("per_1", "ses_below", "bash")))
    assert Gate(ours()).judge(both).failure is Failure.PENDING_PERMISSION


def test_a_retry_is_told_with_the_providers_words() -> None:
    standing = judged((0, (PROMPT, begun(11, OURS)), RETRY))
    assert (standing.phase, standing.failure) == (Phase.RETRYING, Failure.RATE_LIMITED)
    assert standing.detail == "Too Many Requests (attempt 1)"


def test_answers_that_never_end_must_be_aborted_and_are_the_providers_fault() -> None:
    endless = [said(number, OURS, finish="unknown") for number in (11, 12, 13)]
    two = judged((0, (PROMPT, *endless[:2], begun(13, OURS)), BUSY))
    assert not two.must_abort
    looks: list[tuple[float, Sequence[Raw], Status | None]] = [(0, (PROMPT, *endless, begun(14, OURS)), BUSY)]
    three = judged(*looks)
    assert (three.phase, three.failure, three.must_abort) == (Phase.BUSY, Failure.PROVIDER_UNAVAILABLE, True)
    aborted = (PROMPT, *endless, said(14, OURS, error=error("MessageAbortedError"), finish=None))
    assert failure_of(at_rest(*aborted)) is Failure.PROVIDER_UNAVAILABLE


# --- the end


def test_one_idle_look_is_not_enough() -> None:
    assert judged((0, (PROMPT, said(11, OURS)), None)).phase is Phase.ENDING


def test_two_looks_that_differ_are_not_enough() -> None:
    other = (PROMPT, said(11, OURS, "done and"))
    assert judged((0, (PROMPT, said(11, OURS)), None), (1, other, None)).phase is Phase.ENDING


def test_a_busy_look_in_between_begins_the_quiet_time_anew() -> None:
    final = (PROMPT, said(11, OURS))
    assert judged((0, final, None), (1, final, BUSY), (2, final, None)).phase is Phase.ENDING


def test_the_error_comes_after_the_first_idle_status() -> None:
    failed = assistant(11, parent=OURS, error=error("APIError", statusCode=401))
    gate = Gate(ours())
    looks = [(0.0, begun(11, OURS), BUSY), (0.1, begun(11, OURS), None), (0.3, begun(11, OURS), None)]
    phases = [gate.judge(reading(at_s, (PROMPT, answer), status)).phase for at_s, answer, status in looks]
    assert phases == [Phase.BUSY, Phase.ENDING, Phase.ENDING]
    gate.judge(reading(0.4, (PROMPT, failed)))
    assert failure_of(gate.judge(reading(0.7, (PROMPT, failed)))) is Failure.AUTH_FAILED


def test_an_abort_during_a_retry_leaves_neither_error_nor_finish() -> None:
    assert failure_of(at_rest(PROMPT, assistant(11, parent=OURS))) is Failure.ABORTED


def test_what_we_aborted_for_is_told_instead_of_the_abort() -> None:
    gate = Gate(ours())
    gate.blame(Failure.TIMEOUT, "no sign of life for 60 s")
    aborted = (PROMPT, assistant(11, parent=OURS, error=error("MessageAbortedError")))
    gate.judge(reading(0, aborted))
    standing = gate.judge(reading(1, aborted))
    assert (failure_of(standing), standing.detail) == (Failure.TIMEOUT, "no sign of life for 60 s")


def test_a_turn_that_ended_well_after_all_is_not_blamed() -> None:
    gate = Gate(ours())
    gate.blame(Failure.TIMEOUT, "no sign of life for 60 s")
    gate.judge(reading(0, (PROMPT, said(11, OURS))))
    assert failure_of(gate.judge(reading(1, (PROMPT, said(11, OURS))))) is None


def test_a_rejected_permission_ends_the_turn_without_an_error() -> None:
    refused = tool(1, 11, "bash", status="error", input={"command": "rm x"}, error=REJECTED)
    standing = at_rest(PROMPT, assistant(11, refused, parent=OURS, finish="tool-calls"))
    assert failure_of(standing) is Failure.REJECTED
    assert standing.end
    assert standing.end.refused == ("bash: rm x",)


@pytest.mark.parametrize(
    "last",
    [
        begun(11, OURS, tool(1, 11, "bash", status="running")),
        begun(11, OURS, part(1, 11, text="so f")),
        assistant(11, tool(1, 11, "bash", status="completed"), parent=OURS, finish="tool-calls"),
    ],
)
def test_an_idle_session_in_mid_answer_was_interrupted_after_a_while(last: Raw) -> None:
    look = (PROMPT, last)
    assert judged((0, look, None), (STALE_S - 0.1, look, None)).phase is Phase.ENDING
    assert failure_of(judged((0, look, None), (STALE_S, look, None))) is Failure.INTERRUPTED


def test_the_answer_is_the_whole_text_of_the_last_message_only() -> None:
    parts = [part(1, 12, text="one "), part(2, 12, text="not", synthetic=True), part(3, 12, text="two")]
    parts += [part(4, 12, text="nor this", ignored=True), part(5, 12, "reasoning", text="hm")]
    first = said(11, OURS, "before the tool", finish="tool-calls")
    standing = at_rest(PROMPT, first, assistant(12, *parts, parent=OURS, finish="stop"))
    assert standing.end
    assert (failure_of(standing), standing.end.answer, standing.end.model) == (None, "one two", "remote/big")


def test_a_cut_answer_is_a_good_end_with_a_warning() -> None:
    standing = at_rest(PROMPT, said(11, OURS, finish="length"))
    assert failure_of(standing) is None
    assert standing.end
    assert standing.end.warnings == ("the answer reached the model's output limit and is cut",)


def test_the_last_answer_counts_whatever_its_parent_is() -> None:
    on = {**user(13), "parts": [part(1, 13, text="go on", synthetic=True)]}
    compaction = {**user(11), "parts": [part(2, 11, "compaction")]}
    summary = said(12, 11, "a summary", summary=True)
    standing = at_rest(PROMPT, compaction, summary, on, said(14, 13, "the answer"))
    assert standing.end
    assert standing.end.answer == "the answer"


def test_a_summary_alone_is_no_answer() -> None:
    look = (PROMPT, {**user(11), "parts": [part(2, 11, "compaction")]}, said(12, 11, "a summary", summary=True))
    assert at_rest(*look).phase is Phase.ENDING
    assert failure_of(judged((0, look, None), (STALE_S, look, None))) is Failure.INTERRUPTED


def test_a_summary_that_somebody_asked_for_later_is_not_the_answer() -> None:
    compaction = {**user(12), "parts": [part(2, 12, "compaction")]}
    standing = at_rest(PROMPT, said(11, OURS, "the answer"), compaction, said(13, 12, "a summary", summary=True))
    assert standing.end
    assert (failure_of(standing), standing.end.answer) == (None, "the answer")


def test_queued_prompts_share_the_answer_of_the_last_one() -> None:
    standing = at_rest(PROMPT, user(11), user(12), said(13, 12, "for all three"))
    assert standing.end
    assert standing.end.answer == "for all three"


def test_somebodys_later_prompt_changes_nothing_about_our_end() -> None:
    look = (PROMPT, said(11, OURS, "ours"), user(12), begun(13, 12))
    for status in (BUSY, None):
        standing = judged((0, look, status), (1, look, status))
        assert standing.end
        assert (failure_of(standing), standing.end.answer) == (None, "ours")


def test_a_prompt_that_waits_for_the_answer_being_written_does_not_end_it() -> None:
    look = (PROMPT, begun(11, OURS), user(12))
    assert judged((0, look, BUSY), (60, look, BUSY)).phase is Phase.BUSY


def test_a_message_of_opencode_after_the_answer_is_given_time_to_go_on() -> None:
    look = (PROMPT, said(11, OURS, "the answer"), {**user(12), "parts": [part(1, 12, "compaction")]})
    assert at_rest(*look).phase is Phase.ENDING
    assert failure_of(judged((0, look, None), (STALE_S, look, None))) is None


def test_a_prompt_after_an_interruption_does_not_heal_it() -> None:
    look = (PROMPT, begun(11, OURS), user(12), said(13, 12, "another answer"))
    assert failure_of(judged((0, look, None), (STALE_S, look, None))) is Failure.INTERRUPTED


def test_a_note_for_the_users_eyes_is_no_message_of_the_turn() -> None:
    note = {**user(12), "parts": [part(1, 12, text="by the way", ignored=True)]}
    assert failure_of(at_rest(PROMPT, said(11, OURS), note)) is None


def test_our_message_beyond_the_tail_is_known_by_what_names_it_and_by_memory() -> None:
    tail = (assistant(40, parent=OURS, finish="tool-calls"), said(41, OURS))
    assert failure_of(at_rest(*tail)) is None
    gate = Gate(ours())
    gate.judge(reading(0, (PROMPT,), BUSY))
    compacted = (said(51, 50, "a"), said(52, 50, "the end"))
    gate.judge(reading(1, compacted))
    assert failure_of(gate.judge(reading(2, compacted))) is None


def test_without_a_message_the_last_prompt_is_followed() -> None:
    gate = Gate()
    gate.judge(reading(0, PAST))
    assert gate.judge(reading(1, PAST)).phase is Phase.ENDED
    assert gate.judge(reading(2, (*PAST, PROMPT), BUSY)).phase is Phase.BUSY
    final = (*PAST, PROMPT, said(11, OURS, "new"))
    gate.judge(reading(3, final))
    end = gate.judge(reading(4, final)).end
    assert end
    assert end.answer == "new"


@pytest.mark.parametrize("message", [{}, {"info": 3}, {"info": {"id": "msg_1", "role": "assistant"}, "parts": [3]}])
def test_messages_that_are_none_do_no_harm(message: Any) -> None:
    assert failure_of(at_rest(message, PROMPT, message, said(11, OURS))) is None


def test_one_look_at_a_young_turn_waits_for_more() -> None:
    now_ms = OURS * 1000
    young = reading(0, (*PAST, PROMPT), now_ms=now_ms + 900)
    assert settled(young).phase is Phase.STARTING
    assert failure_of(settled(reading(0, young.messages, now_ms=now_ms + 60_000))) is Failure.CONFIG_ERROR
    writing = (*PAST, PROMPT, begun(11, OURS))
    assert settled(reading(0, writing, now_ms=11_100)).phase is Phase.ENDING
    assert failure_of(settled(reading(0, writing, now_ms=99_000))) is Failure.INTERRUPTED


def test_one_look_respects_the_servers_clock() -> None:
    ahead = reading(0, (*PAST, PROMPT), now_ms=OURS * 1000 - 3_600_000, server_offset_ms=3_600_900)
    assert settled(ahead).phase is Phase.STARTING


# --- any turn, looked at at any moment

TURNS = st.builds(
    turn,
    st.lists(st.sampled_from(sorted(MIDDLES)), max_size=4),
    st.sampled_from(sorted(ENDINGS)),
    has_past=st.booleans(),
)
GAPS = st.lists(st.floats(0.01, 40), min_size=1, max_size=80)


def looks_at(states: Sequence[State], gaps: Iterable[float]) -> Iterable[tuple[State, float]]:
    """Yield the state at each look, and when it was made; the last gap repeats."""
    ends = list(itertools.accumulate(state.lasts_s for state in states))
    at_s = 0.0
    for gap in gaps:
        yield next((state for state, end in zip(states, ends, strict=True) if at_s < end), states[-1]), at_s
        at_s += gap


def first_end(states: Sequence[State], gaps: Sequence[float], message: str | None) -> tuple[Standing, State]:
    """Judge until the gate says that it ended; ten more looks at the ended turn must be enough."""
    gate = Gate(message)
    over = sum(state.lasts_s for state in states[:-1])
    patient = itertools.chain(gaps, [max(0.1, over)], itertools.repeat(1.5, 10))
    for state, at_s in looks_at(states, patient):
        standing = gate.judge(state.seen(at_s))
        if standing.phase is Phase.ENDED:
            return standing, state
    pytest.fail("the gate never said that the turn ended")


@settings(deadline=None)
@given(states=TURNS, gaps=GAPS)
def test_a_turn_is_said_to_have_ended_only_after_it_did_and_soon(states: list[State], gaps: list[float]) -> None:
    standing, state = first_end(states, gaps, ours())
    assert state.is_over
    answer = states[-1].messages[-1]
    assert standing.end
    assert standing.end.message_id == answer["info"]["id"]


@settings(deadline=None)
@given(
    middles=st.lists(st.sampled_from(sorted(MIDDLES)), max_size=4),
    ending=st.sampled_from(sorted(ENDINGS)),
    gaps=GAPS,
)
def test_the_verdict_is_the_truth(middles: list[str], ending: str, gaps: list[float]) -> None:
    standing, _ = first_end(turn(middles, ending), gaps, ours())
    assert failure_of(standing) is ENDINGS[ending].failure
    assert standing.end
    assert standing.end.answer == ENDINGS[ending].text


@settings(deadline=None)
@given(middles=st.lists(st.sampled_from(sorted(MIDDLES)), min_size=1, max_size=3), cut=st.integers(0, 60), gaps=GAPS)
def test_a_turn_whose_server_died_is_never_called_done(middles: list[str], cut: int, gaps: list[float]) -> None:
    standing, state = first_end(interrupted(middles, cut), gaps, ours())
    assert state.is_over
    assert failure_of(standing) in (Failure.INTERRUPTED, Failure.CONFIG_ERROR)


@settings(deadline=None)
@given(states=TURNS, at=st.integers(0, 200), age_ms=st.integers(0, 4000))
def test_one_look_never_calls_a_running_turn_done(states: list[State], at: int, age_ms: int) -> None:
    """Young as it is: of an old picture without an end one look cannot tell more than that it is old."""
    state = states[at % len(states)]
    changed_ms = max((one["info"]["time"]["created"] for one in state.messages), default=1000)
    session = replace(SESSION, updated_ms=changed_ms)
    standing = settled(replace(state.seen(0), session=session, now_ms=changed_ms + age_ms), ours())
    assert state.is_over or standing.phase is not Phase.ENDED


def test_the_model_asks_for_leave() -> None:
    assert any(ASKED in state.requests for state in turn(["waiting"], "stop"))
    assert SESSION.id == ASKED.session_id
    assert message_id(OURS) == ours()
