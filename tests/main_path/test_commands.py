"""The commands for dispatches that were sent, as people and programs read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from tests.rig.world import World


def test_before_anything_was_sent_the_list_says_how_to_begin(world: World) -> None:
    ran = world.cli("list")
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert "remote-dispatch send HOST" in ran.stdout
    assert world.cli("list", "--json").data == {"dispatches": []}


def test_the_list_shows_every_dispatch_newest_last(world: World) -> None:
    session = world.local_session()
    world.round_trip("!say done", "--session", session, "--name", "one")
    world.send("!say done", "--new", "--model", "test/model", "--name", "two")
    names = [one["name"] for one in world.cli("list", "--json").data["dispatches"]]
    assert names == ["one", "two"]
    lines = world.cli("list").stdout.splitlines()
    # NEXT is there when the second one had ended before its sender looked.
    heads = [word for word in lines[0].split() if word != "NEXT"]
    assert heads == ["NAME", "HOST", "MODE", "STATE", "AGE", "SESSION"]
    assert lines[1].split()[:4] == ["one", "pi", "round-trip", "done"]


def test_the_list_asks_the_hosts_only_when_told_to(world: World) -> None:
    world.send("!bash sleep 2\n!say done", "--session", world.local_session(), "--name", "kumo")
    world.await_end()
    before = world.connections()
    assert world.cli("list", "--json").data["dispatches"][0]["state"] == "running"
    assert world.connections() == before
    assert world.cli("list", "--refresh", "--json").data["dispatches"][0]["state"] == "finished"
    assert world.connections() == before + 1


def test_show_asks_the_host_and_says_when_it_does_not_answer(world: World) -> None:
    world.send("!say done", "--session", world.local_session(), "--name", "kumo")
    world.await_end()
    assert world.cli("show", "kumo", "--json").data["state"] == "finished"
    world.sshd.stop()
    ran = world.cli("show", "kumo")
    assert ran.exit_code == 0
    assert "pi does not answer" in ran.stdout


def test_show_works_when_the_host_is_no_longer_in_the_hosts_file(world: World) -> None:
    world.round_trip("!say done", "--session", world.local_session(), "--name", "kumo")
    world.send("!bash sleep 2\n!say done", "--new", "--model", "test/model", "--name", "later")
    world.write_hosts(other={})
    assert world.cli("show", "kumo", "--json").data["state"] == "done"
    ran = world.cli("show", "later", "--json")
    assert (ran.exit_code, ran.data["name"]) == (0, "later")
    ran = world.cli("collect", "later", "--json")
    assert (ran.exit_code, ran.data["state"]) == (10, "running")


def test_a_name_that_nobody_knows_is_exit_10(world: World) -> None:
    world.send("!say done", "--new", "--model", "test/model", "--name", "kumo")
    for command in ("show", "logs", "wait", "collect", "cancel"):
        ran = world.cli(command, "nobody", "--json")
        assert (ran.exit_code, ran.error["kind"]) == (10, "unknown-name"), command
        assert "kumo" in ran.error["message"]


def test_logs_show_what_was_done_while_it_runs_and_after_it_came_home(world: World) -> None:
    gate = world.host.home / "gate"
    session = world.local_session()
    world.send(f"!write a.txt x\n!say thinking\n!wait {gate}", "--session", session, "--name", "kumo")
    events = world.run_directories()[0] / "events.jsonl"
    world.await_file(events)
    wait_until(lambda: "thinking" in events.read_text(), "no event")
    ran = world.cli("logs", "kumo")
    assert [line.split(None, 1)[1] for line in ran.stdout.splitlines()] == ["write: a.txt", "thinking"]
    gate.touch()
    world.cli("collect", "kumo")
    world.sshd.stop()
    assert world.cli("logs", "kumo").stdout == ran.stdout


def test_logs_can_be_followed_to_the_end(world: World) -> None:
    gate = world.host.home / "gate"
    world.send(f"!say first\n!wait {gate}\n!say last", "--session", world.local_session(), "--name", "kumo")
    running = world.start("logs", "-f", "kumo", "--json")
    wait_until(lambda: "first" in running.stdout(), "no event", timeout_s=20)
    assert "last" not in running.stdout()
    gate.touch()
    ran = running.finish()
    assert ran.exit_code == 0
    texts = [line["event"]["part"]["text"] for line in ran.streams if line["event"]["type"] == "text"]
    assert texts == ["first", "last"]


def test_control_characters_of_the_host_reach_no_terminal(world: World) -> None:
    session = world.local_session()
    ran = world.cli(
        *("send", "pi", "-", "--session", session, "--mode", "round-trip"),
        stdin="!say red \x1b[31malert\x1b]0;title\x07 \u202eevil".encode(),
    )
    assert ran.exit_code == 0
    assert not {"\x1b", "\x07", "\u202e"} & set(ran.stdout + ran.stderr)
    assert "red alert" in ran.stdout


def test_several_dispatches_are_waited_for_at_once(world: World) -> None:
    for name in ("one", "two"):
        world.send(f"!say {name}", "--new", "--model", "test/model", "--mode", "round-trip", "--detach", "--name", name)
    ran = world.cli("wait", "one", "two", "--json")
    assert ran.exit_code == 0
    assert [one["answer"] for one in ran.data["dispatches"]] == ["one", "two"]


def test_one_failure_among_several_gives_the_exit_code(world: World) -> None:
    for name, prompt in (("good", "!say fine"), ("bad", "!fail 500")):
        world.send(prompt, "--new", "--model", "test/model", "--mode", "round-trip", "--detach", "--name", name)
    ran = world.cli("wait", "good", "bad", "--json")
    assert ran.exit_code == 1
    assert [one["state"] for one in ran.data["dispatches"]] == ["done", "failed"]


def test_the_answer_is_the_same_for_programs_and_in_the_record(world: World) -> None:
    sent = world.round_trip("!say done", "--session", world.local_session(), "--name", "kumo")
    shown = world.cli("show", "kumo", "--json")
    assert {key: shown.data[key] for key in sent.data} == sent.data


def test_a_record_of_the_future_is_a_warning_and_stays_as_it_is(world: World) -> None:
    world.send("!say done", "--new", "--model", "test/model", "--name", "kumo")
    path = world.dispatch_folders()[0] / "record.json"
    path.write_text(json.dumps({"name": "kumo", "schema_version": 9, "something": "else"}))
    assert world.send("!say done", "--new", "--model", "test/model", "--name", "nebu").exit_code == 0
    ran = world.cli("list", "--json")
    assert (ran.exit_code, [one["name"] for one in ran.data["dispatches"]]) == (3, ["nebu"])
    assert path.parent.name in ran.stderr
    assert "something" in path.read_text()


def test_a_bad_name_is_refused_before_anything_leaves(world: World) -> None:
    session = world.local_session()
    for name in ("", "A", "a b", "../x", "a" * 40, "kumo\n", "$(id)", "1st", "été", "k"):
        ran = world.send("!say done", "--session", session, "--name", name)
        assert (ran.exit_code, ran.error["kind"]) == (2, "usage"), name
    assert (world.run_directories(), world.dispatch_folders()) == ([], [])


def test_only_one_session_can_be_chosen(world: World) -> None:
    for choice in (("--last", "--new"), ("--session", "x", "--new"), ("--session", "x", "--last")):
        ran = world.send("!say done", *choice)
        assert (ran.exit_code, world.connections()) == (2, 0), choice
