"""Following a run, reading its status and logs, and cleaning up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from remote_dispatch.runner.status import parse_clean, parse_end
from tests.runner.conftest import DISPATCH, Host, is_alive, under_two_shells, wait_until


def test_following_prints_every_byte_and_then_how_it_ended(host: Host) -> None:
    host.stage(f"!say {'x' * 200_000}\n!say last")
    host.launch(0)
    with host.open("follow", str(host.run_directory), "0", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printed, talk = process.communicate(timeout=30)
    events = (host.run_directory / "events.jsonl").read_bytes()
    assert printed == events
    assert parse_end(talk) == ("outcome", len(events))
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
    end = parse_end(talk)
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
    assert parse_end(talk) == ("gone", 0)


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
