"""The demo's host: an SSH server on 127.0.0.1, run by the user as the user, for one key that it made itself.

It behaves as OpenSSH does where the tool can tell: a command ends when its output pipes are closed, commands get
SIGHUP when their channel goes away, and what made a session of its own lives on. It must never listen on anything
but 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import asyncssh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from pathlib import Path

    Process = asyncssh.SSHServerProcess[bytes]
    Read = Callable[[int], Awaitable[bytes]]

LOOPBACK = "127.0.0.1"
KEY_TYPE = "ssh-ed25519"
BLOCK = 65536
NOT_STARTED = 127
LAST_WORDS_S = 0.5


@dataclass(frozen=True, slots=True)
class DemoHost:
    """A running host: what a client needs to log in."""

    port: int
    host_key: str
    """The public host key, as a line of known_hosts has it."""
    user_key: bytes = field(repr=False)
    """The only private key that it lets in, in OpenSSH's format."""

    def introduce(self, home: Path, alias: str) -> None:
        """Write key, known_hosts and an `alias` for this host into `home/.ssh`; an older config is replaced.

        OpenSSH takes `~` from the account, not from HOME: use it as `ssh -F HOME/.ssh/config ALIAS`.
        """
        directory = home / ".ssh"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        key, known_hosts = directory / "id_demo", directory / "known_hosts"
        _write_private(key, self.user_key)
        _write_private(known_hosts, f"[{LOOPBACK}]:{self.port} {self.host_key}\n".encode())
        _write_private(directory / "config", self._config(alias, key, known_hosts).encode())

    def _config(self, alias: str, key: Path, known_hosts: Path) -> str:
        options = {
            "HostName": LOOPBACK,
            "Port": str(self.port),
            "User": getpass.getuser(),
            "IdentityFile": f'"{key}"',
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": f'"{known_hosts}"',
            "StrictHostKeyChecking": "yes",
        }
        return f"Host {alias}\n" + "".join(f"  {name} {value}\n" for name, value in options.items())


@asynccontextmanager
async def serve_host(home: Path, environment: Mapping[str, str]) -> AsyncIterator[DemoHost]:
    """Serve inside the context. Commands start in `home` with exactly this environment.

    On leaving it connections are closed and running commands killed; only what made a session of its own lives on.
    """
    host_key, user_key = (asyncssh.generate_private_key(KEY_TYPE) for _ in range(2))
    commands = _Commands(home, dict(environment))
    connections: set[asyncssh.SSHServerConnection] = set()
    authorized = asyncssh.import_authorized_keys(user_key.export_public_key().decode())
    server = await asyncssh.listen(
        LOOPBACK,
        0,
        server_factory=lambda: _Server(connections),
        server_host_keys=[host_key],
        authorized_client_keys=authorized,
        process_factory=commands.serve,
        sftp_factory=lambda channel: _SftpServer(channel, home),
        encoding=None,
        line_editor=False,
        agent_forwarding=False,
        gss_host=None,
    )
    try:
        public_key = host_key.export_public_key().decode().strip()
        yield DemoHost(server.get_port(), public_key, user_key.export_private_key())
    finally:
        server.close()
        await commands.end()
        for connection in tuple(connections):
            connection.abort()
        await server.wait_closed()


class _Server(asyncssh.SSHServer):
    """Lets tunnels through to this machine only, and knows its connections."""

    def __init__(self, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._connections = connections
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base class's signature
        if self._connection is not None:
            self._connections.discard(self._connection)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:  # noqa: ARG002
        return dest_host in (LOOPBACK, "localhost", "::1")


class _SftpServer(asyncssh.SFTPServer):
    """The whole file system, with relative paths taken from home."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], home: Path) -> None:
        super().__init__(channel)
        self._home = os.fsencode(home)

    def map_path(self, path: bytes) -> bytes:
        return os.path.join(self._home, path)  # noqa: PTH118 - bytes


class _Commands:
    """Runs what clients ask for, each command as the leader of its own process group."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        self._home = home
        self._environment = environment
        self._running: dict[asyncio.Task[None], asyncio.subprocess.Process] = {}

    async def serve(self, process: Process) -> None:
        """Run one command to its end. No exception may leave this: asyncssh would close the whole connection."""
        if process.command is None:
            await _refuse(process, b"this host runs commands only\n")
            return
        try:
            child = await self._start(process.command)
        except OSError as error:
            await _refuse(process, f"the command could not be started: {error.strerror}\n".encode())
            return
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._running[task] = child
        try:
            await _attend(process, child)
        finally:
            del self._running[task]

    async def end(self) -> None:
        """Kill every command that has not ended, and stop listening to what still holds its output."""
        tasks = tuple(self._running)
        for child in self._running.values():
            _signal_group(child, signal.SIGKILL)
        if tasks:
            _, holding = await asyncio.wait(tasks, timeout=LAST_WORDS_S)
            for task in holding:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self, command: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            self._environment.get("SHELL", "/bin/sh"),
            "-c",
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            cwd=self._home,
            env=self._environment,
            start_new_session=True,
        )


async def _refuse(process: Process, text: bytes) -> None:
    with contextlib.suppress(OSError, asyncssh.Error):
        process.stderr.write(text)
        await process.stderr.drain()
        process.exit(NOT_STARTED)


async def _attend(process: Process, child: asyncio.subprocess.Process) -> None:
    """Move bytes until the command has ended and closed its output; then tell the client how it ended."""
    out = cast("asyncio.StreamReader", child.stdout)
    err = cast("asyncio.StreamReader", child.stderr)
    feeder = asyncio.create_task(_feed(process, cast("asyncio.StreamWriter", child.stdin)))
    hangup = asyncio.create_task(_hang_up(process, child))
    try:
        await asyncio.gather(_pump(out.read, process.stdout), _pump(err.read, process.stderr), child.wait())
    finally:
        for task in (feeder, hangup):
            task.cancel()
        await asyncio.gather(feeder, hangup, return_exceptions=True)
    with contextlib.suppress(OSError, asyncssh.Error):
        _exit(process, child.returncode or 0)


async def _feed(process: Process, stdin: asyncio.StreamWriter) -> None:
    """Hand the client's bytes to the command; a command that does not read them is no error."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while data := await process.stdin.read(BLOCK):
            stdin.write(data)
            await stdin.drain()
    stdin.close()


async def _pump(read: Read, writer: asyncssh.SSHWriter[bytes]) -> None:
    """Hand output to the client; without a client read on, so that the command does not block."""
    while data := await read(BLOCK):
        with contextlib.suppress(OSError, asyncssh.Error):
            writer.write(data)
            await writer.drain()


async def _hang_up(process: Process, child: asyncio.subprocess.Process) -> None:
    await process.wait_closed()
    _signal_group(child, signal.SIGHUP)


def _signal_group(child: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


def _exit(process: Process, status: int) -> None:
    if status < 0:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    else:
        process.exit(status)


def _write_private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
