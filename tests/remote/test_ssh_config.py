from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import ConfigurationError
from remote_dispatch.model import Host
from remote_dispatch.remote import ssh_config

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["by ssh", "without ssh"])
def config(request: pytest.FixtureRequest, client_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of ~/.ssh/config; each test runs with the `ssh` program and without it."""
    if request.param == "without ssh":
        monkeypatch.setenv("PATH", str(client_home))
    (client_home / ".ssh").mkdir(mode=0o700)
    return client_home / ".ssh" / "config"


async def test_an_alias_is_resolved_with_its_files(config: Path) -> None:
    key = make_key_file(config.parent / "lab_key")
    known = config.parent / "known_lab"
    known.touch()
    config.write_text(
        "Host lab\n  HostName 10.9.8.7\n  User me\n  Port 2200\n  IdentityFile ~/.ssh/lab_key\n  IdentitiesOnly yes\n"
        "  UserKnownHostsFile ~/.ssh/known_lab\n  HostKeyAlias lab-key\n  ConnectTimeout 7\n  AddressFamily inet\n"
    )
    target = await ssh_config.resolve(Host(name="x", host="lab"))
    assert (target.host, target.user, target.port) == ("10.9.8.7", "me", 2200)
    assert (target.identities, target.is_identities_only) == ((key,), True)
    assert target.known_hosts[0] == known
    assert (target.host_key_alias, target.connect_timeout_s) == ("lab-key", 7)


async def test_user_and_port_of_the_entry_win(config: Path) -> None:
    config.write_text("Host lab\n  User me\n  Port 2200\n")
    target = await ssh_config.resolve(Host(name="x", host="you@lab:2300"))
    assert (target.user, target.port) == ("you", 2300)
    assert (await ssh_config.resolve(Host(name="x", host="lab:2300", port=2400))).port == 2400


async def test_without_any_configuration_defaults_hold(config: Path) -> None:
    key = make_key_file(config.parent / "id_ed25519")
    (config.parent / "known_hosts").touch()
    target = await ssh_config.resolve(Host(name="x", host="u@h.example"))
    assert (target.host, target.port, target.user) == ("h.example", 22, "u")
    assert target.identities == (key,)
    assert target.known_hosts[0] == config.parent / "known_hosts"
    assert (target.agent, target.jumps, target.proxy_command) == (None, (), None)


async def test_known_hosts_none_means_that_nothing_is_trusted(config: Path) -> None:
    config.write_text("Host *\n  UserKnownHostsFile none\n  GlobalKnownHostsFile none\n")
    assert (await ssh_config.resolve(Host(name="x", host="h"))).known_hosts == ()


async def test_missing_key_files_are_left_out(config: Path) -> None:
    config.write_text("Host *\n  IdentityFile ~/.ssh/missing\n  CertificateFile ~/.ssh/missing-cert.pub\n")
    target = await ssh_config.resolve(Host(name="x", host="h"))
    assert (target.identities, target.certificates) == ((), ())


async def test_jump_hosts_have_targets_of_their_own(config: Path) -> None:
    config.write_text(
        "Host inner\n  ProxyJump u@one.example:2201,two\n"
        "Host two\n  HostName two.example\n  User other\n  ProxyJump never\n"
        "Host one.example\n  ProxyJump gate\nHost gate\n  HostName gate.example\n"
    )
    target = await ssh_config.resolve(Host(name="x", host="inner"))
    assert [jump.host for jump in target.jumps] == ["gate.example", "one.example", "two.example"]
    assert [jump.port for jump in target.jumps] == [22, 2201, 22]
    assert [jump.user for jump in target.jumps][1:] == ["u", "other"]
    assert not any(jump.jumps for jump in target.jumps)


async def test_jump_hosts_in_a_loop_are_refused(config: Path) -> None:
    config.write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(ConfigurationError, match="loop"):
        await ssh_config.resolve(Host(name="x", host="a"))


async def test_a_proxy_command_has_its_tokens_filled_in(config: Path) -> None:
    config.write_text("Host lab\n  HostName h.example\n  User u\n  ProxyCommand nc %h %p %r %n %%\n")
    assert (await ssh_config.resolve(Host(name="x", host="lab"))).proxy_command == "nc h.example 22 u lab %"


async def test_the_agent_follows_the_configuration(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent/of/the/session")
    monkeypatch.setenv("OTHER_AGENT", "/another/agent")
    config.write_text("Host off\n  IdentityAgent none\nHost other\n  IdentityAgent $OTHER_AGENT\n")
    agents = [(await ssh_config.resolve(Host(name="x", host=host))).agent for host in ("off", "other", "plain")]
    assert agents == [None, "/another/agent", "/agent/of/the/session"]


@pytest.mark.parametrize("address", ["-oProxyCommand=touch x", "u@@h", "a;id", "h:0"])
async def test_a_bad_address_is_refused_before_any_program_sees_it(config: Path, address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await ssh_config.resolve(Host(name="lab", host=address))
    assert "lab" in str(caught.value)
    assert address not in f"{caught.value} {caught.value.hint}"


async def test_known_hosts_with_a_blank_in_the_name_are_found(client_home: Path) -> None:
    ssh = client_home / ".ssh"
    ssh.mkdir()
    (ssh / "known hosts").touch()
    (ssh / "config").write_text('Host *\n  UserKnownHostsFile "~/.ssh/known hosts" ~/.ssh/none\n')
    assert (await ssh_config.resolve(Host(name="x", host="h"))).known_hosts[0] == ssh / "known hosts"


async def test_a_configuration_that_ssh_refuses_is_named_as_the_reason(client_home: Path) -> None:
    (client_home / ".ssh").mkdir()
    (client_home / ".ssh" / "config").write_text("NoSuchKeyword yes\n")
    with pytest.raises(ConfigurationError, match="lab: ssh refuses its configuration"):
        await ssh_config.resolve(Host(name="lab", host="h"))


async def test_a_target_shows_its_name_alone(client_home: Path) -> None:
    target = await ssh_config.resolve(Host(name="lab", host="private@h.example:2222"))
    assert repr(target) == "Target('lab', ...)"


async def test_an_alias_has_a_destination(config: Path) -> None:
    config.write_text("Host forge\n  HostName forge.example\n  User git\n")
    place = await ssh_config.destination("forge")
    assert (place.user, place.host) == ("git", "forge.example")


def make_key_file(path: Path) -> Path:
    path.touch()
    return path
