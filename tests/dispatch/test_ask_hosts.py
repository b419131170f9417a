"""Asking many hosts how their dispatches stand: each host once, whatever becomes of the others."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.dispatch import Link
from remote_dispatch.dispatch.manage import ask_hosts
from remote_dispatch.errors import AuthenticationError, UnknownNameError
from remote_dispatch.model import State
from tests.dispatch.machines import Pair
from tests.dispatch.values import a_host, a_request

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.model import Dispatch
    from remote_dispatch.remote.connection import Connection


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair.at(tmp_path)


def at_work(pair: Pair, name: str, *, host: str = "box") -> Dispatch:
    """A dispatch that runs, as far as is known here."""
    return pair.record(State.STAGING, State.RUNNING, request=a_request(name=name, host=host), name=name)


async def test_all_dispatches_of_a_host_share_one_connection(pair: Pair) -> None:
    records = [at_work(pair, name) for name in ("kumo", "nami", "sora")]
    for record in records:
        pair.put_run(record, back={"info": {}, "messages": []})
    await ask_hosts(records, lambda _: pair.there.link(), pair.store)
    assert [pair.store.load(one.id).state for one in records] == [State.FINISHED] * 3
    assert pair.there.connections == 1


async def test_a_dead_host_is_knocked_at_once_for_all_its_dispatches_and_each_gets_the_remark(pair: Pair) -> None:
    records = [at_work(pair, name) for name in ("kumo", "nami", "sora")]
    pair.there.is_away = True
    await ask_hosts(records, lambda _: pair.there.link(), pair.store)
    assert all(pair.store.load(one.id).unreachable_since for one in records)
    assert pair.there.connections == 1


async def test_a_host_that_nobody_knows_any_more_does_not_keep_the_others_from_being_asked(pair: Pair) -> None:
    gone, there = at_work(pair, "kumo", host="gone"), at_work(pair, "nami")
    pair.put_run(there, back={"info": {}, "messages": []})

    def link_to(host: str) -> Link:
        if host == "gone":
            raise UnknownNameError("no host is called `gone`")
        return pair.there.link()

    await ask_hosts([gone, there], link_to, pair.store)
    assert (pair.store.load(gone.id).state, pair.store.load(there.id).state) == (State.RUNNING, State.FINISHED)


async def test_a_refused_login_leaves_the_record_as_it_is(pair: Pair) -> None:
    class Refused(AbstractAsyncContextManager["Connection"]):
        """A way in that ends at the login."""

        async def __aenter__(self) -> Connection:
            raise AuthenticationError("box", "no key was accepted")

        async def __aexit__(self, *_: object) -> None:
            """Nothing was opened."""

    record = at_work(pair, "kumo")
    await ask_hosts([record], lambda _: Link(a_host(), lambda _: Refused()), pair.store)
    assert pair.store.load(record.id) == record


async def test_what_is_home_or_was_never_there_is_not_asked_for(pair: Pair) -> None:
    new = at_work(pair, "kumo")
    new = pair.store.save(new.but(run_directory=None))
    await ask_hosts([new], lambda _: pair.there.link(), pair.store)
    assert pair.there.connections == 0


async def test_a_run_directory_that_is_gone_is_no_trouble_for_the_others(pair: Pair) -> None:
    lost, there = at_work(pair, "kumo"), at_work(pair, "nami")
    pair.put_run(there, back={"info": {}, "messages": []})
    await ask_hosts([lost, there], lambda _: pair.there.link(), pair.store)
    assert (pair.store.load(lost.id).state, pair.store.load(there.id).state) == (State.RUNNING, State.FINISHED)
