"""Broken ways to a host, each made with a real sshd: which check fails, and what is said and advised."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.doctor.finding import Check, Finding, Fix, Severity
from remote_dispatch.doctor.reach import CHECKS, reach
from remote_dispatch.model import Host
from tests.remote.conftest import client_home, own_server, server, server_without_sftp
from tests.remote.test_ssh_failures import agent, answering, hanging_up_first
from tests.rig.sshd import USER, Sshd, free_port, make_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["agent", "client_home", "own_server", "server", "server_without_sftp"]

ALIAS = "private-alias"
PRIVATE = ("127.0.0.1", "localhost", "private", "invalid", f"{USER}@", "id_", "client-home", "gate.example")

Finds = dict[Check, list[Finding]]


async def find(host: Host, *, timeout_s: float = 10) -> Finds:
    """Look at the whole way, prove that nothing private is said, and that a connection comes with a working shell."""
    async with AsyncExitStack() as stack:
        reached = await reach(host, stack, timeout_s=timeout_s)
        works = _of(reached.findings)[Check.SHELL][0].severity is Severity.OK
        assert (reached.connection is not None) is works
        if reached.connection is not None:
            assert (await reached.connection.run("echo in", timeout_s=10)).stdout == b"in\n"
    shown = json.dumps([asdict(finding) for finding in reached.findings])
    for word in (*PRIVATE, str(host.port or "no port")):
        assert word not in shown, (word, shown)
    assert _is_in_order(reached.findings)
    return _of(reached.findings)


def _of(findings: tuple[Finding, ...]) -> Finds:
    return {check: [finding for finding in findings if finding.check is check] for check in CHECKS}


def _is_in_order(findings: tuple[Finding, ...]) -> bool:
    """Every check once or more, in order, and all but the noise before a missing shell skipped after an error."""
    places = [CHECKS.index(finding.check) for finding in findings]
    bad = [place for place, finding in zip(places, findings, strict=True) if finding.severity is Severity.ERROR]
    rest = [finding.severity for finding in findings if bad and CHECKS.index(finding.check) > bad[0]]
    return sorted(places) == places and set(places) == set(range(len(CHECKS))) and set(rest) <= {Severity.SKIPPED}


def only_error(finds: Finds) -> Finding:
    """Return the finding that is an error; there is one."""
    (error,) = [finding for found in finds.values() for finding in found if finding.severity is Severity.ERROR]
    assert error.cure
    return error


def box(home: Path, sshd: Sshd, *, extra: str = "", knows_host: bool = True) -> Host:
    sshd.write_client_home(home, alias=ALIAS, extra=extra, knows_host=knows_host)
    return Host(name="box", host=ALIAS)


def add_host(home: Path, alias: str, *lines: str) -> None:
    with (home / ".ssh" / "config").open("a") as config:
        config.write("\n  ".join([f"Host {alias}", *lines]) + "\n")


async def test_a_host_in_order_passes_every_check(server: Sshd, client_home: Path) -> None:
    finds = await find(box(client_home, server))
    assert {finding.severity for found in finds.values() for finding in found} == {Severity.OK}
    assert finds[Check.LOGIN][0].seen == "logged in with a key from a file (ED25519)"
    assert finds[Check.SHELL][0].detail == {"shell": "bash"}


async def test_a_host_behind_a_jump_host_passes_every_check(
    own_server: Callable[..., Sshd], server: Sshd, client_home: Path
) -> None:
    own_server().write_client_home(client_home, alias="gate.example")
    finds = await find(box(client_home, server, extra="ProxyJump gate.example"))
    assert {finding.severity for found in finds.values() for finding in found} == {Severity.OK}
    assert finds[Check.ENTRY][0].seen == "reached through a jump host"
    assert finds[Check.PORT][0].seen == "an SSH server answers, behind a jump host"


@pytest.mark.parametrize(
    ("entry", "severity", "words"),
    [
        ({"server": "http://private:4096"}, Severity.NOTE, "OpenCode server"),
        ({"host": "me@private", "os": "windows"}, Severity.ERROR, "Windows"),
        ({"host": "me@private:0"}, Severity.ERROR, "port of the address"),
        ({"host": "loop"}, Severity.ERROR, "the jump hosts in ~/.ssh/config form a loop"),
    ],
)
async def test_an_entry_that_leads_to_no_ssh_login_is_said_so(
    entry: dict[str, str], severity: Severity, words: str, client_home: Path
) -> None:
    (client_home / ".ssh").mkdir()
    add_host(client_home, "loop", "ProxyJump way-there")
    add_host(client_home, "way-there", "ProxyJump loop")
    finds = await find(Host.model_validate({"name": "box", **entry}))
    assert finds[Check.ENTRY][0].severity is severity
    assert words in finds[Check.ENTRY][0].seen
    assert finds[Check.NAME][0].severity is Severity.SKIPPED


async def test_a_name_that_does_not_resolve(client_home: Path) -> None:
    error = only_error(await find(Host(name="box", host="me@no-such-host.invalid")))
    assert error.check is Check.NAME


async def test_a_jump_host_whose_name_does_not_resolve(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server, extra="ProxyJump no-such-host.invalid")
    error = only_error(await find(host))
    assert error.check is Check.NAME
    assert "the jump host's address" in error.seen


async def test_a_port_where_nothing_listens(client_home: Path) -> None:
    error = only_error(await find(Host(name="box", host="me@127.0.0.1", port=free_port())))
    assert error.check is Check.PORT
    assert error.seen == "nothing listens on its SSH port"
    assert error.command == "remote-dispatch hosts set box port PORT"


@pytest.mark.thorough
async def test_a_port_that_is_open_and_silent(client_home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = Host(name="box", host="me@127.0.0.1", port=silent.getsockname()[1])
        error = only_error(await find(host, timeout_s=0.5))
    assert error.check is Check.PORT
    assert "nothing speaks there" in error.seen


async def test_a_silent_port_is_asked_again_while_it_is_still_waited_for(client_home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        serving = asyncio.create_task(asyncio.to_thread(_is_first_open_when_second_comes, listening))
        host = Host(name="box", host="me@127.0.0.1", port=listening.getsockname()[1])
        error = only_error(await find(host, timeout_s=3.1))
        assert await serving
    assert error.check is Check.PORT
    assert "a web server answers" in error.seen


def _is_first_open_when_second_comes(listening: socket.socket) -> bool:
    """The first one, which is left without an answer, introduces itself and then waits; the second gets an answer."""
    with listening.accept()[0] as first, listening.accept()[0] as second:
        assert first.recv(1000).startswith(b"SSH-2.0-")
        second.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        first.setblocking(False)
        try:
            return bool(first.recv(1))
        except BlockingIOError:
            first.setblocking(True)
            return not first.recv(1)  # and stays so until its time is over


async def test_a_host_that_does_not_answer_at_all(client_home: Path) -> None:
    # A queue that is full drops what knocks, as a firewall does.
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for link in (first, second):
            link.setblocking(False)
            link.connect_ex(full.getsockname())
        error = only_error(await find(Host(name="box", host="me@127.0.0.1", port=full.getsockname()[1]), timeout_s=0.5))
    assert (error.check, error.seen) == (Check.PORT, "it does not answer")


@pytest.mark.parametrize(
    ("text", "words"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server"), (b"220 mail\r\n", "something else")]
)
async def test_a_port_where_something_else_speaks(text: bytes, words: str, client_home: Path) -> None:
    with answering(text) as port:
        error = only_error(await find(Host(name="box", host="me@127.0.0.1", port=port), timeout_s=0.5))
    assert error.check is Check.PORT
    assert error.seen.startswith(words)


async def test_a_server_that_hangs_up_at_once(client_home: Path) -> None:
    with answering(b"") as port:
        error = only_error(await find(Host(name="box", host="me@127.0.0.1", port=port), timeout_s=0.5))
    assert (error.check, error.seen) == (Check.PORT, "it hangs up before the login")


async def test_a_server_that_hangs_up_at_first_is_a_warning(server: Sshd, client_home: Path) -> None:
    with hanging_up_first(2, server.port) as port:
        host = box(client_home, server)
        for name in ("config", "known_hosts"):
            file = client_home / ".ssh" / name
            file.write_text(file.read_text().replace(str(server.port), str(port)))
        finds = await find(host)
    assert finds[Check.PORT][0].severity is Severity.WARNING
    assert "hung up 2 times" in finds[Check.PORT][0].seen
    assert finds[Check.SFTP][0].severity is Severity.OK


async def test_a_jump_host_that_is_down(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server, extra="ProxyJump gate.example")
    add_host(client_home, "gate.example", "HostName 127.0.0.1", f"Port {free_port()}")
    error = only_error(await find(host))
    assert (error.check, error.seen) == (Check.PORT, "nothing listens on the jump host's SSH port")


@pytest.mark.parametrize(
    ("target", "check", "words"),
    [
        ("127.0.0.1", Check.PORT, "nothing listens on its SSH port, says the jump host"),
        ("no-such-host.invalid", Check.NAME, "the jump host cannot resolve its address"),
    ],
)
async def test_a_host_that_its_jump_host_cannot_reach(
    server: Sshd, client_home: Path, target: str, check: Check, words: str
) -> None:
    server.write_client_home(client_home, alias="gate.example")
    add_host(client_home, ALIAS, f"HostName {target}", f"Port {free_port()}", "ProxyJump gate.example")
    error = only_error(await find(Host(name="box", host=ALIAS)))
    assert (error.check, error.seen) == (check, words)


async def test_a_jump_host_that_forwards_nothing(
    own_server: Callable[..., Sshd], server: Sshd, client_home: Path
) -> None:
    own_server(extra=("AllowTcpForwarding no",)).write_client_home(client_home, alias="gate.example")
    error = only_error(await find(box(client_home, server, extra="ProxyJump gate.example")))
    assert error.check is Check.PORT
    assert "the jump host forbids" in error.seen
    assert "AllowTcpForwarding yes" in (error.cure or "")


async def test_a_proxy_command_that_fails(server: Sshd, client_home: Path) -> None:
    error = only_error(await find(box(client_home, server, extra="ProxyCommand exit 1"), timeout_s=0.5))
    assert error.check is Check.PORT
    assert "ProxyCommand" in error.seen


async def test_an_unknown_host_key_can_be_fixed(server: Sshd, client_home: Path) -> None:
    error = only_error(await find(box(client_home, server, knows_host=False)))
    assert (error.check, error.fix) == (Check.HOST_KEY, Fix.ACCEPT_HOST_KEY)
    assert error.command == "remote-dispatch doctor box --fix"


async def test_an_unknown_key_of_a_jump_host_can_be_fixed(
    own_server: Callable[..., Sshd], server: Sshd, client_home: Path
) -> None:
    own_server().write_client_home(client_home, alias="gate.example", knows_host=False)
    error = only_error(await find(box(client_home, server, extra="ProxyJump gate.example")))
    assert (error.check, error.fix) == (Check.HOST_KEY, Fix.ACCEPT_HOST_KEY)
    assert error.seen == "the jump host's host key is unknown"


@pytest.mark.parametrize(("marker", "words"), [("", "not the one that is known"), ("@revoked ", "revoked")])
async def test_a_changed_or_revoked_host_key_has_no_fix(
    server: Sshd, client_home: Path, tmp_path: Path, marker: str, words: str
) -> None:
    host = box(client_home, server)
    known = client_home / ".ssh" / "known_hosts"
    name, *key = known.read_text().split()
    if not marker:
        key = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()[:2]
    known.write_text(f"{marker}{name} {' '.join(key)}\n")
    error = only_error(await find(host))
    assert (error.check, error.fix) == (Check.HOST_KEY, None)
    assert words in error.seen
    assert (error.cure or "").startswith("stop")


async def test_a_key_of_another_type_than_the_known_one_is_a_changed_key(
    server: Sshd, client_home: Path, tmp_path: Path
) -> None:
    host = box(client_home, server)
    known = client_home / ".ssh" / "known_hosts"
    other = make_key(tmp_path / "other", kind="ecdsa").with_suffix(".pub").read_text()
    known.write_text(f"{known.read_text().split()[0]} {other}")
    error = only_error(await find(host))
    assert "not the one that is known" in error.seen


async def test_a_key_known_for_another_port_of_the_machine_leaves_the_key_unknown(
    server: Sshd, client_home: Path, tmp_path: Path
) -> None:
    host = box(client_home, server)
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    (client_home / ".ssh" / "known_hosts").write_text(f"127.0.0.1 {other}")
    assert only_error(await find(host)).fix is Fix.ACCEPT_HOST_KEY


@pytest.mark.parametrize(("validity", "is_good"), [("+1h", True), ("20200101:20200102", False)])
async def test_a_certified_host_key(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path, validity: str, is_good: bool
) -> None:
    authority = make_key(tmp_path / "authority")
    certified = make_key(tmp_path / "host")
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "rig", "-h", "-V", validity, f"{certified}.pub"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=20)
    sshd = own_server(extra=(f"HostKey {certified}", f"HostCertificate {certified}-cert.pub"))
    host = box(client_home, sshd)
    public = authority.with_suffix(".pub").read_text()
    (client_home / ".ssh" / "known_hosts").write_text(f"@cert-authority * {public}")
    finds = await find(host)
    if is_good:
        assert finds[Check.HOST_KEY][0].seen == "its host key is vouched for by an authority that you trust"
    else:
        assert only_error(finds).check is Check.HOST_KEY
        assert "does not vouch for it" in only_error(finds).seen
        assert only_error(finds).fix is None


@pytest.mark.parametrize(
    ("state", "words", "command"),
    [
        ("missing", "no key file, and there is no agent", "ssh-keygen -t ed25519"),
        ("garbage", "1 key file could not be read", "ssh-keygen -t ed25519"),
        ("encrypted", "1 key file could not be used", 'eval "$(ssh-agent -s)" && ssh-add'),
        ("another", "it accepted none of 1 key (1 file)", None),
    ],
)
async def test_a_key_that_does_not_get_in(
    server: Sshd, client_home: Path, state: str, words: str, command: str | None
) -> None:
    host = box(client_home, server)
    key = client_home / ".ssh" / f"id_{ALIAS}"
    key.unlink()
    if state == "garbage":
        key.write_text("no key at all")
    elif state != "missing":
        make_key(key, passphrase="a passphrase" if state == "encrypted" else "")
    error = only_error(await find(host))
    assert error.check is Check.LOGIN
    assert words in error.seen
    assert error.command == command


async def test_an_agent_that_is_gone_is_named(server: Sshd, client_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = box(client_home, server)
    (client_home / ".ssh" / f"id_{ALIAS}").unlink()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(client_home / "no-such-socket"))
    assert "SSH_AUTH_SOCK points nowhere" in only_error(await find(host)).seen


async def test_an_agent_lets_in_and_is_named(
    server: Sshd, client_home: Path, agent: Callable[..., None], tmp_path: Path
) -> None:
    host = box(client_home, server)
    key = client_home / ".ssh" / f"id_{ALIAS}"
    shutil.copy(server.client_key.with_suffix(".pub"), key.with_suffix(".pub"))
    argv = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "a passphrase", "-f", str(key)]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=10)
    agent(make_key(tmp_path / "another"))
    error = only_error(await find(host))
    assert "not in the agent" in error.seen
    assert error.command == "ssh-add"
    agent(server.client_key)
    assert (await find(host))[Check.LOGIN][0].seen == "logged in with a key of the agent (ED25519)"


async def test_an_agent_with_more_keys_than_are_offered(
    server: Sshd, client_home: Path, agent: Callable[..., None], tmp_path: Path
) -> None:
    host = box(client_home, server)
    (client_home / ".ssh" / f"id_{ALIAS}").unlink()
    config = client_home / ".ssh" / "config"
    config.write_text(config.read_text().replace("IdentitiesOnly yes", "IdentitiesOnly no"))
    agent(*(make_key(tmp_path / f"other-{number}") for number in range(7)))
    error = only_error(await find(host))
    assert "none of 5 keys (5 of the agent); 2 more were not offered" in error.seen
    assert "IdentitiesOnly yes" in (error.cure or "")


async def test_a_host_that_hangs_up_after_too_many_keys(
    own_server: Callable[..., Sshd], client_home: Path, agent: Callable[..., None], tmp_path: Path
) -> None:
    host = box(client_home, own_server(extra=("MaxAuthTries 2",)))
    (client_home / ".ssh" / f"id_{ALIAS}").unlink()
    config = client_home / ".ssh" / "config"
    config.write_text(config.read_text().replace("IdentitiesOnly yes", "IdentitiesOnly no"))
    agent(*(make_key(tmp_path / f"other-{number}") for number in range(4)))
    error = only_error(await find(host))
    assert error.check is Check.LOGIN
    assert "too many" in error.seen


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("PubkeyAuthentication no", "PasswordAuthentication yes"), "it takes no keys"),
        (("AuthenticationMethods publickey,password", "PasswordAuthentication yes"), "wanted something more"),
    ],
)
async def test_a_host_that_wants_a_password(
    own_server: Callable[..., Sshd], client_home: Path, lines: tuple[str, ...], words: str
) -> None:
    error = only_error(await find(box(client_home, own_server(extra=lines))))
    assert error.check is Check.LOGIN
    assert words in error.seen


async def test_a_key_file_that_others_can_read_is_a_warning(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server)
    (client_home / ".ssh" / f"id_{ALIAS}").chmod(0o644)
    good, warning = (await find(host))[Check.LOGIN]
    assert good.severity is Severity.OK
    assert warning.severity is Severity.WARNING
    assert warning.command == "chmod -R go-rwx ~/.ssh"


async def test_start_up_files_that_print_are_said_to_spoil_sftp(
    own_server: Callable[..., Sshd], client_home: Path
) -> None:
    sshd = own_server(sftp="external")
    (sshd.remote_home / ".bashrc").write_text("echo welcome to 10.1.2.3")
    finds = await find(box(client_home, sshd))
    assert finds[Check.SHELL_NOISE][0].severity is Severity.WARNING
    assert "20 bytes" in finds[Check.SHELL_NOISE][0].seen
    assert "~/.bashrc" in (finds[Check.SHELL_NOISE][0].cure or "")
    assert finds[Check.SHELL][0].severity is Severity.OK
    assert finds[Check.SFTP][0].severity is Severity.WARNING
    assert "spoils SFTP" in finds[Check.SFTP][0].seen


async def test_start_up_files_that_print_on_stderr_are_a_note(
    own_server: Callable[..., Sshd], client_home: Path
) -> None:
    sshd = own_server()
    (sshd.remote_home / ".bashrc").write_text("echo oops >&2")
    finds = await find(box(client_home, sshd))
    assert finds[Check.SHELL_NOISE][0].severity is Severity.NOTE
    assert finds[Check.SFTP][0].severity is Severity.OK


@pytest.mark.parametrize("shell", ["fish", "tcsh", "zsh", "busybox sh"])
async def test_every_login_shell_is_fine(own_server: Callable[..., Sshd], client_home: Path, shell: str) -> None:
    program = shutil.which(shell.split(maxsplit=1)[0])
    if program is None:
        pytest.skip(f"{shell} is not installed")
    sshd = own_server(
        extra=(f'ForceCommand exec {shell} -c "$SSH_ORIGINAL_COMMAND"',),
        environment={"SHELL": program},
        sftp="internal",
    )
    finds = await find(box(client_home, sshd))
    assert finds[Check.SHELL][0].severity is Severity.OK
    assert finds[Check.SHELL][0].detail == {"shell": shell.split(maxsplit=1)[0]}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("exec /usr/sbin/nologin", "its login shell is `nologin`"),
        ("internal-sftp", "it allows SFTP only"),
        ("echo backed up 3 files to 10.1.2.3", "starts no command: backed up 3 files to <address>"),
        ("exit 3", "starts no command, and says nothing"),
        ("yes", "prints without end"),
    ],
)
async def test_an_account_that_starts_no_command(
    own_server: Callable[..., Sshd], client_home: Path, command: str, words: str
) -> None:
    error = only_error(await find(box(client_home, own_server(extra=(f"ForceCommand {command}",)))))
    assert error.check is Check.SHELL
    assert words in error.seen


@pytest.mark.thorough
async def test_start_up_files_that_wait_for_something(own_server: Callable[..., Sshd], client_home: Path) -> None:
    sshd = own_server(sftp="internal")
    (sshd.remote_home / ".bashrc").write_text("exec sleep 60")
    error = only_error(await find(box(client_home, sshd), timeout_s=2))
    assert error.check is Check.SHELL
    assert "waits for something" in error.seen


async def test_a_host_without_sftp_is_a_note(server_without_sftp: Sshd, client_home: Path) -> None:
    finds = await find(box(client_home, server_without_sftp))
    assert finds[Check.SFTP][0].severity is Severity.NOTE
    assert "Subsystem sftp" in (finds[Check.SFTP][0].cure or "")


async def test_one_session_at_a_time_is_enough(own_server: Callable[..., Sshd], client_home: Path) -> None:
    finds = await find(box(client_home, own_server(extra=("MaxSessions 1",))))
    assert {finding.severity for found in finds.values() for finding in found} == {Severity.OK}
