"""The call that asked for the dispatch is closed truthfully."""

from __future__ import annotations

from typing import Any

import pytest

from remote_dispatch.model import Mode
from remote_dispatch.transcript import Part, Transcript, close_open_calls, open_calls
from tests.transcript.samples import NOW, assistant, exported, part, session, thawed, tool, user

STATE_FIELDS = {"status", "input", "output", "title", "metadata", "time"}


def _closed(transcript: Transcript, mode: Mode = Mode.ONE_WAY) -> Transcript:
    return close_open_calls(transcript, host="gpu", mode=mode, now_ms=NOW)


def _asking(*calls: Part) -> Transcript:
    start = part(200, 2, "step-start", snapshot="67de")
    return session(user(1), assistant(2, start, *calls, time={"created": 2000}))


def _call(number: int, name: str, **asked: Any) -> Part:
    return tool(number, 2, name, status="running", input=asked, time={"start": 2100})


def _outputs(transcript: Transcript) -> list[str]:
    return [one["state"]["output"] for one in transcript["messages"][-1]["parts"] if one["type"] == "tool"]


def test_a_real_export_has_its_open_calls_completed_and_everything_else_kept() -> None:
    before = exported("open-call")
    untouched = thawed(before)
    after = _closed(before)
    assert [one["callID"] for one in open_calls(before)] == ["call_9_1", "call_9_2"]
    assert open_calls(after) == ()
    assert before == untouched
    assert after["messages"][:-1] == before["messages"][:-1]
    assert after["messages"][-1]["parts"][:2] == before["messages"][-1]["parts"][:2]


def test_a_closed_call_has_all_fields_and_its_whole_input() -> None:
    before, after = exported("open-call"), _closed(exported("open-call"))
    for old, new in zip(open_calls(before), after["messages"][-1]["parts"][2:4], strict=True):
        assert set(new["state"]) == STATE_FIELDS
        assert new["state"]["input"] == old["state"]["input"]
        assert new["state"]["time"] == {"start": old["state"]["time"]["start"], "end": NOW}
        assert {**new, "state": None} == {**old, "state": None}


def test_the_line_that_the_plugin_shows_in_its_calls_does_not_leave() -> None:
    asked = {"host": "gpu", "task": "go on"}
    calls = (
        _call(210, "remote_dispatch", **asked, status="copying the session"),
        _call(220, "remote_dispatch", host="lab", status="exporting"),
        _call(230, "other", status="mine"),
    )
    inputs = [
        one["state"]["input"] for one in _closed(_asking(*calls))["messages"][-1]["parts"] if one["type"] == "tool"
    ]
    assert inputs == [asked, {"host": "lab"}, {"status": "mine"}]


def test_the_message_ends_as_opencode_ends_a_step() -> None:
    real = exported("killed")["messages"][12]["parts"][-1]
    message = _closed(exported("open-call"))["messages"][-1]
    finish = message["parts"][-1]
    assert set(finish) == set(real)
    assert (finish["type"], finish["reason"], finish["snapshot"]) == ("step-finish", "tool-calls", real["snapshot"])
    assert finish["id"] > max(one["id"] for one in message["parts"][:-1])
    assert message["info"]["finish"] == "tool-calls"
    assert message["info"]["time"] == {"created": 1795224673001, "completed": NOW}


def test_the_text_names_the_host_and_tells_ours_from_parallel_calls() -> None:
    ours, other = _outputs(_closed(exported("open-call")))[1:]
    assert "handed over to the host `gpu` (one-way)" in ours
    assert "had not finished when the session was handed over" in other


def test_a_round_trip_says_that_the_conversation_comes_home() -> None:
    (ours,) = _outputs(_closed(_asking(_call(210, "remote_dispatch", host="gpu")), Mode.ROUND_TRIP))
    assert "(round-trip)" in ours
    assert "comes home" in ours


def test_of_two_dispatches_only_the_one_to_this_host_is_ours() -> None:
    calls = (_call(210, "remote_dispatch", host="gpu"), _call(220, "remote_dispatch", host="lab"))
    ours, other = _outputs(_closed(_asking(*calls)))
    assert ours.startswith("This session was handed over")
    assert other.startswith("This call had not finished")


@pytest.mark.parametrize(
    ("command", "is_ours"),
    [
        ("remote-dispatch send gpu 'go on'", True),
        ("cd x && uvx remote-dispatch send $HOST", True),
        ("remote-dispatch --json send gpu", True),
        ("python -m remote_dispatch send gpu", True),
        ("remote-dispatch hosts list", False),
        ("cat ~/.local/remote-dispatch/send", False),
        ("my-remote-dispatch send gpu", False),
    ],
)
def test_a_shell_command_is_ours_when_it_sends(command: str, is_ours: bool) -> None:
    (output,) = _outputs(_closed(_asking(_call(210, "bash", command=command))))
    assert output.startswith("This session was handed over") is is_ours


def test_a_pending_call_without_times_is_closed_too() -> None:
    pending = tool(210, 2, "remote_dispatch", status="pending", input={}, raw="")
    state = _closed(_asking(pending))["messages"][-1]["parts"][1]["state"]
    assert set(state) == STATE_FIELDS
    assert state["time"] == {"start": 2000, "end": NOW}


def test_without_snapshots_the_step_finish_has_none() -> None:
    bare = session(user(1), assistant(2, part(200, 2, "step-start"), _call(210, "bash"), time={"created": 2000}))
    assert "snapshot" not in _closed(bare)["messages"][-1]["parts"][-1]


def test_an_older_interrupted_message_stays_as_it_is() -> None:
    interrupted = assistant(2, _call(210, "bash", command="x"), time={"created": 2000})
    transcript = session(user(1), interrupted, user(3), assistant(4, parent=3, finish="stop"))
    assert _closed(transcript) == transcript


def test_a_prompt_queued_behind_the_open_call_does_not_hide_it() -> None:
    transcript = _asking(_call(210, "remote_dispatch", host="gpu"))
    queued = {**transcript, "messages": [*transcript["messages"], user(3)]}
    closed = _closed(queued)
    assert closed["messages"][1]["info"]["finish"] == "tool-calls"
    assert closed["messages"][2] == user(3)
