"""What belongs to a session and is in no export of it: sub-agents' sessions, todos, long tool outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import answers, heard, stored, tool_parts

if TYPE_CHECKING:
    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def test_sub_agents_todos_and_long_outputs_travel_both_ways(machines: Machines) -> None:
    session = machines.talk("!task !say below at home\n!todo first;second\n!bash seq 1 3000\n!say noted")
    output = Path(tool_parts(stored(machines.laptop, session), "bash")[0]["state"]["metadata"]["outputPath"])
    there = machines.host.opencode.data / "tool-output" / output.name
    work = "!task !say below on the host\n!bash seq 5000 9000\n!todo first;third;fourth"
    ran = machines.send(f"!read {there}\n{work}\n!say all done", session=session)
    assert (ran.exit_code, ran.data["warnings"]) == (0, []), ran.stderr
    assert {"text", "tool", "todo", "tokens"} <= {line["type"] for line in ran.streams}
    assert there.read_bytes() == output.read_bytes()
    after = stored(machines.laptop, session)
    (read,) = tool_parts(after, "read")
    assert (read["state"]["status"], "1500" in read["state"]["output"]) == ("completed", True)
    assert "[in_progress] first" in heard(machines.calls(session)[-1])

    children = [part["state"]["metadata"]["sessionId"] for part in tool_parts(after, "task")]
    below = [stored(machines.laptop, child) for child in children]
    assert [answers(one) for one in below] == [["below at home"], ["below on the host"]]
    prompts = [one["messages"][0]["info"] for one in below]
    assert [(one["agent"], one["model"]["providerID"]) for one in prompts] == [("general", "here")] * 2
    assert {one["info"]["parent_id"] for one in below} == {session}
    todos = machines.laptop.query("select content, status from todo where session_id = ? order by position", session)
    assert [tuple(todo.values()) for todo in todos] == [
        ("first", "in_progress"), ("third", "pending"), ("fourth", "pending"),
    ]  # fmt: skip
    name = tool_parts(after, "bash")[-1]["state"]["metadata"]["outputPath"].rpartition("/")[2]
    numbers = (machines.laptop.opencode.data / "tool-output" / name).read_text().split()
    assert numbers == [str(number) for number in range(5000, 9001)]
