"""Everything that can go wrong on the way in: what is said, and that it never holds an address."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import (
    AuthenticationError,
    ConnectionLostError,
    HostKeyError,
    HostUnreachableError,
    LoginError,
    RemoteDispatchError,
)
from remote_dispatch.model import Host
from remote_dispatch.remote.ssh import connect
from tests.rig.sshd import USER, Sshd, free_port, make_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from remote_dispatch.remote.ssh_connection import SshConnection


ALIAS = "private-alias"


@pytest.fixture(autouse=True)
def no_server_address(client_home: Path) -> Path:
    """No test here may meet another home or agent."""
    return client_home


def assert_no_address(error: BaseException, *private: object) -> None:
    """Grep the error, its repr and its hint for what is private (peer.md P30: names only, everywhere)."""
    shown = f"{error} {error!r} {getattr(error, 'hint', '')}"
    for word in (
        "127.0.0.1",
        "localhost",
        "::1",
        f"{USER}@",
        "/client-home",
        "/.ssh/id_",
        "client_key",
        *map(str, private),
    ):
        assert word not in shown, shown


async def failure(host: Host, *, timeout_s: float = 10) -> RemoteDispatchError:
    """Return the error that connecting raises."""
    with pytest.raises(RemoteDispatchError) as caught:
        async with connect(host, timeout_s=timeout_s):
            pass
    assert str(caught.value).startswith(f"{host.name}: ")
    assert_no_address(caught.value, host.port or "no port", host.host)
    return caught.value


def box(home: Path, server: Sshd, *, extra: str = "", knows_host: bool = True) -> Host:
    """Return an entry for this server, whose address is an alias of ~/.ssh/config."""
    server.write_client_home(home, alias=ALIAS, extra=extra, knows_host=knows_host)
    return Host(name="box", host=ALIAS)


async def test_an_alias_with_its_own_key_gets_in(server: Sshd, client_home: Path) -> None:
    async with connect(box(client_home, server)) as connection:
        assert connection.name == "box"
        assert (await connection.run("echo in", timeout_s=10)).stdout == b"in\n"


async def test_an_address_and_a_default_key_get_in_without_any_configuration(server: Sshd, client_home: Path) -> None:
    server.write_client_home(client_home, alias="ed25519")
    (client_home / ".ssh" / "config").unlink()
    async with connect(server.host()) as connection:
        assert (await connection.run("echo in", timeout_s=10)).stdout == b"in\n"


async def test_without_the_ssh_program_the_configuration_still_holds(
    server: Sshd, client_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = box(client_home, server)
    monkeypatch.setenv("PATH", str(client_home))
    async with connect(host) as connection:
        assert (await connection.run("echo in", timeout_s=10)).stdout == b"in\n"


async def test_an_unknown_host_key_is_refused(server: Sshd, client_home: Path) -> None:
    error = await failure(box(client_home, server, knows_host=False))
    assert isinstance(error, HostKeyError)
    assert error.reason == "unknown"
    assert "`remote-dispatch doctor box --fix`" in (error.hint or "")


async def test_without_known_hosts_files_every_host_is_unknown(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server)
    (client_home / ".ssh" / "known_hosts").unlink()
    assert getattr(await failure(host), "reason", None) == "unknown"


@pytest.mark.parametrize("has_ssh", [True, False])
async def test_known_hosts_none_does_not_switch_the_check_off(
    server: Sshd, client_home: Path, monkeypatch: pytest.MonkeyPatch, has_ssh: bool
) -> None:
    host = box(client_home, server, extra="UserKnownHostsFile none\nStrictHostKeyChecking no")
    if not has_ssh:
        monkeypatch.setenv("PATH", str(client_home))
    assert getattr(await failure(host), "reason", None) == "unknown"


async def test_a_changed_host_key_stops_everything(server: Sshd, client_home: Path, tmp_path: Path) -> None:
    host = box(client_home, server)
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    (client_home / ".ssh" / "known_hosts").write_text(f"[{server.listen}]:{server.port} {other}")
    error = await failure(host)
    assert getattr(error, "reason", None) == "changed"
    assert (error.hint or "").startswith("stop")


async def test_a_revoked_host_key_is_said_to_be_revoked(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server)
    known = client_home / ".ssh" / "known_hosts"
    known.write_text(f"@revoked {known.read_text()}")
    assert getattr(await failure(host), "reason", None) == "revoked"


async def test_a_key_revoked_for_the_port_is_not_trusted_by_a_line_without_it(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server)
    known = client_home / ".ssh" / "known_hosts"
    line = known.read_text()
    known.write_text(f"@revoked {line}{server.listen} {line.partition(' ')[2]}")
    assert getattr(await failure(host), "reason", None) == "revoked"


async def test_a_host_key_may_be_known_under_an_alias(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server, extra="HostKeyAlias the-box")
    known = client_home / ".ssh" / "known_hosts"
    known.write_text(f"the-box {known.read_text().partition(' ')[2]}")
    async with connect(host) as connection:
        assert (await connection.run("true", timeout_s=10)).exit_status == 0


async def test_hashed_known_hosts_are_read(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server)
    known = client_home / ".ssh" / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True, timeout=10)
    assert server.listen not in known.read_text()
    async with connect(host) as connection:
        assert (await connection.run("true", timeout_s=10)).exit_status == 0


async def test_a_key_that_the_host_does_not_know_is_refused(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server)
    key = client_home / ".ssh" / f"id_{ALIAS}"
    key.unlink()
    make_key(key)
    error = await failure(host)
    assert isinstance(error, AuthenticationError)
    assert "ssh-add" in (error.hint or "")


@pytest.mark.parametrize("state", ["missing", "encrypted", "garbage"])
async def test_a_key_that_cannot_be_used_is_never_asked_about(server: Sshd, client_home: Path, state: str) -> None:
    host = box(client_home, server)
    key = client_home / ".ssh" / f"id_{ALIAS}"
    key.unlink()
    if state == "encrypted":
        make_key(key, passphrase="a passphrase")
    elif state == "garbage":
        key.write_text("no key at all")
    assert isinstance(await failure(host), AuthenticationError)


async def test_the_configured_key_comes_before_an_agent_full_of_others(
    server: Sshd, client_home: Path, agent: Callable[..., None], tmp_path: Path
) -> None:
    host = box(client_home, server)
    config = client_home / ".ssh" / "config"
    config.write_text(config.read_text().replace("IdentitiesOnly yes", "IdentitiesOnly no"))
    agent(*(make_key(tmp_path / f"other-{number}") for number in range(8)))
    async with connect(host) as connection:
        assert (await connection.run("true", timeout_s=10)).exit_status == 0


async def test_an_encrypted_key_that_the_agent_holds_gets_in_before_others(
    own_server: Callable[..., Sshd], client_home: Path, agent: Callable[..., None], tmp_path: Path
) -> None:
    server = own_server()
    host = box(client_home, server)
    agent(*(make_key(tmp_path / f"other-{number}") for number in range(8)), server.client_key)
    key = client_home / ".ssh" / f"id_{ALIAS}"
    shutil.copy(server.client_key.with_suffix(".pub"), key.with_suffix(".pub"))
    argv = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "a passphrase", "-f", str(key)]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=10)
    async with connect(host) as connection:
        assert (await connection.run("true", timeout_s=10)).exit_status == 0


async def test_an_agent_that_is_gone_is_no_error(
    server: Sshd, client_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(client_home / "no-such-socket"))
    async with connect(box(client_home, server)) as connection:
        assert (await connection.run("true", timeout_s=10)).exit_status == 0


async def test_nothing_listening_is_unreachable_at_once() -> None:
    began = time.monotonic()
    error = await failure(Host(name="box", host="nobody@127.0.0.1", port=free_port()))
    assert isinstance(error, HostUnreachableError)
    assert "nothing is listening" in error.message
    assert error.retryable
    assert time.monotonic() - began < 3


async def test_a_name_that_does_not_resolve_is_said_so() -> None:
    error = await failure(Host(name="box", host="me@no-such-host.invalid"))
    assert isinstance(error, HostUnreachableError)
    assert "does not resolve" in error.message


async def test_a_silent_server_is_given_up_after_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        error = await failure(Host(name="box", host="nobody@127.0.0.1", port=port), timeout_s=0.5)
    assert isinstance(error, HostUnreachableError)
    assert 0.4 < time.monotonic() - began < 3


async def test_a_server_that_speaks_something_else_is_no_ssh_server() -> None:
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        error = await failure(Host(name="box", host="nobody@127.0.0.1", port=port), timeout_s=1)
    assert isinstance(error, HostUnreachableError | LoginError)


async def test_a_server_that_hangs_up_at_first_is_tried_again(server: Sshd, client_home: Path) -> None:
    with hanging_up_first(2, server.port) as port:
        server.write_client_home(client_home)
        config, known = client_home / ".ssh" / "config", client_home / ".ssh" / "known_hosts"
        config.write_text(config.read_text().replace(str(server.port), str(port)))
        known.write_text(known.read_text().replace(str(server.port), str(port)))
        async with connect(Host(name="box", host="box")) as connection:
            assert (await connection.run("true", timeout_s=10)).exit_status == 0


async def test_a_jump_host_is_passed_with_a_key_and_a_host_key_of_its_own(
    own_server: Callable[..., Sshd], client_home: Path
) -> None:
    gate, inner = own_server(), own_server()
    gate.write_client_home(client_home, alias="gate")
    inner.write_client_home(client_home, alias="inner", extra="ProxyJump gate")
    async with connect(Host(name="box", host="inner")) as connection:
        done = await connection.run('echo "$HOME"', timeout_s=10)
    assert done.stdout.decode().strip() == str(inner.remote_home)
    assert "direct-tcpip" in gate.log.read_text() or "Accepted publickey" in gate.log.read_text()


async def test_an_unknown_jump_host_is_refused_like_any_host(
    own_server: Callable[..., Sshd], client_home: Path
) -> None:
    gate, inner = own_server(), own_server()
    gate.write_client_home(client_home, alias="gate", knows_host=False)
    inner.write_client_home(client_home, alias="inner", extra="ProxyJump gate")
    with pytest.raises(HostKeyError, match=r"box \(jump host\): the host key is unknown") as caught:
        async with connect(Host(name="box", host="inner")):
            pass
    assert_no_address(caught.value, gate.port, inner.port, "gate", "inner")


async def test_a_jump_host_that_cannot_reach_the_host_says_so(
    own_server: Callable[..., Sshd], client_home: Path
) -> None:
    gate = own_server()
    gate.write_client_home(client_home, alias="gate")
    with (client_home / ".ssh" / "config").open("a") as config:
        config.write(f"Host inner\n  HostName 127.0.0.1\n  Port {free_port()}\n  ProxyJump gate\n")
    error = await failure(Host(name="box", host="inner"))
    assert isinstance(error, HostUnreachableError)
    assert "jump host" in error.message


@pytest.mark.parametrize("command", ["bash", "2>/dev/null bash", "sh -c 'echo talk >&2; exec bash $*' sh"])
async def test_a_proxy_command_carries_the_connection(server: Sshd, client_home: Path, command: str) -> None:
    relay = client_home / "relay"
    relay.write_text('exec 3<>"/dev/tcp/$1/$2"; cat <&3 & cat >&3\n')
    host = box(client_home, server, extra=f"ProxyCommand {command} {relay} %h %p")
    async with connect(host) as connection:
        assert (await connection.run("echo in", timeout_s=10)).stdout == b"in\n"


async def test_a_proxy_command_that_fails_is_an_unreachable_host(server: Sshd, client_home: Path) -> None:
    error = await failure(box(client_home, server, extra="ProxyCommand exit 1"))
    assert isinstance(error, HostUnreachableError)


@pytest.mark.parametrize("work", ["run", "open", "upload", "download"])
async def test_a_connection_that_breaks_is_lost_whatever_it_does(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path, work: str
) -> None:
    server = own_server()
    async with connect(box(client_home, server)) as connection:
        doing = asyncio.create_task(busy(connection, work, tmp_path))
        async with asyncio.timeout(10):
            while not (tmp_path / "busy").exists():
                await asyncio.sleep(0.01)
        server.drop_connections()
        with pytest.raises(ConnectionLostError, match="box: the connection was lost") as caught:
            await asyncio.wait_for(doing, 10)
        assert_no_address(caught.value, server.port)
        with pytest.raises(ConnectionLostError):
            await connection.run("true", timeout_s=5)
        with pytest.raises(ConnectionLostError):
            await connection.upload(PurePosixPath(tmp_path), {"x": b""}, timeout_s=5)


async def busy(connection: SshConnection, work: str, place: Path) -> None:
    """Do something endless, and make `busy` once it is under way."""
    if work == "run":
        await connection.run(': >"$1/busy"; while sleep 0.1; do echo tick; done', str(place), timeout_s=30)
    elif work == "open":
        async with connection.open(': >"$1/busy"; while sleep 0.1; do echo tick; done', str(place)) as channel:
            await channel.wait()
    elif work == "upload":
        (place / "busy").touch()
        while True:
            await connection.upload(PurePosixPath(place / "up"), {"x": b"x" * 30_000_000}, timeout_s=30)
    else:
        (place / "source").write_bytes(b"x" * 30_000_000)
        (place / "busy").touch()
        while True:
            source = PurePosixPath(place / "source")
            await connection.download(source, place / "down", limit_bytes=30_000_000, timeout_s=30)


async def test_logs_hold_no_address(server: Sshd, client_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with connect(box(client_home, server)) as connection:
        await connection.run("true", timeout_s=10)
        logging.getLogger("asyncssh").warning("lost %s port %d", server.listen, server.port)
    assert server.listen not in caplog.text
    assert "lost box" in caplog.text


@contextlib.contextmanager
def answering(text: bytes) -> Iterator[int]:
    """A server that says one thing to everybody and hangs up."""
    with serving(lambda link: link.sendall(text)) as port:
        yield port


@contextlib.contextmanager
def hanging_up_first(times: int, port_behind: int) -> Iterator[int]:
    """A server that hangs up a few times, as sshd does over MaxStartups, and then is a relay to the real one."""
    left = [times]

    def serve(link: socket.socket) -> None:
        if left[0] > 0:
            left[0] -= 1
            return
        with socket.create_connection(("127.0.0.1", port_behind)) as behind:
            back = threading.Thread(target=pump, args=(behind, link), daemon=True)
            back.start()
            pump(link, behind)
            back.join(5)

    with serving(serve) as port:
        yield port


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                with link, contextlib.suppress(OSError):
                    serve(link)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield int(listener.getsockname()[1])
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@pytest.fixture
def agent(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A real ssh-agent; call with the key files to load."""
    socket_path = tmp_path_factory.mktemp("agent") / "s"
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(socket_path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )

    def load(*keys: Path) -> None:
        end = time.monotonic() + 10
        while not socket_path.exists() and time.monotonic() < end:
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket_path))
        argv = ["ssh-add", "-q", *map(str, keys)]
        subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=10)

    yield load
    process.terminate()
    process.wait(timeout=10)


def test_importing_the_room_imports_no_asyncssh() -> None:
    code = "import sys, remote_dispatch.remote, remote_dispatch.remote.local; sys.exit('asyncssh' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, stdin=subprocess.DEVNULL, timeout=20).returncode == 0
    )
