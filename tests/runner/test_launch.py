"""A runner is launched once, whoever asks, and ends with all that belongs to it when it is to."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remote_dispatch.runner.status import LaunchState
from tests.runner.conftest import Host, is_alive, put, under_two_shells, wait_until
from tests.runner.talk import the_last_text

# --- launching


def test_p12_launch_returns_while_the_runner_runs_and_keeps_no_descriptor_open(host: Host) -> None:
    gate = host.root / "gate"
    host.stage(f"!wait {gate}")
    assert host.launch() is LaunchState.STARTED  # reads its output to the end: an open descriptor would hang here
    assert not host.has_ended()
    runner = host.runner_pid()
    targets = {str(Path(f"/proc/{runner}/fd/{number}").readlink()) for number in (0, 1, 2)}
    assert targets == {"/dev/null", str(host.run_directory / "runner.log")}
    gate.touch()
    assert host.outcome().problem is None


def test_the_runner_survives_a_hangup(host: Host) -> None:
    gate = host.root / "gate"
    host.stage(f"!wait {gate}")
    host.launch()
    os.kill(host.runner_pid(), signal.SIGHUP)
    gate.touch()
    assert host.outcome().problem is None


@under_two_shells
def test_a_second_launch_of_the_same_dispatch_does_nothing(host: Host) -> None:
    gate = host.root / "gate"
    host.stage(f"!wait {gate}")
    assert host.launch() is LaunchState.STARTED
    assert host.launch() is LaunchState.STARTED
    gate.touch()
    host.outcome()
    assert host.launch() is LaunchState.ENDED
    assert host.runs() == 1


@pytest.mark.thorough
@under_two_shells
def test_ten_launches_at_once_run_the_brief_once(host: Host) -> None:
    host.stage("!say once")
    with ThreadPoolExecutor(10) as pool:
        states = list(pool.map(lambda _: host.launch(), range(10)))
    assert set(states) <= {LaunchState.STARTED, LaunchState.HELD, LaunchState.IMPORTING, LaunchState.ENDED}
    assert host.outcome().problem is None
    assert host.runs() == 1


@under_two_shells
def test_a_launch_during_the_import_says_so(host: Host) -> None:
    gate = host.root / "gate"
    host.stage(environment={"STUB_FAULT": "import-gate", "STUB_GATE": str(gate)})
    assert host.launch(0) is LaunchState.IMPORTING
    assert host.launch(0) is LaunchState.HELD
    gate.touch()
    assert host.outcome().problem is None


def test_a_damaged_upload_is_not_started(one_host: Host) -> None:
    one_host.stage()
    (one_host.run_directory / "brief.txt").write_text("something else")
    assert one_host.launch() is LaunchState.DAMAGED
    assert not (one_host.run_directory / "lock").exists()


def test_a_run_directory_that_is_not_there_is_absent(host: Host) -> None:
    assert host.launch() is LaunchState.ABSENT
    assert not host.status().exists


@pytest.mark.thorough
@under_two_shells
def test_a_runner_killed_before_the_start_is_taken_over(host: Host) -> None:
    gate = host.root / "gate"
    host.stage(environment={"STUB_FAULT": "import-gate", "STUB_GATE": str(gate)})
    host.launch(0)
    os.kill(host.runner_pid(), signal.SIGKILL)
    wait_until(lambda: host.status().held == "dead")
    gate.touch()
    with ThreadPoolExecutor(5) as pool:
        states = list(pool.map(lambda _: host.launch(), range(5)))
    assert LaunchState.LOST not in states
    assert host.outcome().problem is None
    assert host.runs() == 1


@under_two_shells
def test_a_runner_killed_after_the_start_is_lost_and_never_run_again(host: Host) -> None:
    host.stage("!hang")
    assert host.launch() is LaunchState.STARTED
    os.kill(host.runner_pid(), signal.SIGKILL)
    wait_until(lambda: host.status().held == "dead")
    assert host.status().is_lost
    assert host.launch() is LaunchState.LOST
    assert not (host.run_directory / "lock" / "next").exists()


def test_a_lock_whose_owner_never_wrote_its_name_does_not_block_for_ever(one_host: Host) -> None:
    one_host.stage()
    one_host.change_runner("UNOWNED_LOOKS=50", "UNOWNED_LOOKS=5")
    (one_host.run_directory / "lock").mkdir()
    assert one_host.launch(20) in (LaunchState.STARTED, LaunchState.ENDED)
    assert one_host.outcome().problem is None


@under_two_shells
def test_a_lock_of_an_earlier_boot_is_dead_although_the_process_id_lives_again(host: Host) -> None:
    host.stage()
    start = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    put(host.run_directory, {"lock/owner": f"another-boot {os.getpid()} {start}\n".encode()})
    assert host.status().held == "dead"
    assert host.launch() in (LaunchState.STARTED, LaunchState.ENDED)


def test_a_lock_is_held_only_by_the_process_that_took_it(one_host: Host) -> None:
    one_host.stage()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    put(one_host.run_directory, {"lock/owner": f"{boot} {os.getpid()} 1\n".encode()})
    assert one_host.status().held == "dead"


# --- ending early


def test_cancelling_ends_the_whole_tree_and_still_exports(host: Host) -> None:
    pids = host.root / "pids"
    host.stage(
        f"!say before\n!bash setsid sleep 300 & echo $! >> {pids}; setsid sh -c 'echo $$ >> {pids}; exec sleep 300'"
    )
    host.launch()
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    status = host.cancel()
    assert status.outcome is not None
    assert (status.outcome.problem, status.outcome.signal, status.outcome.export_status) == ("terminated", "TERM", 0)
    assert [pid for pid in pids.read_text().split() if is_alive(int(pid))] == []
    assert not is_alive(host.runner_pid())
    assert the_last_text(host.back()) == "before"


@under_two_shells
def test_an_orphan_in_a_session_of_its_own_is_ended_too(host: Host) -> None:
    pids = host.root / "pids"
    host.stage(f"!bash (setsid sleep 300 >/dev/null 2>&1 & echo $! > {pids})\n!hang")
    host.launch()
    wait_until(lambda: pids.exists() and pids.read_text().strip())
    host.cancel()
    assert not is_alive(int(pids.read_text()))


def test_cancelling_during_the_import_leaves_an_outcome_and_no_run(host: Host) -> None:
    host.stage(environment={"STUB_FAULT": "import-gate", "STUB_GATE": "/nowhere"})
    host.launch(0)
    outcome = host.cancel().outcome
    assert outcome is not None
    assert (outcome.problem, outcome.signal, outcome.is_started) == ("terminated", "TERM", False)


def test_cancelling_what_has_ended_changes_nothing(one_host: Host) -> None:
    before = one_host.dispatch()
    assert one_host.cancel().outcome == before


def test_a_runner_that_does_not_end_is_killed_with_its_tree(one_host: Host) -> None:
    one_host.stage(environment={"STUB_FAULT": "export-hang"})
    one_host.launch()
    wait_until(lambda: list(one_host.run_directory.glob("back.json.*.part")))
    status = one_host.cancel(1)
    assert (status.held, status.outcome) == ("dead", None)
    assert status.is_lost


@under_two_shells
def test_what_a_dead_runner_left_behind_is_ended(host: Host) -> None:
    host.stage("!bash sleep 300")
    host.launch()
    wait_until(lambda: host.status().events_bytes > 0)
    os.kill(host.runner_pid(), signal.SIGKILL)
    host.cancel(1)
    wait_until(lambda: b"removed" in host.run("clean", str(host.run_directory), host.run_directory.name))


def test_a_start_between_two_looks_is_no_loss(one_host: Host) -> None:
    """What was started is held until its outcome is there, so `started` is looked at first."""
    one_host.stage()
    words = [line.split()[0] for line in one_host.run("status", str(one_host.run_directory)).splitlines() if line]
    assert words.index(b"started") < words.index(b"held")
