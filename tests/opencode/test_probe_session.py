"""Whether a session is being worked on on the host, and whether the host's database is the one that it comes from."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.opencode.program import identity_script
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from tests.opencode.conftest import Box

DISPATCH = "20260102-030405-abcdefgh"


async def bring_in(box: Box, transcript: dict[str, Any]) -> str:
    """Import a transcript on the host and return its id."""
    source = box.root / "import.json"
    source.write_text(json.dumps(transcript))
    session: str = transcript["info"]["id"]
    await box.program.import_(source, session, box.home)
    return session


def an_open_turn(**fields: Any) -> dict[str, Any]:
    transcript = a_transcript("hello", "working on it", **fields)
    info = transcript["messages"][-1]["info"]
    del info["time"]["completed"], info["finish"]
    return transcript


def database_of(box: Box) -> Path:
    return box.home / ".local/share/opencode/opencode.db"


def age(box: Box, seconds: int) -> None:
    """Make everything in the host's database so old, by its own clock."""
    then = int(time.time() * 1000) - seconds * 1000
    with closing(sqlite3.connect(database_of(box), isolation_level=None)) as connection:
        for table in ("message", "part"):
            connection.execute(f"update {table} set time_updated = ?", (then,))


# --- the database


async def test_the_database_of_the_host_is_told_as_the_script_for_this_machine_tells_it(box: Box) -> None:
    session = await bring_in(box, a_transcript("hello"))
    probed = await box.probe(session_id=session)
    here = await box.connection.run(identity_script(), str(database_of(box)), timeout_s=10)
    assert probed.database == here.stdout.decode().strip()
    status = database_of(box).stat()
    assert probed.database is not None
    assert probed.database.split(":")[1:] == [str(status.st_dev), str(status.st_ino)]


async def test_one_database_under_two_names_is_one_and_another_is_another(one_box: Box) -> None:
    (one_box.root / "one").write_bytes(b"")
    (one_box.root / "two").write_bytes(b"")
    (one_box.root / "link").symlink_to(one_box.root / "one")
    told = [
        (await one_box.connection.run(identity_script(), str(one_box.root / name), timeout_s=10)).stdout
        for name in ("one", "link", "two", "nowhere")
    ]
    assert told[0] == told[1] != told[2]
    assert told[3] == b""


async def test_a_host_without_a_database_has_no_identity(one_box: Box) -> None:
    one_box.install_quick()
    assert (await one_box.probe(session_id="ses_000000000001TTTTTTTTTTTTTT")).database is None


# --- a turn that is under way


async def test_an_open_turn_that_changed_lately_is_busy(box: Box) -> None:
    session = await bring_in(box, an_open_turn())
    assert (await box.probe(session_id=session)).is_busy


async def test_an_open_turn_that_changed_nothing_for_two_minutes_was_interrupted(one_box: Box) -> None:
    session = await bring_in(one_box, an_open_turn())
    age(one_box, 130)
    assert not (await one_box.probe(session_id=session)).is_busy


async def test_a_sub_agent_at_work_keeps_its_session_busy(one_box: Box) -> None:
    session = await bring_in(one_box, an_open_turn())
    age(one_box, 130)
    await bring_in(one_box, a_transcript("look", parent_id=session))
    assert (await one_box.probe(session_id=session)).is_busy


@pytest.mark.parametrize("ended", ["completed", "error"])
async def test_a_turn_that_ended_is_not_busy(one_box: Box, ended: str) -> None:
    transcript = a_transcript("hello", "done") if ended == "completed" else an_open_turn()
    if ended == "error":
        transcript["messages"][-1]["info"]["error"] = {"name": "MessageAbortedError", "data": {"message": "aborted"}}
    session = await bring_in(one_box, transcript)
    await bring_in(one_box, an_open_turn())
    assert not (await one_box.probe(session_id=session)).is_busy


# --- a run that is under way


def a_run(box: Box, session: str, *, is_alive: bool, outcome: bool = False) -> None:
    """Make a run directory whose lock names this process, or one of an earlier boot."""
    run = box.home / ".local/state/remote-dispatch/runs" / DISPATCH
    for name in ("param", "lock"):
        (run / name).mkdir(parents=True)
    (run / "param/session").write_text(session)
    (run / "started").write_text("1\n")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip() if is_alive else "another-boot"
    start = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19]
    (run / "lock/owner").write_text(f"{boot} {os.getpid()} {start}\n")
    if outcome:
        (run / "outcome.json").write_text("{}")


async def test_a_run_of_the_same_session_is_told_by_its_dispatch(box: Box) -> None:
    box.install_quick()
    session = "ses_000000000001TTTTTTTTTTTTTT"
    a_run(box, session, is_alive=True)
    assert (await box.probe(session_id=session)).running == DISPATCH
    assert (await box.probe(session_id=session[:-1])).running is None
    assert (await box.probe()).running is None


@pytest.mark.parametrize(("is_alive", "outcome"), [(False, False), (True, True)])
async def test_a_run_that_is_over_or_lost_is_not_running(one_box: Box, is_alive: bool, outcome: bool) -> None:
    one_box.install_quick()
    session = "ses_000000000001TTTTTTTTTTTTTT"
    a_run(one_box, session, is_alive=is_alive, outcome=outcome)
    assert (await one_box.probe(session_id=session)).running is None
