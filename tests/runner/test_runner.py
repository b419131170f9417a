"""The runner on the host: it imports, runs, exports, and always leaves an outcome."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import time
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import pytest

from remote_dispatch.model import Model
from remote_dispatch.runner.job import Payload
from remote_dispatch.runner.status import LaunchState
from tests.rig.stub import a_transcript, new_id, packed
from tests.runner.conftest import Host, put, under_two_shells, wait_until
from tests.runner.talk import the_last_text


def test_a_dispatch_runs_and_leaves_the_whole_session_and_an_outcome(host: Host) -> None:
    job = host.stage("!say the answer")
    assert host.launch() in (LaunchState.STARTED, LaunchState.ENDED)
    outcome = host.outcome()
    assert (outcome.problem, outcome.session, outcome.is_started, outcome.signal) == (None, job.session.id, True, None)
    assert (outcome.import_status, outcome.run_status, outcome.export_status) == (0, 0, 0)
    assert None not in (outcome.began_s, outcome.run_began_s, outcome.run_ended_s, outcome.ended_s)
    assert len(host.back()["messages"]) == 4
    assert the_last_text(host.back()) == "the answer"


def test_the_back_file_is_whole_and_has_the_digest_of_the_outcome(one_host: Host) -> None:
    outcome = one_host.dispatch(f"!say {'x' * 300_000}")
    back = gzip.decompress((one_host.run_directory / "back.json.gz").read_bytes())
    assert back == (one_host.run_directory / "back.json").read_bytes()
    assert (hashlib.sha256(back).hexdigest(), len(back)) == (outcome.back_sha256, outcome.back_bytes)


def test_nothing_in_the_run_directory_is_readable_for_others(one_host: Host) -> None:
    one_host.dispatch("!todo one")
    paths = [one_host.run_directory, *one_host.run_directory.rglob("*")]
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


def test_temporary_files_are_gone_afterwards(one_host: Host) -> None:
    one_host.dispatch()
    names = {path.name for path in one_host.run_directory.iterdir()}
    assert not {"tmp", "outcome.reserve", "references", "referred"} & names
    assert not [name for name in names if name.endswith(".part")]


# --- what the run is given


def recorded(host: Host, **changes: Any) -> dict[str, Any]:
    outcome = host.dispatch("!record seen.json", **changes)
    assert outcome.problem is None
    seen: dict[str, Any] = json.loads((host.project / "seen.json").read_bytes())
    return seen


def test_p19_the_brief_reaches_the_model_byte_for_byte_and_no_argument_holds_it(host: Host) -> None:
    prompt = "!record seen.json\n/undo -v \"quoted\" 'single' $(id) `id` \\ü\n"
    outcome = host.dispatch(prompt)
    seen = json.loads((host.project / "seen.json").read_bytes())
    assert outcome.problem is None
    assert seen["stdin"] == f"You are on another machine.\n\n{prompt}"
    assert not any("quoted" in argument for argument in seen["arguments"])


def test_model_agent_and_variant_are_always_named(one_host: Host) -> None:
    arguments = recorded(one_host, model=Model("test", "other"), agent="plan", variant="high")["arguments"]
    pairs = list(pairwise(arguments))
    assert {("--model", "test/other"), ("--agent", "plan"), ("--variant", "high"), ("--format", "json")} <= set(pairs)
    assert "--auto" not in arguments
    assert "--pure" not in arguments


def test_auto_is_passed_on_only_when_it_was_asked_for(one_host: Host) -> None:
    assert "--auto" in recorded(one_host, is_auto=True)["arguments"]


def test_permissions_and_the_users_variables_reach_the_run(host: Host) -> None:
    environment = {
        "run": "a value",
        "child": 'with "quotes"\nand lines\n',
        "problem": "x",
        "session": "y",
        "value": "z",
    }
    seen = recorded(host, permission={"question": "deny"}, environment=environment)["environment"]
    assert json.loads(seen["OPENCODE_PERMISSION"]) == {"question": "deny"}
    assert {name: seen[name] for name in environment} == environment
    assert seen["REMOTE_DISPATCH_DEPTH"] == "1"


def test_the_run_has_a_temporary_directory_of_its_own(one_host: Host) -> None:
    seen = recorded(one_host)["environment"]
    assert seen["TMPDIR"] == str(one_host.run_directory / "tmp")


# --- directories


HOSTILE = '-a "dir" $(touch hacked) `id` \'s/two\nlines/ünï 目录\n'


def test_p32_a_hostile_directory_name_is_only_a_name(host: Host) -> None:
    directory = host.root / HOSTILE
    outcome = host.dispatch("!write here.txt yes", directory=PurePosixPath(directory))
    assert outcome.problem is None
    assert (directory / "here.txt").read_text() == "yes\n"
    assert host.status().directory == PurePosixPath(directory)
    assert not list(host.root.rglob("hacked"))


@under_two_shells
def test_p10_the_session_is_imported_and_run_in_the_same_directory_through_a_symlink(host: Host) -> None:
    (host.root / "real").mkdir()
    (host.root / "link").symlink_to(host.root / "real")
    seen_in = host.root / "real" / "seen.json"
    assert host.dispatch("!record seen.json", directory=PurePosixPath(host.root / "link")).problem is None
    seen = json.loads(seen_in.read_bytes())
    assert seen["environment"]["PWD"] == seen["directory"] == str(host.root / "real")
    assert seen["arguments"][seen["arguments"].index("--dir") + 1] == str(host.root / "real")
    assert host.back()["info"]["directory"] == str(host.root / "real")


def test_p36_a_tilde_is_never_made_a_directory(one_host: Host) -> None:
    outcome = one_host.dispatch(directory=PurePosixPath("~/src"))
    assert (outcome.problem, outcome.is_started) == ("directory", False)
    assert not list(one_host.root.rglob("~"))


def test_a_directory_that_cannot_be_made_is_a_problem_of_its_own(one_host: Host) -> None:
    (one_host.root / "file").write_text("")
    outcome = one_host.dispatch(directory=PurePosixPath(one_host.root / "file" / "below"))
    assert (outcome.problem, outcome.is_started, outcome.import_status) == ("directory", False, None)


# --- problems


def test_a_missing_opencode_is_reported_and_nothing_is_imported(one_host: Host) -> None:
    outcome = one_host.dispatch(opencode=PurePosixPath("/nowhere/opencode"))
    assert (outcome.problem, outcome.is_started, outcome.import_status) == ("opencode-missing", False, None)


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ("import-refused", "import-refused"),
        ("import-partial", "import-unproved"),
        ("import-elsewhere", "import-unproved"),
        ("db-fails", "import-unproved"),
    ],
)
@under_two_shells
def test_an_import_that_is_not_proved_is_never_run(host: Host, fault: str, problem: str) -> None:
    outcome = host.dispatch("!write ran.txt yes", environment={"STUB_FAULT": fault})
    assert (outcome.problem, outcome.is_started) == (problem, False)
    assert not (host.project / "ran.txt").exists()
    assert not (host.run_directory / "started").exists()


def test_a_transcript_that_opencode_does_not_take_is_refused(one_host: Host) -> None:
    nothing = packed(a_transcript("hello"))
    null = Payload.of(gzip.compress(b"null"))
    assert one_host.dispatch(session=type(nothing)(nothing.id, null, 0, 0)).problem == "import-refused"


def test_p18_a_failed_run_is_exported_all_the_same_and_its_status_is_kept(one_host: Host) -> None:
    outcome = one_host.dispatch("!fail 401")
    assert (outcome.problem, outcome.run_status, outcome.export_status) == ("run-failed", 1, 0)
    assert one_host.back()["messages"][-1]["info"]["error"]["data"]["statusCode"] == 401


def test_p16_a_refused_permission_shows_in_the_events_although_the_run_ends_well(one_host: Host) -> None:
    outcome = one_host.dispatch("!reject")
    assert (outcome.problem, outcome.run_status) == (None, 0)
    assert b"The user rejected permission" in (one_host.run_directory / "events.jsonl").read_bytes()


@pytest.mark.thorough
@pytest.mark.parametrize("fault", ["export-fails", "export-cut"])
def test_p23_a_failed_or_cut_export_leaves_no_back_file(one_host: Host, fault: str) -> None:
    outcome = one_host.dispatch(environment={"STUB_FAULT": fault})
    assert (outcome.problem, outcome.run_status, outcome.back_sha256) == ("export-failed", 0, None)
    assert not list(one_host.run_directory.glob("back.json*"))


def test_p23_the_back_file_is_there_only_when_it_is_whole(one_host: Host) -> None:
    one_host.stage(f"!say {'x' * 2_000_000}")
    one_host.launch(0)
    wait_until((one_host.run_directory / "back.json").exists)
    assert json.loads((one_host.run_directory / "back.json").read_bytes())


# --- the reader, and what stands in for it


def _starts(host: Host) -> list[str]:
    """Return what OpenCode was started for."""
    return sorted((host.root / "starts").read_text().splitlines())


def test_opencode_itself_only_imports_and_runs_and_all_children_are_read_in_one_start(host: Host) -> None:
    outcome = host.dispatch("!task one\n!task two", environment={"STUB_LOG": str(host.root / "starts")})
    assert outcome.problem is None
    assert len(list((host.run_directory / "back-children").iterdir())) == 2
    reads = ["reader export", "reader export", "reader rows", "reader rows"]
    assert _starts(host) == ["import", *reads, "run"]


@pytest.mark.parametrize("fault", ["reader-refuses", "reader-killed", "reader-elsewhere", "no-reader"])
def test_where_nothing_can_be_read_fast_opencode_is_asked(one_host: Host, fault: str) -> None:
    log = {"STUB_LOG": str(one_host.root / "starts"), "STUB_FAULT": fault}
    outcome = one_host.dispatch("!task one\n!task two", environment=log)
    assert (outcome.problem, outcome.export_status) == (None, 0)
    assert len(list((one_host.run_directory / "back-children").iterdir())) == 2
    assert one_host.back()["messages"]
    commands = [start for start in _starts(one_host) if start not in ("-e", "reader rows", "reader export")]
    queries = [] if fault == "reader-elsewhere" else ["db", "db"]
    assert commands == [*queries, "export", "export", "export", "import", "run"]


def test_what_a_refused_reading_of_children_left_takes_no_room_from_their_exports(one_host: Host) -> None:
    gate, log = one_host.root / "gate", one_host.root / "starts"
    gate.touch()
    paused = one_host.order("runner.children.before")
    environment = {"STUB_LOG": str(log), "STUB_FAULT": "export-gate", "STUB_GATE": str(gate)}
    one_host.stage("!task one\n!task two\n!task three", environment=environment)
    one_host.launch()
    wait_until(paused.exists)
    gate.unlink()
    one_host.go_on("runner.children.before")
    wait_until(lambda: log.read_text().splitlines().count("export") == 3)
    assert len({file.name.split(".")[0] for file in (one_host.run_directory / "back-children").iterdir()}) == 2
    gate.touch()
    assert one_host.outcome().problem is None
    assert len(list((one_host.run_directory / "back-children").glob("*.json.gz"))) == 3


# --- what travels along


@under_two_shells
def test_children_go_out_and_only_new_or_changed_ones_come_back(host: Host) -> None:
    parent = a_transcript("hello", "hi")
    child = packed(a_transcript("sub task", "done", parent_id=parent["info"]["id"]))
    outcome = host.dispatch("!task one\n!task two\n!task three", session=packed(parent), children=(child,))
    assert outcome.problem is None
    names = {path.name.removesuffix(".json.gz") for path in (host.run_directory / "back-children").iterdir()}
    assert len(names) == 3
    assert child.id not in names
    assert set((host.run_directory / "back-children.txt").read_text().split()) == names
    for path in (host.run_directory / "back-children").iterdir():
        assert json.loads(gzip.decompress(path.read_bytes()))["info"]["parentID"] == parent["info"]["id"]


def test_a_child_that_did_not_arrive_whole_is_an_unproved_import(one_host: Host) -> None:
    parent = a_transcript("hello", "hi")
    child = packed(a_transcript("sub task", "done", parent_id=parent["info"]["id"]))
    short = type(child)(child.id, child.packed, child.messages + 1, child.parts)
    assert one_host.dispatch(session=packed(parent), children=(short,)).problem == "import-unproved"


def test_todos_come_back_in_their_order(one_host: Host) -> None:
    one_host.dispatch('!todo with\ttab and "quotes";second')
    todos = json.loads((one_host.run_directory / "back-todos.json").read_bytes())
    assert [(todo["status"], todo["content"], todo["position"]) for todo in todos] == [
        ("in_progress", 'with\ttab and "quotes"', 0),
        ("pending", "second", 1),
    ]


def test_tool_outputs_travel_both_ways_and_never_overwrite(one_host: Host) -> None:
    kept = one_host.root / "home" / ".local" / "share" / "opencode" / "tool-output"
    put(kept, {"tool_old": b"the one_host's own"})
    sent = {"tool_old": Payload.of(b"ours"), "tool_sent": Payload.of(b"sent")}
    outcome = one_host.dispatch("!output tool_made made here", tool_output=sent)
    assert outcome.problem is None
    assert (kept / "tool_old").read_bytes() == b"the one_host's own"
    assert (kept / "tool_sent").read_bytes() == b"sent"
    back = one_host.run_directory / "back-tool-output"
    assert {path.name: path.read_bytes() for path in back.iterdir()} == {"tool_made": b"made here"}


def test_a_session_of_no_messages_can_be_sent(one_host: Host) -> None:
    assert one_host.dispatch("!say first words", session=packed(a_transcript())).problem is None
    assert len(one_host.back()["messages"]) == 2


@pytest.mark.thorough
def test_an_old_copy_is_replaced_when_asked_for(one_host: Host) -> None:
    session = packed(a_transcript("one", "two", "three", "four"))
    one_host.dispatch(session=session)
    again = packed(a_transcript("one", "two", session_id=session.id))
    one_host.forget()
    one_host.dispatch("!say replaced", session=again, is_replacing=True)
    assert len(one_host.back()["messages"]) == 4


def test_replacing_what_is_not_there_is_no_problem(one_host: Host) -> None:
    assert one_host.dispatch(is_replacing=True).problem is None


@pytest.mark.thorough
def test_an_old_copy_that_cannot_be_deleted_stops_the_dispatch(one_host: Host) -> None:
    session = packed(a_transcript("one"))
    one_host.dispatch(session=session)
    one_host.forget()
    outcome = one_host.dispatch(session=session, is_replacing=True, environment={"STUB_FAULT": "delete-fails"})
    assert (outcome.problem, outcome.is_started) == ("import-refused", False)


# --- time and space


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system")
def test_a_full_disk_is_a_problem_of_its_own_and_still_leaves_an_outcome(one_host: Host) -> None:
    home = one_host.root / "home"
    home.mkdir()
    one_host.environment["XDG_DATA_HOME"] = str(one_host.root / "data")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", home], check=False, capture_output=True
    ).returncode:
        pytest.skip("cannot mount here")
    try:
        outcome = one_host.dispatch(f"!bash head -c 2000000 /dev/zero > {home}/full; true")
        (home / "full").unlink()
        assert (outcome.problem, outcome.back_sha256) == ("no-space", None)
        assert one_host.run_directory.joinpath("outcome.json").stat().st_size > 0
    finally:
        wait_until(lambda: subprocess.run(["umount", home], check=False, capture_output=True).returncode == 0)


def test_a_call_that_does_not_end_in_time_is_ended(one_host: Host) -> None:
    one_host.stage(environment={"STUB_FAULT": "export-hang"})
    one_host.change_runner("EXPORT_LIMIT_S=900", "EXPORT_LIMIT_S=1")
    began = time.monotonic()
    one_host.launch()
    assert one_host.outcome().problem == "export-failed"
    assert time.monotonic() - began < 15


def test_ids_of_the_rig_are_ids() -> None:
    assert len(new_id("ses")) == 30
