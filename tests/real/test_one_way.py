"""Hand-offs that nobody waits for: they come home when asked, as a copy when the session moved on, or are cancelled."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import OUTSIDE, answers, stored, tool_parts
from tests.rig.sshd import wait_until
from tests.rig.stub import a_transcript
from tests.runner.conftest import is_alive

if TYPE_CHECKING:
    from tests.real.conftest import Machines
    from tests.rig.world import Transcript

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]
"""Slow: tests/main_path/ shows each of it with the stand-in, and tests/real/test_open_call.py the way home."""


def test_a_one_way_hand_off_returns_at_once_and_comes_home_as_a_copy_when_the_session_moved_on(
    machines: Machines,
) -> None:
    session = machines.session("hello", "at home")
    gate = machines.host.project / "gate"
    work = f"!read {OUTSIDE}\n!todo look\n!task !say below\n!say finished there"
    sent = machines.world.send(f"!bash until [ -e gate ]; do sleep 0.2; done\n{work}", "--session", session)
    assert (sent.exit_code, sent.data["state"]) == (0, "running"), sent.stderr
    wait_until(lambda: _connections(machines) == [], "a connection stayed open")
    early = machines.command("collect", "--no-wait", sent.data["name"])
    assert (early.exit_code, early.data["state"]) == (6, "running")
    moved = move_on(machines, session)
    assert answers(moved) == ["at home", "moved on"]
    gate.touch()

    ran = machines.command("collect", sent.data["name"])
    collected = (ran.exit_code, ran.data["state"], ran.data["collected"], ran.data["session_id"])
    assert collected == (3, "done", "copy", session), ran.stderr
    assert f"a permission was refused on the host: read: {OUTSIDE}" in ran.data["warnings"]
    assert stored(machines.laptop, session)["messages"] == moved["messages"]
    again = machines.command("collect", sent.data["name"])
    assert (again.exit_code, again.data["copy_session_id"]) == (3, ran.data["copy_session_id"])
    check_the_copy(machines, ran.data["copy_session_id"])


def move_on(machines: Machines, session: str) -> Transcript:
    """Add a turn to the session at home; return what it is then."""
    turn = a_transcript("and here?", "moved on", session_id=session)
    for message in turn["messages"]:
        message["info"]["time"]["created"] += 10
    machines.bring_in(turn)
    return stored(machines.laptop, session)


def check_the_copy(machines: Machines, identity: str) -> None:
    """It is a session like any other, with its sub-agent's session and its todos, and goes on."""
    machines.talk("!say the copy goes on", identity)
    copy = stored(machines.laptop, identity)
    assert answers(copy) == ["at home", "finished there", "the copy goes on"]
    (task,) = tool_parts(copy, "task")
    child = stored(machines.laptop, task["state"]["metadata"]["sessionId"])
    assert (answers(child), child["info"]["parent_id"]) == (["below"], identity)
    todos = machines.laptop.query("select content from todo where session_id = ?", identity)
    assert [todo["content"] for todo in todos] == ["look"]


def test_cancelling_ends_every_process_and_brings_home_what_was_done(machines: Machines) -> None:
    pids = machines.host.home / "pids"
    script = f"!read {OUTSIDE}\n!say before\n!bash echo $$ > {pids}; setsid sleep 300 & echo $! >> {pids}; sleep 300"
    sent = machines.world.send(script, "--new", "--permissions", "auto")
    assert sent.exit_code == 0, sent.stderr
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, "the tool never ran", timeout_s=60)
    ran = machines.command("cancel", sent.data["name"])
    assert (ran.exit_code, ran.data["state"], ran.data["collected"]) == (0, "cancelled", "whole"), ran.stderr
    assert [pid for pid in pids.read_text().split() if is_alive(int(pid))] == []
    after = stored(machines.laptop, ran.data["session_id"])
    (read,) = tool_parts(after, "read")
    assert (read["state"]["status"], answers(after)) == ("completed", ["before"])


def _connections(machines: Machines) -> list[str]:
    """The processes of sshd that serve a connection."""
    argv = ["ps", "-o", "pid=", "--ppid", (machines.world.sshd.directory / "sshd.pid").read_text().strip()]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=10).stdout.split()
