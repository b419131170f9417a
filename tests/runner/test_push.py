"""What the host says of a run that has ended, all in one answer; and who waits for a run is woken by its end."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from remote_dispatch.dispatch.delivery import PUSHED_BYTES, parse_delivery
from remote_dispatch.runner.scripts import script
from tests.runner.conftest import DISPATCH, Host, under_two_shells, wait_until
from tests.runner.talk import end_of

pytestmark = pytest.mark.thorough

PROMPT = "!say done\n!todo one;two\n!output tool_made long text\n!task look into it"


def result_of(run: Path) -> dict[str, bytes]:
    """Return the files of a result, by their names."""
    patterns = ("back.json.gz", "back-todos.json", "back-children/*.json.gz", "back-tool-output/*")
    return {path.relative_to(run).as_posix(): path.read_bytes() for pattern in patterns for path in run.glob(pattern)}


def test_a_glance_brings_status_list_files_and_events(host: Host) -> None:
    host.dispatch(PROMPT)
    said = parse_delivery(host.run("glance", str(host.run_directory), str(PUSHED_BYTES), "events"), DISPATCH)
    assert said.status.outcome == host.outcome()
    events = (host.run_directory / "events.jsonl").read_bytes()
    assert said.files == {**result_of(host.run_directory), "events.jsonl": events}
    assert len(said.files) == 5
    listed = host.run("list", str(host.run_directory)).decode().splitlines()
    assert said.listing == tuple(listed)
    assert {name for name in said.files if name not in listed} == {"back.json.gz", "events.jsonl"}


@under_two_shells
def test_following_ends_with_the_result(host: Host) -> None:
    host.stage(PROMPT)
    host.launch(0)
    values = (str(host.run_directory), "0", "10", str(PUSHED_BYTES))
    with host.open("follow", *values, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printed, talk = process.communicate(timeout=30)
    events = (host.run_directory / "events.jsonl").read_bytes()
    signs, _, rest = talk.partition(b"status begin")
    assert (printed, end_of(signs)) == (events, ("outcome", len(events)))
    assert parse_delivery(b"status begin" + rest, DISPATCH).files == result_of(host.run_directory)
    assert not list(host.run_directory.glob("waiter.*"))


def test_what_has_no_room_is_left_out_and_the_list_is_whole(one_host: Host) -> None:
    one_host.dispatch(PROMPT)
    files = result_of(one_host.run_directory)
    limit = max(map(len, files.values())) - 1
    said = parse_delivery(one_host.run("glance", str(one_host.run_directory), str(limit)), DISPATCH)
    assert said.listing is not None
    assert said.files.items() < files.items()
    assert sum(map(len, said.files.values())) <= limit
    assert parse_delivery(one_host.run("glance", str(one_host.run_directory), "0"), DISPATCH).listing is None


def test_a_run_that_goes_on_says_its_status_alone(one_host: Host) -> None:
    one_host.stage("!hang")
    one_host.launch()
    said = parse_delivery(one_host.run("glance", str(one_host.run_directory), str(PUSHED_BYTES), "events"), DISPATCH)
    assert (said.status.held, said.listing, said.files) == ("yes", None, {})
    one_host.cancel()
    one_host.run("clean", str(one_host.run_directory), DISPATCH)
    gone = one_host.run("glance", f"{one_host.run_directory}-gone", str(PUSHED_BYTES))
    assert parse_delivery(gone, DISPATCH).status.exists is False


def test_events_come_also_where_the_clock_was_set_back(one_host: Host) -> None:
    gate = one_host.root / "gate"
    one_host.stage(f"!wait {gate}")
    one_host.launch()
    events = one_host.run_directory / "events.jsonl"
    wait_until(events.exists)
    values = (str(one_host.run_directory), str(events.stat().st_size), "1")
    with one_host.open("follow", *values, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        printed = process.stdout
        mark = one_host.run_directory / f"waiter.{process.pid}"
        wait_until(mark.exists)
        # Only what comes after a while without news is told from the time alone.
        later = time.time() + 3600
        wait_until(lambda: time.time() - events.stat().st_mtime > 4)
        os.utime(mark, (later, later))
        with events.open("ab") as file:
            file.write(b'{"type": "late"}\n')
        os.set_blocking(printed.fileno(), False)
        try:
            wait_until(lambda: b"late" in (printed.read() or b""), timeout_s=5)
        finally:
            process.kill()


# --- waking


def waiter(host: Host) -> subprocess.Popen[bytes]:
    """Wait for news of the run for a minute, and end with 0 when some came earlier."""
    parts = Path(__file__).parents[2] / "remote_dispatch" / "runner"
    text = "\n".join((parts / f"{name}.sh").read_text() for name in ("common", "wake"))
    body = '\nenter "$1"; become_waiter; doze 60; doze 0.05; exit 0'
    return subprocess.Popen(
        [str(host.root / "bin" / "sh"), "-c", text + body, "sh", str(host.run_directory)],
        stdin=subprocess.DEVNULL,
        env=host.environment,
    )


def test_who_waits_is_woken_by_the_end_of_the_run(host: Host) -> None:
    gate = host.root / "gate"
    host.stage(f"!wait {gate}")
    host.launch()
    left_by_a_dead_one = host.run_directory / "waiter.1"
    left_by_a_dead_one.write_text("another-boot 1 1\n")
    with waiter(host) as waiting:
        named = host.run_directory / f"waiter.{waiting.pid}"
        wait_until(named.exists)
        assert not left_by_a_dead_one.exists()
        gate.touch()
        # A minute has not passed by then.
        assert waiting.wait(timeout=30) == 0
    assert not named.exists()


def test_nobody_else_is_signalled(one_host: Host) -> None:
    gate = one_host.root / "gate"
    one_host.stage(f"!wait {gate}")
    one_host.launch()
    with subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as bystander:
        (one_host.run_directory / f"waiter.{bystander.pid}").write_text(f"boot {bystander.pid} 1\n")
        (one_host.run_directory / "waiter.odd").write_text("one -1 two\n")
        gate.touch()
        one_host.outcome()
        wait_until(lambda: one_host.status().held != "yes")
        assert bystander.poll() is None
        bystander.kill()


def test_the_follower_is_one_script_with_what_it_needs() -> None:
    for needed in ("become_waiter()", "print_result()", "print_status()"):
        assert needed in script("follow")
    assert "wake_waiters()" in script("runner")
