"""Following a run, reading its status and logs, and cleaning up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from remote_dispatch.runner.job import Payload
from remote_dispatch.runner.status import parse_clean, parse_sweep
from tests.runner.conftest import DISPATCH, Host, is_alive, under_two_shells, wait_until
from tests.runner.talk import end_of

pytestmark = pytest.mark.thorough


def test_following_prints_every_byte_and_then_how_it_ended(host: Host) -> None:
    host.stage(f"!say {'x' * 200_000}\n!say last")
    host.launch(0)
    with host.open("follow", str(host.run_directory), "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printed, talk = process.communicate(timeout=30)
    events = (host.run_directory / "events.jsonl").read_bytes()
    assert printed == events
    assert end_of(talk) == ("outcome", len(events))
    assert process.returncode == 0


@under_two_shells
def test_following_goes_on_from_an_offset(host: Host) -> None:
    host.dispatch("!say one")
    events = (host.run_directory / "events.jsonl").read_bytes()
    with host.open("follow", str(host.run_directory), "40", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printed, _ = process.communicate(timeout=30)
    assert printed == events[40:]
    assert host.run("tail", str(host.run_directory), "40") == events[40:]


def test_events_come_while_the_run_goes_on(one_host: Host) -> None:
    gate = one_host.root / "gate"
    one_host.stage(f"!say early\n!wait {gate}")
    one_host.launch()
    with one_host.open(
        "follow", str(one_host.run_directory), "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert b"early" in lines[1]
        gate.touch()
        process.communicate(timeout=30)


@under_two_shells
def test_a_dead_runner_ends_the_following_as_lost(host: Host) -> None:
    host.stage("!hang")
    host.launch()
    with host.open("follow", str(host.run_directory), "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.kill(host.runner_pid(), signal.SIGKILL)
        _, talk = process.communicate(timeout=30)
    end = end_of(talk)
    assert end is not None
    assert end[0] == "lost"


def test_a_directory_that_goes_away_ends_the_following_as_gone(one_host: Host) -> None:
    one_host.stage()
    with one_host.open(
        "follow", str(one_host.run_directory), "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"alive\n"
        shutil.rmtree(one_host.run_directory)
        _, talk = process.communicate(timeout=30)
    assert end_of(talk) == ("gone", 0)


@under_two_shells
def test_a_closed_channel_leaves_no_process_behind(host: Host) -> None:
    host.stage("!hang")
    host.launch()
    reader, writer = os.pipe()
    with host.open("follow", str(host.run_directory), "0", "1", stdout=writer, stderr=writer) as process:
        os.close(writer)
        assert b"alive" in os.read(reader, 4096)
        os.close(reader)
        assert process.wait(timeout=20) != 0
    wait_until(lambda: not _processes_in(host.run_directory, "sleep"))
    host.cancel()


def test_a_hangup_ends_the_following_at_once(host: Host) -> None:
    host.stage("!hang")
    host.launch()
    with host.open("follow", str(host.run_directory), "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=10) != 0
    host.cancel()


def _processes_in(directory: Path, name: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if (
                entry.name.isdigit()
                and (entry / "cwd").readlink() == directory
                and name in (entry / "comm").read_text()
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if is_alive(pid)]


@under_two_shells
def test_the_status_shows_the_run_and_then_its_outcome(host: Host) -> None:
    gate = host.root / "gate"
    host.stage(f"!say hi\n!wait {gate}")
    before = host.status()
    assert (before.exists, before.started, before.held, before.directory) == (True, False, "no", None)
    host.launch()
    wait_until(lambda: host.status().events_bytes > 0)
    running = host.status()
    assert (running.started, running.held, running.outcome) == (True, "yes", None)
    assert running.last_event_age_s is not None
    assert str(running.directory) == str(host.project)
    gate.touch()
    outcome = host.outcome()
    assert host.status().outcome == outcome


# --- clean


def clean(host: Host, path: str, dispatch: str = DISPATCH) -> str | None:
    return parse_clean(host.run("clean", path, dispatch))


@under_two_shells
def test_a_run_directory_is_removed_once_nobody_uses_it(host: Host) -> None:
    host.dispatch()
    wait_until(lambda: clean(host, str(host.run_directory)) is None)
    assert not host.run_directory.exists()
    assert clean(host, str(host.run_directory)) is None


@under_two_shells
def test_a_running_dispatch_is_not_removed(host: Host) -> None:
    host.stage("!hang")
    host.launch()
    assert clean(host, str(host.run_directory)) == "held"
    # A runner that is killed earlier has begun nothing, and its directory goes.
    wait_until((host.run_directory / "opencode.pid").exists)
    os.kill(host.runner_pid(), signal.SIGKILL)
    wait_until(lambda: clean(host, str(host.run_directory)) == "running")
    assert host.run_directory.is_dir()
    host.cancel(1)


def test_only_a_run_directory_of_this_dispatch_is_removed(host: Host) -> None:
    other = host.root / "remote-dispatch" / "runs"
    (other / "other").mkdir(parents=True)
    (host.root / "precious").mkdir()
    (other / DISPATCH).symlink_to(host.root / "precious")
    for path, dispatch in (
        (str(host.root / "precious"), DISPATCH),
        (str(other / "other"), DISPATCH),
        (f"{other}/{DISPATCH}", DISPATCH),
        (f"{other}/{DISPATCH}/../other", "other"),
        (f"{other}/", ""),
        (f"{other}/..", ".."),
        ("remote-dispatch/runs/x", "x"),
    ):
        assert clean(host, path, dispatch) == "path"
    assert (host.root / "precious").is_dir()
    assert (other / "other").is_dir()


@under_two_shells
def test_what_a_killed_runner_left_outside_its_directory_is_removed_with_it(host: Host) -> None:
    sent = {"tool_sent": Payload.of(b"sent")}
    host.dispatch(tool_output=sent)
    kept = host.root / "home" / ".local" / "share" / "opencode" / "tool-output"
    (kept / f"tool_sent.{DISPATCH}.part").write_bytes(b"se")
    (kept / "tool_sent.another.part").write_bytes(b"se")
    wait_until(lambda: clean(host, str(host.run_directory)) is None)
    assert {path.name for path in kept.iterdir()} == {"tool_sent", "tool_sent.another.part"}


def test_everything_that_a_dispatch_made_lies_in_its_directory_or_is_opencodes(one_host: Host) -> None:
    one_host.dispatch("!todo one\n!output tool_made long")
    wait_until(lambda: clean(one_host, str(one_host.run_directory)) is None)
    data = one_host.root / "home" / ".local" / "share" / "opencode"
    left = {path for path in (one_host.root / "home").rglob("*") if path.is_file() and data not in path.parents}
    assert left == set()
    names = {path.name for path in data.rglob("*") if path.is_file()}
    assert names <= {"opencode.db", "opencode.db-wal", "opencode.db-shm", "tool_made"}


def test_a_call_of_opencode_that_outlived_its_runner_is_ended_before_the_directory_goes(one_host: Host) -> None:
    one_host.stage(environment={"STUB_FAULT": "import-gate", "STUB_GATE": "/nowhere"})
    one_host.launch(0)
    wait_until(lambda: _processes_with(one_host, b"import"))
    one_host.kill_runner()
    wait_until(lambda: clean(one_host, str(one_host.run_directory)) is None)
    assert not _processes_with(one_host, b"import")
    assert not one_host.run_directory.exists()


def _processes_with(host: Host, word: bytes) -> list[int]:
    """Return the processes of this host that have this word as an argument."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if word in arguments and str(host.root).encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return [pid for pid in found if is_alive(pid)]


# --- sweep


def sweep(host: Host) -> int:
    return parse_sweep(host.run("sweep"))


def leftover(host: Host, pid: int, *, age_s: int = 7200) -> Path:
    """Make what a probe with this process id leaves when it is killed."""
    scratch = host.root / "home" / ".cache" / "remote-dispatch" / f"probe.{pid}"
    (scratch / "catalogue").mkdir(parents=True)
    os.utime(scratch, (time.time() - age_s, time.time() - age_s))
    return scratch


def test_what_dead_probes_left_is_swept_and_nothing_else(host: Host) -> None:
    gone = subprocess.Popen(["true"], stdin=subprocess.DEVNULL)
    gone.wait(timeout=10)
    dead, living = leftover(host, gone.pid), leftover(host, os.getpid())
    cache = dead.parent
    (cache / "catalogue-1-2").write_text("kept")
    (cache / "probe.notes").mkdir()
    assert sweep(host) == 1
    assert {path.name for path in cache.iterdir()} == {living.name, "catalogue-1-2", "probe.notes"}
    assert sweep(host) == 0


def test_a_leftover_of_less_than_an_hour_is_kept(one_host: Host) -> None:
    gone = subprocess.Popen(["true"], stdin=subprocess.DEVNULL)
    gone.wait(timeout=10)
    young = leftover(one_host, gone.pid, age_s=600)
    assert sweep(one_host) == 0
    assert young.is_dir()


def test_without_a_cache_there_is_nothing_to_sweep(one_host: Host) -> None:
    assert sweep(one_host) == 0
