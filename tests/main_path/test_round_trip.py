"""A session goes to the host, works there, and comes home, through the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.main_path.texts import said
from tests.rig.stub import new_id

if TYPE_CHECKING:
    from tests.rig.world import World


def test_a_round_trip_brings_the_answer_home_and_leaves_the_work_on_the_host(world: World) -> None:
    session = world.local_session("hello", "hi there")
    ran = world.round_trip("!write found.txt it leaks\n!say all done", "--session", session)
    assert ran.exit_code == 0
    assert ran.envelope["error"] is None
    assert (ran.data["state"], ran.data["collected"], ran.data["new_messages"]) == ("done", "whole", 2)
    assert ran.data["answer"] == "all done"
    assert ran.data["session_id"] == session
    assert said(world.export_local(session))[-1] == ("assistant", "all done")
    assert [path.name for path in world.host.project.iterdir()] == ["found.txt"]
    assert list(world.laptop.project.iterdir()) == []
    assert (world.count_runs(), world.run_directories()) == (1, [])


def test_the_envelope_has_the_promised_fields(world: World) -> None:
    ran = world.round_trip("!say done", "--session", world.local_session(), "--name", "kumo")
    promised = "name id host mode state session_id new_messages warnings copy_session_id"
    assert set(promised.split()) <= set(ran.data)
    assert (ran.data["name"], ran.data["host"], ran.data["mode"]) == ("kumo", "pi", "round-trip")
    assert (ran.data["warnings"], ran.data["copy_session_id"]) == ([], None)
    assert ran.envelope["command"] == "send"
    assert ran.steps() == ["session", "export", "connect", "stage", "launch", "collect", "merge"]


def test_what_the_host_does_is_streamed_while_it_is_done(world: World) -> None:
    ran = world.round_trip("!write a.txt x\n!say hello from there", "--session", world.local_session())
    kinds = [line["type"] for line in ran.streams if line["type"] != "step"]
    assert kinds == ["tool", "text", "tokens"]
    assert [line["text"] for line in ran.streams if line["type"] == "text"] == ["hello from there"]


def test_a_person_reads_the_answer_on_stdout_and_the_progress_on_stderr(world: World) -> None:
    session = world.local_session()
    ran = world.cli("send", "pi", "!say all done", "--session", session, "--mode", "round-trip")
    assert ran.exit_code == 0
    assert ran.stdout.splitlines()[0] == "all done"
    assert f"opencode -s {session}" in ran.stdout
    assert "goes to pi: 2 messages" in ran.stderr


def test_p11_one_dispatch_makes_one_connection(world: World) -> None:
    world.round_trip("!say done", "--session", world.local_session())
    assert world.connections() == 1


def test_p24_the_local_session_keeps_agent_model_title_and_directory(world: World) -> None:
    session = world.local_session(agent="plan", model={"id": "model", "providerID": "test"}, title="A leak, maybe")
    before = world.export_local(session)["info"]
    ran = world.round_trip("!say done", "--session", session, "--agent", "build", "--model", "test/other")
    assert (ran.exit_code, ran.data["agent"], ran.data["model"]) == (0, "build", "test/other")
    after = world.export_local(session)
    for field in ("agent", "model", "title", "directory"):
        assert after["info"].get(field) == before.get(field)
    asked = next(one["info"] for one in after["messages"][2:] if one["info"]["role"] == "user")
    assert asked["agent"] == "plan"
    assert asked["model"] == {"providerID": "test", "modelID": "model"}


def test_p24_every_old_message_and_part_is_what_it_was(world: World) -> None:
    session = world.local_session("one", "two", "three", "four")
    before = world.laptop.content()
    world.round_trip("!say done", "--session", session)
    after = world.laptop.content()
    for table in ("message", "part"):
        assert [row for row in after[table] if row in before[table]] == before[table]
    assert len(after["message"]) == len(before["message"]) + 2


def test_p36_a_tilde_means_the_home_of_the_host(world: World) -> None:
    ran = world.round_trip("!write here.txt x", "--session", world.local_session(), "--directory", "~/a b/src")
    assert ran.exit_code == 0
    assert (world.host.home / "a b" / "src" / "here.txt").exists()
    assert ran.data["remote_directory"] == str(world.host.home / "a b" / "src")
    assert not (world.host.home / "~").exists()


def test_p10_the_session_is_listed_in_the_directory_where_it_runs(world: World) -> None:
    ran = world.send("!say done", "--session", world.local_session(), "--directory", "~/new/place")
    assert ran.exit_code == 0
    world.await_end()
    [row] = world.host.query("select directory from session")
    assert row["directory"] == str(world.host.home / "new" / "place")


def test_the_same_session_goes_out_and_home_again_and_again(world: World) -> None:
    times = 3
    session = world.local_session()
    for number in range(times):
        ran = world.round_trip(f"!say answer {number}", "--session", session)
        assert (ran.exit_code, ran.data["new_messages"]) == (0, 2)
    texts = [text for role, text in said(world.export_local(session)) if role == "assistant"]
    assert texts == ["hi there", *(f"answer {number}" for number in range(times))]
    assert world.count_runs() == times
    assert len(world.remote_sessions()) == 1


def test_a_second_send_without_collecting_in_between_keeps_both_results(world: World) -> None:
    session = world.local_session()
    first = world.send("!say first", "--session", session, "--name", "one")
    world.await_end()
    second = world.round_trip("!say second", "--session", session, "--name", "two")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert len(world.remote_sessions()) == 2
    assert world.cli("collect", "one", "--json").exit_code in (0, 3)
    collected = world.cli("show", "one", "--json").data
    texts = [
        text
        for one in {session, collected["copy_session_id"] or session}
        for role, text in said(world.export_local(one))
        if role == "assistant"
    ]
    assert {"first", "second"} <= set(texts)
    assert world.count_runs() == 2


def test_a_new_session_begins_on_the_host(world: World) -> None:
    ran = world.send("!bash sleep 2\n!say begun", "--new", "--model", "test/model")
    assert (ran.exit_code, ran.data["state"], ran.data["mode"]) == (0, "running", "one-way")
    world.await_end()
    assert world.remote_sessions() == [ran.data["session_id"]]
    assert world.laptop.sessions() == []


def test_a_new_session_comes_home(world: World) -> None:
    ran = world.round_trip("!say begun", "--new", "--model", "test/model")
    assert (ran.exit_code, ran.data["new_messages"]) == (0, 2)
    home = world.export_local(ran.data["session_id"])
    assert said(home)[-1] == ("assistant", "begun")
    assert home["info"]["directory"] == str(world.laptop.project)
    assert home["info"]["title"] == "!say begun"


def test_a_new_session_needs_a_prompt(world: World) -> None:
    ran = world.send("--new", "--model", "test/model")
    assert (ran.exit_code, ran.error["kind"]) == (2, "usage")


def test_last_is_the_newest_session_of_this_directory(world: World) -> None:
    other = world.laptop.home / "other"
    other.mkdir()
    newest = int(1.8e12)
    world.local_session("old", "old", time={"created": 1, "updated": 2})
    wanted = world.local_session("new", "new", time={"created": 3, "updated": newest})
    world.local_session("elsewhere", "x", directory=other, time={"created": 3, "updated": newest + 1})
    world.local_session("child", "x", parentID=wanted, time={"created": 3, "updated": newest + 2})
    ran = world.send("!say done", "--last")
    assert ran.data["session_id"] == wanted


def test_last_in_a_directory_without_a_session_says_what_to_do(world: World) -> None:
    ran = world.send("!say done", "--last")
    assert ran.exit_code == 2
    assert "--session ID" in ran.error["hint"]
    assert world.run_directories() == []


def test_a_session_of_another_directory_stays_there(world: World) -> None:
    other = world.laptop.home / "other"
    other.mkdir()
    session = world.local_session(directory=other)
    ran = world.round_trip("!say done", "--session", session)
    assert ran.exit_code == 0
    assert world.export_local(session)["info"]["directory"] == str(other)
    assert ran.data["local_directory"] == str(other)


def test_a_session_that_nobody_knows_is_exit_10(world: World) -> None:
    ran = world.send("!say done", "--session", new_id("ses"))
    assert (ran.exit_code, ran.error["kind"]) == (10, "unknown-name")
    assert world.connections() == 0


def test_a_second_launch_of_the_same_name_is_refused_before_anything_leaves(world: World) -> None:
    session = world.local_session()
    world.round_trip("!say done", "--session", session, "--name", "kumo")
    ran = world.round_trip("!say again", "--session", session, "--name", "kumo")
    assert ran.exit_code == 2
    assert ran.error["hint"] == "see it with `remote-dispatch show kumo`"
    assert (world.count_runs(), len(world.dispatch_folders())) == (1, 1)


def test_a_dispatched_session_is_not_handed_over_again(world: World) -> None:
    session = world.local_session()
    ran = world.send("!say done", "--session", session, variables={"REMOTE_DISPATCH_DEPTH": "1"})
    assert (ran.exit_code, ran.error["kind"], world.connections()) == (2, "usage", 0)
