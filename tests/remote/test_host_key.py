"""Accepting the key of an unknown host: shown first, written as OpenSSH would, never a key that changed."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import ConfigurationError, HostKeyError, HostUnreachableError
from remote_dispatch.model import Host
from remote_dispatch.remote.host_key import OfferedKey, accept_host_key, offered_key
from remote_dispatch.remote.ssh import connect
from tests.rig.sshd import Sshd, free_port, make_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALIAS = "private-alias"


def box(home: Path, server: Sshd, *, extra: str = "") -> Host:
    server.write_client_home(home, alias=ALIAS, extra=extra, knows_host=False)
    return Host(name="box", host=ALIAS)


def known(home: Path) -> Path:
    return home / ".ssh" / "known_hosts"


def fingerprint(server: Sshd) -> str:
    """Return what the owner of the host would read out."""
    argv = ["ssh-keygen", "-l", "-f", f"{server.host_key}.pub"]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=10).stdout.split()[1]


def real_ssh(home: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    argv = ["ssh", "-F", str(home / ".ssh" / "config"), "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    # OpenSSH takes the home of the user database, whatever HOME says.
    argv += ["-o", f"UserKnownHostsFile={known(home)}", *options, ALIAS, "echo in"]
    return subprocess.run(argv, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=20)


async def accepted(host: Host) -> list[OfferedKey]:
    """Accept every key that is offered, one after the other, and return them."""
    keys: list[OfferedKey] = []
    while (key := await offered_key(host)) is not None:
        keys.append(key)
        await accept_host_key(host, key)
        assert len(keys) < 5
    return keys


async def assert_gets_in(host: Host) -> None:
    async with connect(host) as connection:
        assert (await connection.run("echo in", timeout_s=10)).stdout == b"in\n"


def logins(server: Sshd) -> int:
    return server.log.read_text().count("Accepted ")


@pytest.mark.parametrize("hashing", ["yes", "no"])
async def test_an_accepted_key_lets_us_and_the_real_ssh_in(server: Sshd, client_home: Path, hashing: str) -> None:
    host = box(client_home, server, extra=f"HashKnownHosts {hashing}\nIdentityFile {client_home}/.ssh/id_{ALIAS}")
    (key,) = await accepted(host)
    assert (key.name, key.kind, key.fingerprint) == ("box", "ED25519", fingerprint(server))
    assert known(client_home).read_text().startswith("|1|" if hashing == "yes" else f"[127.0.0.1]:{server.port} ")
    await assert_gets_in(host)
    done = real_ssh(client_home)
    assert done.stdout == b"in\n", done.stderr


async def test_both_keys_behind_a_jump_host_are_accepted_one_after_the_other(
    own_server: Callable[..., Sshd], client_home: Path
) -> None:
    gate, inner = own_server(), own_server()
    gate.write_client_home(client_home, alias="gate", knows_host=False)
    host = box(client_home, inner, extra="ProxyJump gate")
    first = await offered_key(host)
    assert first is not None
    assert (first.name, first.fingerprint) == ("box (jump host)", fingerprint(gate))
    assert (logins(gate), logins(inner)) == (0, 0)
    await accept_host_key(host, first)
    second = await offered_key(host)
    assert second is not None
    assert (second.name, second.fingerprint) == ("box", fingerprint(inner))
    assert logins(gate) > 0
    assert logins(inner) == 0
    await accept_host_key(host, second)
    assert await offered_key(host) is None
    await assert_gets_in(host)
    text = (client_home / ".ssh" / "config").read_text().replace("~", str(client_home))
    relay = f"ssh -F {client_home}/.ssh/config -o UserKnownHostsFile={known(client_home)} -W %h:%p gate"
    (client_home / ".ssh" / "config").write_text(text)
    done = real_ssh(client_home, "-o", f"ProxyCommand={relay}", "-o", "ProxyJump=none")
    assert done.stdout == b"in\n", done.stderr


async def test_an_alias_for_the_key_is_honoured(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server, extra=f"HostKeyAlias the-box\nIdentityFile {client_home}/.ssh/id_{ALIAS}")
    await accepted(host)
    assert known(client_home).read_text().split()[0] == "the-box"
    await assert_gets_in(host)
    assert real_ssh(client_home).stdout == b"in\n"


async def test_a_host_whose_certificate_nobody_vouches_for_is_known_by_its_bare_key(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path
) -> None:
    authority, certified = make_key(tmp_path / "authority"), make_key(tmp_path / "host")
    argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", "rig", "-h", f"{certified}.pub"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=20)
    server = own_server(extra=(f"HostKey {certified}", f"HostCertificate {certified}-cert.pub"))
    host = box(client_home, server)
    assert len(await accepted(host)) == 1
    await assert_gets_in(host)


async def test_the_file_is_made_for_the_owner_alone(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server)
    known(client_home).unlink()
    old = os.umask(0)
    try:
        await accepted(host)
    finally:
        os.umask(old)
    assert stat.S_IMODE(known(client_home).stat().st_mode) == 0o600


async def test_what_stood_in_the_file_stays_byte_for_byte(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server)
    before = b"# mine\r\nnot a line\n@odd marker\nother.example ssh-ed25519 AAAA\xff"
    known(client_home).write_bytes(before)
    known(client_home).chmod(0o640)
    await accepted(host)
    after = known(client_home).read_bytes()
    assert after.startswith(before + b"\n")
    assert after.count(b"\n") == before.count(b"\n") + 2
    assert after.endswith(b"\n")
    assert stat.S_IMODE(known(client_home).stat().st_mode) == 0o640
    await assert_gets_in(host)


async def test_a_name_in_capitals_is_found_again(server: Sshd, client_home: Path) -> None:
    host = box(client_home, server)
    config = client_home / ".ssh" / "config"
    config.write_text(config.read_text().replace("HostName 127.0.0.1", "HostName LocalHost"))
    await accepted(host)
    assert known(client_home).read_text().startswith("[localhost]:")
    await assert_gets_in(host)


async def test_a_known_key_is_not_offered(server: Sshd, client_home: Path) -> None:
    server.write_client_home(client_home)
    assert await offered_key(Host(name="box", host="box")) is None


async def test_a_known_key_is_not_offered_where_no_login_is_possible(server: Sshd, client_home: Path) -> None:
    server.write_client_home(client_home)
    (client_home / ".ssh" / "id_box").unlink()
    assert await offered_key(Host(name="box", host="box")) is None


@pytest.mark.parametrize("case", ["changed", "changed to another type", "revoked"])
async def test_a_key_that_changed_or_is_revoked_is_never_offered(
    server: Sshd, client_home: Path, tmp_path: Path, case: str
) -> None:
    host = box(client_home, server)
    other = make_key(tmp_path / "other", kind="ecdsa" if "type" in case else "ed25519").with_suffix(".pub").read_text()
    known(client_home).write_text(
        f"@revoked {server.known_hosts.read_text()}" if case == "revoked" else f"[127.0.0.1]:{server.port} {other}"
    )
    before = known(client_home).read_bytes()
    with pytest.raises(HostKeyError) as caught:
        await offered_key(host)
    assert caught.value.reason == case.split(maxsplit=1)[0]
    with pytest.raises(HostKeyError):
        await accept_host_key(host, OfferedKey("box", "ED25519", "SHA256:any", b""))
    assert known(client_home).read_bytes() == before


async def test_a_key_known_with_the_word_of_an_authority_only_is_never_offered(
    server: Sshd, client_home: Path, tmp_path: Path
) -> None:
    host = box(client_home, server)
    authority = make_key(tmp_path / "authority").with_suffix(".pub").read_text()
    known(client_home).write_text(f"@cert-authority * {authority}")
    with pytest.raises(HostKeyError, match="does not vouch for it"):
        await offered_key(host)


async def test_another_key_than_the_one_that_was_shown_is_not_accepted(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path
) -> None:
    server = own_server()
    host = box(client_home, server)
    shown = await offered_key(host)
    assert shown is not None
    server.stop()
    for suffix in ("", ".pub"):
        (tmp_path / f"sshd-0/host_key{suffix}").unlink()
    make_key(server.host_key)
    server.start()
    with pytest.raises(HostKeyError, match="another host key than the one that was shown") as caught:
        await accept_host_key(host, shown)
    assert "127.0.0.1" not in f"{caught.value} {caught.value.hint}"
    assert known(client_home).read_text() == ""


async def test_a_host_that_is_not_there_offers_nothing(client_home: Path) -> None:
    with pytest.raises(HostUnreachableError):
        await offered_key(Host(name="box", host="me@127.0.0.1", port=free_port()))


@pytest.mark.parametrize("file", ["none", "/dev/null"])
async def test_without_a_file_to_write_to_nothing_is_accepted(server: Sshd, client_home: Path, file: str) -> None:
    host = box(client_home, server, extra=f"UserKnownHostsFile {file}")
    key = await offered_key(host)
    assert key is not None
    with pytest.raises(ConfigurationError, match="UserKnownHostsFile"):
        await accept_host_key(host, key)


def test_no_offered_key_shows_an_address(client_home: Path) -> None:
    assert "secret" not in repr(OfferedKey("box", "RSA", "SHA256:x", b"secret"))
