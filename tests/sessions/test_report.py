"""What reports say of sessions."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from remote_dispatch.failure import Failure
from remote_dispatch.model import Todo
from remote_dispatch.opencode.served import Option, Question, QuestionRequest, Served, Usage
from remote_dispatch.sessions.report import (
    TodoTally,
    combined_lines,
    data_of,
    end_data,
    end_lines,
    last_sign,
    last_words,
    next_command,
    report_of,
    running_tool,
    span_words,
    state_words,
)
from remote_dispatch.sessions.values import Phase
from tests.sessions.looks_made import NOW, NOW_MS, a_look, a_named, a_permission, a_reading, said

TODOS = (Todo("read", "completed", ""), Todo("write", "in_progress", ""), Todo("test", "pending", "low"))


def test_todos_are_counted_without_the_cancelled_ones() -> None:
    tally = TodoTally.of([*TODOS, Todo("no", "cancelled", ""), Todo("odd", "some word", "")])
    assert (tally.done, tally.active, tally.pending, tally.total, tally.task) == (1, 1, 2, 4, "write")


def test_a_report_at_an_interval_says_how_far_a_session_is() -> None:
    running = {"type": "tool", "tool": "bash", "state": {"status": "running", "input": {"command": "make test"}}}
    look = a_look(todos=TODOS, messages=[said({"type": "text", "text": "I look at it"}), said(running)])
    assert combined_lines([report_of(look)], NOW)[1:] == [
        "kumo on pi: busy, last sign of life 4 s ago",
        "  todo    1 done, 1 active, 1 pending: write",
        "  tool    bash: make test",
        "  said    I look at it",
        "  used    1200 tokens, $0.5000",
    ]


def test_a_report_names_each_waiting_request_with_the_command_that_answers_it() -> None:
    requests = (a_permission(), QuestionRequest("que_00000002", "ses_kumo", (Question("Which?", "", (Option("a"),)),)))
    lines = combined_lines([report_of(a_look(phase=Phase.WAITING, requests=requests))], NOW)
    permission, _, question, reply = lines[-4:]
    assert permission == "  asks    permission: bash: touch x"
    assert question == "  asks    question: Which?"
    assert reply.split() == ["remote-dispatch", "session", "reply", "kumo", reply.split()[4], "ANSWER"]
    assert "1 session at work, 1 waiting for an answer" in lines[0]


def test_the_next_command_answers_what_is_asked_and_else_looks_on_what_works() -> None:
    asks = report_of(a_look(phase=Phase.WAITING, requests=(a_permission(),)))
    assert next_command(asks) == "remote-dispatch session requests kumo"
    assert next_command(report_of(a_look())) == "remote-dispatch session watch kumo"


def test_words_that_only_repeat_the_verdict_are_left_out() -> None:
    aborted = replace(report_of(a_look(answer="")), failure=Failure.ABORTED, detail="Aborted")
    assert state_words(aborted) == "aborted"
    assert state_words(replace(aborted, detail="by hand")) == "aborted: by hand"


def test_what_works_stands_before_what_is_over() -> None:
    over = report_of(a_look(a_named("csbx"), answer="fine"))
    lines = combined_lines([over, report_of(a_look())], NOW, ["lab: unreachable"])
    assert lines[0].endswith("1 session at work, 1 over")
    assert [line.split()[0] for line in lines if not line.startswith(" ")][1:] == ["kumo", "csbx", "!"]


def test_at_the_end_the_whole_answer_is_told_with_the_verdict_and_the_next_command() -> None:
    answer = "first\n\n" + "x" * 9000
    lines = end_lines(report_of(a_look(answer=answer, todos=TODOS)))
    assert lines[0] == "kumo on pi has ended: done"
    assert "\n".join(lines).count(answer) == 1
    assert lines[-1] == '  next    remote-dispatch session send kumo "..."'


def test_a_failed_end_says_why_and_what_was_refused() -> None:
    look = a_look(answer="", failure=Failure.RATE_LIMITED, detail="Too Many Requests at https://10.0.0.7:99/v1")
    report = report_of(look)
    text = "\n".join(end_lines(report))
    assert "has ended: rate_limited: Too Many Requests" in text
    assert "refused bash: rm -r x" in text
    assert "10.0.0.7" not in text + str(end_data(report))


@pytest.mark.parametrize(
    ("phase", "failure", "state"),
    [(Phase.IDLE, None, "idle"), (Phase.BUSY, None, "busy"), (Phase.RETRYING, Failure.RATE_LIMITED, "retrying")],
)
def test_the_state_is_the_phase_as_long_as_a_session_works(phase: Phase, failure: Failure | None, state: str) -> None:
    report = report_of(a_look(phase=phase, failure=failure))
    assert (report.state, data_of(report)["state"]) == (state, state)
    assert data_of(report)["failure"] == failure


def test_foreign_text_is_cleaned() -> None:
    report = report_of(a_look(messages=[said({"type": "text", "text": "\x1b[31mred\x07\nline two"})]))
    assert report.last_message == "red line two"


def test_the_last_words_are_those_since_the_last_prompt() -> None:
    old, prompt = said({"type": "text", "text": "old"}), {"info": {"role": "user"}, "parts": []}
    assert last_words([old, prompt, said({"type": "tool"})]) is None
    assert last_words([prompt, old, said({"type": "text", "text": "made up", "synthetic": True})]) == "old"


def test_a_call_of_an_older_step_that_seems_to_run_was_interrupted() -> None:
    running = said({"type": "tool", "tool": "bash", "state": {"status": "running", "input": {}}})
    assert running_tool([running]) == "bash"
    assert running_tool([running, said()]) is None


def test_the_last_sign_of_life_is_told_on_our_clock_and_may_be_a_sub_agents() -> None:
    child = Served("ses_child", "/work", "", updated_ms=NOW_MS + 60_000, usage=Usage(10, cost=0.25))
    reading = a_reading(a_named(), descendants=(child,), offset_ms=90_000)
    assert last_sign(reading) == NOW - timedelta(seconds=30)
    assert report_of(a_look(descendants=(child,))).usage.cost == 0.75


@pytest.mark.parametrize(
    ("seconds", "words"), [(-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (7200, "2 h"), (1e6, "11 d")]
)
def test_spans_are_one_rough_word(seconds: float, words: str) -> None:
    assert span_words(seconds) == words
