"""A session that is handed over by its own model, while the call that asks for it is still open."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import answers, heard, stored, tool_parts

if TYPE_CHECKING:
    from tests.real.conftest import Machines
    from tests.rig.world import Transcript

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

DIRECTORY = 'a dir/with "quotes" and $(things)'
AT_HOME = "!task !say below at home\n!todo first;second\n!bash seq 1 3000\n!say noted at home"
ENVELOPE = {"name", "id", "host", "mode", "state", "session_id", "new_messages", "warnings", "copy_session_id"}
HAND_OVER_S = 240


def test_a_model_hands_its_session_and_all_that_belongs_to_it_over_and_both_turns_end_well(machines: Machines) -> None:
    session = machines.talk(AT_HOME)
    before = stored(machines.laptop, session)
    output = Path(tool_parts(before, "bash")[0]["state"]["metadata"]["outputPath"])
    there = machines.host.opencode.data / "tool-output" / output.name
    hand_over(
        machines,
        session,
        f"Measure it.\n!read {there}\n!write found.txt by the host\n!bash cat found.txt\n"
        "!task !say below on the host\n!bash seq 5000 9000\n!todo first;third;fourth\n!say measured on the host",
    )
    after = stored(machines.laptop, session)
    check_the_open_call(after)
    check_what_the_model_saw_there(machines, session)
    check_the_work_there(machines, output, there)
    check_the_session(before, after)
    check_the_family(machines, after)
    check_the_record(machines, session)

    machines.talk("anything else?", session)
    last = stored(machines.laptop, session)["messages"][-1]["info"]
    assert (last["agent"], last["providerID"], last["modelID"]) == ("build", "here", "large")
    told = heard(machines.calls(session)[-1])
    texts = ("noted at home", "Finish this elsewhere", "is home from", "You are now on the host", "else?")
    places = [told.index(text) for text in texts]
    assert places == sorted(places)


@pytest.mark.slow
def test_what_failed_on_the_host_is_not_begun_again_by_the_turn_that_asked_for_it(machines: Machines) -> None:
    session = machines.talk("!say noted at home")
    hand_over(machines, session, "Measure it.\n!fail 401", name="lima")
    asked = [call for call in machines.calls(session) if call.directory == str(machines.laptop.project)]
    assert asked
    assert not any("You are now on the host" in str(call.messages) for call in asked)
    shown = machines.command("show", "lima")
    assert shown.exit_code == 0, tool_parts(stored(machines.laptop, session), "bash")[-1]["state"]
    assert (shown.data["state"], shown.data["collected"]) == ("failed", "copy")


def hand_over(machines: Machines, session: str, task: str, name: str = "kumo") -> None:
    """Have the local model type the command; its call is open until the session is home."""
    options = f"--session {session} --mode round-trip --model there/small --name {name}"
    command = f"remote-dispatch send pi {shlex.quote(task)} {options} --directory {shlex.quote(f'~/{DIRECTORY}')}"
    call = {"command": command, "description": "hands over", "timeout": HAND_OVER_S * 1000}
    machines.talk(f"Finish this elsewhere.\n!tool bash {json.dumps(call)}", session, timeout_s=HAND_OVER_S)


def check_the_open_call(after: Transcript) -> None:
    """The call that handed over ended like any other."""
    call = tool_parts(after, "bash")[1]
    assert (call["state"]["status"], call["state"]["metadata"]["exit"]) == ("completed", 0), call["state"]
    assert "measured on the host" in call["state"]["output"]
    assert answers(after) == ["noted at home", "measured on the host"]
    assert all("completed" in one["info"]["time"] for one in after["messages"] if one["info"]["role"] == "assistant")


def check_what_the_model_saw_there(machines: Machines, session: str) -> None:
    """The model on the host was told where it is and what is to be done."""
    directory = str(machines.host.home / DIRECTORY)
    first = heard(next(call for call in machines.calls(session) if call.directory == directory))
    assert "[Tool execution was interrupted]" not in first
    assert "This session was handed over to the host `pi` (round-trip)." in first
    assert "[in_progress] first" in first


def check_the_work_there(machines: Machines, output: Path, there: Path) -> None:
    """Files were made there and nowhere else; the long output of home could be read."""
    assert (machines.host.home / DIRECTORY / "found.txt").read_text() == "by the host\n"
    assert not (machines.laptop.project / "found.txt").exists()
    assert there.read_bytes() == output.read_bytes()


def check_the_session(before: Transcript, after: Transcript) -> None:
    """Nothing that was said changed, and the session is what it was; the other model answered there."""
    assert after["messages"][: len(before["messages"])] == before["messages"]
    for column in ("agent", "model", "title", "directory", "permission"):
        assert after["info"][column] == before["info"][column]
    (read,) = tool_parts(after, "read")
    assert (read["state"]["status"], "1500" in read["state"]["output"]) == ("completed", True)
    named = [one["info"] for one in after["messages"] if "providerID" in one["info"]]
    assert (named[-1]["providerID"], named[-1]["modelID"]) == ("there", "small")
    prompts = [one["info"]["model"] for one in after["messages"] if one["info"]["role"] == "user"]
    assert {(model["providerID"], model["modelID"]) for model in prompts} == {("here", "large")}


def check_the_family(machines: Machines, after: Transcript) -> None:
    """Sub-agents' sessions, todos and long outputs travelled both ways."""
    children = [part["state"]["metadata"]["sessionId"] for part in tool_parts(after, "task")]
    below = [stored(machines.laptop, child) for child in children]
    assert [answers(one) for one in below] == [["below at home"], ["below on the host"]]
    prompts = [one["messages"][0]["info"] for one in below]
    assert [(one["agent"], one["model"]["providerID"]) for one in prompts] == [("general", "here")] * 2
    session = after["info"]["id"]
    assert {one["info"]["parent_id"] for one in below} == {session}
    todos = machines.laptop.query("select content, status from todo where session_id = ? order by position", session)
    assert [tuple(todo.values()) for todo in todos] == [
        ("first", "in_progress"), ("third", "pending"), ("fourth", "pending"),
    ]  # fmt: skip
    name = tool_parts(after, "bash")[-1]["state"]["metadata"]["outputPath"].rpartition("/")[2]
    numbers = (machines.laptop.opencode.data / "tool-output" / name).read_text().split()
    assert numbers == [str(number) for number in range(5000, 9001)]


def check_the_record(machines: Machines, session: str) -> None:
    """The dispatch is done, and nothing of it is left on the host."""
    data = machines.command("show", "kumo").data
    assert data.keys() >= ENVELOPE
    shown = [data[key] for key in ("host", "mode", "state", "session_id", "model", "warnings", "copy_session_id")]
    assert shown == ["pi", "round-trip", "done", session, "there/small", [], None]
    assert data["id"] not in {one.name for one in machines.world.run_directories()}
