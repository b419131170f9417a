"""Hand-offs that nobody waits for, and runs that end badly."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import answers, stored
from tests.rig.sshd import wait_until
from tests.runner.conftest import is_alive

if TYPE_CHECKING:
    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def test_a_one_way_hand_off_returns_at_once_and_comes_home_when_asked(machines: Machines) -> None:
    session = machines.session("hello", "at home")
    gate = machines.host.project / "gate"
    script = "!bash until [ -e gate ]; do sleep 0.2; done\n!say finished there"
    sent = machines.world.send(script, "--session", session)
    assert (sent.exit_code, sent.data["state"]) == (0, "running"), sent.stderr
    wait_until(lambda: _connections(machines) == [], "a connection stayed open")
    early = machines.command("collect", "--no-wait", sent.data["name"])
    assert (early.exit_code, early.data["state"]) == (6, "running")
    assert answers(stored(machines.laptop, session)) == ["at home"]
    gate.touch()
    ran = machines.command("collect", sent.data["name"])
    assert (ran.exit_code, ran.data["state"]) == (0, "done"), ran.stderr
    assert answers(stored(machines.laptop, session))[-1] == "finished there"
    again = machines.command("collect", sent.data["name"])
    assert (again.exit_code, again.data["new_messages"]) == (0, 3)
    machines.host.run("run", "--session", session, "--dir", str(machines.host.project), "!say and on there")
    assert answers(stored(machines.host, session))[-1] == "and on there"


def test_cancelling_ends_every_process_and_brings_home_what_was_done(machines: Machines) -> None:
    pids = machines.host.home / "pids"
    script = f"!say before\n!bash echo $$ > {pids}; setsid sleep 300 & echo $! >> {pids}; sleep 300"
    sent = machines.world.send(script, "--new")
    assert sent.exit_code == 0, sent.stderr
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, "the tool never ran", timeout_s=60)
    ran = machines.command("cancel", sent.data["name"])
    assert (ran.exit_code, ran.data["state"], ran.data["collected"]) == (0, "cancelled", "whole"), ran.stderr
    assert [pid for pid in pids.read_text().split() if is_alive(int(pid))] == []
    assert answers(stored(machines.laptop, ran.data["session_id"])) == ["before"]


def test_a_provider_that_refuses_the_host_is_a_failure_that_comes_home(machines: Machines) -> None:
    session = machines.session("hello", "at home")
    ran = machines.send("!fail 401", session=session)
    assert (ran.exit_code, ran.envelope["ok"]) == (1, False), ran.stderr
    assert (ran.data["state"], ran.data["kind"], ran.data["collected"]) == ("failed", "auth_failed", "whole")
    assert stored(machines.laptop, session)["messages"][-1]["info"]["error"]["name"] == "APIError"
    machines.talk("!say and on at home", session)
    assert answers(stored(machines.laptop, session)) == ["at home", "and on at home"]


def _connections(machines: Machines) -> list[str]:
    """The processes of sshd that serve a connection."""
    argv = ["ps", "-o", "pid=", "--ppid", (machines.world.sshd.directory / "sshd.pid").read_text().strip()]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=10).stdout.split()
