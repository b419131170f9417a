"""The small files of a run directory travel as one, and the launcher puts each into its place."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.runner.job import files_for
from remote_dispatch.runner.parcel import PARCEL_BYTES, fitting, parcel
from remote_dispatch.runner.scripts import script
from remote_dispatch.runner.status import LaunchState, parse_launch, parse_status
from tests.rig.stub import a_transcript, packed
from tests.runner.conftest import Host, put, under_two_shells, wait_until
from tests.runner.talk import ON_ITS_WAY

if TYPE_CHECKING:
    from collections.abc import Iterator


def parcelled(host: Host) -> bytes:
    """Put nothing of a dispatch on the host but the directory; return its files as a parcel."""
    session, child = a_transcript("hello"), a_transcript("child")
    child["info"]["parentID"] = session["info"]["id"]
    job = host.stage(session=packed(session), children=(packed(child),))
    shutil.rmtree(host.run_directory)
    host.run_directory.mkdir(mode=0o700)
    return parcel({name: content for name, content in files_for(job).items() if isinstance(content, bytes)})


def start_waiting(host: Host) -> subprocess.Popen[bytes]:
    """Start a launcher that waits to be told."""
    argv = [str(host.root / "bin" / "sh"), "-c", script("launch"), "launch", "-"]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=host.environment)


def tell(host: Host, launcher: subprocess.Popen[bytes]) -> bytes:
    """Tell a launcher that a parcel is there or will be; returns what it said."""
    said, _ = launcher.communicate(f"{host.run_directory}\n10\n1\n".encode(), timeout=30)
    return said


def places(host: Host) -> dict[str, int]:
    """Return the files of the run directory with their modes."""
    found: Iterator[Path] = (path for path in host.run_directory.rglob("*") if path.is_file())
    return {path.relative_to(host.run_directory).as_posix(): path.stat().st_mode & 0o777 for path in found}


def test_a_launcher_that_waits_takes_a_parcel_apart_and_says_what_there_is(host: Host) -> None:
    content = parcelled(host)
    launcher = start_waiting(host)
    put(host.run_directory, {"parcel": content})
    said = tell(host, launcher)
    assert parse_launch(said) in (LaunchState.STARTED, LaunchState.ENDED)
    status = parse_status(said, host.id)
    assert status.exists
    assert status.started or status.outcome
    assert host.outcome().problem is None
    with tarfile.open(fileobj=BytesIO(content)) as archive:
        assert {name: places(host)[name] for name in archive.getnames()} == dict.fromkeys(archive.getnames(), 0o600)
    assert not [name for name in places(host) if name.startswith("parcel")]
    # What looks older than it is may be tidied away there.
    assert time.time() - (host.run_directory / "manifest").stat().st_mtime < 3600


@under_two_shells
def test_a_parcel_that_is_still_on_its_way_is_waited_for(host: Host) -> None:
    content = parcelled(host)
    launcher = start_waiting(host)
    assert launcher.stdin is not None
    launcher.stdin.write(f"{host.run_directory}\n10\n1\n".encode())
    launcher.stdin.close()
    launcher.stdin = None
    wait_until(lambda: Path(f"/proc/{launcher.pid}/cwd").readlink() == host.run_directory.resolve())
    put(host.run_directory, {"parcel.part": content})
    (host.run_directory / "parcel.part").rename(host.run_directory / "parcel")
    said, _ = launcher.communicate(timeout=30)
    assert parse_launch(said) in ON_ITS_WAY
    assert host.outcome().problem is None


def test_a_second_parcel_changes_nothing_that_is_there(one_host: Host) -> None:
    content = parcelled(one_host)
    put(one_host.run_directory, {"parcel": content})
    one_host.order("runner.import.before")
    first = start_waiting(one_host)
    second = start_waiting(one_host)
    for launcher in (first, second):
        assert launcher.stdin is not None
        launcher.stdin.write(f"{one_host.run_directory}\n10\n1\n".encode())
        launcher.stdin.close()
        launcher.stdin = None
    wait_until((one_host.root / "failpoints" / "runner.import.before.reached").exists)
    one_host.go_on("runner.import.before")
    for launcher in (first, second):
        said, _ = launcher.communicate(timeout=30)
        assert parse_launch(said) in ON_ITS_WAY
    assert one_host.outcome().problem is None
    assert one_host.journal().count("runner.import.before") == 1


@pytest.mark.parametrize("damage", [b"", b"no gzip", b"\0" * 600])
def test_a_damaged_parcel_starts_nothing(one_host: Host, damage: bytes) -> None:
    content = parcelled(one_host)
    put(one_host.run_directory, {"parcel": damage or content[: len(content) // 2]})
    assert parse_launch(tell(one_host, start_waiting(one_host))) is LaunchState.DAMAGED
    assert not (one_host.run_directory / "lock").exists()


def test_what_a_broken_upload_left_beside_a_variable_is_no_variable(one_host: Host) -> None:
    one_host.stage(environment={"FOO": "1"})
    put(one_host.run_directory, {"param/env/FOO.part": b"1"})
    one_host.launch()
    assert one_host.outcome().problem is None


def test_a_launcher_that_is_told_nothing_does_nothing(one_host: Host) -> None:
    launcher = start_waiting(one_host)
    said, _ = launcher.communicate(timeout=30)
    assert said == b""
    assert launcher.returncode == 1


def test_a_parcel_is_small_and_the_same_each_time() -> None:
    sizes = {"a": 10, "b": PARCEL_BYTES - 10, "c": 5, "d" * 101: 1}
    assert fitting(sizes) == {"a", "c"}
    assert fitting({"a": 10, "b": PARCEL_BYTES - 10}) == {"a", "b"}
    assert parcel({"a": b"1", "b/c": b"2"}) == parcel({"a": b"1", "b/c": b"2"})
