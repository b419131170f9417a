"""Where dispatches and named sessions meet: a brief is said once, one writer at a time, both kinds in one list."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.dispatch import Step, silent
from remote_dispatch.errors import AnswerNeededError, DeadlinePassedError, DivergedError, TaskFailedError, UsageError
from remote_dispatch.hosts import Registry
from remote_dispatch.model import Origin, State, Travel
from remote_dispatch.opencode.served import Served
from remote_dispatch.servers.reach import Servers
from remote_dispatch.sessions.live import LiveTurns, adopt_dispatch, check_writable, dispatch_rows, turn_ids
from remote_dispatch.sessions.store import SessionStore, default_session_store
from remote_dispatch.transcript import new_session_id
from tests.dispatch.machines import Pair
from tests.dispatch.values import a_host, a_record, a_request

if TYPE_CHECKING:
    from remote_dispatch.model import Dispatch, Host
    from remote_dispatch.opencode.served import Raw
    from tests.rig.served import Bench

BRIEF = "This conversation was handed over.\n"
ASKS = ({"permission": "bash", "pattern": "*", "action": "ask"},)


class Life:
    """Live dispatches on the server of this worker."""

    def __init__(self, served: Bench, pair: Pair) -> None:
        self.host = a_host(host=None, server=served.server.url)
        self.dispatches = pair.store
        self.sessions: SessionStore = default_session_store(pair.store)
        self.servers = Servers(lambda _: pair.there.link(), {"OPENCODE_SERVER_PASSWORD": served.server.password})
        self.turns = LiveTurns(self.servers, self.sessions)
        self._served = served
        self._pair = pair

    async def session(self, permission: tuple[Raw, ...] = ()) -> Served:
        """What a runner has imported."""
        async with self._served.api() as api:
            return await api.create(self._served.directory, permission=permission)

    def record(self, session: Served, **fields: Any) -> Dispatch:
        """A live dispatch whose runner waits."""
        travel = Travel(session_id=session.id, agent="build", model="scripted/large")
        request = a_request(session_id=session.id, is_live=True, prompt="look into it")
        return self._pair.record(State.STAGING, State.RUNNING, request=request, travel=travel, **fields)

    async def messages(self, session: Served) -> list[Raw]:
        async with self._served.api() as api:
            return await api.messages(session.id)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair.at(tmp_path)


@pytest.fixture
def life(request: pytest.FixtureRequest, pair: Pair) -> Life:
    return Life(request.getfixturevalue("served"), pair)


# --- the turn of a live dispatch


@pytest.mark.real
async def test_a_brief_that_is_sent_again_is_said_once_under_the_name_of_the_dispatch(life: Life) -> None:
    session = await life.session()
    record = life.record(session)
    async with life.turns as turns:
        first = await turns.begin(life.host, record, f"{BRIEF}!say done there")
        assert await turns.begin(life.host, record, f"{BRIEF}!say done there") == first
        assert await turns.await_end(life.host, record, silent, is_waiting=True)
        before = await life.messages(session)
        assert await turns.begin(life.host, record, f"{BRIEF}!say done there") == first
        assert await turns.await_end(life.host, record, silent, is_waiting=False)
    assert await life.messages(session) == before
    assert [one["info"]["role"] for one in before] == ["user", "assistant"]
    named = life.sessions.load(record.name)
    assert (named.session_id, named.dispatch, named.message_id) == (session.id, record.id, first)


@pytest.mark.real
async def test_who_does_not_wait_is_told_that_it_works_or_what_to_type_where_it_asks(life: Life) -> None:
    session = await life.session(ASKS)
    record = life.record(session)
    async with life.turns as turns:
        await turns.begin(life.host, record, f"{BRIEF}!sleep 1\n!bash echo asked\n!say never")
        with pytest.raises(DeadlinePassedError, match="still at work") as working:
            await turns.await_end(life.host, record, silent, is_waiting=False)
        assert f"remote-dispatch session watch {record.name}" in (working.value.hint or "")
        assert await told_of_waiting(life, turns, record) == f"remote-dispatch session requests {record.name}"
        with pytest.raises(AnswerNeededError, match="1 request is open"):
            await turns.await_end(life.host, record, silent, is_waiting=False)
        await turns.abort(life.host, record)
        assert not await turns.await_end(life.host, record, silent, is_waiting=False)


async def told_of_waiting(life: Life, turns: LiveTurns, record: Dispatch) -> str:
    """Wait for its end as `collect` does until it says that it waits for an answer; return the command it names."""
    found: list[str] = []

    def report(shown: object) -> None:
        if isinstance(shown, Step) and shown.phase == "note" and "waits" in shown.text:
            found.append(shown.text.split("`")[-2])
            raise Heard

    with pytest.raises(Heard):
        await turns.await_end(life.host, record, report, is_waiting=True)
    return found[0]


class Heard(Exception):  # noqa: N818 - it is no error
    """What was waited for was said."""


@pytest.mark.real
async def test_a_turn_that_failed_did_not_end_well(life: Life) -> None:
    session = await life.session()
    record = life.record(session)
    async with life.turns as turns:
        await turns.begin(life.host, record, f"{BRIEF}!fail 401")
        assert not await turns.await_end(life.host, record, silent, is_waiting=True)


def test_the_ids_of_a_brief_hang_on_its_dispatch_alone() -> None:
    record, other = a_record(), a_record(id="20260102-120000-abcdefgi")
    assert turn_ids(record) == turn_ids(record.but(name="other"))
    assert len({*turn_ids(record), *turn_ids(other)}) == 4
    message, part = turn_ids(record)
    assert (message[:4], part[:4], len(message), message[4:16]) == ("msg_", "prt_", 30, part[4:16])


# --- one writer at a time


async def test_a_session_is_refused_while_a_runner_works_on_it(pair: Pair) -> None:
    session_id = new_session_id(1)
    record = pair.record(State.STAGING, State.RUNNING, session_id=session_id)
    run = pair.put_run(record, outcome=False)
    hold(run)
    with pytest.raises(DivergedError, match=f"dispatch `{record.name}` works on this session") as refused:
        await check_writable(a_host(), session_id, pair.store, lambda _: pair.there.link())
    assert f"remote-dispatch wait {record.name}" in (refused.value.hint or "")


async def test_a_session_is_free_once_its_run_has_ended(pair: Pair) -> None:
    session_id = new_session_id(2)
    pair.put_run(pair.record(State.STAGING, State.RUNNING, session_id=session_id))
    await check_writable(a_host(), session_id, pair.store, lambda _: pair.there.link())
    assert pair.there.connections == 1


async def test_no_host_is_asked_about_sessions_that_no_runner_can_have(pair: Pair) -> None:
    mine, live = new_session_id(3), new_session_id(4)
    pair.record(State.STAGING, State.RUNNING, State.DONE, session_id=mine)
    request = a_request(session_id=live, is_live=True)
    pair.record(State.STAGING, State.RUNNING, session_id=live, request=request, turn_id="msg_1")
    for session_id in (mine, live, new_session_id(5)):
        await check_writable(a_host(), session_id, pair.store, lambda _: pair.there.link())
    assert pair.there.connections == 0


def hold(run: Path) -> None:
    """Have this process hold the lock of a run, as its runner would."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    (run / "lock").mkdir()
    (run / "lock" / "owner").write_text(f"{boot} {os.getpid()} {start}\n")


@pytest.mark.real
async def test_a_dispatched_session_is_adopted_under_its_own_name_once_its_run_has_ended(
    life: Life, pair: Pair, tmp_path: Path
) -> None:
    session = await life.session()
    record = pair.record(State.STAGING, State.RUNNING, session_id=session.id)
    run = pair.put_run(record, outcome=False)
    hold(run)
    registry = a_registry(tmp_path, life.host)
    async with life.servers as servers:

        async def adopt() -> str:
            link = pair.there.link
            named = await adopt_dispatch(record.name, pair.store, registry, servers, lambda _: link(), life.sessions)
            assert (named.session_id, named.dispatch) == (session.id, record.id)
            return named.name

        with pytest.raises(DivergedError, match="works on this session"):
            await adopt()
        (run / "outcome.json").write_text(json.dumps({"schema": 1, "dispatch": record.id, "session": session.id}))
        assert await adopt() == record.name
        with pytest.raises(UsageError, match=f"`{record.name}` is taken"):
            await adopt()


async def test_a_dispatch_that_has_not_left_cannot_be_adopted(pair: Pair, tmp_path: Path) -> None:
    record = pair.record(State.STAGING, session_id=new_session_id(6))
    sessions = default_session_store(pair.store)
    registry = a_registry(tmp_path, a_host())
    async with Servers(lambda _: pair.there.link(), {}) as servers:
        with pytest.raises(TaskFailedError, match="has not reached box"):
            await adopt_dispatch(record.name, pair.store, registry, servers, lambda _: pair.there.link(), sessions)
    assert sessions.all() == []


def a_registry(directory: Path, host: Host) -> Registry:
    """The registry with this one host."""
    file = directory / "hosts.json"
    entry = {"server": host.server} if host.server else {"host": host.host}
    file.write_text(json.dumps({"hosts": {host.name: entry}}))
    return Registry.load(environment={}, hosts_file=file)


# --- both kinds in one list


def test_dispatches_under_way_stand_beside_the_named_sessions_and_none_twice(pair: Pair) -> None:
    travel = Travel(session_id=new_session_id(7), agent="build", model="test/model")
    origin = Origin(directory="/home/ada", title="a leak")
    waiting = pair.record(State.STAGING, name="first", travel=travel, origin=origin)
    named = pair.record(State.STAGING, State.RUNNING, name="second")
    ended = pair.record(State.STAGING, State.RUNNING, State.DONE, name="third")
    session = default_session_store(pair.store).create("box", a_served(), name=named.name, dispatch=named.id)
    (row,) = dispatch_rows([waiting, named, ended], [session])
    assert (row.name, row.state, row.session_id, row.title) == ("first", "staging", travel.session_id, "a leak")
    assert row.attention == "it has not begun on box: `remote-dispatch resume first`"


def a_served() -> Served:
    return Served(new_session_id(8), "/srv", "")
