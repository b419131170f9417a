"""field.md section 6, "Files and symlinks put in advance at every temporary name", here and on the host, and records
that are broken: nothing is followed, nothing waits for ever, and one bad record stands in nobody's way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.dispatch.files import write_whole
from remote_dispatch.dispatch.store import Folder, Store
from remote_dispatch.model import State
from remote_dispatch.remote.files import appearing
from tests.bad_input.terminal import assert_civil, laptop_of
from tests.bad_input.values import ESCAPES, named
from tests.dispatch.values import DISPATCH_ID, a_record
from tests.rig.world import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bad_input.terminal import Terminal
    from tests.rig.world import World

QUICK_S = 20
SECRET = "kept as it was"
OTHER_ID = "20260102-130000-hgfedcba"

OBSTACLES: dict[str, Callable[[Path, Path], object]] = {
    "a symlink": lambda path, secret: path.symlink_to(secret),
    "a symlink to nothing": lambda path, secret: path.symlink_to(secret.with_name("made-by-us")),
    "a pipe": lambda path, secret: os.mkfifo(path),
    "a directory": lambda path, secret: path.mkdir(),
    "a file that others own": lambda path, secret: path.write_text("theirs"),
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file outside that nobody may write to."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


def assert_untouched(secret: Path) -> None:
    """Check that nothing was written through a symlink."""
    assert secret.read_text() == SECRET
    assert not secret.with_name("made-by-us").exists()


# --- writing beside and renaming


@pytest.mark.parametrize("name", [name for name in OBSTACLES if name != "a directory"])
def test_a_download_takes_the_place_of_what_has_its_name_or_its_parts_name(
    tmp_path: Path, secret: Path, name: str
) -> None:
    for is_continued in (False, True):
        target = tmp_path / f"back-{is_continued}.gz"
        for path in (target, target.with_name(target.name + ".part")):
            OBSTACLES[name](path, secret)
        if name == "a file that others own":
            target.with_name(target.name + ".part").unlink()
        with appearing(target, is_continued=is_continued) as file:
            file.write(b"ours")
        assert (target.is_symlink(), target.read_bytes()) == (False, b"ours")
        assert_untouched(secret)


@pytest.mark.parametrize("name", OBSTACLES)
def test_a_record_takes_the_place_of_what_has_its_name(tmp_path: Path, secret: Path, name: str) -> None:
    target = tmp_path / "record.json"
    OBSTACLES[name](target, secret)
    if name == "a directory":
        with pytest.raises(OSError, match="directory"):
            write_whole(target, b"ours")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["record.json", "secret"]
    else:
        write_whole(target, b"ours")
        assert (target.is_symlink(), target.read_bytes()) == (False, b"ours")
    assert_untouched(secret)


@pytest.mark.parametrize("name", ["a symlink", "a symlink to nothing"])
def test_what_leaves_is_kept_without_following_a_symlink(tmp_path: Path, secret: Path, name: str) -> None:
    folder = Folder(tmp_path / "dispatch")
    folder.outgoing.mkdir(parents=True)
    OBSTACLES[name](folder.outgoing / "brief.txt", secret)
    with pytest.raises(OSError, match="symbolic link"):
        folder.keep_outgoing({"brief.txt": b"ours"})
    assert_untouched(secret)


# --- records


def a_stored(terminal: Terminal, **fields: Any) -> Store:
    """Store one good dispatch, `kumo`, and return the store."""
    store = Store(terminal.state / "dispatches")
    store.folder(DISPATCH_ID).path.mkdir(parents=True, mode=0o700)
    store.save(a_record(State.RUNNING, **fields))
    return store


GOOD = json.loads(a_record(State.RUNNING).model_dump_json())
BROKEN_RECORDS = {
    "empty": "",
    "cut": json.dumps(GOOD)[:100],
    "null": "null",
    "a list": "[]",
    "NUL bytes": "\0" * 1000,
    "a state from the future": json.dumps({**GOOD, "history": [{"state": "dreaming", "at": "2026-01-02T12:00:00Z"}]}),
    "a mode from the future": json.dumps({**GOOD, "request": {**GOOD["request"], "mode": "three-way"}}),
    "a time that is none": json.dumps({**GOOD, "history": [{"state": "new", "at": "soon"}]}),
    "nested 100,000 times": '{"id": ' + "[" * 100_000,
    "an id of a session that is a path": json.dumps({**GOOD, "request": {**GOOD["request"], "session_id": "../../x"}}),
}


def assert_in_nobodys_way(terminal: Terminal) -> None:
    """Check that the good dispatch is listed and shown beside a bad one, which is named."""
    listed = terminal.run("list", "--json")
    assert [one["name"] for one in listed.data["dispatches"]] == ["kumo"]
    assert OTHER_ID in listed.stderr
    assert listed.exit_code == 3
    assert terminal.run("show", OTHER_ID, "--json").exit_code == 11
    assert terminal.run("show", "kumo").exit_code == 0


@pytest.mark.parametrize("content", named(BROKEN_RECORDS))
def test_a_broken_record_is_named_and_in_nobodys_way(terminal: Terminal, content: str) -> None:
    store = a_stored(terminal)
    path = store.folder(OTHER_ID).path / "record.json"
    path.parent.mkdir()
    path.write_text(content)
    assert_in_nobodys_way(terminal)
    assert path.read_text() == content


@pytest.mark.parametrize("kind", ["a directory", "a symlink to a directory"])
def test_a_record_that_is_no_file_is_named_and_in_nobodys_way(terminal: Terminal, kind: str) -> None:
    store = a_stored(terminal)
    path = store.folder(OTHER_ID).path / "record.json"
    path.parent.mkdir()
    if kind == "a directory":
        path.mkdir()
    else:
        path.symlink_to(terminal.home)
    assert_in_nobodys_way(terminal)


def test_a_record_that_is_a_symlink_to_itself_is_none(terminal: Terminal) -> None:
    store = a_stored(terminal)
    path = store.folder(OTHER_ID).path / "record.json"
    path.parent.mkdir()
    path.symlink_to(path.name)
    assert terminal.run("list").exit_code in (0, 3)
    assert terminal.run("show", OTHER_ID).exit_code in (10, 11)
    assert terminal.run("show", "kumo").exit_code == 0


@pytest.mark.parametrize("kind", ["a pipe", "a symlink to a device without end"])
def test_a_record_that_never_ends_holds_nothing_up(terminal: Terminal, kind: str) -> None:
    store = a_stored(terminal)
    path = store.folder(OTHER_ID).path / "record.json"
    path.parent.mkdir()
    if kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    argv = [sys.executable, "-m", "remote_dispatch", "list", "--json"]
    limited = ["sh", "-c", 'ulimit -v 1000000; exec "$@"', "sh", *argv]
    done = subprocess.run(
        limited,
        cwd=terminal.directory,
        env={**terminal.environment, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=QUICK_S,
        check=False,
    )
    assert done.returncode == 3
    assert b"kumo" in done.stdout


def test_a_record_without_a_state_is_a_broken_one(terminal: Terminal) -> None:
    store = a_stored(terminal)
    path = store.folder(OTHER_ID).path / "record.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**GOOD, "history": []}))
    assert_in_nobodys_way(terminal)


def test_a_symlink_to_a_record_is_read_as_the_record_it_is(terminal: Terminal) -> None:
    store = a_stored(terminal)
    path = store.folder(DISPATCH_ID).path / "record.json"
    path.rename(path.with_name("elsewhere.json"))
    path.symlink_to("elsewhere.json")
    assert terminal.run("show", "kumo").exit_code == 0


def test_a_record_of_a_newer_version_loads_and_is_not_changed(terminal: Terminal) -> None:
    store = a_stored(terminal)
    path = store.folder(DISPATCH_ID).path / "record.json"
    newer = json.dumps({**GOOD, "schema_version": 99, "quantum": {"a": 1}})
    path.write_text(newer)
    assert terminal.run("list").exit_code == 0
    assert path.read_text() == newer


@pytest.mark.parametrize("text", named(ESCAPES))
@pytest.mark.parametrize("field", ["detail", "answer", "remote_directory", "warnings", "title"])
def test_a_record_with_escape_codes_is_shown_without_them(terminal: Terminal, field: str, text: str) -> None:
    """`Terminal.run` looks at all that is printed."""
    value: Any = (text,) if field == "warnings" else text
    fields = {"origin": {"directory": text, "title": text}} if field == "title" else {field: value}
    a_stored(terminal, **fields, kind="odd", collected="whole", is_cleaned_up=True)
    for words in (["list"], ["show", "kumo"], ["show", "kumo", "--json"], ["list", "--json"]):
        assert terminal.run(*words).exit_code in (0, 3)


# --- places of the state directory


PLACES = ("", "dispatches", "locks")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["a file", "a symlink to itself", "a symlink to a file"])
def test_a_place_that_is_no_directory_is_an_error_in_words(
    terminal: Terminal, secret: Path, place: str, kind: str
) -> None:
    path = terminal.state / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a file":
        path.write_text("a file")
    else:
        path.symlink_to(path.name if kind == "a symlink to itself" else secret)
    assert terminal.run("list").exit_code in (0, 11)
    assert terminal.run("send", "pi", "do it", "--new", "--json", "--name=kumo").exit_code == 11
    assert_untouched(secret)


def test_a_lock_put_in_advance_as_a_pipe_holds_nothing_up(world: World) -> None:
    session = world.local_session()
    locks = world.laptop.home / ".local/state/remote-dispatch/locks"
    locks.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.mkfifo(locks / session)
    running = world.start("send", "pi", "!say done", "--session", session, "--json")
    assert running.end(timeout_s=QUICK_S).exit_code in (0, 8, 11)


def test_a_lock_put_in_advance_as_a_symlink_changes_nothing_behind_it(shared_world: World, secret: Path) -> None:
    session = shared_world.local_session()
    locks = shared_world.laptop.home / ".local/state/remote-dispatch/locks"
    locks.mkdir(parents=True, exist_ok=True, mode=0o700)
    (locks / session).symlink_to(secret)
    ran = laptop_of(shared_world).run("send", "pi", "!say done", "--session", session, "--json")
    assert ran.exit_code in (0, 8, 11)
    assert_untouched(secret)


# --- the run directory


SENT = ("session.json.gz", "brief.txt", "runner.sh", "job.json", "manifest", "param", "children")
WRITTEN = ("session.json", "events.jsonl", "stderr.log", "runner.log", "started", "back.json", "back.json.gz")
ENDED = ("outcome.json", "lock")


IN_THE_WAY = [
    pytest.param(name, suffix, id=f"{name} at {what}")
    for name in OBSTACLES
    if name != "a file that others own"
    for suffix, what in (("", "the name"), (".part", "the part"))
]


@pytest.mark.parametrize(("name", "suffix"), IN_THE_WAY)
def test_obstacles_at_every_name_of_the_run_directory_are_refused_or_replaced(
    world: World, secret: Path, name: str, suffix: str
) -> None:
    """Put there while the sender waits between the record and the copying."""
    orders = world.directory / "orders"
    orders.mkdir()
    (orders / "record.after").write_text("pause")
    running = world.start(
        *("send", "pi", "!say done", "--new", "--model=test/model", "--json"),
        variables={"REMOTE_DISPATCH_FAILPOINTS": str(orders)},
    )
    world.await_file(orders / "record.after.reached")
    run = run_directory(world)
    run.mkdir(parents=True, mode=0o700)
    for one in (*SENT, *WRITTEN, *ENDED):
        OBSTACLES[name](run / f"{one}{suffix}", secret)
    (orders / "record.after.go").touch()
    ran = running.end(25)
    assert_civil(ran)
    assert ran.exit_code in (0, 9, 12), ran.stderr
    assert_untouched(secret)


def run_directory(world: World) -> Path:
    """Return where the newest dispatch will live on the host."""
    record = json.loads((world.dispatch_folders()[-1] / "record.json").read_text())
    return Path(record["run_directory"])


@pytest.mark.parametrize("place", ["remote-dispatch", "remote-dispatch/runs"])
def test_a_place_on_the_host_that_is_a_file_is_a_host_that_is_not_ready(world: World, place: str) -> None:
    path = world.host.home / ".local/state" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    ran = laptop_of(world).run("send", "pi", "!say done", "--new", "--model=test/model", "--json")
    assert ran.exit_code == 9
    assert (world.count_runs(), path.read_text()) == (0, "a file")
