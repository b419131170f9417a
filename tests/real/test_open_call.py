"""A session that is handed over by its own model, while the call that asks for it is still open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import answers, heard, stored, tool_parts

if TYPE_CHECKING:
    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def test_a_model_hands_its_own_session_over_and_both_turns_end_well(machines: Machines) -> None:
    session = machines.session("hello", "at home")
    task = r"!write handed.txt over\n!say done on the host"
    command = f"remote-dispatch send pi '{task}' --session {session} --mode round-trip"
    machines.talk(f"Finish this elsewhere.\n!bash {command}", session)

    there = [call for call in machines.calls(session) if call.directory == str(machines.host.project)]
    assert "[Tool execution was interrupted]" not in heard(there[0])
    assert "This session was handed over to the host `pi` (round-trip)." in heard(there[0])
    assert (machines.host.project / "handed.txt").read_text() == "over\n"

    after = stored(machines.laptop, session)
    (call,) = tool_parts(after, "bash")
    assert (call["state"]["status"], call["state"]["metadata"]["exit"]) == ("completed", 0)
    assert "done on the host" in call["state"]["output"]
    assert answers(after) == ["at home", "done on the host"]
    assert all("completed" in one["info"]["time"] for one in after["messages"] if one["info"]["role"] == "assistant")

    machines.talk("anything else?", session)
    last = heard(machines.calls(session)[-1])
    places = [
        last.index(text) for text in ("Finish this elsewhere", "is home from", "You are now on the host", "else?")
    ]
    assert places == sorted(places)
