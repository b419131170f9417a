"""Hosts that allow few sessions or few logins at once: everything still happens, one thing after the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import DeadlinePassedError, HostNotReadyError
from remote_dispatch.model import Host
from remote_dispatch.remote.ssh import connect
from remote_dispatch.remote.trail import Trail
from tests.remote.test_ssh_failures import assert_no_address
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from remote_dispatch.remote.ssh_connection import SshConnection
    from tests.rig.sshd import Sshd

pytestmark = pytest.mark.thorough

FOLLOW = 'echo first; until [ -e "$1" ]; do sleep 0.02; done; echo last'
WAITING = 'IFS= read -r word && echo "<$word>"'
TICK = "while sleep 0.1; do echo tick; done"


@contextlib.asynccontextmanager
async def limited(own_server: Callable[..., Sshd], home: Path, sessions: int) -> AsyncIterator[SshConnection]:
    """A connection to a host that allows so many sessions."""
    own_server(extra=(f"MaxSessions {sessions}",)).write_client_home(home)
    async with connect(Host(name="box", host="box")) as connection:
        yield connection


async def move_files(connection: SshConnection, place: Path, name: str = "x") -> None:
    content = os.urandom(3_000_000)
    await connection.upload(PurePosixPath(place), {name: content, f"{name}-small": b"1"}, timeout_s=30)
    target = place.with_name(f"{name}-home")
    await connection.download(PurePosixPath(place / name), target, limit_bytes=len(content), timeout_s=30)
    assert target.read_bytes() == content


@pytest.mark.parametrize("sessions", [1, 2, 3])
async def test_one_thing_after_the_other_works_with_few_sessions(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path, sessions: int
) -> None:
    async with limited(own_server, client_home, sessions) as connection:
        connection.warm(WAITING)
        assert (await connection.run("echo 1", timeout_s=10)).stdout == b"1\n"
        await move_files(connection, tmp_path / "up")
        assert (await connection.run("echo 2", timeout_s=10)).stdout == b"2\n"
        await move_files(connection, tmp_path / "up", "again")
        async with connection.open("echo followed") as channel:
            assert [chunk async for chunk in channel.stdout()] == [b"followed\n"]
            assert await channel.wait() == 0
        assert (await connection.run("echo 3", timeout_s=10)).stdout == b"3\n"


@pytest.mark.parametrize("sessions", [1, 2])
async def test_everything_at_once_works_with_few_sessions(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path, sessions: int
) -> None:
    async with limited(own_server, client_home, sessions) as connection:
        connection.warm(WAITING)
        moving = [move_files(connection, tmp_path / f"up-{number}", f"x{number}") for number in range(3)]
        asking = [connection.run("echo in", timeout_s=30) for _ in range(12)]
        done, _ = await asyncio.gather(asyncio.gather(*asking), asyncio.gather(*moving))
        assert [one.stdout for one in done] == [b"in\n"] * 12


async def test_a_script_that_was_started_ahead_is_the_one_that_is_talked_with(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path
) -> None:
    begun = f'echo begun >>"$1"; {WAITING}'
    async with limited(own_server, client_home, 10) as connection:
        connection.warm(begun, str(tmp_path / "log"))
        await asyncio.to_thread(wait_until, (tmp_path / "log").exists, "it was not started ahead")
        for _ in range(2):
            async with connection.converse(begun, str(tmp_path / "log")) as duplex:
                await duplex.write(b"go\n")
                assert b"".join([chunk async for chunk in duplex.stdout()]) == b"<go>\n"
                assert await duplex.wait() == 0
        # The first one was there already; the second had to be started.
        assert (tmp_path / "log").read_text() == "begun\n" * 2


async def test_a_script_that_ended_before_it_was_needed_is_started_anew(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path
) -> None:
    place = tmp_path / "marker"
    async with limited(own_server, client_home, 10) as connection:
        once = f'[ -e "$1" ] || {{ echo >"$1"; exit 3; }}; {WAITING}'
        connection.warm(once, str(place))
        await asyncio.to_thread(wait_until, place.exists, "it was not started ahead")
        assert connection._spare is not None
        ended = await connection._spare.starting
        async with asyncio.timeout(10):
            await ended.wait_closed()
        connection._sessions.allowed = 1  # as far as is known by then; it takes no place
        async with connection.converse(once, str(place)) as duplex:
            await duplex.write(b"go\n")
            assert b"".join([chunk async for chunk in duplex.stdout()]) == b"<go>\n"


@pytest.mark.parametrize("sessions", [1, 2])
async def test_what_is_only_kept_ready_gives_way(
    own_server: Callable[..., Sshd], client_home: Path, sessions: int
) -> None:
    async with limited(own_server, client_home, sessions) as connection:
        connection.warm(WAITING)
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(sessions):
                channel = await stack.enter_async_context(connection.open("echo in; sleep 1"))
                assert await anext(channel.stdout()) == b"in\n"
        async with connection.converse(WAITING) as duplex:
            await duplex.write(b"go\n")
            assert b"".join([chunk async for chunk in duplex.stdout()]) == b"<go>\n"


async def test_while_the_only_session_is_read_a_command_waits_for_it(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with limited(own_server, client_home, 1) as connection:
        async with connection.open(FOLLOW, str(gate)) as channel:
            lines = channel.stdout()
            assert await anext(lines) == b"first\n"
            waiting = asyncio.create_task(connection.run("echo now", timeout_s=20))
            moving = asyncio.create_task(move_files(connection, tmp_path / "up"))
            with pytest.raises(DeadlinePassedError, match="the host allows one session at a time") as caught:
                await connection.run("true", timeout_s=2)
            assert_no_address(caught.value)
            assert not waiting.done()
            gate.touch()
            assert b"".join([chunk async for chunk in lines]) == b"last\n"
            assert await channel.wait() == 0
        assert (await waiting).stdout == b"now\n"
        await moving


async def test_sftp_gives_its_session_to_a_command_that_would_wait_for_long(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path
) -> None:
    async with limited(own_server, client_home, 2) as connection:
        await move_files(connection, tmp_path / "up")
        async with connection.open(TICK):
            assert (await connection.run("echo in", timeout_s=10)).stdout == b"in\n"


async def test_a_session_that_its_command_still_holds_is_waited_for(
    own_server: Callable[..., Sshd], client_home: Path
) -> None:
    """sshd frees a session when the command ends, not when we stop reading it."""
    async with limited(own_server, client_home, 1) as connection:
        async with connection.open("echo begun; sleep 3") as channel:
            await anext(channel.stdout())
        assert (await connection.run("echo in", timeout_s=20)).stdout == b"in\n"


async def test_a_host_that_allows_no_session_says_so_at_last(
    own_server: Callable[..., Sshd], client_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remote_dispatch.remote.ssh_sessions._PATIENCE_S", 2.0)
    async with limited(own_server, client_home, 0) as connection:
        with pytest.raises(HostNotReadyError, match="box: it refuses another session"):
            await connection.run("true", timeout_s=20)


@pytest.mark.parametrize("startups", ["10:30:100", "5:100:5"])
async def test_thirty_two_connections_at_once_all_get_in(
    own_server: Callable[..., Sshd], client_home: Path, startups: str
) -> None:
    own_server(extra=(f"MaxStartups {startups}",)).write_client_home(client_home)

    async def one(number: int) -> bytes:
        async with connect(Host(name="box", host="box")) as connection:
            return (await connection.run('echo "$1"', str(number), timeout_s=20)).stdout

    began = time.monotonic()
    said = await asyncio.gather(*(one(number) for number in range(32)))
    assert said == [b"%d\n" % number for number in range(32)]
    assert time.monotonic() - began < 15


async def test_many_logins_to_one_address_take_turns_so_that_none_is_refused(
    own_server: Callable[..., Sshd], client_home: Path
) -> None:
    own_server(extra=("MaxStartups 10:100:10",)).write_client_home(client_home)
    trails = [Trail() for _ in range(24)]

    async def log_in(trail: Trail) -> None:
        async with connect(Host(name="box", host="box"), trail=trail):
            pass

    await asyncio.gather(*map(log_in, trails))
    assert [hop.hang_ups for trail in trails for hop in trail.hops] == [0] * 24


@pytest.mark.parametrize(
    "rc", ["sleep 3", "head -c 1000000 /dev/zero | tr '\\0' x; echo; head -c 300000 /dev/zero >&2"]
)
async def test_heavy_start_up_files_only_take_time(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path, rc: str
) -> None:
    server = own_server()
    server.write_client_home(client_home)
    (server.remote_home / ".bashrc").write_text(rc)
    async with connect(Host(name="box", host="box")) as connection:
        connection.warm()
        assert (await connection.run("echo in", timeout_s=20)).stdout == b"in\n"
        await move_files(connection, tmp_path / "up")


@pytest.mark.parametrize("shell", ["bash --norc", "dash", "zsh", "fish", "tcsh", "busybox sh"])
async def test_a_shell_that_a_start_up_file_changes_to_takes_nothing_for_its_own_script(
    own_server: Callable[..., Sshd], client_home: Path, shell: str
) -> None:
    if shutil.which(shell.split(maxsplit=1)[0]) is None:
        pytest.skip("it is not installed")
    server = own_server()
    server.write_client_home(client_home)
    (server.remote_home / ".bashrc").write_text(f"exec {shell}")
    async with connect(Host(name="box", host="box")) as connection:
        with pytest.raises(HostNotReadyError, match="box: its login shell did not start a command"):
            await connection.run('echo ran >"$HOME/proof"', "\ntouch proof\n", timeout_s=10)
    assert not (server.remote_home / "proof").exists()
