"""What is promised of a dispatch holds where two accidents meet."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.dispatch import Goal, Link, silent
from remote_dispatch.dispatch.attention import attention
from remote_dispatch.dispatch.carry_on import carry_on
from remote_dispatch.errors import ConnectionLostError, HostUnreachableError, IntegrityError
from remote_dispatch.model import State
from remote_dispatch.remote.connection import Completed
from remote_dispatch.remote.local import LocalConnection
from tests.dispatch.machines import Pair
from tests.dispatch.values import SESSION, a_host
from tests.main_path.texts import orders
from tests.rig.sshd import wait_until
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection
    from tests.rig.world import World


def test_what_was_seen_to_import_and_never_began_can_be_cancelled(world: World) -> None:
    world.host.set(STUB_FAULT="import-gate", STUB_GATE=world.host.home / "gate")
    session = world.local_session()
    sending = world.start("send", "pi", "!say done", "--session", session, "--name", "kumo", "--json")
    wait_until(lambda: bool(world.run_directories()), "nothing was staged", timeout_s=20)
    [run] = world.run_directories()
    world.await_file(run / "lock" / "owner")
    assert world.cli("show", "kumo", "--json").data["state"] == "staging"
    sending.kill()
    world.host_kill(int((run / "lock" / "owner").read_text().split()[1]))
    ran = world.cli("cancel", "kumo", "--json", timeout_s=30)
    assert (ran.exit_code, ran.data["state"]) == (0, "cancelled")
    assert world.count_runs() == 0


def test_what_was_added_on_the_host_before_a_resume_is_not_deleted_there(world: World) -> None:
    session = world.local_session()
    assert world.round_trip("!say one", "--session", session).exit_code == 0
    killed = world.start(
        *("send", "pi", "!say two", "--session", session, "--mode", "round-trip", "--name", "kumo", "--json"),
        variables=orders(world, stage_before="kill"),
    )
    assert killed.process.wait(timeout=30) == -9
    there = world.host.export(session)
    added = a_transcript("only on the host")["messages"][0]
    added["info"]["sessionID"] = session
    for part in added["parts"]:
        part["sessionID"] = session
    world.host.bring_in({**there, "messages": [*there["messages"], added]})
    statement = "select id from message where id = ?"
    assert world.host.query(statement, added["info"]["id"])
    world.cli("resume", "--json")
    assert world.host.query(statement, added["info"]["id"])


def test_a_result_without_the_list_of_its_sub_agents_is_not_whole(world: World, gate: Path) -> None:
    session = world.local_session()
    world.round_trip(f"!task look\n!wait {gate}\n!say done", "--session", session, "--name", "kumo", "--detach")
    [run] = world.run_directories()
    world.await_file(run / "started")
    world.host.set(STUB_FAULT="db-fails")
    gate.touch()
    world.await_end()
    world.host.set()
    ran = world.cli("collect", "kumo", "--json")
    assert ran.data["collected"] == "partial"
    assert ran.data["warnings"]


def test_what_came_home_after_all_is_not_said_to_be_there_only(world: World) -> None:
    world.host.set(STUB_FAULT="export-fails")
    world.round_trip("!say done", "--session", world.local_session(), "--name", "kumo")
    world.host.set()
    ran = world.cli("collect", "kumo", "--json")
    assert ran.data["collected"] == "whole"
    assert "the run directory is kept" not in ran.error["message"]


# --- two machines without a network


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair.at(tmp_path)


class _FirstAnswerCut(LocalConnection):
    """The first script is killed before it says anything."""

    is_cut = False

    async def run(self, script: str, *values: str, timeout_s: float, input: bytes = b"") -> Completed:  # noqa: A002 - the contract's word
        if not self.is_cut:
            self.is_cut = True
            return Completed(-9, b"", b"")
        return await super().run(script, *values, timeout_s=timeout_s, input=input)


class _AlwaysLost(LocalConnection):
    """It opens, and breaks at the first word."""

    async def run(self, script: str, *values: str, timeout_s: float, input: bytes = b"") -> Completed:  # noqa: A002 - the contract's words
        await asyncio.sleep(0)
        raise ConnectionLostError("box", "cut")


async def test_a_killed_question_is_no_end_of_a_dispatch_that_runs(pair: Pair) -> None:
    record = pair.record(State.STAGING, session_id=SESSION)
    pair.put_run(record, outcome=False)

    connection = _FirstAnswerCut()

    @asynccontextmanager
    async def connect(host: Host) -> AsyncIterator[Connection]:
        yield connection

    async with Link(a_host(), connect) as link:
        with suppress(IntegrityError):
            await carry_on(record, link, pair.store, None, silent, goal=Goal.LAUNCHED)
    assert pair.store.load(record.id).state is not State.FAILED


async def test_a_link_that_breaks_at_once_is_not_made_anew_without_a_pause(pair: Pair) -> None:
    record = pair.record(State.STAGING, State.RUNNING, session_id=SESSION)
    opened = 0

    @asynccontextmanager
    async def connect(host: Host) -> AsyncIterator[Connection]:
        nonlocal opened
        opened += 1
        yield _AlwaysLost()

    with suppress(TimeoutError, HostUnreachableError):
        async with asyncio.timeout(2), Link(a_host(), connect) as link:
            await carry_on(record, link, pair.store, None, silent, goal=Goal.ENDED, is_waiting=False)
    assert opened < 20


async def test_an_end_whose_run_directory_is_gone_needs_no_hand(pair: Pair) -> None:
    record = pair.record(State.STAGING, State.FAILED, session_id=SESSION, kind="host-not-ready")
    async with pair.there.link() as link:
        ended = await carry_on(record, link, pair.store, pair.here.program, silent, goal=Goal.HOME)
    assert attention(ended) is None
