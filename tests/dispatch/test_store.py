"""Where dispatches are recorded: whole, private, under names that nobody else has, and readable for ever."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.dispatch.files import read_sealed, write_sealed_pieces, write_whole
from remote_dispatch.dispatch.names import new_id, new_name
from remote_dispatch.dispatch.store import Store, default_store
from remote_dispatch.errors import ConfigurationError, UnknownNameError, UsageError
from remote_dispatch.model import DISPATCH_ID, DISPATCH_NAME, Collected, State
from tests.dispatch.values import NOON, stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from remote_dispatch.model import Dispatch


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state" / "dispatches")


def _create(store: Store, name: str | None = None, seconds: int = 0) -> Dispatch:
    return stored(store, NOON + timedelta(seconds=seconds), name=name)


def _change(store: Store, record: Dispatch, **fields: Any) -> None:
    """Change the stored record as another version of the program would have written it."""
    path = store.folder(record.id).path / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))


def test_what_is_stored_is_loaded_by_name_and_by_id(store: Store) -> None:
    record = _create(store, "kumo")
    assert store.load("kumo") == store.load(record.id) == record
    later = store.save(record.advance(State.STAGING, NOON, warnings=("odd",)))
    assert store.load("kumo") == later


def test_the_oldest_dispatch_comes_first(store: Store) -> None:
    for name, seconds in (("second", 5), ("first", 0), ("third", 9)):
        _create(store, name, seconds)
    assert [record.name for record in store.all()] == ["first", "second", "third"]


def test_a_survey_has_what_can_be_read_and_names_the_rest(store: Store) -> None:
    first, broken, last = (_create(store, name, place) for place, name in enumerate(("kumo", "nebu", "miso")))
    (store.folder(broken.id).path / "record.json").write_text("{")
    survey = store.survey()
    assert [record.name for record in survey.records] == [first.name, last.name]
    assert survey.unreadable == [broken.id]


def test_what_mentions_a_word_is_found_in_order_and_nothing_else_is_parsed(store: Store) -> None:
    session = f"ses_{'a' * 26}"
    older, other, newer = (_create(store, name, place) for place, name in enumerate(("kumo", "nebu", "miso")))
    for record in (newer, older):
        store.save(record.but(session_id=session))
    (store.folder(other.id).path / "record.json").write_text("{")
    assert [record.name for record in store.mentioning(session)] == ["kumo", "miso"]
    assert store.mentioning("nebu") == []


def test_the_name_of_a_record_that_only_a_newer_version_can_read_is_taken(store: Store) -> None:
    record = _create(store, "kumo")
    _change(store, record, history="told otherwise")
    assert store.unreadable() == [record.id]
    assert store.names() == {"kumo"}
    with pytest.raises(UsageError, match="`kumo` is taken"):
        _create(store, "kumo", 5)


def test_an_empty_store_has_nothing_and_makes_nothing(store: Store) -> None:
    assert store.all() == []
    with pytest.raises(UnknownNameError, match=r"no dispatch is called `kumo`$"):
        store.load("kumo")
    assert not store.root.exists()


def test_an_unknown_name_lists_the_latest_names(store: Store) -> None:
    for number in range(12):
        _create(store, f"name-{number}", number)
    with pytest.raises(UnknownNameError, match="the latest are name-2, name-3") as caught:
        store.load("nothing")
    assert "name-1," not in str(caught.value)


def test_files_are_private_whatever_the_umask(store: Store) -> None:
    record = _create(store)
    folder = store.folder(record.id)
    assert (folder.path / "record.json").stat().st_mode & 0o777 == 0o600
    for directory in (store.root, folder.path, folder.path / "children", folder.path / "back-children"):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_was_never_recorded_is_removed(store: Store) -> None:
    with store.reserved(NOON) as folder:
        assert folder.path.exists()
    assert not folder.path.exists()
    record = _create(store)
    assert sorted(path.name for path in store.folder(record.id).path.iterdir()) == [
        "back-children",
        "children",
        "record.json",
    ]


# --- what ended senders leave


def test_a_sweep_removes_what_has_no_record_and_no_sender(store: Store) -> None:
    record = _create(store, "kumo")
    dead = store.folder("20260102-120000-deaddead").path
    dead.mkdir(parents=True)
    (dead / "planning").touch()
    (dead / "session.json").write_text("{}")
    with store.reserved(NOON) as living:
        assert store.sweep() == [dead.name]
        assert living.path.exists()
    assert not dead.exists()
    assert store.load("kumo") == record


def test_a_directory_that_was_only_just_made_is_not_swept(store: Store) -> None:
    new = store.folder("20260102-120000-newnewne").path
    new.mkdir(parents=True)
    assert store.sweep() == []
    os.utime(new, (0, 0))
    assert store.sweep() == [new.name]


async def test_a_sweep_removes_free_locks_and_leaves_held_ones(store: Store) -> None:
    async with store.held("ses_free"):
        pass
    async with store.held("ses_held"):
        assert store.sweep() == ["ses_free"]
        assert [path.name for path in (store.root.parent / "locks").iterdir()] == ["ses_held"]


async def test_who_waits_for_a_lock_that_is_swept_still_gets_one_alone(store: Store) -> None:
    order: list[str] = []

    async def take(name: str) -> None:
        async with store.held("ses"):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            store.sweep()
            order.append(f"{name} out")

    await asyncio.gather(*(take(name) for name in "abc"))
    assert [one.split()[1] for one in order] == ["in", "out"] * 3


# --- what is to leave


def test_outgoing_files_are_kept_as_they_are_and_the_manifest_comes_last(store: Store) -> None:
    folder = store.folder(_create(store).id)
    files = {"session.json.gz": b"packed", "param/env/KEY": b"secret", "a": b"", "manifest": b"sums", "runner.sh": b"#"}
    folder.keep_outgoing(files)
    kept = folder.outgoing_files()
    assert {name: path.read_bytes() for name, path in kept.items()} == files
    assert list(kept)[-1] == "manifest"
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept.values())
    folder.drop_outgoing()
    assert folder.outgoing_files() == {}


def test_a_removed_dispatch_leaves_nothing(store: Store) -> None:
    record = _create(store, "kumo")
    store.folder(record.id).keep_outgoing({"a/b": b"x"})
    store.remove(record)
    assert list(store.root.iterdir()) == []
    assert _create(store, "kumo").name == "kumo"


def test_what_two_commands_remove_is_removed_once(store: Store) -> None:
    record = _create(store, "kumo")
    store.remove(record)
    store.remove(record)
    assert list(store.root.iterdir()) == []


def test_scratch_files_go_and_the_others_stay(store: Store) -> None:
    folder = store.folder(_create(store).id)
    for path in (folder.scratch("a.json"), folder.session, folder.back):
        path.write_text("x")
    folder.clear_scratch()
    assert sorted(path.name for path in folder.path.iterdir() if path.is_file()) == [
        "back.json.gz",
        "record.json",
        "session.json",
    ]


def test_back_files_are_the_session_and_its_children(store: Store) -> None:
    folder = store.folder(_create(store).id)
    assert folder.back_files() == []
    for path in (folder.back_child("ses_b"), folder.back_child("ses_a"), folder.back):
        path.write_text("x")
    assert folder.back_files() == [folder.back, folder.back_child("ses_a"), folder.back_child("ses_b")]


# --- names


def test_a_taken_name_is_refused_and_a_new_one_is_made_up(store: Store) -> None:
    _create(store, "kumo")
    with pytest.raises(UsageError, match="`kumo` is taken"):
        _create(store, "kumo")
    other = _create(store)
    assert other.name != "kumo"
    assert len(other.name) == 4


@pytest.mark.parametrize("name", ["", "K", "k", "-k", "4ku", "ku mo", "../x", "a" * 32, "ku\n", "kümo"])
def test_an_odd_name_is_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageError, match="is not a name"):
        _create(store, name)
    assert store.all() == []


def test_two_that_want_one_name_at_the_same_time_do_not_both_get_it(store: Store) -> None:
    gate = threading.Barrier(8)
    made: list[Dispatch] = []
    refused: list[UsageError] = []

    def want() -> None:
        gate.wait(10)
        try:
            made.append(_create(store, "kumo"))
        except UsageError as error:
            refused.append(error)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (len(made), len(refused)) == (1, 7)
    assert [record.id for record in store.all()] == [made[0].id]


def test_made_up_names_are_names_and_get_longer_when_they_are_scarce() -> None:
    class Everything(set[str]):
        """Taken are all names of four letters."""

        def __contains__(self, name: object) -> bool:
            return len(str(name)) == 4

    names = {new_name(()) for _ in range(50)}
    assert all(DISPATCH_NAME.fullmatch(name) and len(name) == 4 for name in names)
    assert len(names) > 1
    assert len(new_name(Everything())) == 6


def test_ids_sort_by_time_and_never_meet() -> None:
    ids = [new_id(NOON + timedelta(seconds=second)) for second in range(20)]
    assert ids == sorted(ids)
    assert all(DISPATCH_ID.fullmatch(one) for one in ids)
    assert len({new_id(NOON) for _ in range(100)}) == 100


# --- records of other versions


def test_a_record_with_unknown_fields_loads(store: Store) -> None:
    record = _create(store, "kumo")
    path = store.folder(record.id).path / "record.json"
    data = json.loads(path.read_bytes())
    request = {**data["request"], "a_new_option": True}
    moment = {**data["history"][0], "by": "someone"}
    _change(store, record, color="green", schema_version=2, request=request, history=[moment])
    assert store.load("kumo") == record.model_copy(update={"schema_version": 2})


def test_a_record_of_the_first_version_loads(store: Store) -> None:
    record = _create(store, "kumo")
    first = {
        "id": record.id,
        "name": "kumo",
        "request": {"host": "box", "local_directory": "/home/ada/project"},
        "history": [{"state": "new", "at": "2026-01-02T12:00:00Z"}],
    }
    (store.folder(record.id).path / "record.json").write_text(json.dumps(first))
    loaded = store.load("kumo")
    assert (loaded.state, loaded.collected, loaded.warnings) == (State.NEW, Collected.NONE, ())


@pytest.mark.parametrize("content", ["", "{", "null", '{"id": 1}', "\x00" * 100])
def test_a_broken_record_is_named_and_left_alone(store: Store, content: str) -> None:
    record = _create(store, "kumo")
    path = store.folder(record.id).path / "record.json"
    path.write_text(content)
    other = _create(store, "nebu")
    assert store.all() == [other]
    assert store.unreadable() == [record.id]
    with pytest.raises(ConfigurationError, match=record.id):
        store.load(record.id)
    assert path.read_text() == content


def test_an_update_starts_from_the_record_as_it_is_now(store: Store) -> None:
    record = _create(store, "kumo")
    store.update(record.id, lambda current: current.but(answer="42"))
    ended = store.update(record.id, lambda current: current.advance(State.DONE, current.history[0].at))
    assert (ended.answer, ended.state) == ("42", State.DONE)
    stale = store.update(record.id, lambda current: current.advance(State.RUNNING, record.history[0].at))
    assert stale.state is State.DONE


def test_what_is_no_dispatch_is_ignored(store: Store) -> None:
    record = _create(store)
    (store.root / "notes").mkdir()
    (store.root / "20260102-120000-zzzzzzzz").mkdir()
    (store.root / ".DS_Store").write_text("")
    assert store.all() == [record]


# --- writing


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_whole(path, b"old")
    with pytest.raises(TypeError):
        write_whole(path, "no bytes")  # type: ignore[arg-type]  # what makes the write fail
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    whole = [letter * 300_000 for letter in (b"a", b"b")]
    write_whole(path, whole[0])
    seen: set[bytes] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        write_whole(path, whole[number % 2])
    ended.set()
    reader.join(10)
    assert seen <= set(whole)


def test_the_store_is_where_the_environment_says(private_home: Path, tmp_path: Path) -> None:
    assert default_store({"REMOTE_DISPATCH_STATE": str(tmp_path)}).root == tmp_path / "dispatches"
    assert default_store({}).root.is_relative_to(private_home)


def test_what_was_sealed_in_pieces_is_read_like_anything_sealed(tmp_path: Path) -> None:
    file = tmp_path / "copy.json"
    write_sealed_pieces(file, lambda: (b'[{"a":\n1},', b"2]"))
    assert read_sealed(file) == [{"a": 1}, 2]
    file.write_bytes(file.read_bytes().replace(b"2]", b"3]"))
    assert read_sealed(file) is None


def test_pieces_that_fail_leave_the_file_that_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"new"
        raise OSError(errno.ENOSPC, "no space left")

    file = tmp_path / "import.json"
    write_whole(file, b"old")
    with pytest.raises(OSError, match="no space left"):
        write_whole(file, failing())
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
