"""The demo's host, as OpenSSH's own clients see it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import asyncssh
import pytest

from remote_dispatch.demo.host import DemoHost, serve_host
from remote_dispatch.model import Host
from remote_dispatch.remote.ssh import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATH = "/usr/local/bin:/usr/bin:/bin"


class Client:
    """A home from which OpenSSH reaches the host as `lab`."""

    def __init__(self, home: Path) -> None:
        self.home = home

    async def ssh(self, command: str, *, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        return await self._run("ssh", "-n" if not stdin else "-T", "lab", command, stdin=stdin)

    async def sftp(self, batch: str) -> tuple[int, bytes, bytes]:
        return await self._run("sftp", "-b", "-", "lab", stdin=batch.encode())

    async def _run(self, program: str, *arguments: str, stdin: bytes) -> tuple[int, bytes, bytes]:
        process = await asyncio.create_subprocess_exec(
            program,
            "-F",
            str(self.home / ".ssh/config"),
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": PATH, "HOME": str(self.home)},
        )
        async with asyncio.timeout(20):
            out, err = await process.communicate(stdin)
        return process.returncode or 0, out, err


@pytest.fixture
def host_home(tmp_path: Path) -> Path:
    home = tmp_path / "host home"
    home.mkdir()
    return home


@pytest.fixture
async def host(host_home: Path) -> AsyncIterator[DemoHost]:
    async with serve_host(host_home, {"HOME": str(host_home), "PATH": PATH, "MARK": "host"}) as host:
        yield host


@pytest.fixture
def client(host: DemoHost, tmp_path: Path) -> Client:
    home = tmp_path / "client home"
    host.introduce(home, "lab")
    return Client(home)


async def gone(pid: int) -> bool:
    """Wait until a process has ended."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.02)
    return False


async def test_a_command_runs_at_home_with_exactly_the_given_environment(client: Client, host_home: Path) -> None:
    status, out, err = await client.ssh("pwd; echo $MARK; echo ${SSH_CONNECTION-none}")
    assert (status, err) == (0, b"")
    assert out.decode().splitlines() == [str(host_home), "host", "none"]


@pytest.mark.parametrize("status", [0, 1, 71, 255])
async def test_the_exit_status_arrives(client: Client, status: int) -> None:
    assert (await client.ssh(f"exit {status}"))[0] == status


async def test_a_killed_command_does_not_look_like_a_success(client: Client) -> None:
    assert (await client.ssh("kill -9 $$"))[0] == 255


async def test_stdout_and_stderr_stay_apart(client: Client) -> None:
    assert await client.ssh("echo out; echo err >&2") == (0, b"out\n", b"err\n")


async def test_a_megabyte_goes_in_and_comes_back_byte_for_byte(client: Client) -> None:
    data = os.urandom(1 << 20)
    assert await client.ssh("cat", stdin=data) == (0, data, b"")


async def test_a_command_that_does_not_read_its_input_ends_well(client: Client) -> None:
    assert await client.ssh("echo early", stdin=bytes(1 << 20)) == (0, b"early\n", b"")


async def test_a_detached_launch_returns_at_once_and_lives_on(client: Client) -> None:
    began = time.monotonic()
    status, out, _ = await client.ssh("setsid sleep 30 >/dev/null 2>&1 </dev/null & echo $!")
    assert status == 0
    assert time.monotonic() - began < 5
    os.kill(int(out), 0)
    os.kill(int(out), 15)


async def test_a_background_process_that_keeps_the_output_open_holds_the_channel(client: Client) -> None:
    began = time.monotonic()
    status, out, _ = await client.ssh("sleep 1 & echo launched")
    assert (status, out) == (0, b"launched\n")
    assert time.monotonic() - began >= 1


async def test_a_lost_connection_hangs_up_its_command_and_spares_a_detached_one(host: DemoHost, client: Client) -> None:
    connection = await asyncssh.connect("lab", config=[client.home / ".ssh/config"])
    detached_sleep = "setsid sh -c 'echo detached $$; exec sleep 30 >/dev/null 2>&1' </dev/null 2>/dev/null &"
    process = await connection.create_process(f"{detached_sleep} echo attached $$; sleep 40", encoding=None)
    said = [(await process.stdout.readline()).decode().split() for _ in range(2)]
    pids = {name: int(pid) for name, pid in said}
    connection.abort()
    assert await gone(pids["attached"])
    os.kill(pids["detached"], 0)
    os.kill(pids["detached"], 15)


async def test_leaving_the_host_kills_what_still_runs(host_home: Path, tmp_path: Path) -> None:
    async with serve_host(host_home, {"PATH": PATH}) as host:
        host.introduce(tmp_path / "client", "lab")
        connection = await asyncssh.connect("lab", config=[tmp_path / "client/.ssh/config"])
        process = await connection.create_process("trap '' HUP; echo $$; sleep 40", encoding=None)
        pid = int(await process.stdout.readline())
    assert await gone(pid)
    async with asyncio.timeout(5):
        await connection.wait_closed()


async def test_sftp_puts_and_gets_from_home(client: Client, host_home: Path, tmp_path: Path) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(300_000))
    batch = f'mkdir box\nput "{sent}" box/file\nget box/file "{back}"\nrm box/file\n'
    status, _, err = await client.sftp(batch)
    assert (status, err) == (0, b"")
    assert back.read_bytes() == sent.read_bytes()
    assert (host_home / "box").is_dir()
    assert not (host_home / "box/file").exists()


async def test_sftp_takes_absolute_paths_as_they_are(client: Client, tmp_path: Path) -> None:
    (tmp_path / "sent").write_text("here\n")
    assert (await client.sftp(f'put "{tmp_path}/sent" "{tmp_path}/arrived"\n'))[0] == 0
    assert (tmp_path / "arrived").read_text() == "here\n"


async def test_our_own_connection_reaches_it(
    client: Client, host_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(client.home))
    target = PurePosixPath(host_home) / "box"
    async with connect(Host(name="lab", host="lab")) as connection:
        done = await connection.run('printf %s "$1"; cat', "it's", input=b" me", timeout_s=10)
        await connection.upload(target, {"sub/file": b"content"}, timeout_s=10)
        await connection.download(target / "sub/file", tmp_path / "back", limit_bytes=100, timeout_s=10)
    assert (done.exit_status, done.stdout) == (0, b"it's me")
    assert (tmp_path / "back").read_bytes() == b"content"


async def test_another_key_is_refused(host: DemoHost, client: Client) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    (client.home / ".ssh/id_demo").write_bytes(stranger.export_private_key())
    status, out, err = await client.ssh("echo in")
    assert (status, out) == (255, b"")
    assert b"Permission denied" in err


async def test_another_host_key_is_refused_by_the_client(host: DemoHost, client: Client) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    (client.home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{host.port} {stranger}")
    status, out, err = await client.ssh("echo in")
    assert (status, out) == (255, b"")
    assert b"Host key verification failed" in err


async def test_a_shell_without_a_command_is_refused(client: Client) -> None:
    status, out, err = await client._run("ssh", "-T", "lab", stdin=b"echo in\n")
    assert (status, out) == (127, b"")
    assert b"runs commands only" in err


async def test_the_host_listens_on_loopback_only(host: DemoHost) -> None:
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.2", host.port)


async def test_the_private_key_is_shown_by_no_repr(host: DemoHost) -> None:
    assert "PRIVATE" not in repr(host)


async def test_private_files_are_private(client: Client) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in (client.home / ".ssh").iterdir()}
    assert modes == {"config": 0o600, "id_demo": 0o600, "known_hosts": 0o600}
