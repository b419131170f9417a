"""Whatever ends or fails on the host, an outcome comes of it, and it says what is true."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.runner.points import RUNNER_POINTS
from remote_dispatch.runner.scripts import script
from remote_dispatch.runner.status import LaunchState
from tests.rig.stub import OPENCODE_STUB
from tests.runner.conftest import Host, is_alive, under_two_shells, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.thorough

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system")
# Between the end of one step and the beginning of the next nothing happens.
POINTS = [point for point in RUNNER_POINTS if not point.endswith(".after")]
RUN_POINTS = POINTS[: POINTS.index("runner.ended.before")]
END_POINTS = POINTS[len(RUN_POINTS) :]


def mount(*arguments: object) -> None:
    """Mount something, or skip the test where that is refused."""
    done = subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("cannot mount here")


def unmount(place: Path) -> None:
    subprocess.run(["umount", "-l", place], check=False, capture_output=True)


def processes_of(host: Host) -> list[int]:
    """Return the processes of this host, those of this test itself aside."""
    mark, found = f"{host.root}/".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes() and is_alive(int(entry.name)):
                found.append(int(entry.name))
    return found


# --- signals


@pytest.mark.parametrize("point", RUN_POINTS)
def test_a_request_to_end_at_any_point_ends_in_an_outcome_and_leaves_no_process(one_host: Host, point: str) -> None:
    outcome_after_term_at(one_host, point, "!bash sleep 300", problem="terminated", term="TERM")


@pytest.mark.parametrize("point", END_POINTS)
def test_a_request_to_end_after_the_run_does_not_make_a_failure_of_it(one_host: Host, point: str) -> None:
    outcome_after_term_at(one_host, point, "!say done", problem=None, term=None)
    assert one_host.has_back()


def outcome_after_term_at(host: Host, point: str, prompt: str, *, problem: str | None, term: str | None) -> None:
    reached = host.order(point)
    host.stage(prompt)
    with host.open("launch", str(host.run_directory), "10", stdout=subprocess.DEVNULL) as launching:
        wait_until(reached.exists)
        os.kill(runner_of(host), signal.SIGTERM)
        host.go_on(point)
        outcome = host.outcome()
        launching.wait(timeout=20)
    assert (outcome.problem, outcome.signal) == (problem, term)
    wait_until(lambda: not processes_of(host))


def runner_of(host: Host) -> int:
    """Return the runner, which may not have taken the lock yet; not a subshell of it."""
    parents = {}
    for pid in processes_of(host):
        # A tool of the runner's may end between two looks.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"runner.sh" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return next(pid for pid, parent in parents.items() if parent not in parents)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
def test_signals_of_a_terminal_do_not_reach_a_detached_runner(one_host: Host, name: str) -> None:
    gate = one_host.root / "gate"
    one_host.stage(f"!wait {gate}")
    one_host.launch()
    os.kill(one_host.runner_pid(), signal.Signals[name])
    gate.touch()
    outcome = one_host.outcome()
    assert (outcome.problem, outcome.signal) == (None, None)


@under_two_shells
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_an_opencode_that_is_killed_is_a_failed_run_whose_work_is_exported(host: Host, name: str) -> None:
    host.stage("!say so far\n!hang")
    host.launch()
    wait_until(lambda: host.status().events_bytes > 0)
    os.kill(int((host.run_directory / "opencode.pid").read_text().split()[1]), signal.Signals[name])
    outcome = host.outcome()
    assert (outcome.problem, outcome.signal) == ("run-failed", None)
    assert (outcome.run_status, outcome.export_status) == (128 + signal.Signals[name], 0)
    assert host.has_back()


@under_two_shells
def test_an_opencode_whose_launcher_was_killed_is_waited_for(host: Host) -> None:
    gate, launcher = host.root / "gate", host.root / "launcher"
    launcher.write_text(f'#!/bin/sh\nexec 3<&0\n{OPENCODE_STUB} "$@" <&3 &\nwait $!\n')
    launcher.chmod(0o755)
    host.stage(f"!say first\n!wait {gate}\n!say last", opencode=PurePosixPath(launcher))
    host.launch()
    wait_until(lambda: host.status().events_bytes > 0)
    os.kill(int((host.run_directory / "opencode.pid").read_text().split()[1]), signal.SIGKILL)
    wait_until(lambda: not is_alive(int((host.run_directory / "opencode.pid").read_text().split()[1])))
    assert host.status().is_opencode_alive
    gate.touch()
    assert host.outcome().run_status == 137
    assert [part["text"] for part in host.back()["messages"][-1]["parts"] if part["type"] == "text"] == [
        "first",
        "last",
    ]


@pytest.mark.parametrize(("words", "problem"), [("import", "import-refused"), ("export", "export-failed")])
def test_a_call_of_opencode_that_is_killed_is_a_problem_and_not_the_end(
    one_host: Host, words: str, problem: str
) -> None:
    one_host.stage(environment={"STUB_FAULT": f"{words}-gate", "STUB_GATE": "/nowhere"})
    one_host.launch(0)
    killed: list[int] = []

    def kill() -> list[int]:
        for pid in processes_of(one_host):
            with contextlib.suppress(OSError):
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if arguments[-3:-2] == [words.encode()]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
        return killed

    wait_until(kill)
    outcome = one_host.outcome()
    assert outcome.problem == problem
    assert outcome.is_started is (words == "export")


# --- what is left


def test_the_outcome_counts_what_the_model_left_running_and_leaves_it_alone(host: Host) -> None:
    pid = host.root / "pid"
    outcome = host.dispatch(f"!bash (setsid sleep 300 >/dev/null 2>&1 & echo $! > {pid})")
    assert (outcome.problem, outcome.left_processes) == (None, 1)
    assert is_alive(int(pid.read_text()))
    assert host.cancel().outcome == outcome
    assert is_alive(int(pid.read_text()))


def test_what_needs_a_moment_to_end_is_not_left_running(one_host: Host) -> None:
    assert one_host.dispatch("!bash (setsid sleep 0.6 >/dev/null 2>&1 &)").left_processes == 0


def test_nothing_is_left_of_an_ordinary_run(one_host: Host) -> None:
    assert one_host.dispatch().left_processes == 0
    wait_until(lambda: not processes_of(one_host))


# --- disks


@pytest.fixture
def small_home(one_host: Host) -> Iterator[Path]:
    """Give the host a home of one megabyte; OpenCode's data lies elsewhere."""
    home = one_host.root / "home"
    home.mkdir()
    one_host.environment["XDG_DATA_HOME"] = str(one_host.root / "data")
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", home)
    yield home
    unmount(home)


def fill(home: Path) -> None:
    with contextlib.suppress(OSError), (home / "full").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@needs_mount
@pytest.mark.parametrize("point", POINTS[1:])
def test_a_disk_that_is_full_from_any_point_on_costs_no_outcome_and_nothing_is_lost(
    one_host: Host, small_home: Path, point: str
) -> None:
    reached = one_host.order(point)
    one_host.stage("!say worth keeping")
    one_host.launch(0)
    wait_until(reached.exists)
    fill(small_home)
    one_host.go_on(point)
    patience = time.monotonic() + 2
    wait_until(lambda: one_host.has_ended() or time.monotonic() > patience)
    (small_home / "full").unlink()
    outcome = one_host.outcome()
    if not outcome.is_started:
        assert outcome.problem == "no-space"
        return
    wait_until(lambda: one_host.recover() is LaunchState.ENDED)
    wait_until(one_host.has_back)
    assert one_host.outcome().problem is None or one_host.outcome().run_status != 0
    assert one_host.runs() <= 1


@needs_mount
@pytest.mark.parametrize("point", ["runner.import.before", "runner.run.before", "runner.export.before"])
def test_a_home_that_becomes_read_only_costs_no_outcome_once_it_is_writable_again(one_host: Host, point: str) -> None:
    reached = one_host.order(point)
    one_host.stage("!say worth keeping")
    one_host.launch(0)
    wait_until(reached.exists)
    home = one_host.root / "home"
    mount("--bind", home, home)
    try:
        mount("-o", "remount,bind,ro", home)
        one_host.go_on(point)
        wait_until(lambda: is_waiting_to_write(one_host))
        assert one_host.status().held == "yes"
        assert not one_host.has_ended()
        mount("-o", "remount,bind,rw", home)
        outcome = one_host.outcome()
        assert outcome.problem == "no-space"
    finally:
        unmount(home)


def is_waiting_to_write(host: Host) -> bool:
    """Whether the runner has tried to write the outcome twice."""
    for pid in processes_of(host):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\0002\0":
                return True
    return False


def test_a_limit_on_the_size_of_files_ends_in_an_outcome(host: Host) -> None:
    host.environment["XDG_DATA_HOME"] = str(host.root / "data")
    host.stage(f"!say {'x' * 800_000}")
    argv = [str(host.root / "bin" / "sh"), "-c", f"ulimit -f 1000\n{script('launch')}", "launch"]
    subprocess.run(
        [*argv, str(host.run_directory), "10"],
        env=host.environment,
        stdin=subprocess.DEVNULL,
        check=True,
        capture_output=True,
        timeout=30,
    )
    assert host.outcome().problem == "run-failed"
    assert host.has_back()
