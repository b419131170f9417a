"""The scripted model over HTTP, as OpenCode's client speaks to it."""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from remote_dispatch.demo.provider import ScriptedModel
from remote_dispatch.demo.script import TITLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SYSTEM = "You are opencode.\n<env>\n  Working directory: /home/me/my project\n  Platform: linux\n</env>"
Message = dict[str, Any]


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


def send(
    model: ScriptedModel, *messages: Message, stream: bool = True, system: str = SYSTEM, session: str = "ses_one"
) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(urlsplit(model.url).netloc, timeout=10)
    body = {"model": "large", "stream": stream, "messages": [{"role": "system", "content": system}, *messages]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"x-session-id": session})
    return connection


def request(
    model: ScriptedModel, *messages: Message, **options: Any
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = send(model, *messages, **options)
    return connection, connection.getresponse()


def chunks(model: ScriptedModel, *messages: Message, **options: Any) -> list[dict[str, Any]]:
    """Ask, and return the events of the stream, which must end as OpenAI's do."""
    connection, response = request(model, *messages, **options)
    assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
    *events, done, rest = response.read().decode().split("\n\n")
    connection.close()
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def deltas(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for event in events for choice in event["choices"]]


def text(events: list[dict[str, Any]]) -> str:
    return "".join(delta.get("content", "") for delta in deltas(events))


def finish(events: list[dict[str, Any]]) -> str:
    reasons = [choice["finish_reason"] for event in events for choice in event["choices"]]
    return str(next(reason for reason in reasons if reason))


def call(events: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    (made,) = [call for delta in deltas(events) for call in delta.get("tool_calls", ())]
    return made["function"]["name"], json.loads(made["function"]["arguments"])


def user(content: Any) -> Message:
    return {"role": "user", "content": content}


def result(content: str) -> list[Message]:
    """The messages that a tool call adds."""
    return [{"role": "assistant", "content": "", "tool_calls": []}, {"role": "tool", "content": content}]


def test_say_answers_with_the_text(model: ScriptedModel) -> None:
    events = chunks(model, user("please\n!say hello\\nthere\n!say and more"))
    assert text(events) == "hello\nthere\nand more"
    assert finish(events) == "stop"
    assert events[-1]["usage"]["total_tokens"] > 10


def test_without_a_script_the_answer_shows_the_conversation(model: ScriptedModel) -> None:
    history = [user("one"), {"role": "assistant", "content": "two"}, user("and where are we now?")]
    assert text(chunks(model, *history)) == "I see 3 messages; the last one ends with: and where are we now?"


def test_instructions_of_earlier_messages_are_over(model: ScriptedModel) -> None:
    events = chunks(model, user("!bash rm x"), *result("gone"), {"role": "assistant", "content": "ok"}, user("thanks"))
    assert text(events).endswith("thanks")


def test_a_script_goes_on_after_each_tool_result(model: ScriptedModel) -> None:
    history = [user("!say I write\n!write a.txt hi\n!bash cat a.txt")]
    first = chunks(model, *history)
    assert (text(first), finish(first)) == ("I write", "tool_calls")
    assert call(first) == ("write", {"filePath": "/home/me/my project/a.txt", "content": "hi\n"})
    history += result("written")
    second = chunks(model, *history)
    assert call(second) == ("bash", {"command": "cat a.txt", "description": "runs a scripted command"})
    history += result("hi\n")
    last = chunks(model, *history)
    assert (text(last), finish(last)) == ("done after 2 tool calls; the last result: hi", "stop")


def test_the_same_request_gets_the_same_answer(model: ScriptedModel) -> None:
    assert chunks(model, user("!bash ls")) == chunks(model, user("!bash ls"))


@pytest.mark.parametrize(
    ("line", "tool", "arguments"),
    [
        ("!write /tmp/x a b", "write", {"filePath": "/tmp/x", "content": "a b\n"}),
        ("!read sub/x", "read", {"filePath": "/home/me/my project/sub/x"}),
        ('!tool dispatch {"host": "lab"}', "dispatch", {"host": "lab"}),
    ],
)
def test_a_line_becomes_a_tool_call(model: ScriptedModel, line: str, tool: str, arguments: dict[str, Any]) -> None:
    assert call(chunks(model, user(line))) == (tool, arguments)


def test_todo_starts_the_first_item(model: ScriptedModel) -> None:
    tool, arguments = call(chunks(model, user("!todo one; two")))
    assert tool == "todowrite"
    assert [(item["content"], item["status"]) for item in arguments["todos"]] == [
        ("one", "in_progress"),
        ("two", "pending"),
    ]


def test_a_task_carries_instructions_for_the_sub_agent(model: ScriptedModel) -> None:
    tool, arguments = call(chunks(model, user("!task !write a x\\n!say written")))
    assert (tool, arguments["prompt"]) == ("task", "!write a x\n!say written")


def test_a_question_has_options_to_choose_from(model: ScriptedModel) -> None:
    tool, arguments = call(chunks(model, user("!question Which one?")))
    (question,) = arguments["questions"]
    assert (tool, question["question"]) == ("question", "Which one?")
    assert [option["label"] for option in question["options"]] == ["yes", "no"]


def test_text_in_parts_and_in_quotation_marks_is_read(model: ScriptedModel) -> None:
    assert text(chunks(model, user([{"type": "text", "text": '"!say \\"in\\" parts"'}]))) == '"in" parts'


def test_long_answers_have_exactly_that_size(model: ScriptedModel) -> None:
    assert len(text(chunks(model, user("!long 100001")))) == 100001


def test_reasoning_is_not_text(model: ScriptedModel) -> None:
    events = chunks(model, user("!think hm\n!say ok"))
    assert text(events) == "ok"
    assert {"reasoning_content": "hm"} in deltas(events)


def test_finish_sets_the_reason(model: ScriptedModel) -> None:
    assert finish(chunks(model, user("!say x\n!finish length"))) == "length"


def test_an_unknown_instruction_is_named(model: ScriptedModel) -> None:
    assert text(chunks(model, user("!sya hello"))) == "`!sya` is not an instruction\n"


def test_sleep_streams_while_it_waits(model: ScriptedModel) -> None:
    began = time.monotonic()
    assert text(chunks(model, user("!sleep 0.3"))) == "tick "
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("status", [401, 500])
def test_fail_answers_with_the_status_every_time(model: ScriptedModel, status: int) -> None:
    for _ in range(2):
        connection, response = request(model, user(f"!fail {status}"))
        assert response.status == status
        assert "error" in json.loads(response.read())
        connection.close()


def test_fail_can_end_after_some_attempts(model: ScriptedModel) -> None:
    script = user("!fail 503 2\n!say at last")
    for _ in range(2):
        connection, response = request(model, script)
        assert response.status == 503
        connection.close()
    assert text(chunks(model, script)) == "at last"


def test_attempts_are_counted_for_each_session(model: ScriptedModel) -> None:
    script = user("!retry-after 7")
    for session in ("ses_a", "ses_b"):
        connection, response = request(model, script, session=session)
        assert (response.status, response.headers["retry-after"]) == (429, "7")
        connection.close()
    assert text(chunks(model, script, session="ses_a")) == "done"


def test_what_fail_answers_can_be_worded(model: ScriptedModel) -> None:
    script = "!fail 429\n!error insufficient_quota You exceeded your quota\n!retry-after-ms 20"
    connection, response = request(model, user(script))
    assert (response.status, response.headers["retry-after-ms"]) == (429, "20")
    error = json.loads(response.read())["error"]
    assert (error["code"], error["message"]) == ("insufficient_quota", "You exceeded your quota")
    connection.close()


def test_too_long_is_refused_once_and_with_always_wherever_it_is_quoted(model: ScriptedModel) -> None:
    connection, response = request(model, user("!too-long"))
    assert (response.status, json.loads(response.read())["error"]["code"]) == (400, "context_length_exceeded")
    connection.close()
    assert text(chunks(model, user("!too-long"))) == "done"
    connection, response = request(model, user("[User]: !too-long always"), user("summarise"))
    assert response.status == 400
    connection.close()


def test_a_web_page_comes_in_place_of_an_answer(model: ScriptedModel) -> None:
    connection, response = request(model, user("!html"))
    assert (response.status, response.headers.get_content_type()) == (200, "text/html")
    connection.close()


def test_reset_breaks_the_connection_before_an_answer(model: ScriptedModel) -> None:
    with pytest.raises(ConnectionError), closing(send(model, user("!reset 1"))) as connection:
        connection.getresponse()
    assert text(chunks(model, user("!reset 1"))) == "done"


def test_silence_answers_nothing_until_the_model_is_closed() -> None:
    with ScriptedModel() as model, closing(send(model, user("!silence"))) as connection:
        model.wait_for_calls(1, timeout_s=10)
        assert select.select([connection.sock], [], [], 0.2)[0] == []


def test_an_error_in_the_stream_takes_the_place_of_the_end(model: ScriptedModel) -> None:
    connection, response = request(model, user("!say begun\n!stream-error overloaded"))
    *_, error, rest = response.read().decode().split("\n\n")
    assert (json.loads(error.removeprefix("data: "))["error"]["message"], rest) == ("overloaded", "")
    connection.close()


def test_an_answer_can_be_empty_or_reasoning_only(model: ScriptedModel) -> None:
    events = chunks(model, user("!think hm\n!empty"))
    assert (text(events), finish(events)) == ("", "stop")
    assert any("reasoning_content" in delta for delta in deltas(events))


def test_an_answer_can_end_without_a_finish_reason(model: ScriptedModel) -> None:
    events = chunks(model, user("!say hello\n!finish none"))
    assert text(events) == "hello"
    assert not any(choice["finish_reason"] for event in events for choice in event["choices"])


def test_cut_breaks_the_connection(model: ScriptedModel) -> None:
    connection, response = request(model, user("!cut"))
    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        response.read()
    connection.close()


def test_hang_ends_when_the_model_is_closed() -> None:
    with ScriptedModel() as model:
        connection, response = request(model, user("!hang"))
        assert response.readline().startswith(b"data: ")
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()


def test_a_client_that_goes_away_is_not_waited_for(model: ScriptedModel) -> None:
    idle = threading.active_count()
    connection, response = request(model, user("!hang"))
    assert response.readline().startswith(b"data: ")
    assert threading.active_count() == idle + 1
    response.close()
    connection.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > idle and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() == idle


def test_an_answer_without_streaming_is_one_object(model: ScriptedModel) -> None:
    connection, response = request(model, user("!say hi\n!bash ls"), stream=False)
    choice = json.loads(response.read())["choices"][0]
    connection.close()
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hi", "tool_calls")
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "bash"


def test_what_was_asked_is_recorded_and_titles_apart(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with ScriptedModel(log=log) as model:
        title = chunks(model, user("Generate a title"), system="You are a title generator. You output")
        chunks(model, user("hello"))
        (made,) = model.wait_for_calls(1, timeout_s=5)
    assert text(title) == TITLE
    assert len(model.title_calls) == 1
    assert (made.model, made.session_id, made.directory) == ("large", "ses_one", "/home/me/my project")
    assert made.messages == (user("hello"),)
    assert [json.loads(line)["is_title"] for line in log.read_text().splitlines()] == [True, False]


def test_waiting_for_a_call_that_does_not_come_ends(model: ScriptedModel) -> None:
    with pytest.raises(TimeoutError, match="saw 0 calls, not 1"):
        model.wait_for_calls(1, timeout_s=0.05)


def test_a_request_that_is_no_json_is_refused(model: ScriptedModel) -> None:
    connection = http.client.HTTPConnection(urlsplit(model.url).netloc, timeout=10)
    connection.request("POST", "/v1/chat/completions", b"[1")
    assert connection.getresponse().status == 400
    connection.close()


def test_the_models_are_listed(model: ScriptedModel) -> None:
    connection = http.client.HTTPConnection(urlsplit(model.url).netloc, timeout=10)
    connection.request("GET", "/v1/models")
    assert [entry["id"] for entry in json.loads(connection.getresponse().read())["data"]] == ["small", "large"]
    connection.close()


def test_as_a_program_it_prints_its_url_and_ends_on_a_signal() -> None:
    command = [sys.executable, "-m", "remote_dispatch.demo.provider", "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.terminate()
        assert process.wait(10) == 0
