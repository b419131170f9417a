"""Where named sessions are recorded."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_dispatch.dispatch.store import Store
from remote_dispatch.errors import ConfigurationError, UnknownNameError, UsageError
from remote_dispatch.model import DISPATCH_NAME, Dispatch, DispatchRequest, Moment, State
from remote_dispatch.opencode.served import Served
from remote_dispatch.sessions.store import SessionStore, default_session_store, session_names
from remote_dispatch.sessions.values import NamedSession

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def dispatches(tmp_path: Path) -> Store:
    return Store(tmp_path / "dispatches", also_taken=lambda: session_names(tmp_path))


@pytest.fixture
def store(dispatches: Store) -> SessionStore:
    return default_session_store(dispatches)


def a_session(number: int = 0) -> Served:
    return Served(f"ses_{number:020}", "/home/me/project", "A title")


def a_dispatch(store: Store, name: str) -> Dispatch:
    def complete(taken: str) -> Dispatch:
        request = DispatchRequest.model_validate({"host": "pi", "local_directory": "/"})
        return Dispatch(id=folder.path.name, name=taken, request=request, history=(Moment(state=State.NEW, at=NOW),))

    with store.reserved(NOW) as folder:
        return store.create(name, complete)


def test_a_session_gets_four_letters_and_is_found_by_them(store: SessionStore) -> None:
    made = store.create("pi", a_session(), works_on="the leak")
    assert DISPATCH_NAME.fullmatch(made.name)
    assert len(made.name) == 4
    assert store.load(made.name) == made
    assert store.find("pi", made.session_id) == made
    assert store.find("lab", made.session_id) is None


def test_a_record_is_readable_by_its_owner_alone(store: SessionStore) -> None:
    made = store.create("pi", a_session())
    assert (store.root / f"{made.name}.json").stat().st_mode & 0o777 == 0o600
    assert store.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["K", "-x", "two words", "../up", "ümlaut", "a" * 32])
def test_odd_names_are_refused(store: SessionStore, name: str) -> None:
    with pytest.raises(UsageError):
        store.create("pi", a_session(), name=name)
    assert store.names() == set()


def test_a_name_is_given_once_among_sessions_and_dispatches(store: SessionStore, dispatches: Store) -> None:
    store.create("pi", a_session(1), name="kumo")
    a_dispatch(dispatches, "nabi")
    with pytest.raises(UsageError, match="taken"):
        store.create("pi", a_session(2), name="kumo")
    with pytest.raises(UsageError, match="a dispatch is called `nabi`"):
        store.create("pi", a_session(2), name="nabi")
    with pytest.raises(UsageError, match="a named session is called `kumo`"):
        dispatches.check_name("kumo")


def test_the_session_of_a_dispatch_may_have_its_name(store: SessionStore, dispatches: Store) -> None:
    sent = a_dispatch(dispatches, "nabi")
    assert store.create("pi", a_session(), name="nabi", dispatch=sent.id).name == "nabi"


def test_a_session_has_one_name(store: SessionStore) -> None:
    store.create("pi", a_session(1), name="kumo")
    with pytest.raises(UsageError, match="called `kumo` already"):
        store.create("pi", a_session(1), name="nabi")
    assert store.create("lab", a_session(1), name="nabi").host == "lab"


def test_renaming_keeps_the_record_and_frees_the_old_name(store: SessionStore) -> None:
    made = store.create("pi", a_session(1), name="kumo")
    assert store.rename("kumo", "nabi") == made.but(name="nabi")
    assert store.names() == {"nabi"}
    store.create("pi", a_session(2), name="kumo")
    with pytest.raises(UsageError, match="taken"):
        store.rename("kumo", "nabi")


def test_an_unknown_name_is_answered_with_what_was_meant(store: SessionStore) -> None:
    store.create("pi", a_session(), name="kumo")
    with pytest.raises(UnknownNameError, match="known: `kumo`") as caught:
        store.load("kuno")
    assert caught.value.hint == "did you mean `kumo`?"
    with pytest.raises(UnknownNameError, match="called so"):
        store.load("../kumo")


def test_a_dispatch_is_recognised_where_a_session_is_meant(store: SessionStore, dispatches: Store) -> None:
    a_dispatch(dispatches, "nabi")
    with pytest.raises(UnknownNameError) as caught:
        store.load("nabi")
    assert caught.value.hint == "it is a dispatch: see it with `remote-dispatch show nabi`"


def test_a_forgotten_session_is_not_written_again(store: SessionStore) -> None:
    made = store.create("pi", a_session(), name="kumo")
    store.forget("kumo")
    with pytest.raises(UnknownNameError):
        store.save(made.but(title="later"))
    with pytest.raises(UnknownNameError):
        store.forget("kumo")


def test_what_cannot_be_read_is_told_keeps_its_name_and_can_be_forgotten(store: SessionStore) -> None:
    store.create("pi", a_session(1), name="kumo")
    (store.root / "nabi.json").write_text('{"name": "nabi"')
    assert [one.name for one in store.all()] == ["kumo"]
    assert store.unreadable() == ["nabi"]
    with pytest.raises(ConfigurationError, match="`nabi` cannot be read"):
        store.load("nabi")
    with pytest.raises(UsageError, match="taken"):
        store.create("pi", a_session(2), name="nabi")
    store.forget("nabi")
    assert store.unreadable() == []


def test_the_first_record_ever_written_loads_for_ever(store: SessionStore) -> None:
    """Nothing may be taken from this text: such files are on people's disks."""
    store.root.mkdir(parents=True)
    (store.root / "kumo.json").write_text(
        '{"schema_version": 1, "name": "kumo", "host": "pi", "session_id": "ses_00000000000000000001", '
        '"directory": "/home/me", "created": "2026-05-01T00:00:00Z", "added_later": {"x": 1}}'
    )
    assert store.load("kumo").created == NOW


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=st.text(max_size=300), works_on=st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_any_title_survives(store: SessionStore, title: str, works_on: str) -> None:
    made = store.create("pi", Served(a_session().id, "/", title), works_on=works_on)
    assert store.load(made.name) == made
    store.forget(made.name)


def test_two_writers_change_one_record_without_losing_a_change(store: SessionStore) -> None:
    store.create("pi", a_session(), name="kumo")

    def append(letter: str) -> None:
        for _ in range(20):
            store.update("kumo", lambda one: one.but(works_on=one.works_on + letter))

    _at_once([lambda: append("a"), lambda: append("b")])
    assert sorted(store.load("kumo").works_on) == ["a"] * 20 + ["b"] * 20


def test_of_two_that_want_a_name_at_once_one_gets_it(store: SessionStore) -> None:
    refused: list[str] = []

    def take(number: int) -> None:
        try:
            store.create("pi", a_session(number), name="kumo")
        except UsageError as error:
            refused.append(error.message)

    _at_once([lambda number=number: take(number) for number in range(4)])
    assert refused == ["the name `kumo` is taken"] * 3
    assert len(store.all()) == 1


def test_a_record_says_its_own_name(store: SessionStore) -> None:
    made = store.create("pi", a_session(), name="kumo")
    (store.root / "kumo.json").rename(store.root / "nabi.json")
    assert store.load("nabi") == made.but(name="nabi")
    assert json.loads((store.root / "nabi.json").read_text())["name"] == "kumo"
    assert isinstance(store.load("nabi"), NamedSession)


def _at_once(works: list[object]) -> None:
    threads = [threading.Thread(target=work) for work in works if callable(work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
