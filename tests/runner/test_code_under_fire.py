"""Code on a host where runners are killed and disks are full; and how it is removed once it is home."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.runner.points import CODE_POINTS
from tests.runner.code import Home, git, state_of, tree_of, unpacked
from tests.runner.conftest import Host, under_two_shells, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from remote_dispatch.runner.job import Code

pytestmark = pytest.mark.thorough

KILLS = ("runner.code.before", *CODE_POINTS, "runner.directory.before", "runner.pack.before", "runner.children.before")
LATER = "20260103-030405-abcdefgh"
needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home" / "my app")


def leftovers(host: Host) -> list[str]:
    """What unfinished unpacking has left."""
    places = (state_of(host) / "work", state_of(host) / "projects")
    return [path.name for place in places if place.exists() for path in place.iterdir() if ".part." in path.name]


@pytest.mark.parametrize("point", KILLS)
def test_a_runner_killed_at_any_point_leaves_the_next_one_to_finish(one_host: Host, home: Home, point: str) -> None:
    die_and_go_on(one_host, home.carried(), point)
    assert home.files(home.receive(one_host.run_directory).result)["sub/made"] == "here"


@pytest.mark.parametrize("point", CODE_POINTS[1:])
def test_so_does_one_that_is_killed_with_an_archive(one_host: Host, home: Home, point: str) -> None:
    die_and_go_on(one_host, home.archived(), point)
    assert unpacked(one_host.run_directory)["sub/made"] == "here\n"


def die_and_go_on(host: Host, code: Code, point: str) -> None:
    """Have the runner die there; then do what `resume` and `collect` do."""
    host.order(point, "kill")
    host.stage("!write made here", code=code)
    host.launch()
    wait_until(lambda: host.status().held != "yes" and point in host.journal())
    if host.status().started:
        host.recover()
    else:
        host.launch()
    wait_until(host.has_back)
    assert '"code":"packed"' in (host.run_directory / "outcome.json").read_text()
    assert leftovers(host) == []
    assert host.runs() == 1


def test_a_second_runner_that_comes_too_early_waits_for_nothing_and_harms_nothing(one_host: Host, home: Home) -> None:
    reached = one_host.order("runner.code.stored")
    one_host.stage("!write made here", code=home.carried())
    one_host.launch(0)
    wait_until(reached.exists)
    one_host.launch(0)
    one_host.go_on("runner.code.stored")
    assert one_host.outcome().problem is None
    assert (tree_of(one_host) / "sub" / "made").exists()


@pytest.fixture
def small_home(one_host: Host) -> Iterator[Path]:
    """Give the host a home of three megabytes; OpenCode's data lies elsewhere."""
    place = one_host.root / "home"
    place.mkdir()
    one_host.environment["XDG_DATA_HOME"] = str(one_host.root / "data")
    argv = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if subprocess.run(argv, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount here")
    yield place
    subprocess.run(["umount", "-l", place], check=False, capture_output=True)


@needs_mount
@pytest.mark.parametrize("kind", ["bundle", "archive"])
def test_without_room_for_the_code_nothing_runs_and_nothing_of_it_stays(
    one_host: Host, small_home: Path, home: Home, kind: str
) -> None:
    (home.top / "large").write_bytes(os.urandom(1_700_000))
    home.commit({})
    outcome = one_host.dispatch(code=home.carried() if kind == "bundle" else home.archived())
    assert (outcome.problem, outcome.is_started) == ("no-space", False)
    assert one_host.clean() is None
    assert leftovers(one_host) == []
    assert small_home.exists()


@needs_mount
def test_without_room_to_pack_the_run_is_none_the_worse_and_the_tree_stays(
    one_host: Host, small_home: Path, home: Home
) -> None:
    reached = one_host.order("runner.pack.before")
    one_host.stage("!bash head -c 200000 /dev/urandom >large", code=home.carried())
    one_host.launch()
    wait_until(reached.exists)
    with contextlib.suppress(OSError), (small_home / "full").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    one_host.go_on("runner.pack.before")
    outcome = one_host.outcome()
    assert (outcome.problem, outcome.back_sha256 is not None) == (None, True)
    assert '"code":"failed","code_problem":"no-space"' in (one_host.run_directory / "outcome.json").read_text()
    (small_home / "full").unlink()
    made = one_host.partial()
    assert made.directory is not None
    assert "sub/large" in home.files(home.receive(one_host.run_directory / made.directory).result)


# --- afterwards


def refs(host: Host, code: Code) -> list[str]:
    store = state_of(host) / "projects" / f"{code.project}.git"
    return git(store, "for-each-ref", "--format=%(refname:lstrip=2)").split()


@under_two_shells
def test_what_is_home_goes_and_its_objects_stay(host: Host, home: Home) -> None:
    code = home.carried()
    host.dispatch("!bash mkdir -p locked/in; echo 1 >locked/in/file; chmod -R a-w locked", code=code)
    (state_of(host) / "work" / f"{host.id}.part.99999").mkdir()
    wait_until(lambda: host.status().held != "yes")
    assert host.clean() is None
    assert not host.run_directory.exists()
    assert list((state_of(host) / "work").iterdir()) == []
    assert refs(host, code) == [host.id]


def test_a_tree_goes_even_when_its_run_directory_is_gone_already(one_host: Host, home: Home) -> None:
    one_host.dispatch(code=home.carried())
    wait_until(lambda: one_host.status().held != "yes")
    subprocess.run(["rm", "-rf", one_host.run_directory], check=True)
    assert one_host.clean() is None
    assert list((state_of(one_host) / "work").iterdir()) == []


def test_the_newest_three_that_are_over_and_all_that_are_not_keep_their_objects(one_host: Host, home: Home) -> None:
    code = home.carried()
    one_host.dispatch(code=code)
    store = state_of(one_host) / "projects" / f"{code.project}.git"
    old = [f"2025010{number}-030405-abcdefgh" for number in range(1, 6)]
    for one in old:
        git(store, "update-ref", f"refs/dispatch/{one}", code.snapshot)
    (state_of(one_host) / "runs" / old[0]).mkdir()
    (state_of(one_host) / "work" / old[1]).mkdir()
    wait_until(lambda: one_host.status().held != "yes")
    assert one_host.clean() is None
    assert refs(one_host, code) == [old[0], old[1], old[3], old[4], one_host.id]


def test_while_another_of_the_project_has_not_ended_no_object_goes(one_host: Host, home: Home) -> None:
    code = home.carried()
    one_host.dispatch(code=code)
    one_host.beside(LATER).stage(code=code)
    store = state_of(one_host) / "projects" / f"{code.project}.git"
    for number in range(1, 6):
        git(store, "update-ref", f"refs/dispatch/2025010{number}-030405-abcdefgh", code.snapshot)
    wait_until(lambda: one_host.status().held != "yes")
    assert one_host.clean() is None
    assert len(refs(one_host, code)) == 6


def test_what_killed_runners_left_is_swept_when_it_is_old(one_host: Host) -> None:
    state = one_host.root / "home" / ".local" / "state" / "remote-dispatch"
    (state / "work" / f"{one_host.id}.part.{2**22 + 1}").mkdir(parents=True)
    (state / "projects" / f".part.abc.{2**22 + 1}").mkdir(parents=True)
    (state / "work" / one_host.id).mkdir()
    assert one_host.run("sweep") == b"swept 0\n"
    for place in [*(state / "work").iterdir(), *(state / "projects").iterdir()]:
        os.utime(place, (0, 0))
    assert one_host.run("sweep") == b"swept 2\n"
    assert [path.name for path in (state / "work").iterdir()] == [one_host.id]
