"""What leaves, in which shape, and what is refused before anything is changed."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.stub import a_transcript, new_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.world import Machine, World


def _with_open_call(tool: str, status: str, asked: dict[str, Any]) -> dict[str, Any]:
    transcript = a_transcript("please hand over", "doing so")
    last = transcript["messages"][-1]
    del last["info"]["time"]["completed"], last["info"]["finish"]
    state = (
        {"status": status, "input": asked, "raw": "{}"} if status == "pending" else {"status": status, "input": asked}
    )
    state |= {"time": {"start": 1_700_000_000_000}} if status == "running" else {}
    identity = {"id": new_id("prt"), "sessionID": transcript["info"]["id"], "messageID": last["info"]["id"]}
    last["parts"].append({"type": "tool", "tool": tool, "callID": "call_1", "state": state, **identity})
    return transcript


def _tool_parts(transcript: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for message in transcript["messages"] for part in message["parts"] if part["type"] == "tool"]


@pytest.mark.parametrize("status", ["pending", "running"])
def test_p3_p4_the_open_call_is_closed_truthfully_and_keeps_its_input(world: World, status: str) -> None:
    asked = {"command": "remote-dispatch send pi --mode one-way", "description": "hand over"}
    session = world.laptop.bring_in(_with_open_call("bash", status, asked))
    world.send("!say done", "--session", session)
    world.await_end()
    [call, *_] = _tool_parts(world.host.export(session))
    assert call["state"]["status"] == "completed"
    assert call["state"]["input"] == asked
    assert "pi" in call["state"]["output"]
    assert "Login successful" not in call["state"]["output"]
    assert _tool_parts(world.export_local(session))[0]["state"]["status"] == status


def test_p5_sub_agents_sessions_travel_to_depth_three(world: World) -> None:
    session = world.local_session("the root", "yes")
    parent, children = session, []
    for depth in range(3):
        parent = world.laptop.bring_in(a_transcript(f"child {depth}", "done", parent_id=parent))
        children.append(parent)
    ran = world.round_trip("!say done", "--session", session)
    assert ran.exit_code == 0
    assert {session, *children} <= set(world.remote_sessions())
    for child, below in zip([session, *children], children, strict=False):
        assert world.host.export(below)["info"]["parentID"] == child


def test_p5_a_sub_agents_session_made_on_the_host_comes_home(world: World) -> None:
    session = world.local_session()
    ran = world.round_trip("!task look around\n!say done", "--session", session)
    assert ran.exit_code == 0
    [child] = [one for one in world.laptop.sessions() if one != session]
    home = world.export_local(child)
    assert home["info"]["parentID"] == session
    assert home["info"]["directory"] == str(world.laptop.project)
    assert home["messages"][0]["parts"][0]["text"] == "look around"


def _put_todos(machine: Machine, session: str, *contents: str) -> None:
    for position, content in enumerate(contents):
        values = (session, content, "pending", "medium", position, 1, 1)
        machine.query("insert into todo values (?, ?, ?, ?, ?, ?, ?)", *values)


def _todos(machine: Machine, session: str) -> list[tuple[str, str]]:
    rows = machine.query("select content, status from todo where session_id = ? order by position", session)
    return [(row["content"], row["status"]) for row in rows]


def test_p5_todos_stand_in_the_brief(world: World) -> None:
    session = world.local_session()
    _put_todos(world.laptop, session, "find the leak", "fix the leak")
    world.send("!say done", "--session", session)
    assert "- [pending] find the leak\n- [pending] fix the leak" in world.brief()


def test_p5_the_hosts_todos_come_home(world: World) -> None:
    session = world.local_session()
    _put_todos(world.laptop, session, "old one", "old two", "old three")
    world.round_trip("!todo it's first;second", "--session", session)
    assert _todos(world.laptop, session) == [("it's first", "in_progress"), ("second", "pending")]


def test_p5_todos_stay_when_the_host_wrote_none(world: World) -> None:
    session = world.local_session()
    _put_todos(world.laptop, session, "still open")
    world.round_trip("!say done", "--session", session)
    assert _todos(world.laptop, session) == [("still open", "pending")]


def _tool_output(machine: Machine, name: str) -> Path:
    return machine.opencode.data / "tool-output" / name


def test_p5_tool_output_files_travel_both_ways(world: World) -> None:
    ours, theirs = "tool_ours123", "tool_theirs456"
    here = _tool_output(world.laptop, ours)
    session = world.local_session("look", f"...truncated...\n\nFull output saved to: {here}")
    here.parent.mkdir()
    here.write_text("a long output of the laptop")
    ran = world.round_trip(f"!output {theirs} a long output of the host", "--session", session)
    assert ran.exit_code == 0
    assert _tool_output(world.host, ours).read_text() == "a long output of the laptop"
    assert _tool_output(world.laptop, theirs).read_text() == "a long output of the host"


def test_p5_the_brief_says_where_a_tool_output_is_on_the_host(world: World) -> None:
    here = _tool_output(world.laptop, "tool_ours123")
    session = world.local_session("look", f"Full output saved to: {here}")
    here.parent.mkdir()
    here.write_text("long")
    world.send("!say done", "--session", session)
    assert f"- `{here}` is `{_tool_output(world.host, here.name)}`" in world.brief()


def test_p6_agent_and_model_are_named_when_the_turn_starts(world: World) -> None:
    session = world.local_session()
    world.round_trip("!say one", "--session", session, "--model", "test/model")
    ran = world.round_trip("!say two", "--session", session, "--agent", "plan", "--model", "test/other")
    assert (ran.exit_code, ran.data["agent"], ran.data["model"]) == (0, "plan", "test/other")
    answer = world.host.export(world.remote_sessions()[-1])["messages"][-1]["info"]
    assert (answer["agent"], answer["providerID"], answer["modelID"]) == ("plan", "test", "other")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--agent", "biuld"), "agent `biuld` is not there; it has `build`, `plan`"),
        (("--agent", "general"), "agent `general` is a sub-agent"),
        (("--model", "test/modle"), "model `test/modle` is not there; it has `test/model`"),
        (("--model", "nobody/any"), "model `nobody/any` is not there"),
    ],
)
def test_p7_what_the_host_does_not_have_is_refused_and_nothing_is_changed(
    world: World, options: tuple[str, str], said: str
) -> None:
    session = world.local_session()
    before = world.laptop.content()
    ran = world.send("!say done", "--session", session, *options)
    assert (ran.exit_code, ran.error["kind"]) == (9, "host-not-ready")
    assert said in ran.error["message"]
    assert world.laptop.content() == before
    assert (world.host.content(), world.run_directories(), world.dispatch_folders()) == ({}, [], [])


def test_p7_a_host_without_a_provider_of_its_own_is_refused(world: World) -> None:
    world.host.set(STUB_MODELS="opencode/free opencode/other")
    ran = world.send("!say done", "--session", world.local_session())
    assert ran.exit_code == 9
    assert "a hosted free model" in ran.error["message"]
    assert (world.host.content(), world.run_directories()) == ({}, [])


def test_p7_a_model_that_was_added_after_the_last_look_is_found(world: World) -> None:
    session = world.local_session()
    world.send("--session", session, "--dry-run")
    world.host.set(STUB_MODELS="test/model test/brand-new")
    ran = world.send("!say done", "--session", session, "--model", "test/brand-new")
    assert (ran.exit_code, ran.data["model"]) == (0, "test/brand-new")


def test_p9_a_refused_import_leaves_no_transcript_behind_or_says_where_it_is(world: World) -> None:
    session = world.local_session()
    before = world.laptop.content()
    world.host.set(STUB_FAULT="import-refused")
    ran = world.send("!say done", "--session", session, "--name", "kumo")
    assert ran.exit_code == 9
    assert "OpenCode there refused the session" in ran.error["message"]
    assert world.laptop.content() == before
    assert world.count_runs() == 0
    assert world.cli("show", "kumo", "--json").data["state"] == "failed"
    named = [path for path in world.run_directories() if path.name in ran.stdout]
    assert named == world.run_directories()


def test_p19_the_brief_reaches_the_model_byte_for_byte(world: World) -> None:
    target = world.host.home / "seen.json"
    prompt = f"""say "it's" done: $(id) `id` \\ \U0001f600 %s\n!record {target}\nEOF\n--help\n"""
    world.round_trip(prompt, "--session", world.local_session())
    seen = json.loads(target.read_text())
    assert seen["stdin"].endswith(f"The task:\n\n{prompt}")
    assert not any("handed over" in word for word in seen["arguments"])


def test_p32_values_with_shell_words_in_them_are_only_values(world: World) -> None:
    canary = world.host.home / "canary"
    place = f"~/a'b $(touch {canary}) `touch {canary}` ;touch {canary}"
    ran = world.round_trip("!write here.txt x", "--session", world.local_session(), "--directory", place)
    assert ran.exit_code == 0
    assert not canary.exists()
    assert len(list(world.host.home.glob("a'b*/**/here.txt"))) == 1


def test_a_dry_run_says_what_would_happen_and_changes_nothing(world: World) -> None:
    session = world.local_session("one", "two")
    before = world.laptop.content()
    ran = world.send("!say done", "--session", session, "--dry-run", "--name", "kumo", "--directory", "~/new")
    assert ran.exit_code == 0
    assert (ran.data["messages"], ran.data["agent"], ran.data["model"]) == (2, "build", "test/model")
    assert (ran.data["is_directory_there"], ran.data["remote_directory"]) == (False, str(world.host.home / "new"))
    assert world.laptop.content() == before
    assert (world.host.content(), world.run_directories(), world.dispatch_folders()) == ({}, [], [])
    assert not (world.host.home / "new").exists()


def test_a_dry_run_weighs_a_session_that_is_packed_into_a_file(world: World) -> None:
    session = world.local_session("one " * 300_000, "two " * 300_000)
    ran = world.send("!say done", "--session", session, "--dry-run")
    assert (ran.exit_code, ran.data["messages"]) == (0, 2)
    assert 5_000 < ran.data["bytes"] < 500_000
    assert world.dispatch_folders() == []


def test_a_dry_run_reads_well_for_people(world: World) -> None:
    ran = world.cli("send", "pi", "--session", world.local_session(), "--dry-run")
    assert ran.stdout.splitlines()[0] == "nothing was changed; this is what would happen:"


def test_a_host_without_opencode_is_refused(world: World) -> None:
    session = world.local_session()
    (world.host.bin / "opencode").unlink()
    ran = world.send("!say done", "--session", session)
    assert (ran.exit_code, ran.error["message"]) == (9, "pi: OpenCode was not found there")
    assert world.run_directories() == []


def test_a_laptop_without_opencode_is_refused(world: World) -> None:
    session = world.local_session()
    (world.laptop.bin / "opencode").unlink()
    ran = world.send("!say done", "--session", session)
    assert (ran.exit_code, ran.error["kind"], world.connections()) == (9, "host-not-ready", 0)


def test_a_windows_host_is_refused_with_a_way_out(world: World) -> None:
    session = world.local_session()
    world.write_hosts(pi={"os": "windows"})
    ran = world.send("!say done", "--session", session)
    assert (ran.exit_code, world.connections()) == (9, 0)
    assert "WSL" in ran.error["hint"]


def test_p37_the_hosts_file_is_read_at_each_use(world: World) -> None:
    session = world.local_session()
    assert world.cli("send", "lab", "!say done", "--session", session, "--json").exit_code == 10
    world.write_hosts(pi={}, lab={})
    assert world.cli("send", "lab", "!say done", "--session", session, "--json").exit_code == 0


@pytest.fixture
def small_disk(world: World) -> Iterator[None]:
    """A disk of 256 kilobytes where the host keeps its run directories; only root can make one."""
    place = world.host.home / ".local" / "state"
    place.mkdir(mode=0o700, parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=10).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield
    subprocess.run(["umount", "-l", str(place)], check=True, stdin=subprocess.DEVNULL, timeout=10)


@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_is_too_small_is_refused_before_anything_is_copied(world: World) -> None:
    ran = world.send("!say done", "--session", world.local_session())
    assert (ran.exit_code, ran.error["kind"]) == (9, "host-not-ready")
    assert "space" in ran.error["message"]
    assert (world.run_directories(), world.count_runs()) == ([], 0)


@pytest.mark.parametrize("place", ["home", "project"])
def test_a_place_that_cannot_be_written_is_an_error_without_a_run(world: World, place: str) -> None:
    session = world.local_session()
    blocked = world.host.home / (".local/state" if place == "home" else "blocked")
    blocked.write_text("a file where a directory must be")
    options = ("--directory", "~/blocked/below") if place == "project" else ()
    ran = world.send("!say done", "--session", session, *options)
    assert ran.exit_code == 9
    assert world.count_runs() == 0
