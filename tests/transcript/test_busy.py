"""Is a turn under way in a session?"""

from __future__ import annotations

import json

import pytest

from remote_dispatch.transcript import INTERRUPTED_AFTER_MS, Message, Transcript, is_busy
from tests.transcript.samples import NOW, aside, assistant, exported, part, session, tool, user

OPEN = {"created": 2000}
DISPATCHED = tool(201, 2, "remote_dispatch", status="completed", input={"host": "gpu"})


def _running(command: str, name: str = "bash") -> Message:
    call = tool(201, 2, name, status="running", input={"command": command, "host": "gpu"})
    return assistant(2, part(200, 2, text="now"), call, time=OPEN)


def _busy(transcript: Transcript, *, quiet_ms: int = 1000) -> bool:
    return is_busy(transcript, changed_ms=NOW - quiet_ms, now_ms=NOW)


@pytest.mark.parametrize(
    "transcript",
    [
        session(user(1)),
        session(user(1), assistant(2, finish="stop"), user(3)),
        session(user(1), assistant(2, time=OPEN)),
        session(user(1), _running("make test")),
        session(user(1), _running("remote-dispatch list")),
        session(user(1), _running("remote-dispatch send gpu"), user(3)),
        session(user(1), assistant(2, DISPATCHED, time=OPEN)),
    ],
    ids=["first prompt", "prompt", "answer", "tool", "other command", "prompt behind our call", "our call is over"],
)
def test_a_prompt_without_an_answer_and_an_answer_without_an_end_are_busy(transcript: Transcript) -> None:
    assert _busy(transcript)
    assert _busy(transcript, quiet_ms=INTERRUPTED_AFTER_MS - 1)


@pytest.mark.parametrize(
    "transcript",
    [
        session(),
        session(user(1), assistant(2, finish="stop")),
        session(user(1), assistant(2, finish="tool-calls")),
        session(user(1), assistant(2, time=OPEN, error={"name": "APIError"})),
        session(user(1), assistant(2, time=OPEN), user(3), assistant(4, parent=3, finish="stop")),
        session(user(1), _running("remote-dispatch send gpu 'go on'")),
        session(user(1), _running("", "remote_dispatch")),
        session(user(1), assistant(2), user(3), revert={"messageID": user(3)["info"]["id"]}),
        session(user(1), assistant(2, finish="stop"), aside(3)),
    ],
    ids=[
        "empty",
        "answered",
        "between",
        "failed",
        "interrupted long ago",
        "our command",
        "our tool",
        "taken back",
        "shown to the user",
    ],
)
def test_a_session_at_rest_and_our_own_turn_are_not_busy(transcript: Transcript) -> None:
    assert not _busy(transcript)


@pytest.mark.parametrize("quiet_ms", [INTERRUPTED_AFTER_MS, 86_400_000, -INTERRUPTED_AFTER_MS])
def test_an_open_turn_that_has_been_quiet_for_two_minutes_was_interrupted(quiet_ms: int) -> None:
    assert not _busy(session(user(1), assistant(2, time=OPEN)), quiet_ms=quiet_ms)


@pytest.mark.parametrize("ending", ["completed", "tools", "error", "aborted"])
def test_a_real_turn_that_dispatches_is_not_busy_before_and_after_its_end(ending: str) -> None:
    assert not _busy(exported(f"turn-{ending}-open"))
    assert not _busy(exported(f"turn-{ending}"))


def test_a_real_turn_without_a_dispatch_is_busy() -> None:
    text = json.dumps(exported("turn-completed-open"))
    assert _busy(json.loads(text.replace("remote-dispatch send", "make")))
