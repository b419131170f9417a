"""Model and permissions of the run on the host. Minutes: tests/main_path shows the same with the stub."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import OUTSIDE, answers, stored, tool_parts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_model_that_the_host_lacks_is_refused_before_anything_is_sent(machines: Machines) -> None:
    session = machines.session()
    ran = machines.send("go on", "--model", "here/large", session=session)
    assert ran.exit_code == 9
    assert "model `here/large` is not there; it has `there/large`" in ran.error["message"]
    assert machines.host.query("select id from session where id = ?", session) == []
    assert machines.calls(session) == ()


def test_a_refused_permission_is_a_warning_and_the_new_session_comes_home_is_listed_and_goes_on(
    machines: Machines, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"bash": {"*": "deny", "echo *": "allow"}}))
    script = f"!read {OUTSIDE}\n!bash ls\n!bash echo allowed\n!say went on"
    ran = machines.send(script, "--permission-rules", str(rules))
    assert (ran.exit_code, ran.envelope["ok"], ran.data["state"]) == (3, True, "done"), ran.stderr
    assert {"text", "tool", "tokens"} <= {line["type"] for line in ran.streams}
    assert ran.data["warnings"] == [
        f"a permission was refused on the host: read: {OUTSIDE}",
        "a permission was refused on the host: bash: ls",
    ]
    session = ran.data["session_id"]
    after = stored(machines.laptop, session)
    assert answers(after) == ["went on"]
    assert [part["state"]["status"] for part in tool_parts(after, "bash")] == ["error", "completed"]
    assert session in machines.laptop.run("session", "list", "--format", "json").stdout
    machines.talk("!bash pwd\n!say gone on here", session)
    after = stored(machines.laptop, session)
    assert answers(after) == ["went on", "gone on here"]
    last = after["messages"][-1]["info"]
    assert (last["providerID"], last["path"]["cwd"]) == ("here", str(machines.laptop.project))
