"""Links that die without a word: noticed within half a minute, whatever was going on, and never with an address."""

from __future__ import annotations

import asyncio
import errno
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import asyncssh
import pytest

from remote_dispatch.errors import ConnectionLostError, HostUnreachableError
from remote_dispatch.remote.ssh import connect
from remote_dispatch.remote.ssh_errors import translated
from tests.remote.test_ssh_failures import assert_no_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_dispatch.remote.ssh_connection import SshConnection
    from tests.remote.conftest import Road
    from tests.rig.sshd import Sshd

pytestmark = pytest.mark.thorough

WORK = ["idle", "run", "silent run", "open", "upload", "download", "new channel"]
TICK = "while sleep 0.01; do echo tick; done"
LARGE = 64_000_000
"""More than all buffers on the way hold."""


async def do(connection: SshConnection, work: str, road: Road, place: Path) -> None:
    """Work for ever, and make the proxy silent in the middle of it; `idle` asks for something afterwards."""
    if work == "idle":
        road.proxy.stall()
        async with asyncio.timeout(60):
            await connection._link.wait_closed()
        await connection.run("true", timeout_s=100)
    elif work == "run":
        road.proxy.stall_after(3_000, "down")
        await connection.run(TICK, timeout_s=100)
    elif work == "silent run":
        road.proxy.stall_after(2_000, "up")
        await connection.run("cat >/dev/null", timeout_s=100, input=b"x" * 3_000)
    elif work == "new channel":
        road.proxy.stall()
        await connection.run("true", timeout_s=100)
    elif work == "open":
        road.proxy.stall_after(3_000, "down")
        async with connection.open(TICK) as channel:
            await channel.wait()
    elif work == "upload":
        road.proxy.stall_after(5_000_000, "up")
        await connection.upload(PurePosixPath(place / "up"), {"x": place / "source"}, timeout_s=100)
    else:
        road.proxy.stall_after(5_000_000, "down")
        source = PurePosixPath(place / "source")
        await connection.download(source, place / "down", limit_bytes=LARGE, timeout_s=100)


async def seconds_until_lost(road: Road, work: str, place: Path, *, keepalive_s: float = 7.0) -> float:
    """Do it, and return how long after the silence began the error came."""
    (place / "source").write_bytes(b"x" * LARGE)
    async with connect(road.host, keepalive_s=keepalive_s) as connection:
        doing = asyncio.create_task(do(connection, work, road, place))
        async with asyncio.timeout(20):
            while not road.proxy.is_stalled:
                await asyncio.sleep(0.01)
        began = time.monotonic()
        with pytest.raises(ConnectionLostError, match=r"^box: the connection was lost$") as caught:
            await doing
        assert_no_address(caught.value, road.proxy.port)
        return time.monotonic() - began


@pytest.mark.parametrize("work", WORK)
async def test_a_silent_link_is_lost_after_four_times_the_keepalive(
    proxied: Callable[[Sshd], Road], server: Sshd, tmp_path: Path, work: str
) -> None:
    took_s = await seconds_until_lost(proxied(server), work, tmp_path, keepalive_s=0.2)
    assert 0.4 < took_s < 4


@pytest.mark.slow
@pytest.mark.parametrize("work", WORK)
async def test_a_silent_link_is_lost_within_thirty_seconds(
    proxied: Callable[[Sshd], Road], server: Sshd, tmp_path: Path, work: str
) -> None:
    took_s = await seconds_until_lost(proxied(server), work, tmp_path)
    assert 14 < took_s < 30


@pytest.mark.parametrize("passed", [0, 20, 900, 1_500])
async def test_silence_during_the_login_is_an_unreachable_host(
    proxied: Callable[[Sshd], Road], server: Sshd, passed: int
) -> None:
    """Before the version, within it, within the key exchange, within the login."""
    road = proxied(server)
    road.proxy.stall_after(passed, "down")
    began = time.monotonic()
    with pytest.raises(HostUnreachableError, match=r"^box: no SSH login within the time limit$") as caught:
        async with connect(road.host, timeout_s=1):
            pass
    assert time.monotonic() - began < 4
    assert road.proxy.is_stalled
    assert_no_address(caught.value, road.proxy.port)


async def test_a_short_silence_is_survived(proxied: Callable[[Sshd], Road], server: Sshd) -> None:
    road = proxied(server)
    async with connect(road.host, keepalive_s=0.5) as connection:
        road.proxy.stall()
        asking = asyncio.create_task(connection.run("echo still here", timeout_s=10))
        await asyncio.sleep(1)
        road.proxy.flow()
        assert (await asking).stdout == b"still here\n"


@pytest.mark.parametrize("passed", [0, 20, 900, 1_500])
async def test_a_cut_during_the_login_is_tried_again(
    proxied: Callable[[Sshd], Road], server: Sshd, passed: int
) -> None:
    road = proxied(server)
    road.proxy.cut_after(passed, "down")
    async with connect(road.host) as connection:
        assert (await connection.run("echo in", timeout_s=10)).stdout == b"in\n"
    assert road.proxy.cuts == 1


async def test_a_stranded_link_is_lost_and_a_new_one_works(proxied: Callable[[Sshd], Road], server: Sshd) -> None:
    road = proxied(server)
    async with connect(road.host, keepalive_s=0.2) as connection:
        assert (await connection.run("true", timeout_s=10)).exit_status == 0
        road.proxy.strand()
        with pytest.raises(ConnectionLostError):
            await connection.run("true", timeout_s=10)
        async with connect(road.host) as other:
            assert (await other.run("echo in", timeout_s=10)).stdout == b"in\n"


async def test_a_lost_link_is_asked_nothing_any_more(proxied: Callable[[Sshd], Road], server: Sshd) -> None:
    async with connect(proxied(server).host) as connection:
        connection.rest(is_resting=True)
        connection._link.abort()
        await connection._link.wait_closed()
        connection.rest(is_resting=False)
        assert connection._link._keepalive_timer is None


async def test_closing_a_dead_link_takes_no_longer_than_a_moment(
    proxied: Callable[[Sshd], Road], server: Sshd, tmp_path: Path
) -> None:
    road = proxied(server)
    async with connect(road.host) as connection:
        connection.warm("cat")
        await connection.upload(PurePosixPath(tmp_path / "up"), {"x": b"x"}, timeout_s=10)
        road.proxy.stall()
        began = time.monotonic()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EPIPE])
def test_what_the_system_says_of_a_dead_link_is_a_lost_connection(number: int) -> None:
    """The kernel's own verdicts take minutes to come, so they are raised here."""
    link = asyncssh.SSHClientConnection.__new__(asyncssh.SSHClientConnection)
    with pytest.raises(ConnectionLostError, match=r"^box: the connection was lost$"), translated("box", link):
        raise OSError(number, "Connect call failed ('127.0.0.1', 22)")


def test_a_full_local_disk_is_not_a_lost_connection() -> None:
    link = asyncssh.SSHClientConnection.__new__(asyncssh.SSHClientConnection)
    with pytest.raises(OSError, match="No space"), translated("box", link):
        raise OSError(errno.ENOSPC, "No space left on device")
