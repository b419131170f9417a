"""A script with an open stdin: what every connection must do, here and behind a real sshd with any login shell."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import ConnectionLostError
from remote_dispatch.remote.ssh import connect
from tests.remote.test_connection import HOSTILE, open_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from remote_dispatch.remote.connection import Connection, Duplex
    from tests.remote.conftest import Road
    from tests.rig.sshd import Sshd

LIMIT_S = 20


@pytest.fixture(params=["local", "ssh"])
async def connection(request: pytest.FixtureRequest, server: Sshd, client_home: Path) -> AsyncIterator[Connection]:
    async with open_connection(request.param, server, client_home) as opened:
        yield opened


async def everything(duplex: Duplex) -> bytes:
    async with asyncio.timeout(LIMIT_S):
        return b"".join([chunk async for chunk in duplex.stdout()])


async def test_what_is_written_is_answered_while_the_script_runs(connection: Connection) -> None:
    script = 'while IFS= read -r line; do echo "<$line>"; done; echo end'
    async with connection.converse(script) as duplex:
        said = duplex.stdout()
        for word in (b"one", b"two"):
            await duplex.write(word + b"\n")
            async with asyncio.timeout(LIMIT_S):
                assert await anext(said) == b"<" + word + b">\n"
        duplex.write_eof()
        duplex.write_eof()
        assert await anext(said) == b"end\n"
        assert await duplex.wait() == 0


async def test_values_and_stdin_arrive_byte_for_byte_in_what_the_script_becomes(connection: Connection) -> None:
    data = bytes(range(256)) * 5
    async with connection.converse('printf "%s\\0" "$@"; exec cat', *HOSTILE) as duplex:
        await duplex.write(data)
        duplex.write_eof()
        said = await everything(duplex)
    assert said == b"".join(value.encode("utf-8", "surrogateescape") + b"\0" for value in HOSTILE) + data


async def test_megabytes_both_ways_at_once_do_not_block_each_other(connection: Connection) -> None:
    data = os.urandom(1000) * 8000

    async def write(duplex: Duplex) -> None:
        for start in range(0, len(data), 100_000):
            await duplex.write(data[start : start + 100_000])
        duplex.write_eof()

    async with connection.converse("exec cat") as duplex, asyncio.TaskGroup() as group:
        group.create_task(write(duplex))
        assert await everything(duplex) == data


async def test_status_and_stderr_are_those_of_the_script(connection: Connection) -> None:
    async with connection.converse("read -r line; echo err >&2; exit 42") as duplex:
        errors = duplex.stderr()
        await duplex.write(b"\n")
        async with asyncio.timeout(LIMIT_S):
            assert b"".join([chunk async for chunk in errors]) == b"err\n"
            assert await duplex.wait() == 42


async def test_a_signal_is_a_negative_status(connection: Connection) -> None:
    async with connection.converse("kill -9 $$") as duplex:
        assert await duplex.wait() == -9


async def test_what_is_written_to_a_script_that_has_ended_is_dropped(connection: Connection) -> None:
    async with connection.converse("exit 3") as duplex:
        assert await duplex.wait() == 3
        for _ in range(3):
            await duplex.write(b"x" * 100_000)
        duplex.write_eof()


async def test_leaving_ends_a_script_that_reads(connection: Connection, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    script = 'echo $$; cat >/dev/null; : >"$1"; sleep 600'
    async with connection.converse(script, str(ended)) as duplex:
        async with asyncio.timeout(LIMIT_S):
            pid = int(await anext(duplex.stdout()))
    deadline = time.monotonic() + LIMIT_S
    while not ended.exists() and is_there(pid):
        assert time.monotonic() < deadline, "it goes on"
        await asyncio.sleep(0.01)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_what_a_login_shell_prints_first_is_skipped(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path
) -> None:
    home = tmp_path / "noisy"
    home.mkdir()
    (home / ".bashrc").write_text("echo welcome; echo 'warning' >&2\n")
    server = own_server(home=home)
    server.write_client_home(client_home)
    async with (
        connect(server.host(host="box", port=None)) as connection,
        connection.converse("echo ready; exec cat") as duplex,
    ):
        await duplex.write(b"hello\n")
        duplex.write_eof()
        assert await everything(duplex) == b"ready\nhello\n"


async def test_a_lost_link_is_told_by_reading_and_by_writing(server: Sshd, proxied: Callable[[Sshd], Road]) -> None:
    road = proxied(server)
    async with connect(road.host) as connection, connection.converse("exec cat") as duplex:
        await duplex.write(b"x")
        said = duplex.stdout()
        assert await anext(said) == b"x"
        road.proxy.reset()
        with pytest.raises(ConnectionLostError):
            await anext(said)
        with pytest.raises(ConnectionLostError):
            await duplex.write(b"y")
        with pytest.raises(ConnectionLostError):
            await duplex.wait()
