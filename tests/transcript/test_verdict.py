"""The verdict on a turn, from its transcript alone."""

from __future__ import annotations

from typing import Any

import pytest

from remote_dispatch.transcript import Message, Transcript, Verdict, failure_kind, judge, message_ids, refused_calls
from tests.transcript.samples import assistant, exported, message_id, part, session, tool, user

SENT = (message_id(1), message_id(2))
BRIEF = "you are on gpu now"
REJECTED = "The user rejected permission to use this specific tool call."
DENIED = (
    "The user has specified a rule which prevents you from using this specific tool call. "
    'Here are some of the relevant rules [{"permission":"bash","pattern":"rm *","action":"deny"}]'
)


def _judge(*fresh: Message, brief: str | None = BRIEF) -> Verdict:
    return judge(session(user(1), assistant(2), *fresh), sent_ids=SENT, brief=brief)


def _answered(**info: Any) -> Verdict:
    return _judge(user(3, BRIEF + "\n"), assistant(4, parent=3, **info))


def _error(name: str, message: str = "no", **data: Any) -> dict[str, Any]:
    return {"name": name, "data": {"message": message, **data}}


def _upto(transcript: Transcript, number: int) -> Transcript:
    return {**transcript, "messages": transcript["messages"][:number]}


def test_a_finished_answer_is_told_with_the_agent_and_model_that_gave_it() -> None:
    verdict = _answered(finish="stop", agent="plan")
    assert verdict == Verdict(is_answered=True, answer="done", agent="plan", model="remote/big", message_count=2)


def test_the_answer_leaves_out_what_the_model_did_not_say() -> None:
    parts = [
        part(400, 4, text="said "),
        part(401, 4, "reasoning", text="thought"),
        part(402, 4, text="made up", synthetic=True),
        part(403, 4, text="ignored", ignored=True),
        part(404, 4, text="and done"),
    ]
    assert _judge(user(3, BRIEF), assistant(4, *parts, finish="stop")).answer == "said and done"


@pytest.mark.parametrize(
    ("count", "kind", "refused"),
    [
        (1, "no-answer", ()),
        (2, "rejected", ("read: /etc/hostname",)),
        (5, None, ("read: /etc/hostname", "bash")),
    ],
)
def test_a_real_session_with_refusals_is_judged_at_each_of_its_steps(
    count: int, kind: str | None, refused: tuple[str, ...]
) -> None:
    verdict = judge(_upto(exported("refused"), count), sent_ids=(), brief="read outside\n")
    assert (verdict.kind, verdict.is_answered, verdict.refused) == (kind, kind is None, refused)


def test_what_a_real_run_was_not_permitted_is_told_though_the_model_went_on() -> None:
    verdict = judge(exported("denied"), sent_ids=(), brief="remove it\n")
    assert verdict.is_answered
    assert verdict.answer == "ok, no question"
    assert verdict.refused == ("bash: rm nothing", "question")


def test_a_real_killed_run_was_interrupted() -> None:
    back = exported("killed")
    verdict = judge(back, sent_ids=message_ids(back)[:11], brief="hand over")
    assert (verdict.kind, verdict.is_answered, verdict.message_count) == ("interrupted", False, 3)


def test_a_brief_that_is_nowhere_was_ignored() -> None:
    assert _judge().kind == "ignored"
    assert _judge(user(3, "something else"), assistant(4, finish="stop")).kind == "ignored"


def test_without_a_brief_every_new_message_counts() -> None:
    assert _judge(assistant(4, finish="stop"), brief=None).is_answered
    assert _judge(brief=None).kind == "no-answer"


@pytest.mark.parametrize(
    ("info", "kind"),
    [
        ({"finish": "content-filter"}, "content_filter"),
        ({"finish": "unknown"}, "provider_unavailable"),
        ({"finish": "error"}, "provider_unavailable"),
        ({"finish": "tool-calls"}, "interrupted"),
        ({"finish": "stop", "summary": True}, "interrupted"),
        ({}, "aborted"),
        ({"time": {"created": 4000}}, "interrupted"),
    ],
)
def test_an_answer_that_did_not_end_well_is_no_answer(info: dict[str, Any], kind: str) -> None:
    verdict = _answered(**info)
    assert (verdict.kind, verdict.is_answered) == (kind, False)
    assert verdict.detail


@pytest.mark.parametrize("info", [{"finish": "length"}, {"error": _error("MessageOutputLengthError")}])
def test_an_answer_cut_at_the_output_limit_is_an_answer_with_a_warning(info: dict[str, Any]) -> None:
    verdict = _answered(**info)
    assert (verdict.kind, verdict.is_answered) == (None, True)
    assert verdict.warnings == ("the answer reached the model's output limit and is cut",)


def test_a_turn_that_ended_without_a_word_is_done_its_work_counts() -> None:
    verdict = _judge(user(3, BRIEF), assistant(4, part(401, 4, "reasoning", text="hm"), finish="stop"))
    assert (verdict.kind, verdict.answer, verdict.warnings) == (None, None, ())


def test_a_later_message_without_an_answer_leaves_the_turn_unfinished() -> None:
    assert _judge(user(3, BRIEF), assistant(4, finish="stop"), user(5, "go on")).kind == "interrupted"


def test_after_a_compaction_the_last_answer_counts_whatever_its_parent() -> None:
    summary = assistant(5, parent=4, finish="stop", summary=True)
    verdict = _judge(user(3, BRIEF), user(4, ""), summary, user(6, "go on"), assistant(7, parent=6, finish="stop"))
    assert verdict.is_answered


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_error("APIError", statusCode=401), "auth_failed"),
        (_error("APIError", statusCode=403), "auth_failed"),
        (_error("ProviderAuthError"), "auth_failed"),
        (_error("APIError", statusCode=429), "rate_limited"),
        (_error("APIError", statusCode=402), "rate_limited"),
        (_error("APIError", "Free usage exceeded"), "rate_limited"),
        (_error("APIError", statusCode=500), "provider_unavailable"),
        (_error("APIError", "Cannot connect to API"), "provider_unavailable"),
        (_error("APIError", "SSE read timed out"), "timeout"),
        (_error("UnknownError", "The operation timed out."), "timeout"),
        (_error("APIError", statusCode=413), "context_overflow"),
        (_error("ContextOverflowError"), "context_overflow"),
        (_error("ContentFilterError"), "content_filter"),
        (_error("StructuredOutputError"), "assistant_output_not_json"),
        (_error("MessageAbortedError", "Aborted"), "aborted"),
        (_error("UnknownError", "Model not found: scripted/none."), "config_error"),
        (_error("UnknownError", "Unexpected server error"), "provider_unavailable"),
        ({"name": 7, "data": "odd"}, "provider_unavailable"),
        (_error("APIError", "Gateway Timeout", statusCode=504), "provider_unavailable"),
        (_error("APIError", "the upstream timed out", statusCode=504), "provider_unavailable"),
        (_error("APIError", "Cannot connect to API: connect timed out"), "provider_unavailable"),
        (_error("APIError", "too many tokens for the context window", statusCode=400), "context_overflow"),
        (_error("APIError", "no", statusCode=400, responseBody='{"code":"insufficient_quota"}'), "rate_limited"),
    ],
)
def test_errors_are_told_apart_by_name_status_and_text(error: dict[str, Any], kind: str) -> None:
    assert failure_kind(error) == kind
    assert _answered(error=error).kind == kind


def test_the_detail_of_an_error_holds_no_address_and_no_header() -> None:
    error = _error(
        "APIError",
        "\x1b[31mCannot connect to API: http://10.0.0.5:8080/v1 as me@lab.lan",
        statusCode=500,
        responseHeaders={"x-host": "secret"},
        metadata={"url": "http://private"},
    )
    detail = _answered(error=error).detail
    assert detail == "Cannot connect to API: http://<address>/v1 as <address> (HTTP 500)"


def test_of_an_error_object_in_a_providers_stream_its_message_is_told() -> None:
    error = _error("APIError", '{"message":"overloaded","type":"server_error"}')
    assert _answered(error=error).detail == "overloaded"


def test_every_kind_of_refusal_is_listed_with_what_was_wanted() -> None:
    def call(number: int, error: str, **asked: Any) -> Any:
        return tool(number, 4, "bash", status="error", input=asked, error=error)

    parts = [
        call(401, REJECTED, command="rm -rf\nx\x1b[0m"),
        call(402, REJECTED[:-1] + " with the following feedback: no", filePath="/a"),
        call(403, DENIED, url="http://x"),
        call(404, "The user dismissed this question"),
        call(405, f"a log says: {REJECTED}"),
        call(406, "Tool execution aborted", command="sleep"),
        tool(407, 4, "read", status="completed", output=REJECTED),
    ]
    assert refused_calls([assistant(4, *parts)]) == ("bash: rm -rf x", "bash: /a", "bash: http://x", "bash")


@pytest.mark.parametrize(("wanted", "is_refused"), [("question", True), ("bash", True), ("made_up", False)])
def test_a_built_in_tool_that_is_not_offered_was_refused(wanted: str, is_refused: bool) -> None:
    error = f"Model tried to call unavailable tool '{wanted}'. Available tools: read."
    call = tool(401, 4, "invalid", status="completed", input={"tool": wanted, "error": error})
    assert bool(refused_calls([assistant(4, call)])) is is_refused
