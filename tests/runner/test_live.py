"""The runner of a live dispatch: it imports, starts nothing, waits to be told of the end, and exports."""

from __future__ import annotations

import os
import signal
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.runner.status import LaunchState, parse_told
from tests.runner.conftest import Host, is_alive, under_two_shells, wait_until

if TYPE_CHECKING:
    from remote_dispatch.runner.job import Job


def a_live_run(host: Host) -> Job:
    """Stage and launch a live dispatch; its runner waits then."""
    job = host.stage("!say never said", is_live=True)
    assert host.launch() is LaunchState.STARTED
    return job


def tell_end(host: Host, status: str = "0") -> bool:
    return parse_told(host.run("end", str(host.run_directory), status))


def test_a_live_run_imports_starts_nothing_and_exports_once_it_is_told_of_the_end(host: Host) -> None:
    job = a_live_run(host)
    status = host.status()
    assert (status.started, status.held, status.is_opencode_alive, status.outcome) == (True, "yes", False, None)
    assert tell_end(host)
    outcome = host.outcome()
    assert (outcome.problem, outcome.session, outcome.run_status) == (None, job.session.id, 0)
    assert (len(host.back()["messages"]), host.runs()) == (2, 0)


def test_a_turn_that_ended_badly_is_exported_all_the_same(one_host: Host) -> None:
    a_live_run(one_host)
    assert tell_end(one_host, "1")
    outcome = one_host.outcome()
    assert (outcome.problem, outcome.run_status) == ("run-failed", 1)
    assert outcome.back_sha256 is not None


def test_what_was_told_first_stays(one_host: Host) -> None:
    reached = one_host.order("runner.run.after")
    a_live_run(one_host)
    assert tell_end(one_host, "0")
    wait_until(reached.exists)
    assert tell_end(one_host, "1")
    assert (one_host.run_directory / "live-end").read_text() == "0\n"
    one_host.go_on("runner.run.after")
    assert one_host.outcome().run_status == 0


def test_nobody_is_told_of_an_end_where_no_live_run_is(one_host: Host) -> None:
    assert not tell_end(one_host)
    one_host.stage()
    assert not tell_end(one_host)
    assert not (one_host.run_directory / "live-end").exists()


@under_two_shells
def test_a_second_launch_of_a_live_dispatch_does_nothing(host: Host) -> None:
    a_live_run(host)
    runner = host.runner_pid()
    assert (host.launch(), host.runner_pid()) == (LaunchState.STARTED, runner)


def test_cancelling_a_live_run_ends_its_runner_and_exports_what_there_is(host: Host) -> None:
    a_live_run(host)
    runner = host.runner_pid()
    status = host.cancel()
    assert status.outcome is not None
    assert (status.outcome.problem, status.outcome.signal) == ("terminated", "TERM")
    assert len(host.back()["messages"]) == 2
    wait_until(lambda: not is_alive(runner))


@pytest.mark.thorough
@under_two_shells
def test_a_killed_runner_of_a_live_run_is_lost_and_recovered_by_an_export(host: Host) -> None:
    a_live_run(host)
    os.kill(host.runner_pid(), signal.SIGKILL)
    wait_until(lambda: host.status().is_lost)
    assert host.recover() in (LaunchState.RECOVERING, LaunchState.ENDED)
    wait_until(host.has_back)
    outcome = host.outcome()
    assert (outcome.problem, outcome.run_status, len(host.back()["messages"])) == ("lost", None, 2)


@pytest.mark.thorough
def test_a_recovery_knows_how_the_turn_ended_where_that_was_told(one_host: Host) -> None:
    one_host.order("runner.run.after", "kill")
    a_live_run(one_host)
    assert tell_end(one_host, "0")
    wait_until(lambda: one_host.status().is_lost)
    one_host.recover()
    wait_until(one_host.has_back)
    assert one_host.outcome().run_status == 0


def test_the_tree_of_a_live_run_outlives_its_run_directory(one_host: Host) -> None:
    tree = one_host.run_directory.parent.parent / "work" / one_host.id / "project"
    one_host.stage(is_live=True, directory=PurePosixPath(tree))
    one_host.launch()
    tell_end(one_host)
    one_host.outcome()
    wait_until(lambda: one_host.clean() is None)
    assert (one_host.run_directory.exists(), tree.exists()) == (False, True)
