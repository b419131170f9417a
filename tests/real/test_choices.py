"""Agent, model and permissions of the run on the host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import OUTSIDE, answers, stored, tool_parts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def test_the_named_agent_and_model_answer_there_and_the_local_ones_stay(machines: Machines) -> None:
    session = machines.talk("!say noted")
    before = stored(machines.laptop, session)["info"]
    ran = machines.send("!say planned", "--agent", "plan", "--model", "there/small", session=session)
    assert ran.exit_code == 0, ran.stderr
    assert (ran.data["agent"], ran.data["model"]) == ("plan", "there/small")
    after = stored(machines.laptop, session)
    brief, answer = (message["info"] for message in after["messages"][-2:])
    assert (answer["agent"], answer["providerID"], answer["modelID"]) == ("plan", "there", "small")
    assert (brief["agent"], brief["model"]["providerID"], brief["model"]["modelID"]) == ("build", "here", "large")
    for column in ("agent", "model", "title", "directory", "permission"):
        assert after["info"][column] == before[column]
    machines.talk("!say and on", session)
    last = stored(machines.laptop, session)["messages"][-1]["info"]
    assert (last["agent"], last["providerID"], last["modelID"]) == ("build", "here", "large")


def test_a_model_that_the_host_lacks_is_refused_before_anything_is_sent(machines: Machines) -> None:
    session = machines.session()
    ran = machines.send("go on", "--model", "here/large", session=session)
    assert ran.exit_code == 9
    assert "model `here/large` is not there; it has `there/large`" in ran.error["message"]
    assert machines.host.query("select id from session where id = ?", session) == []
    assert machines.calls(session) == ()


def test_a_refused_permission_is_a_warning_and_the_model_goes_on(machines: Machines, tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"bash": {"*": "deny", "echo *": "allow"}}))
    script = f"!read {OUTSIDE}\n!bash ls\n!bash echo allowed\n!say went on"
    ran = machines.send(script, "--permission-rules", str(rules))
    assert (ran.exit_code, ran.envelope["ok"], ran.data["state"]) == (3, True, "done"), ran.stderr
    assert ran.data["warnings"] == [
        f"a permission was refused on the host: read: {OUTSIDE}",
        "a permission was refused on the host: bash: ls",
    ]
    after = stored(machines.laptop, ran.data["session_id"])
    assert answers(after) == ["went on"]
    assert [part["state"]["status"] for part in tool_parts(after, "bash")] == ["error", "completed"]
