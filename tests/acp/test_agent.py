"""One `opencode acp` from its start to its end, here and behind a real sshd, with a stand-in and with the real one."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.acp.agent import Agent, AgentEndedError, Ending, agent, new_owner
from remote_dispatch.errors import ConnectionLostError, HostNotReadyError
from remote_dispatch.remote.ssh import connect
from tests.acp.small_agent import Machine, Notes, machine, machine_over_ssh, talk
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Machine]:
    with machine(tmp_path) as made:
        yield made


@pytest.fixture
def box(tmp_path: Path, private_home: Path) -> Iterator[Machine]:
    with machine_over_ssh(tmp_path, private_home) as made:
        yield made


@asynccontextmanager
async def started(on: Machine, directory: str = "~/project", **options: Any) -> AsyncIterator[Agent]:
    async with agent(on.local(), on.host, directory, **{"owner": new_owner(), **options}) as running:
        yield running


@asynccontextmanager
async def started_over_ssh(on: Machine, *, owner: str | None = None) -> AsyncIterator[Agent]:
    async with (
        connect(on.host, keepalive_s=0.2) as connection,
        agent(connection, on.host, "~/project", owner=owner or new_owner()) as running,
    ):
        yield running


async def greeting(running: Agent) -> Any:
    await running.wire.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
    answer = await running.wire.receive()
    assert answer is not None
    return answer["result"]


async def test_it_works_in_its_directory_with_the_variables_of_host_and_caller_and_the_users_umask(
    here: Machine,
) -> None:
    (here.home / "project").rename(here.home / "it's a projéct")
    (here.home / "link").symlink_to(here.home / "it's a projéct")
    here = Machine(here.home, here.host.model_copy(update={"env": {"FIRST": "1 2", "SECOND": "host"}}))
    umask = os.umask(0o027)
    try:
        async with started(here, "~/link", environment={"SECOND": "it's\nmine"}) as running:
            said = await greeting(running)
            assert running.directory == said["cwd"] == str(here.home / "it's a projéct")
            assert running.home == str(here.home)
    finally:
        os.umask(umask)
    environment = said["environment"]
    assert environment["PWD"] == said["cwd"]
    assert (environment["FIRST"], environment["SECOND"]) == ("1 2", "it's\nmine")
    assert said["umask"] == 0o027


async def test_its_version_is_known_once_it_has_said_so(here: Machine) -> None:
    async with started(here) as running:
        assert running.version is None
        await greeting(running)
        assert running.version == "1.18.33"


async def test_the_password_stands_in_its_environment_and_in_no_command_line(here: Machine) -> None:
    async with started(here) as running:
        said = await greeting(running)
        password = said["environment"]["OPENCODE_SERVER_PASSWORD"]
        commands = [command_line(process) for process in Path("/proc").iterdir() if process.name.isdigit()]
    assert len(password) == 48
    assert said["environment"]["OPENCODE_SERVER_USERNAME"] == "opencode"
    assert not [command for command in commands if password.encode() in command]
    assert b"acp" in b"".join(commands)


def command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


async def test_it_listens_on_the_loopback_only_whatever_the_configuration_says(here: Machine) -> None:
    async with started(here) as running:
        argv = (await greeting(running))["argv"]
    assert argv[:4] == ["acp", "--hostname", "127.0.0.1", "--mdns=false"]


async def test_leaving_ends_it_by_the_end_of_its_input_and_leaves_no_file(here: Machine) -> None:
    async with started(here) as running:
        await greeting(running)
        assert "process" in here.files()
    assert (here.home / "end-of-input").exists()
    assert here.files() == []
    assert not here.processes()


async def test_an_end_is_told_with_its_status_and_its_last_words(here: Machine) -> None:
    async with started(here) as running, talk(running.wire) as peer:
        await peer.notify("nothing", {})
        await running.wire.send(
            {"id": 1, "method": "die", "params": {"status": 7, "words": "a\nb\x1b[31m at 192.0.2.7"}}
        )
        await peer.finished()
        ending = await running.ending()
    assert (ending.exit_status, ending.is_clean, ending.is_killed) == (7, False, False)
    assert ending.words.startswith("a / b")
    assert "\x1b" not in ending.words
    assert "192.0.2.7" not in str(AgentEndedError("box", ending))


async def test_a_kill_is_told_from_an_end(here: Machine) -> None:
    async with started(here) as running:
        await running.wire.send({"id": 1, "method": "die", "params": {"status": 0, "signal": signal.SIGKILL}})
        assert await running.wire.receive() is None
        ending = await running.ending()
    assert ending == Ending(-9)
    assert ending.is_killed
    assert "was killed" in AgentEndedError("box", ending).message


async def test_a_directory_that_is_not_there_is_refused_before_anything_starts(here: Machine) -> None:
    with pytest.raises(HostNotReadyError, match="no directory `~/nowhere`"):
        async with started(here, "~/nowhere"):
            pytest.fail("it started")
    assert not (here.home / "starts").exists()


async def test_a_machine_without_opencode_is_told_as_such(here: Machine) -> None:
    bare = Machine(here.home, here.host.model_copy(update={"opencode": "/nowhere/opencode"}))
    with pytest.raises(HostNotReadyError, match="OpenCode was not found"):
        async with started(bare):
            pytest.fail("it started")


async def test_lines_that_are_no_messages_are_skipped_and_counted(here: Machine) -> None:
    noise = b"a log line\n[1]\n\n\xff\xfe\n5\nnull\n"
    async with started(here) as running, talk(running.wire) as peer:
        await peer.request("raw", {"hex": noise.hex()}, timeout_s=10)
        assert running.skipped == 5


async def test_what_it_prints_on_stderr_is_passed_on(here: Machine) -> None:
    heard = bytearray()
    async with started(here, on_stderr=heard.extend) as running:
        await running.wire.send({"id": 1, "method": "die", "params": {"status": 0, "words": "x" * 300_000}})
        assert await running.wire.receive() is None
        await running.ending()
    assert heard == b"x" * 300_000


async def test_it_may_say_much_while_nobody_reads_and_is_still_ended(here: Machine) -> None:
    async with started(here) as running:
        await running.wire.send({"id": 1, "method": "count", "params": {"times": 5000}})
    assert (here.home / "end-of-input").exists()
    assert not here.processes()


async def test_an_owner_must_be_an_id(here: Machine) -> None:
    with pytest.raises(ValueError, match="owner"):
        async with started(here, owner="../x"):
            pytest.fail("it started")


async def test_over_ssh_it_talks_and_ends_as_it_does_here(box: Machine) -> None:
    notes = Notes()
    async with started_over_ssh(box) as running, talk(running.wire, notes) as peer:
        said = await peer.request("initialize", {}, timeout_s=10)
        assert await peer.request("count", {"times": 300}, timeout_s=10) == 300
        long = "é" * 2_500_000
        assert await peer.request("echo", {"text": long}, timeout_s=30) == {"text": long}
    assert not [name for name in said["environment"] if name in ("SSH_CONNECTION", "SSH_CLIENT")]
    assert notes.texts == list(range(300))
    assert (box.home / "end-of-input").exists()
    assert not box.processes()


async def test_over_ssh_a_kill_and_a_lost_link_are_told_apart(box: Machine) -> None:
    assert box.proxy
    async with started_over_ssh(box) as running:
        await running.wire.send({"id": 1, "method": "die", "params": {"status": 0, "signal": signal.SIGKILL}})
        assert await running.wire.receive() is None
        assert (await running.ending()).is_killed
    async with started_over_ssh(box) as running:
        box.proxy.reset()
        with pytest.raises(ConnectionLostError):
            await running.wire.receive()
        with pytest.raises(ConnectionLostError):
            await running.wire.send({"method": "x"})
    wait_until(lambda: not box.processes(), "the process outlived its link")


@pytest.mark.thorough
async def test_after_a_silent_loss_the_next_start_ends_what_was_left_behind(box: Machine) -> None:
    assert box.proxy
    owner = new_owner()
    async with started_over_ssh(box, owner=owner) as running:
        left = (await greeting(running))["pid"]
        box.proxy.strand()
        with pytest.raises(ConnectionLostError):
            await running.wire.receive()
    assert left in box.processes()
    async with started_over_ssh(box, owner=owner) as running:
        await greeting(running)
        assert left not in box.processes()
    assert box.starts() == 2


async def test_another_owners_process_is_left_alone(here: Machine) -> None:
    async with started(here) as first:
        pid = (await greeting(first))["pid"]
        async with started(here) as second:
            await greeting(second)
        assert pid in here.processes()


async def test_what_others_left_days_ago_is_removed_unless_it_lives(here: Machine) -> None:
    place = here.home / ".local/state/remote-dispatch/acp"
    (place / "0123456789abcdef").mkdir(parents=True)
    living = new_owner()
    async with started(here, owner=living) as first:
        await greeting(first)
        for left in place.iterdir():
            os.utime(left, (0, 0))
        async with started(here) as second:
            await greeting(second)
            assert not (place / "0123456789abcdef").exists()
            assert (place / living / "process").exists()


async def test_without_a_place_for_its_files_it_works_all_the_same(here: Machine) -> None:
    state = here.home / ".local/state"
    state.mkdir(parents=True)
    (state / "remote-dispatch").write_text("in the way")
    async with started(here) as running:
        assert (await greeting(running))["protocolVersion"] == 1
