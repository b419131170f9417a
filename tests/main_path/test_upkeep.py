"""Looking after what was sent: what needs a hand, where each copy is, and what may go."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.sshd import wait_until
from tests.rig.stub import a_transcript
from tests.rig.world import PATIENCE_S, REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.world import World


def finished(world: World, name: str = "kumo", prompt: str = "!say done") -> str:
    """Send a session one-way, wait for the end of its run, and return its id."""
    session = world.local_session()
    world.send(prompt, "--session", session, "--name", name)
    world.await_end()
    return session


def copies(data: dict[str, Any]) -> list[str]:
    """Here, kept and host of each message, by their first letters."""
    messages = [message for session in data["sessions"] for message in session["messages"]]
    return ["".join(message[place][0] for place in ("here", "kept", "host")) for message in messages]


def local_state(world: World) -> list[str]:
    """Every file that we keep on the laptop, but OpenCode's own state."""
    root = world.laptop.home / ".local/state/remote-dispatch"
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(str(path) for path in files if path.parts[0] != "opencode")


# --- what needs a hand


def test_the_list_names_the_next_command_for_what_is_not_home(world: World) -> None:
    finished(world)
    world.round_trip("!say done", "--session", world.local_session(), "--name", "home")
    ran = world.cli("list", "--refresh", "--json")
    by_name = {one["name"]: one["attention"] for one in ran.data["dispatches"]}
    assert by_name == {
        "kumo": {"reason": "the result is only on pi", "command": "remote-dispatch collect kumo"},
        "home": None,
    }
    lines = world.cli("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "HOST", "MODE", "STATE", "AGE", "NEXT", "SESSION"]
    [line] = [one for one in lines if one.startswith("kumo")]  # both may have left within a second, in either order
    assert "collect kumo" in line
    world.cli("collect", "kumo")
    assert "NEXT" not in world.cli("list").stdout


def test_a_sender_that_was_killed_is_shown_where_it_stopped_with_the_next_command(world: World) -> None:
    orders = world.directory / "orders"
    orders.mkdir()
    (orders / "stage.begun").write_text("kill")
    killed = world.start(
        *("send", "pi", "!say done", "--session", world.local_session(), "--name", "kumo"),
        variables={"REMOTE_DISPATCH_FAILPOINTS": str(orders)},
    )
    assert killed.process.wait(timeout=PATIENCE_S) == -9
    ran = world.cli("show", "kumo", "--json")
    assert ran.data["stopped_in"] == "stage"
    assert ran.data["attention"]["command"] == "remote-dispatch resume kumo"
    [entry] = ran.data["journal"]
    assert (entry["step"], entry["ended"], entry["tries"]) == ("stage", None, 1)
    shown = world.cli("show", "kumo").stdout
    assert "remote-dispatch resume kumo" in shown
    assert world.cli("resume", "kumo").exit_code == 0
    assert "remote-dispatch resume" not in world.cli("show", "kumo").stdout


# --- verify


def test_a_round_trip_is_everywhere_and_equal(world: World) -> None:
    session = world.local_session("hello", "hi there")
    world.round_trip("!write a.txt x\n!task look around\n!say done", "--session", session, "--name", "kumo")
    before = (world.laptop.content(), world.host.content(), local_state(world))
    ran = world.cli("verify", "kumo", "--json")
    assert (ran.exit_code, copies(ran.data)) == (0, ["eee"] * 5)
    parent, _ = ran.data["sessions"]
    assert parent["session_id"] == session
    assert ran.data["counts"] == {"messages": 5, "here": 5, "kept": 5, "host": 5, "different": 0}
    assert (world.laptop.content(), world.host.content(), local_state(world)) == before
    lines = world.cli("verify", "kumo").stdout.splitlines()
    assert lines[0].split() == ["ID", "ROLE", "HERE", "KEPT", "HOST"]
    assert lines[-1].startswith("5 messages: 5 here, 5 in the files kept here, 5 in OpenCode on pi")


def test_before_it_is_collected_the_result_is_only_there(world: World, gate: Path) -> None:
    session = world.local_session("hello", "hi there")
    world.send(f"!wait {gate}\n!say done", "--session", session, "--name", "kumo")
    wait_until(lambda: len(world.host.export(session)["messages"]) > 2, "no turn began there", timeout_s=20)
    ran = world.cli("verify", "kumo", "--json")
    assert (ran.exit_code, copies(ran.data)[:3]) == (0, ["eee", "eee", "mme"])
    gate.touch()
    world.await_end()
    ran = world.cli("verify", "kumo", "--json")
    assert (ran.exit_code, copies(ran.data)) == (0, ["eee", "eee", "mme", "mme"])
    assert ran.data["run_directory"] == "intact"


def test_a_result_that_came_as_a_copy_is_found_there(world: World, gate: Path) -> None:
    session = world.local_session("hello", "hi there")
    world.round_trip(f"!wait {gate}\n!task below\n!say done", "--session", session, "--name", "kumo", "--detach")
    world.laptop.bring_in(a_transcript("meanwhile", session_id=session))
    gate.touch()
    collected = world.cli("collect", "kumo", "--json")
    assert collected.data["collected"] == "copy"
    ran = world.cli("verify", "kumo", "--json")
    assert (ran.exit_code, copies(ran.data)) == (0, ["eee"] * 5)
    assert ran.data["session_id"] == collected.data["copy_session_id"]


def test_a_session_under_fresh_ids_there_is_known_by_its_own(world: World) -> None:
    session = finished(world, "one")
    world.round_trip("!task below\n!say second", "--session", session, "--name", "two")
    ran = world.cli("verify", "two", "--json")
    assert (ran.exit_code, copies(ran.data)) == (0, ["eee"] * 5)
    assert ran.data["sessions"][0]["session_id"] == session


def test_a_message_that_came_home_and_is_gone_is_exit_12_with_all_that_is_known(world: World) -> None:
    session = world.local_session()
    world.round_trip("!say done", "--session", session, "--name", "kumo")
    last = world.export_local(session)["messages"][-1]["info"]["id"]
    world.laptop.query("delete from message where id = ?", last)
    ran = world.cli("verify", "kumo", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (12, "integrity")
    assert copies(ran.data)[-1] == "mee"
    assert ran.data["problems"] == ["1 message is not here, although the result came home"]


def test_a_host_that_does_not_answer_is_exit_5_with_what_can_be_said(world: World) -> None:
    world.round_trip("!say done", "--session", world.local_session(), "--name", "kumo")
    world.sshd.stop()
    ran = world.cli("verify", "kumo", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (5, "unreachable")
    assert copies(ran.data) == ["eeu"] * 4


# --- prune


def test_what_is_home_goes_and_what_is_only_there_stays(world: World, gate: Path) -> None:
    world.round_trip("!say done", "--session", world.local_session(), "--name", "home")
    finished(world, "there")
    assert world.cli("show", "there", "--json").data["state"] == "finished"
    world.send(f"!wait {gate}", "--session", world.local_session(), "--name", "busy")
    planned = world.cli("prune", "--dry-run", "--json")
    assert (planned.exit_code, planned.data["removed"]) == (0, ["home"])
    assert len(world.dispatch_folders()) == 3
    ran = world.cli("prune", "--json")
    assert (ran.data["removed"], ran.data["kept"]) == (["home"], planned.data["kept"])
    assert {one["name"]: one["command"] for one in ran.data["kept"]} == {
        "there": "remote-dispatch collect there",
        "busy": "remote-dispatch wait busy",
    }
    assert len(world.dispatch_folders()) == 2
    again = world.cli("prune", "--json")
    assert (again.data["removed"], again.data["kept"]) == ([], ran.data["kept"])
    gate.touch()
    world.await_end()


def test_after_everything_came_home_a_prune_leaves_nothing_of_ours(world: World) -> None:
    session = world.local_session()
    world.round_trip("!say done", "--session", session, "--name", "kumo")
    content = (world.laptop.content(), world.host.content())
    assert world.cli("prune", "--older-than", "7d", "--json").data["removed"] == []
    ran = world.cli("prune")
    assert (ran.exit_code, ran.stdout) == (0, "1 removed: kumo\n")
    assert local_state(world) == []
    assert world.run_directories() == []
    assert (world.laptop.content(), world.host.content()) == content


def test_a_run_directory_that_was_left_is_removed_with_its_record(world: World) -> None:
    orders = world.directory / "orders"
    orders.mkdir()
    (orders / "release.begun").write_text("kill")
    killed = world.start(
        *("send", "pi", "!say done", "--session", world.local_session(), "--mode", "round-trip", "--name", "kumo"),
        variables={"REMOTE_DISPATCH_FAILPOINTS": str(orders)},
    )
    assert killed.process.wait(timeout=PATIENCE_S) == -9
    wait_until(lambda: len(world.run_directories()) == 1, "no run directory")
    world.sshd.stop()
    ran = world.cli("prune", "--json")
    assert (ran.exit_code, ran.data["removed"], len(world.dispatch_folders())) == (3, [], 1)
    assert "`kumo` was kept" in ran.stderr
    world.sshd.start()
    ran = world.cli("prune", "--json")
    assert (ran.exit_code, ran.data["removed"], world.run_directories()) == (0, ["kumo"], [])


# --- remove


def test_without_a_terminal_a_removal_needs_a_yes_and_says_what_would_be_lost(world: World) -> None:
    session = finished(world)
    ran = world.cli("remove", "kumo", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (7, "answer-needed")
    assert ran.data["lost"] == ["the result is only on pi: 2 new messages are not home"]
    assert (ran.data["session_there"], ran.data["is_removed"]) == (session, False)
    assert "remove kumo --yes" in ran.error["hint"]
    assert (len(world.dispatch_folders()), len(world.run_directories())) == (1, 1)
    ran = world.cli("remove", "kumo", "--yes", "--json")
    assert (ran.exit_code, ran.data["is_removed"], ran.data["new_messages"]) == (0, True, 2)
    assert (world.dispatch_folders(), world.run_directories()) == ([], [])
    assert world.remote_sessions() == [session]
    assert world.cli("remove", "kumo", "--yes").exit_code == 10


def test_what_is_at_work_is_not_removed(world: World, gate: Path) -> None:
    world.send(f"!wait {gate}\n!say done", "--session", world.local_session(), "--name", "kumo")
    ran = world.cli("remove", "kumo", "--yes", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (8, "diverged")
    assert "remote-dispatch cancel kumo" in ran.error["hint"]
    assert (len(world.dispatch_folders()), len(world.run_directories())) == (1, 1)
    assert world.cli("cancel", "kumo").exit_code == 0
    assert world.cli("remove", "kumo", "--yes").exit_code == 0


def test_a_host_that_is_gone_for_good_is_forgotten_only_when_asked_to(world: World) -> None:
    finished(world)
    world.sshd.stop()
    ran = world.cli("remove", "kumo", "--yes", "--json")
    assert (ran.exit_code, len(world.dispatch_folders())) == (5, 1)
    assert "remove kumo --local" in ran.error["hint"]
    world.write_hosts(other={})
    assert "remove kumo --local" in world.cli("remove", "kumo", "--yes", "--json").error["hint"]
    ran = world.cli("remove", "kumo", "--yes", "--local", "--json")
    assert (ran.exit_code, world.dispatch_folders()) == (0, [])
    assert "not home" in ran.data["lost"][0]
    assert len(world.run_directories()) == 1


@pytest.mark.parametrize(("answer", "is_removed"), [("y", True), ("", False)])
def test_on_a_terminal_it_asks(world: World, answer: str, is_removed: bool) -> None:
    finished(world)
    exit_code, shown = on_a_terminal(world, answer, "remove", "kumo")
    assert "2 new messages are not home" in shown
    assert "Remove kumo?" in shown
    assert (exit_code == 0) is is_removed
    assert (world.dispatch_folders() == []) is is_removed
    assert (world.run_directories() == []) is is_removed


def on_a_terminal(world: World, answer: str, *arguments: str) -> tuple[int, str]:
    """Run the command line as a person would who types this answer; return its exit code and what was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "remote_dispatch", *arguments],
        cwd=world.laptop.project,
        env={**world.laptop.opencode.environment, "PYTHONPATH": str(REPOSITORY), "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        os.write(ours, f"{answer}\n".encode())
        exit_code = process.wait(timeout=PATIENCE_S)
        return exit_code, _read_all(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_all(terminal: int) -> str:
    """What was shown: reading a terminal that nobody holds any more ends with an error."""
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            return shown.decode()
