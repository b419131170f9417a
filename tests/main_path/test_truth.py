"""What is said of a dispatch is true, whatever ended early and whoever else looks after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch.demo.processes import end_processes_of
from tests.main_path.test_coming_home import one_way_and_ended, recording_server
from tests.main_path.texts import briefs, said
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from tests.rig.world import Running, World

SLOW_SUM = "#!/bin/sh\ntouch {reached}\nexec sleep 60\n"


def test_a_session_that_came_home_from_fresh_ids_can_be_sent_there_again(world: World) -> None:
    session = one_way_and_ended(world, "!say one")
    assert world.round_trip("!say two", "--session", session, "--name", "two").data["collected"] == "whole"
    assert world.cli("collect", "kumo", "--json").data["collected"] == "copy"
    for word in ("three", "four"):
        ran = world.round_trip(f"!say {word}", "--session", session, "--name", word)
        assert (ran.exit_code, ran.data["answer"], ran.data["collected"]) == (0, word, "whole")
    answers = [text for role, text in said(world.export_local(session)) if role == "assistant"]
    assert answers[-3:] == ["two", "three", "four"]


def staged_and_abandoned(world: World, prompt: str = "!say done") -> Running:
    """End the sender and its launch while the copied files are checked on the host."""
    reached = world.host.home / "reached"
    program = world.host.put_program("sha256sum", SLOW_SUM.format(reached=reached))
    running = world.start("send", "pi", prompt, "--session", world.local_session(), "--name", "kumo", "--json")
    world.await_file(reached)
    running.kill()
    end_processes_of(world.host.home)
    program.unlink()
    return running


def test_what_was_staged_and_never_launched_is_neither_running_nor_lost(world: World) -> None:
    staged_and_abandoned(world)
    ran = world.cli("show", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"]) == (0, "staging")
    assert world.count_runs() == 0


def test_who_does_not_want_to_wait_has_it_launched(world: World) -> None:
    gate = world.host.home / "gate"
    staged_and_abandoned(world, f"!wait {gate}\n!say done")
    ran = world.cli("collect", "kumo", "--no-wait", "--json")
    assert (ran.exit_code, ran.data["state"], ran.error["kind"]) == (6, "running", "deadline")
    gate.touch()
    assert world.cli("collect", "kumo", "--json").exit_code == 0
    assert world.count_runs() == 1


def test_whoever_waits_launches_what_its_sender_could_not(world: World) -> None:
    staged_and_abandoned(world)
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"], ran.data["answer"]) == (0, "done", "done")
    assert world.count_runs() == 1


def test_cancelling_what_was_never_launched_removes_it(world: World) -> None:
    staged_and_abandoned(world)
    ran = world.cli("cancel", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"]) == (0, "cancelled")
    assert (world.run_directories(), world.count_runs()) == ([], 0)


def test_the_local_server_hears_of_what_collect_brings_home(world: World) -> None:
    session = one_way_and_ended(world)
    with recording_server() as (url, asked):
        assert world.cli("collect", "kumo", "--json", variables={"REMOTE_DISPATCH_SERVER": url}).exit_code == 0
        assert world.cli("collect", "kumo", "--json", variables={"REMOTE_DISPATCH_SERVER": url}).exit_code == 0
    assert [request["path"] for request in asked] == [f"/session/{session}/prompt_async"]


def test_the_local_server_hears_nothing_of_what_did_not_come_home(world: World) -> None:
    world.host.set(STUB_FAULT="export-fails")
    with recording_server() as (url, asked):
        ran = world.round_trip("!say done", "--session", world.local_session(), "--server", url)
    assert (ran.exit_code, ran.data["state"], ran.data["collected"]) == (1, "failed", "none")
    assert asked == []
    [directory] = world.run_directories()
    assert str(directory) in ran.data["detail"]


def test_a_refused_import_has_its_record_in_the_envelope(world: World) -> None:
    world.host.set(STUB_FAULT="import-refused")
    ran = world.round_trip("!say done", "--session", world.local_session(), "--name", "kumo")
    assert (ran.exit_code, ran.data["name"], ran.data["state"], ran.data["kind"]) == (
        9,
        "kumo",
        "failed",
        "import-refused",
    )
    assert world.run_directories() == []


def test_whoever_stops_waiting_is_told_the_name(world: World) -> None:
    session = world.local_session()
    gate = world.host.home / "gate"
    prompt = f"!wait {gate}\n!say done"
    running = world.start(
        "send", "pi", prompt, "--session", session, "--mode", "round-trip", "--name", "kumo", "--json"
    )
    wait_until(lambda: "pi is working" in running.stderr() or world.count_runs() == 1, "it did not start", timeout_s=20)
    running.interrupt()
    ran = running.finish()
    assert (ran.exit_code, ran.data["name"]) == (130, "kumo")
    assert "remote-dispatch collect kumo" in ran.error["hint"]
    gate.touch()
    assert world.cli("collect", "kumo", "--json").data["state"] == "done"
    assert briefs(world.export_local(session)) == 1


def test_cancelling_during_the_import_is_a_cancelled_dispatch(world: World) -> None:
    gate = world.host.home / "gate"
    world.host.set(STUB_FAULT="import-gate", STUB_GATE=gate)
    running = world.start("send", "pi", "!say done", "--session", world.local_session(), "--name", "kumo", "--json")
    wait_until(lambda: world.host.calls("import") == 1, "the import did not begin", timeout_s=20)
    ran = world.cli("cancel", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"]) == (0, "cancelled")
    sent = running.finish()
    assert (sent.exit_code, sent.data["state"]) == (9, "cancelled")
    assert (world.run_directories(), world.count_runs()) == ([], 0)
