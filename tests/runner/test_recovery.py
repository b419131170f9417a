"""A run whose runner was killed, or whose export failed: a recovery brings home what OpenCode did, and runs nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remote_dispatch.runner.points import RECOVERY_POINTS, RUNNER_POINTS
from remote_dispatch.runner.status import LaunchState
from tests.rig.stub import a_transcript, packed
from tests.runner.conftest import Host, is_alive, put, under_two_shells, wait_until
from tests.runner.talk import end_of

pytestmark = pytest.mark.thorough


def opencode_pid(host: Host) -> int:
    """Wait for OpenCode and return its process id."""
    name = host.run_directory / "opencode.pid"
    wait_until(name.exists)
    return int(name.read_text().split()[1])


def lose(host: Host, *prompts: str) -> None:
    """Start a run that says and does these things and then hangs, and kill its runner."""
    host.stage("\n".join([*prompts, "!hang"]))
    assert host.launch() is LaunchState.STARTED
    wait_until(lambda: host.status().events_bytes > 0)
    host.kill_runner()


def kill_opencode(host: Host) -> None:
    os.kill(opencode_pid(host), signal.SIGKILL)
    wait_until(lambda: not host.status().is_opencode_alive)


def events(host: Host) -> bytes:
    return host.run("tail", str(host.run_directory), "0")


def texts(host: Host) -> str:
    return json.dumps(host.back()["messages"])


# --- what a recovery does


def test_a_lost_run_is_exported_anew_and_stays_lost(host: Host) -> None:
    lose(host, "!say before the crash")
    kill_opencode(host)
    assert host.launch() is LaunchState.LOST
    assert host.recover() in (LaunchState.RECOVERING, LaunchState.ENDED)
    outcome = host.outcome()
    assert (outcome.problem, outcome.is_started, outcome.run_status, outcome.export_status) == ("lost", True, None, 0)
    assert outcome.run_began_s is not None
    back = gzip.decompress((host.run_directory / "back.json.gz").read_bytes())
    assert (hashlib.sha256(back).hexdigest(), len(back)) == (outcome.back_sha256, outcome.back_bytes)
    assert "before the crash" in texts(host)
    assert host.runs() == 1


@under_two_shells
def test_a_recovery_waits_for_the_end_of_an_opencode_that_outlived_its_runner(host: Host) -> None:
    gate = host.root / "gate"
    host.stage(f"!say first\n!wait {gate}\n!say last words")
    host.launch()
    # A runner that is killed earlier has begun nothing.
    wait_until(lambda: host.status().is_opencode_alive)
    host.kill_runner()
    assert host.status().is_lost
    assert host.status().is_opencode_alive
    assert host.recover() is LaunchState.RECOVERING
    status = host.status()
    assert (status.held, status.is_recovering, status.is_opencode_alive, status.is_lost) == ("yes", True, True, True)
    assert host.launch() is LaunchState.RECOVERING
    gate.touch()
    assert host.outcome().problem == "lost"
    assert "last words" in texts(host)
    assert not host.status().is_opencode_alive


def test_a_recovery_does_not_wait_for_what_the_model_left_in_the_background(one_host: Host) -> None:
    pid = one_host.root / "pid"
    lose(one_host, f"!bash (setsid sleep 300 >/dev/null 2>&1 & echo $! > {pid})")
    wait_until(pid.exists)
    kill_opencode(one_host)
    one_host.recover()
    assert one_host.outcome().left_processes == 1
    assert is_alive(int(pid.read_text()))


def test_children_todos_and_tool_outputs_come_with_a_recovery(one_host: Host) -> None:
    parent = a_transcript("hello", "hi")
    child = packed(a_transcript("sub task", parent_id=parent["info"]["id"]))
    one_host.stage("!task one\n!todo a;b\n!output tool_made long\n!hang", session=packed(parent), children=(child,))
    one_host.launch()
    wait_until(lambda: b"tool_made" in events(one_host))
    one_host.kill_runner()
    kill_opencode(one_host)
    one_host.recover()
    one_host.outcome()
    made = [path.name for path in (one_host.run_directory / "back-children").iterdir()]
    assert len(made) == 1
    assert child.id not in made[0]
    assert len(json.loads((one_host.run_directory / "back-todos.json").read_bytes())) == 2
    assert (one_host.run_directory / "back-tool-output" / "tool_made").read_bytes() == b"long"


@pytest.mark.parametrize("left", [None, b"", b"kind\tid\nsession\tses_cut"])
def test_without_a_list_of_what_was_there_before_every_child_comes_home(one_host: Host, left: bytes | None) -> None:
    parent = a_transcript("hello", "hi")
    child = packed(a_transcript("sub task", parent_id=parent["info"]["id"]))
    one_host.stage("!task one\n!hang", session=packed(parent), children=(child,))
    one_host.launch()
    wait_until(lambda: b"tool_use" in events(one_host))
    one_host.kill_runner()
    kill_opencode(one_host)
    (one_host.run_directory / "before.tsv").unlink()
    if left is not None:
        put(one_host.run_directory, {"before.tsv": left})
    one_host.recover()
    assert one_host.outcome().problem == "lost"
    assert len(list((one_host.run_directory / "back-children").iterdir())) == 2


@under_two_shells
def test_a_reboot_is_recognised_although_the_process_ids_live_again(host: Host) -> None:
    lose(host, "!say before the reboot")
    kill_opencode(host)
    start = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    mine = f"another-boot {os.getpid()} {start}\n".encode()
    put(host.run_directory, {"lock/owner": mine, "opencode.pid": mine})
    assert host.status().is_lost
    host.recover()
    assert host.outcome().problem == "lost"
    assert "before the reboot" in texts(host)


def test_a_working_directory_that_is_gone_does_not_stop_a_recovery(one_host: Host) -> None:
    lose(one_host, "!bash rm -rf -- $PWD")
    kill_opencode(one_host)
    one_host.recover()
    assert one_host.outcome().export_status == 0


# --- an export that failed


@under_two_shells
def test_an_export_that_failed_is_made_good_and_is_no_problem_any_more(host: Host) -> None:
    outcome = host.dispatch("!say worth keeping", environment={"STUB_FAULT": "export-fails"})
    assert (outcome.problem, outcome.back_sha256) == ("export-failed", None)
    heal(host)
    assert host.recover() in (LaunchState.RECOVERING, LaunchState.ENDED)
    wait_until(host.has_back)
    again = host.outcome()
    assert (again.problem, again.run_status, again.signal) == (None, 0, None)
    assert (again.began_s, again.run_began_s, again.run_ended_s) == (
        outcome.began_s,
        outcome.run_began_s,
        outcome.run_ended_s,
    )
    assert host.runs() == 1


def heal(host: Host) -> None:
    (host.run_directory / "param" / "env" / "STUB_FAULT").unlink()


@pytest.mark.parametrize("ending", ["fail", "cancel"])
def test_what_ended_badly_stays_so_when_its_export_is_made_good(one_host: Host, ending: str) -> None:
    one_host.stage("!fail 500" if ending == "fail" else "!hang", environment={"STUB_FAULT": "export-fails"})
    one_host.launch()
    before = one_host.outcome() if ending == "fail" else one_host.cancel().outcome
    assert before is not None
    heal(one_host)
    one_host.recover()
    wait_until(one_host.has_back)
    after = one_host.outcome()
    assert after.problem == before.problem == ("run-failed" if ending == "fail" else "terminated")
    assert (after.run_status, after.signal) == (before.run_status, before.signal)


def test_a_recovery_that_cannot_export_either_says_so_and_may_be_tried_again(one_host: Host) -> None:
    before = one_host.dispatch(environment={"STUB_FAULT": "export-fails"})
    assert one_host.recover() in (LaunchState.RECOVERING, LaunchState.ENDED)
    wait_until(lambda: "runner.outcome.after" in one_host.journal()[-1:] and not one_host.status().is_recovering)
    again = one_host.outcome()
    assert (again.problem, again.back_sha256, again.run_status) == ("export-failed", None, before.run_status)
    heal(one_host)
    one_host.recover()
    wait_until(one_host.has_back)
    assert one_host.outcome().problem is None


# --- when there is nothing to recover


def test_a_recovery_of_what_was_never_started_changes_nothing(one_host: Host) -> None:
    assert one_host.recover() is LaunchState.ABSENT
    one_host.stage()
    assert one_host.recover() is LaunchState.ABSENT
    assert not (one_host.run_directory / "lock").exists()
    assert one_host.launch() in (LaunchState.STARTED, LaunchState.ENDED)
    assert one_host.outcome().problem is None


def test_a_recovery_does_not_touch_a_run_whose_runner_lives(one_host: Host) -> None:
    gate = one_host.root / "gate"
    one_host.stage(f"!wait {gate}", environment={"STUB_FAULT": "import-gate", "STUB_GATE": str(one_host.root / "in")})
    one_host.launch(0)
    assert one_host.recover() is LaunchState.IMPORTING
    (one_host.root / "in").touch()
    wait_until(lambda: one_host.status().started)
    assert one_host.recover() is LaunchState.STARTED
    gate.touch()
    before = one_host.outcome()
    assert one_host.recover() is LaunchState.ENDED
    assert one_host.outcome() == before
    assert not (one_host.run_directory / "lock" / "next").exists()


@under_two_shells
def test_five_recoveries_at_once_are_one(host: Host) -> None:
    lose(host, "!say once")
    with ThreadPoolExecutor(5) as pool:
        states = set(pool.map(lambda _: host.recover(), range(5)))
    assert states == {LaunchState.RECOVERING}
    assert host.journal().count("runner.recover.after") == 1
    assert host.recover() is LaunchState.RECOVERING
    kill_opencode(host)
    host.outcome()
    wait_until(lambda: host.recover() is LaunchState.ENDED)
    assert host.journal().count("runner.recover.after") == 1


def test_a_recovery_that_is_killed_is_taken_over_by_the_next(one_host: Host) -> None:
    lose(one_host, "!say still here")
    assert one_host.recover() is LaunchState.RECOVERING
    one_host.kill_runner()
    assert one_host.status().is_lost
    kill_opencode(one_host)
    assert one_host.recover() in (LaunchState.RECOVERING, LaunchState.ENDED)
    assert one_host.outcome().problem == "lost"
    assert "still here" in texts(one_host)


# --- cancel, follow


@under_two_shells
def test_cancelling_during_a_recovery_ends_opencode_and_still_exports(host: Host) -> None:
    lose(host, "!say so far")
    host.recover()
    status = host.cancel()
    assert status.outcome is not None
    assert (status.outcome.problem, status.outcome.signal, status.outcome.export_status) == ("terminated", "TERM", 0)
    assert not is_alive(opencode_pid(host))
    assert "so far" in texts(host)


def test_an_opencode_without_a_runner_is_ended_by_cancelling_and_what_it_did_can_be_recovered(one_host: Host) -> None:
    lose(one_host, "!say so far")
    assert one_host.cancel(5).is_lost
    assert not is_alive(opencode_pid(one_host))
    one_host.recover()
    assert one_host.outcome().problem == "lost"
    assert "so far" in texts(one_host)


@under_two_shells
def test_following_goes_on_through_a_recovery_to_the_new_outcome(host: Host) -> None:
    gate = host.root / "gate"
    host.stage(f"!say first\n!wait {gate}\n!say last")
    host.launch()
    wait_until(lambda: host.status().is_opencode_alive)
    host.kill_runner()
    host.recover()
    with host.open("follow", str(host.run_directory), "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"step_start" in process.stdout.readline()
        gate.touch()
        rest, talk = process.communicate(timeout=30)
    assert b"last" in rest
    end = end_of(talk)
    assert end is not None
    assert end[0] == "outcome"
    assert host.has_back()


def test_an_old_outcome_is_not_the_end_while_a_recovery_works(one_host: Host) -> None:
    one_host.dispatch(environment={"STUB_FAULT": "export-fails"})
    heal(one_host)
    reached = one_host.order("runner.export.before")
    assert one_host.recover() is LaunchState.RECOVERING
    wait_until(reached.exists)
    with one_host.open(
        "follow", str(one_host.run_directory), "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        assert one_host.status().is_recovering
        one_host.go_on("runner.export.before")
        _, talk = process.communicate(timeout=30)
    assert (end_of(talk) or ("",))[0] == "outcome"
    assert one_host.has_back()


# --- the journal, and death at every point


@under_two_shells
def test_the_journal_names_every_point_of_an_ordinary_run_in_order(host: Host) -> None:
    host.dispatch()
    wait_until(lambda: host.journal()[-1] == "runner.outcome.after")
    assert tuple(host.journal()) == RUNNER_POINTS
    lines = (host.run_directory / "journal").read_text().splitlines()
    assert all(re.fullmatch(r"\d{10} [a-z-]+ [a-z]+", line) for line in lines)


@under_two_shells
def test_the_journal_names_every_point_of_a_recovery_in_order(host: Host) -> None:
    lose(host)
    kill_opencode(host)
    before = len(host.journal())
    host.recover()
    wait_until(lambda: host.journal()[-1] == "runner.outcome.after")
    assert tuple(host.journal()[before:]) == RECOVERY_POINTS


def test_a_journal_that_cannot_be_written_fails_no_run(one_host: Host) -> None:
    one_host.stage()
    (one_host.run_directory / "journal").mkdir()
    one_host.launch()
    assert one_host.outcome().problem is None


@under_two_shells
def test_a_paused_runner_goes_on_when_it_is_told_to(host: Host) -> None:
    reached = host.order("runner.started.before")
    host.stage()
    assert host.launch(0) is LaunchState.IMPORTING
    wait_until(reached.exists)
    assert not host.status().started
    host.go_on("runner.started.before")
    assert host.outcome().problem is None


def apart(points: tuple[str, ...]) -> list[str]:
    """Return the points without those between which nothing happens."""
    return [point for point in points if not point.endswith(".after")] + [points[-1]]


@pytest.mark.parametrize("point", apart(RUNNER_POINTS))
def test_a_runner_killed_at_any_point_loses_nothing_and_the_brief_runs_once(one_host: Host, point: str) -> None:
    one_host.order(point, "kill")
    one_host.stage("!say done once")
    one_host.launch()
    wait_until(lambda: one_host.status().held != "yes")
    if one_host.status().started:
        one_host.recover()
    else:
        one_host.launch()
    wait_until(one_host.has_back)
    outcome = one_host.outcome()
    assert outcome.problem in (None, "lost")
    was_run = point != "runner.run.before"
    assert one_host.runs() == was_run
    assert ("done once" in texts(one_host)) == was_run


@pytest.mark.parametrize("point", apart(RECOVERY_POINTS))
def test_a_recovery_killed_at_any_point_is_done_by_the_next(one_host: Host, point: str) -> None:
    lose(one_host, "!say worth keeping")
    kill_opencode(one_host)
    one_host.order(point, "kill")
    one_host.recover()
    wait_until(lambda: one_host.status().held != "yes" and point in one_host.journal())
    one_host.recover()
    wait_until(one_host.has_back)
    assert one_host.outcome().problem == "lost"
    assert "worth keeping" in texts(one_host)


# --- a process that is about to become OpenCode


def test_a_dead_runners_child_that_is_late_starts_nothing_once_a_recovery_has_begun(one_host: Host) -> None:
    hold_the_child(one_host)
    one_host.kill_runner()
    one_host.recover()
    outcome = one_host.outcome()
    (one_host.root / "gate").touch()
    wait_until(lambda: not [pid for pid in (one_host.root / "held").read_text().split() if is_alive(int(pid))])
    assert (outcome.problem, outcome.back_sha256 is not None) == ("lost", True)
    assert not (one_host.run_directory / "opencode.pid").exists() or not one_host.status().is_opencode_alive
    assert events(one_host) == b""
    assert one_host.runs() == 0


def test_a_dead_runners_child_that_is_late_starts_nothing_once_the_run_was_cancelled(one_host: Host) -> None:
    hold_the_child(one_host)
    one_host.kill_runner()
    one_host.cancel(1)
    (one_host.root / "gate").touch()
    wait_until(lambda: not [pid for pid in (one_host.root / "held").read_text().split() if is_alive(int(pid))])
    one_host.recover()
    one_host.outcome()
    assert one_host.runs() == 0


def hold_the_child(host: Host) -> None:
    """Stop the child of the runner just before it names itself."""
    gate, held = host.root / "gate", host.root / "held"
    host.stage("!say never")
    late = f"""echo "$(exec sh -c 'echo "$PPID"')" >{held}; while [ ! -e {gate} ]; do sleep 0.05; done; name_process """
    host.change_runner('name_process "$run/opencode.pid"', f'{late}"$run/opencode.pid"')
    host.launch()
    wait_until(held.exists)
