"""Whatever was interrupted goes on from where it stopped, once; what was killed on the host still comes home."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.main_path.texts import briefs, orders, said
from tests.rig.sshd import wait_until
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.world import World


def kill_runner(world: World) -> None:
    """Kill the runner as a lack of memory would, once OpenCode has said `before`: nothing of it can clean up."""
    [run] = world.run_directories()
    events = world.await_file(run / "events.jsonl")
    wait_until(lambda: '"before"' in events.read_text(), "OpenCode said nothing", timeout_s=20)
    world.host_kill(int((run / "lock" / "owner").read_text().split()[1]))


def end_opencode(world: World) -> None:
    [run] = world.run_directories()
    world.host_kill(int((run / "opencode.pid").read_text().split()[1]))


@pytest.mark.parametrize("point", ["record_after", "stage_begun", "launch_after"])
def test_a_sender_that_was_killed_is_carried_on(world: World, point: str) -> None:
    session = world.local_session()
    killed = world.start(
        *("send", "pi", "!say done", "--session", session, "--mode", "round-trip", "--name", "kumo", "--json"),
        variables=orders(world, **{point: "kill"}),
    )
    assert killed.process.wait(timeout=30) == -9
    ran = world.cli("resume", "--json")
    assert (ran.exit_code, ran.data["dispatches"][0]["state"]) == (0, "done")
    assert said(world.export_local(session))[-1] == ("assistant", "done")
    assert world.count_runs() == 1
    assert briefs(world.export_local(session)) == 1


def test_what_is_where_it_should_be_is_not_resumed(world: World, gate: Path) -> None:
    world.send(f"!wait {gate}", "--session", world.local_session(), "--name", "kumo")
    ran = world.cli("resume")
    assert (ran.exit_code, ran.stdout) == (0, "nothing to resume: every dispatch is where it should be\n")
    gate.touch()
    world.await_end()


def test_a_run_whose_runner_was_killed_is_lost_and_comes_home_and_the_session_can_leave_again(
    world: World, gate: Path
) -> None:
    session = world.local_session()
    world.round_trip(f"!say before\n!wait {gate}\n!say after", "--session", session, "--name", "kumo", "--detach")
    kill_runner(world)
    ran = world.cli("show", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"], ran.data["collected"]) == (0, "lost", "none")
    end_opencode(world)
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"], ran.data["collected"]) == (1, "lost", "partial")
    assert said(world.export_local(session))[-1] == ("assistant", "before")
    assert world.run_directories() == []
    again = world.cli("collect", "kumo", "--json")
    assert (again.exit_code, again.data) == (1, ran.data)
    assert world.count_runs() == 1
    sent = world.send("!say and again", "--session", session, "--name", "nebu")
    assert sent.exit_code == 0, sent.stderr


def test_what_opencode_does_without_its_runner_is_waited_for(world: World, gate: Path) -> None:
    session = world.local_session()
    world.round_trip(f"!say before\n!wait {gate}\n!say after", "--session", session, "--name", "kumo", "--detach")
    kill_runner(world)
    assert world.cli("collect", "kumo", "--no-wait", "--json").exit_code == 6
    collecting = world.start("collect", "kumo", "--json")
    wait_until(lambda: "exports what" in collecting.stdout(), "no recovery began", timeout_s=20)
    gate.touch()
    ran = collecting.finish()
    assert (ran.exit_code, ran.data["state"], ran.data["collected"]) == (1, "lost", "partial")
    assert said(world.export_local(session))[-1] == ("assistant", "beforeafter")


def test_a_lost_run_can_be_cancelled(world: World, gate: Path) -> None:
    session = world.local_session()
    world.round_trip(f"!say before\n!wait {gate}", "--session", session, "--name", "kumo", "--detach")
    kill_runner(world)
    ran = world.cli("cancel", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"], ran.data["collected"]) == (1, "lost", "partial")
    assert said(world.export_local(session))[-1] == ("assistant", "before")


def test_what_could_not_be_exported_is_exported_anew(world: World) -> None:
    session = world.local_session()
    world.host.set(STUB_FAULT="export-fails")
    ran = world.round_trip("!say done", "--session", session, "--name", "kumo")
    assert (ran.exit_code, ran.data["state"], ran.data["kind"]) == (1, "failed", "export-failed")
    world.host.set()
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"], ran.data["collected"]) == (1, "failed", "whole")
    assert said(world.export_local(session))[-1] == ("assistant", "done")


# --- who has a session


def test_a_session_that_is_away_is_refused_with_the_name_of_the_dispatch(world: World, gate: Path) -> None:
    session = world.local_session()
    world.send(f"!wait {gate}\n!say one", "--session", session, "--name", "kumo")
    ran = world.send("!say two", "--session", session)
    assert (ran.exit_code, ran.error["kind"]) == (8, "diverged")
    assert "`kumo` has it on pi" in ran.error["message"]
    assert len(world.dispatch_folders()) == 1
    gate.touch()
    world.await_end()
    assert world.count_runs() == 1


def test_an_independent_copy_becomes_a_session_of_its_own(world: World, gate: Path) -> None:
    session = world.local_session()
    world.round_trip(f"!wait {gate}\n!say one", "--session", session, "--name", "kumo", "--detach")
    ran = world.round_trip("!say two", "--session", session, "--copy", "--name", "nebu")
    assert (ran.exit_code, ran.data["collected"], ran.data["warnings"]) == (0, "copy", [])
    assert len(said(world.export_local(session))) == 2
    assert said(world.export_local(ran.data["copy_session_id"]))[-1] == ("assistant", "two")
    gate.touch()
    ran = world.cli("wait", "kumo", "--json")
    assert (ran.exit_code, ran.data["dispatches"][0]["collected"]) == (0, "whole")
    assert said(world.export_local(session))[-1] == ("assistant", "one")


def test_a_session_whose_turn_is_open_here_is_refused(world: World) -> None:
    transcript = a_transcript("hello", "hi there", "and now?")
    session = world.laptop.bring_in(transcript)
    ran = world.send("!say done", "--session", session)
    assert (ran.exit_code, ran.error["kind"]) == (8, "diverged")
    assert "--force" in ran.error["hint"]
    assert (world.dispatch_folders(), world.remote_sessions()) == ([], [])
    assert world.send("!say done", "--session", session, "--force").exit_code == 0
    world.await_end()


def test_a_turn_without_any_change_for_two_minutes_was_interrupted(world: World) -> None:
    session = world.laptop.bring_in(a_transcript("hello", "hi there", "and now?"))
    for table in ("session", "message", "part"):
        world.laptop.query(f"update {table} set time_updated = time_updated - 121000")
    assert world.send("!say done", "--session", session).exit_code == 0
    world.await_end()


def test_the_opencode_that_the_session_is_in_is_no_host(world: World) -> None:
    session = world.local_session()
    (world.host.home / ".local").mkdir(exist_ok=True)
    (world.host.home / ".local/share").symlink_to(world.laptop.home / ".local/share")
    before = world.laptop.content()
    ran = world.send("!say done", "--session", session)
    assert (ran.exit_code, ran.error["kind"]) == (8, "diverged")
    assert "same OpenCode database" in ran.error["message"]
    assert json.dumps(world.laptop.content()) == json.dumps(before)
    assert world.count_runs() == 0
