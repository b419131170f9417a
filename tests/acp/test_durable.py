"""An agent that outlives its link: what was missed arrives once, what was sent arrives once, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.acp.durable import Journal, Outbox, _keep_text, _script, durable
from remote_dispatch.acp.lines import line_of
from remote_dispatch.acp.peer import Peer
from remote_dispatch.errors import ConnectionLostError, HostNotReadyError
from remote_dispatch.remote.ssh import connect
from tests.acp.small_agent import Machine, Notes, machine, machine_over_ssh
from tests.opencode.conftest import SHELLS, UnderShell
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from remote_dispatch.acp.agent import Agent
    from remote_dispatch.acp.lines import Message
    from remote_dispatch.remote.connection import Connection


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path) as made:
        yield made


@pytest.fixture
def box(tmp_path: Path, private_home: Path) -> Iterator[Machine]:
    with machine_over_ssh(tmp_path, private_home) as made:
        yield made


class LostAfterCalling:
    """A connection that breaks in a call of one verb: after it was done, or before."""

    def __init__(self, connection: Connection, *, is_called: bool) -> None:
        self._connection = connection
        self._is_called = is_called
        self.verb = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def run(self, script: str, *values: str, **options: Any) -> Any:
        if not self.verb:
            return await self._connection.run(script, *values, **options)
        if values[0] == self.verb and self._is_called:
            await self._connection.run(script, *values, **options)
        raise ConnectionLostError("box", "the connection was lost")


class LostBeforeTalking:
    """A connection that breaks as soon as something is to be talked with."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def converse(self, script: str, *values: str) -> Any:
        raise ConnectionLostError("box", "the connection was lost")


@asynccontextmanager
async def attached(on: Machine, journal: Journal, **options: Any) -> AsyncIterator[Agent]:
    async with (
        connect(on.host, keepalive_s=0.3) as connection,
        durable(connection, on.host, "~/project", journal, **options) as running,
    ):
        yield running


@asynccontextmanager
async def attached_here(on: Machine, journal: Journal, **options: Any) -> AsyncIterator[Agent]:
    async with durable(on.local(), on.host, "~/project", journal, **options) as running:
        yield running


async def send(running: Agent, number: int, method: str, **params: Any) -> None:
    await running.wire.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


async def read_to(running: Agent, number: int) -> list[Message]:
    """Return what arrives up to the answer to this request."""
    read: list[Message] = []
    async with asyncio.timeout(20):
        while True:
            message = await running.wire.receive()
            assert message is not None, read
            read.append(message)
            if message.get("id") == number and "method" not in message:
                return read


async def read_to_the_loss(running: Agent) -> list[Message]:
    read: list[Message] = []
    try:
        while message := await running.wire.receive():
            read.append(message)
    except ConnectionLostError:
        return read
    raise AssertionError("the link was not lost")


def texts(messages: list[Message]) -> list[Any]:
    return [message["params"]["text"] for message in messages if message.get("method") == "session/update"]


@pytest.mark.parametrize("loss", ["reset", pytest.param("strand", marks=pytest.mark.thorough)])
async def test_a_link_lost_in_a_prompt_costs_nothing_and_doubles_nothing(box: Machine, loss: str) -> None:
    assert box.proxy
    journal = Journal()
    read: list[Message] = []
    async with attached(box, journal) as running:
        assert running.is_new
        await send(running, 1, "initialize")
        pid = (await read_to(running, 1))[-1]["result"]["pid"]
        await send(running, 2, "count", times=400, until="go")
        wait_until((box.home / "half").exists, "it did not come to the half")
        getattr(box.proxy, loss)()
        (box.home / "go").touch()
        read += await read_to_the_loss(running)
    assert pid in box.processes()
    async with attached(box, journal) as running:
        assert not running.is_new
        assert running.version == "1.18.33", "its answer to `initialize` will not come again"
        read += await read_to(running, 2)
        assert texts(read) == list(range(400))
        await send(running, 3, "echo", text="on")
        assert (await read_to(running, 3))[-1]["result"] == {"text": "on"}
    assert box.starts() == 1
    assert not box.processes()
    assert box.files() == []


async def test_what_is_sent_into_a_broken_link_arrives_once_after_coming_back(box: Machine) -> None:
    assert box.proxy
    journal = Journal()
    long = "x" * 3_000_000
    async with attached(box, journal) as running:
        await send(running, 1, "echo", text="before")
        await read_to(running, 1)
        box.proxy.cut_after(500_000, "up")
        await send(running, 2, "echo", text=long)
        await send(running, 3, "echo", text="after")
        with pytest.raises(ConnectionLostError):
            await running.wire.receive()
    async with attached(box, journal) as running:
        answers = await read_to(running, 3)
    assert [answer["result"]["text"] for answer in answers] == [long, "after"]
    assert [line["id"] for line in box.lines()] == [1, 2, 3]


async def test_a_permission_asked_before_the_loss_is_answered_after_it(box: Machine) -> None:
    assert box.proxy
    journal = Journal()
    async with attached(box, journal) as running:
        await send(running, 1, "ask")
        asked = await running.wire.receive()
        assert asked
        assert asked["method"] == "session/request_permission"
        box.proxy.reset()
        await running.wire.send({"jsonrpc": "2.0", "id": 0, "result": "once"})
        with pytest.raises(ConnectionLostError):
            await running.wire.receive()
    async with attached(box, journal) as running:
        assert (await read_to(running, 1))[-1]["result"] == "once"


async def test_one_that_ended_meanwhile_says_its_last_words_and_the_next_start_is_a_new_one(box: Machine) -> None:
    assert box.proxy
    journal = Journal()
    async with attached(box, journal) as running:
        await send(running, 1, "initialize")
        pid = (await read_to(running, 1))[-1]["result"]["pid"]
        await send(running, 2, "count", times=20, until="go")
        wait_until((box.home / "half").exists, "it did not come to the half")
        box.proxy.reset()
        await read_to_the_loss(running)
    (box.home / "go").touch()
    (error_log,) = box.home.glob(".local/state/remote-dispatch/acp/*/err")
    error_log.write_bytes(b"last words")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "ended" in box.files(), "its end was not written down")
    heard = bytearray()
    async with attached(box, journal, on_stderr=heard.extend) as running:
        while await running.wire.receive():
            pass
        ending = await running.ending()
    assert ending.is_killed
    assert ending.words == "last words"
    assert heard == b"last words"
    async with attached(box, journal) as running:
        assert running.is_new
        await send(running, 1, "initialize")
        await read_to(running, 1)
    assert box.files() == []


async def test_its_end_is_noticed_at_once_with_all_it_said(here: Machine) -> None:
    heard = bytearray()
    async with attached_here(here, Journal(), on_stderr=heard.extend) as running:
        await send(running, 1, "count", times=3000)
        await send(running, 2, "die", status=7, words="no more\nstate done\n")
        read = []
        while message := await running.wire.receive():
            read.append(message)
        ending = await running.ending()
    assert texts(read) == list(range(3000))
    assert (ending.exit_status, ending.words) == (7, "no more / state done")
    assert heard == b"no more\nstate done\n"
    assert not here.processes()


async def test_its_password_is_in_no_file(here: Machine) -> None:
    async with attached_here(here, Journal()) as running:
        await send(running, 1, "initialize")
        password = (await read_to(running, 1))[-1]["result"]["environment"]["OPENCODE_SERVER_PASSWORD"]
        place = here.home / ".local/state/remote-dispatch/acp"
        inside = [path for path in place.rglob("*") if path.is_file() and path.name != "out"]
        assert {path.name for path in inside} >= {"in", "err", "process", "keeper", "keep.sh"}
        assert not [path.name for path in inside if password.encode() in path.read_bytes()]
        assert {path.stat().st_mode & 0o077 for path in [*place.rglob("*"), place]} == {0}


async def test_leaving_lets_it_save_what_it_has(here: Machine) -> None:
    async with attached_here(here, Journal()) as running:
        await send(running, 1, "initialize")
        await read_to(running, 1)
    assert (here.home / "end-of-input").exists()
    assert not here.processes()
    assert here.files() == []


async def test_what_both_sides_have_read_can_be_cut_off_and_counting_goes_on(box: Machine) -> None:
    assert box.proxy
    journal = Journal()
    async with attached(box, journal) as running:
        assert not await running.rotate(), "so little is not worth it"
        await send(running, 1, "echo", text="x" * 1_500_000)
        assert not await running.rotate(), "it is at work"
        await read_to(running, 1)
        cut = asyncio.create_task(running.rotate())
        await asyncio.sleep(0)
        await send(running, 2, "count", times=10)
        assert await cut
        assert texts(await read_to(running, 2)) == list(range(10))
        place = box.home / ".local/state/remote-dispatch/acp" / journal.owner
        assert {(place / name).stat().st_size < 10_000 for name in ("in", "out")} == {True}
        box.proxy.reset()
        await send(running, 3, "count", times=5)
        await read_to_the_loss(running)
    async with attached(box, journal) as running:
        assert texts(await read_to(running, 3)) == list(range(5))


@pytest.mark.parametrize("is_cut", [True, False])
async def test_a_cut_whose_answer_was_lost_is_taken_into_account(here: Machine, is_cut: bool) -> None:
    journal = Journal()
    connection: Any = LostAfterCalling(here.local(), is_called=is_cut)
    with contextlib.suppress(ConnectionLostError):
        async with durable(connection, here.host, "~/project", journal) as running:
            await send(running, 1, "echo", text="x" * 1_500_000)
            await read_to(running, 1)
            connection.verb = "rotate"
            await running.rotate()
            pytest.fail("the link was not lost")
    journal.outbox.note(*told(2, "count", times=5))
    async with attached_here(here, journal) as running:
        assert texts(await read_to(running, 2)) == list(range(5))
        assert await running.rotate() is not is_cut
        await send(running, 3, "count", times=5)
        assert texts(await read_to(running, 3)) == list(range(5))
    assert [line["id"] for line in here.lines()] == [1, 2, 3]


def told(number: int, method: str, **params: Any) -> tuple[Message, bytes]:
    """What was sent when the link was lost already."""
    message: Message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    return message, line_of(message)


@pytest.mark.thorough
async def test_without_a_client_it_ends_after_its_idle_time(box: Machine) -> None:
    assert box.proxy
    journal = Journal()
    async with attached(box, journal, idle_s=1) as running:
        await send(running, 1, "initialize")
        await read_to(running, 1)
        box.proxy.reset()
        with pytest.raises(ConnectionLostError):
            await running.wire.receive()
    wait_until(lambda: not box.processes(), "it waits for ever")
    assert (box.home / "end-of-input").exists()


async def test_a_place_that_vanished_means_a_new_agent(box: Machine) -> None:
    assert box.proxy
    journal = Journal()
    async with attached(box, journal) as running:
        await send(running, 1, "initialize")
        await read_to(running, 1)
        box.proxy.reset()
        with pytest.raises(ConnectionLostError):
            await running.wire.receive()
    state = box.home / ".local/state/remote-dispatch/acp"
    (state / journal.owner).rename(state / "gone")
    async with attached(box, journal) as running:
        assert running.is_new


async def test_what_cannot_start_is_told_as_without_durability(here: Machine) -> None:
    bare = Machine(here.home, here.host.model_copy(update={"opencode": "/nowhere/opencode"}))
    with pytest.raises(HostNotReadyError, match="OpenCode was not found"):
        async with attached_here(bare, Journal()):
            pytest.fail("it started")
    state = here.home / ".local/state"
    state.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(state / "remote-dispatch", ignore_errors=True)
    (state / "remote-dispatch").write_text("in the way")
    with pytest.raises(HostNotReadyError, match="cannot be written"):
        async with attached_here(here, Journal()):
            pytest.fail("it started")
    here.project.rmdir()
    with pytest.raises(HostNotReadyError, match="no directory"):
        async with attached_here(here, Journal()):
            pytest.fail("it started")


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox sh", "zsh --emulate sh"])
@pytest.mark.parametrize("script", [_script, _keep_text])
def test_every_shell_that_may_be_bin_sh_can_read_the_scripts(shell: str, script: Callable[[], str]) -> None:
    argv = shell.split()
    if not shutil.which(argv[0]):
        pytest.skip(f"{argv[0]} is not installed")
    done = subprocess.run([*argv, "-n"], input=script(), text=True, capture_output=True, timeout=10, check=False)
    assert done.stderr == ""


@pytest.mark.thorough
@pytest.mark.parametrize("shell", SHELLS)
async def test_it_is_started_met_again_and_ended_by_every_shell(here: Machine, shell: str, tmp_path: Path) -> None:
    under = UnderShell(program_of(shell, tmp_path), here.environment)
    journal = Journal()
    with contextlib.suppress(ConnectionLostError):
        async with durable(under, here.host, "~/project", journal) as running:
            await send(running, 1, "initialize")
            await read_to(running, 1)
            raise ConnectionLostError("box", "the connection was lost")
    async with durable(under, here.host, "~/project", journal) as running:
        assert not running.is_new
        await send(running, 2, "echo", text="x" * 1_500_000)
        await read_to(running, 2)
        assert await running.rotate()
        await send(running, 3, "count", times=3)
        assert texts(await read_to(running, 3)) == [0, 1, 2]
    assert not here.processes()
    assert here.files() == []


def program_of(shell: str, directory: Path) -> Path:
    """Return a program that takes `-c` as sh does."""
    words = {"bash": "bash --posix", "busybox": "busybox sh", "zsh": "zsh --emulate sh"}.get(shell, shell)
    program = directory / "shell"
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    return program


def test_an_answer_proves_that_everything_up_to_its_request_arrived() -> None:
    outbox = Outbox()
    sent: list[Message] = [
        {"id": 1, "method": "a"},
        {"method": "note"},
        {"id": "1", "method": "b"},
        {"id": 5, "result": {}},
        {"id": 2, "method": "c"},
    ]
    for message in sent:
        outbox.note(message, line_of(message))
    everything = b"".join(map(line_of, sent))
    outbox.learn({"id": "1", "result": {}})
    outbox.learn({"id": 7, "result": {}})
    outbox.learn({"id": 2, "method": "session/request_permission"})
    proved = len(b"".join(map(line_of, sent[:3])))
    assert outbox.rest_after(proved) == everything[proved:]
    assert outbox.rest_after(proved + 4) == everything[proved + 4 :]
    assert outbox.rest_after(len(everything)) == b""
    for nonsense in (proved - 1, len(everything) + 1):
        with pytest.raises(ValueError, match="arrived"):
            outbox.rest_after(nonsense)


async def test_with_one_session_at_a_time_it_is_still_ended(tmp_path: Path, private_home: Path) -> None:
    with machine_over_ssh(tmp_path, private_home, extra=("MaxSessions 1",)) as box:
        async with attached(box, Journal()) as running:
            await send(running, 1, "initialize")
            await read_to(running, 1)
        assert not box.processes()
        assert box.files() == []


async def test_a_link_that_broke_right_after_the_start_leaves_a_new_one_to_meet(box: Machine) -> None:
    journal = Journal()
    async with connect(box.host) as connection:
        broken: Any = LostBeforeTalking(connection)
        with pytest.raises(ConnectionLostError):
            async with durable(broken, box.host, "~/project", journal):
                pytest.fail("it talked")
    async with attached(box, journal) as running:
        assert running.is_new
        await send(running, 1, "initialize")
        await read_to(running, 1)
    assert box.starts() == 1


async def test_a_peer_may_be_replaced_while_the_journal_goes_on(here: Machine) -> None:
    notes = Notes()
    async with attached_here(here, Journal()) as running, Peer(running.wire, notes) as peer:
        assert await peer.request("count", {"times": 4}, timeout_s=10) == 4
    assert notes.texts == [0, 1, 2, 3]
