"""field.md section 6, "Address": what is no address is refused and never repeated; a host that cannot be reached, or
that greets oddly, is named in words and leaves no record."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.bad_input.terminal import assert_refused, laptop_of
from tests.bad_input.values import COMMANDS, ESCAPES, named
from tests.rig.sshd import make_key
from tests.rig.world import ALIAS, World

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bad_input.terminal import Terminal
    from tests.bad_input.values import Trap

NO_ADDRESSES = {
    "a host that is an option": "me@-oProxyCommand=touch",
    "an address that is an option": "-oProxyCommand=touch canary",
    "a user that is an option": "-lme@box.example",
    "a variable as user": "$USER@box.example",
    "backslashes in the user": "u\\\\@box.example",
    "two ports": "me@box.example:2222:2222",
    "a URL": "ssh://me@box.example:2222/x",
    "two at signs": "me@@box.example",
    "no host": "me@",
    "no user": "@box.example",
    "port 0": "me@box.example:0",
    "port -1": "me@box.example:-1",
    "port 65536": "me@box.example:65536",
    "a port with a sign": "me@box.example:+22",
    "a port in other digits": "me@box.example:\u0662\u0662",
    "a port that is a word": "me@box.example:ssh",
    "brackets that never close": "[::1",
    "brackets without IPv6": "[box.example]:2222",
    "an empty zone": "fe80::1%",
    "a hostile zone": "fe80::1%$(touch canary)",
    "several addresses": "box.example,203.0.113.7",
    "two words": "box.example 203.0.113.7",
    "a newline": "box.example\nProxyCommand touch canary",
    "NUL": "box.example\0",
    "empty": "",
    "a path": "me@box.example:/etc",
    "not ASCII": "me@b\u00f6x.example",
    "too long": "x" * 10_000,
    **COMMANDS,
    **ESCAPES,
}
HARMLESS = {
    "IPv6 in brackets with a port": "[2001:db8::7]:2200",
    "IPv6 bare": "2001:db8::7",
    "IPv6 with a zone": "fe80::7%eth0",
    "punycode": "ada@xn--bx-fka.example",
    "a user that is an e-mail address": "ada@corp@gate.example",
    "an underscore": "my_alias",
}
NO_PORTS = {
    "0": "0",
    "-1": "-1",
    "65536": "65536",
    "a text": '"22"',
    "a fraction": "22.5",
    "a whole fraction": "22.0",
    "true": "true",
    "a list": "[22]",
    "NaN": "NaN",
    "1e999": "1e999",
    "ten thousand digits": "2" * 10_000,
}
NO_HOSTS = {
    "a number": "1",
    "null": "null",
    "a list of addresses": '["a.example", "b.example"]',
    "an object": '{"a": "b"}',
    "true": "true",
}


@pytest.mark.parametrize("address", named(NO_ADDRESSES))
def test_what_is_no_address_cannot_be_added(terminal: Terminal, trap: Trap, address: str) -> None:
    before = terminal.hosts_file.read_bytes()
    ran = terminal.run("hosts", "add", "--json", "--", "lab", address)
    assert_refused(terminal, trap, ran, 2)
    assert terminal.hosts_file.read_bytes() == before
    assert not address or address not in ran.error["message"]


@pytest.mark.parametrize("address", named(NO_ADDRESSES))
def test_what_is_no_address_in_a_hosts_file_disables_its_entry(terminal: Terminal, trap: Trap, address: str) -> None:
    terminal.write_hosts(json.dumps({"hosts": {"lab": address, "other": "x"}}))
    ran = terminal.run("send", "lab", "do it", "--new", "--json")
    assert_refused(terminal, trap, ran, 11)
    assert not address or address not in ran.error["message"]
    assert terminal.run("hosts", "list", "--names").stdout == "other\n"


@pytest.mark.parametrize("address", named(HARMLESS))
def test_an_odd_address_that_is_one_is_taken_and_shown_nowhere(terminal: Terminal, address: str) -> None:
    added = terminal.run("hosts", "add", "lab", address)
    shown = terminal.run("hosts", "show", "lab", "--json")
    assert (added.exit_code, shown.exit_code) == (0, 0)
    assert address not in added.stdout + added.stderr + shown.stdout + shown.stderr


@pytest.mark.parametrize("port", named(NO_PORTS))
def test_what_is_no_port_disables_its_entry(terminal: Terminal, trap: Trap, port: str) -> None:
    terminal.write_hosts(f'{{"hosts": {{"lab": {{"host": "box.example", "port": {port}}}}}}}')
    assert_refused(terminal, trap, terminal.run("send", "lab", "do it", "--new"), 11)


@pytest.mark.parametrize("host", named(NO_HOSTS))
def test_an_address_of_another_type_disables_its_entry(terminal: Terminal, trap: Trap, host: str) -> None:
    terminal.write_hosts(f'{{"hosts": {{"lab": {{"host": {host}}}}}}}')
    assert_refused(terminal, trap, terminal.run("send", "lab", "do it", "--new"), 11)


@pytest.mark.parametrize("port", ["0", "-1", "65536", "22.5", "true", "0x16", ""])
def test_what_is_no_port_cannot_be_added(terminal: Terminal, trap: Trap, port: str) -> None:
    assert_refused(terminal, trap, terminal.run("hosts", "add", "lab", "box.example", f"--port={port}", "--json"), 2)


def test_jump_hosts_in_a_loop_end_at_once(terminal: Terminal, trap: Trap) -> None:
    (terminal.home / ".ssh").mkdir()
    loop = "Host alpha\n  ProxyJump beta\nHost beta\n  ProxyJump alpha\n"
    (terminal.home / ".ssh/config").write_text(loop)
    terminal.write_hosts('{"hosts": {"lab": "alpha"}}')
    ran = terminal.run("send", "lab", "do it", "--new", "--json")
    assert_refused(terminal, trap, ran, 11)
    assert "loop" in ran.error["message"]


def test_a_name_that_does_not_resolve_is_an_unreachable_host_and_no_record(terminal: Terminal, trap: Trap) -> None:
    terminal.write_hosts('{"hosts": {"lab": "me@box.example.invalid"}}')
    assert_refused(terminal, trap, terminal.run("send", "lab", "do it", "--new", "--json"), 5)


# --- hosts that answer, oddly


def send_to(world: World, *words: str) -> int:
    """Send a new session, and return the exit code; whatever it is, no address was said."""
    terminal = laptop_of(world)
    ran = terminal.run("send", "pi", "!say done", "--new", "--model=test/model", "--json", *words)
    world.check(ran)
    return ran.exit_code


@pytest.fixture
def client_files(shared_world: World) -> Path:
    """The laptop's ~/.ssh, put back afterwards by who changes it."""
    return shared_world.laptop.home / ".ssh"


@pytest.mark.parametrize("is_revoked", [False, True], ids=["another host key", "a revoked host key"])
def test_a_host_key_that_is_not_ours_stops_everything(
    shared_world: World, client_files: Path, tmp_path: Path, is_revoked: bool
) -> None:
    known = client_files / "known_hosts"
    before = known.read_text()
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    where, rest = before.split(" ", 1)
    known.write_text(f"@revoked {where} {rest}{before}" if is_revoked else f"{where} {other}")
    runs = shared_world.count_runs()
    try:
        assert send_to(shared_world) == 4
    finally:
        known.write_text(before)
    assert (shared_world.count_runs(), shared_world.dispatch_folders()) == (runs, [])


def test_a_key_file_that_others_may_read_gets_no_false_success(shared_world: World, client_files: Path) -> None:
    key = client_files / f"id_{ALIAS}"
    key.chmod(0o644)
    try:
        assert send_to(shared_world, "--dry-run") in (0, 4)
    finally:
        key.chmod(0o600)
    assert shared_world.dispatch_folders() == []


RC_FILES = {
    "prints": "echo welcome; echo more >&2",
    "prints escape codes": r"printf '\033]0;owned\007\033[2J'",
    "prints what looks like an answer": "echo 'status begin'; echo 'exists no'; echo 'status end'; echo 'probed yes'",
    "changes directory and PATH": "cd /; PATH=/usr/bin:/bin",
}
STUBBORN_RC_FILES = {
    "exits 0": "exit 0",
    "asks": 'read -r answer; echo "$answer"; exit 1',
    "becomes another program": "exec cat",
    "says an address and ends": "echo 'call me@box.example, 203.0.113.7'; exit 1",
}


def greeted(world: World, rc: str, *words: str) -> int:
    """Send to the host whose login runs this before each command."""
    (world.sshd.directory / "rc").write_text(rc + "\n")
    return send_to(world, *words)


@pytest.fixture(scope="module")
def greeting_world(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A world whose host shows a banner of a megabyte and runs a start-up file before each command."""
    directory = tmp_path_factory.mktemp("greeting")
    (directory / "banner").write_text("W\x1b]0;owned\x07" * 150_000)
    rc = directory / "sshd/rc"
    command = f'ForceCommand . {rc}; eval "$SSH_ORIGINAL_COMMAND"'
    with World(directory, sshd_options=(f"Banner {directory / 'banner'}", command)) as world:
        rc.write_text("")
        yield world


@pytest.mark.parametrize("rc", named(RC_FILES))
def test_a_banner_of_a_megabyte_and_a_start_up_file_change_nothing(greeting_world: World, rc: str) -> None:
    assert greeted(greeting_world, rc, "--dry-run") == 0


@pytest.mark.parametrize("rc", named(STUBBORN_RC_FILES))
def test_a_start_up_file_that_starts_nothing_is_a_host_that_is_not_ready(greeting_world: World, rc: str) -> None:
    folders = greeting_world.dispatch_folders()
    assert greeted(greeting_world, rc, "--dry-run") == 9
    assert greeting_world.dispatch_folders() == folders
