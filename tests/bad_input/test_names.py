"""field.md section 6, "Host name", and the names of dispatches: refused before a connection, and never obeyed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.bad_input.terminal import assert_refused
from tests.bad_input.values import COMMANDS, ESCAPES, named

if TYPE_CHECKING:
    from tests.bad_input.terminal import Terminal
    from tests.bad_input.values import Trap

NO_NAMES = {
    "an option of ssh": "-oProxyCommand=touch canary",
    "a configuration file for ssh": "-Fevil.conf",
    "a short option": "-V",
    "the end of options": "--",
    "empty": "",
    "blanks only": "   ",
    "two words": "a b",
    "a newline": "a\ntouch canary",
    "a newline at the end": "pi\n",
    "NUL": "pi\0",
    "the directory above": "../a",
    "a path": "a/b",
    "ten thousand characters": "x" * 10_000,
    "a homoglyph of a known name": "p\u0456",
    "composed": "caf\u00e9",
    "the same decomposed": "cafe\u0301",
    "JavaScript's prototype": "__proto__",
    "JavaScript's constructor": "constructor",
    "all": "all",
    "auto": "auto",
    "an IP address": "203.0.113.7",
    "an address": "me@box.example",
    **COMMANDS,
    **ESCAPES,
}
NO_DISPATCHES = {
    "the directory above": "../../x",
    "an absolute path": "/etc/passwd",
    "an option": "-rf",
    "NUL": "kumo\0",
    "a newline": "kumo\n",
    "capitals": "KUMO",
    "one letter": "k",
    "too long": "k" * 32,
    "a lone surrogate": "\udcff",
    **COMMANDS,
    **ESCAPES,
}


@pytest.mark.parametrize("name", named(NO_NAMES))
def test_what_is_no_host_name_is_refused_before_a_connection(terminal: Terminal, trap: Trap, name: str) -> None:
    ran = terminal.run("send", "--new", "--json", "--", name, "do it")
    assert_refused(terminal, trap, ran, 10)


@pytest.mark.parametrize("name", named(NO_NAMES))
def test_what_is_no_host_name_cannot_be_added(terminal: Terminal, trap: Trap, name: str) -> None:
    before = terminal.hosts_file.read_bytes()
    ran = terminal.run("hosts", "add", "--json", "--", name, "me@box.example")
    assert_refused(terminal, trap, ran, 2)
    assert terminal.hosts_file.read_bytes() == before


@pytest.mark.parametrize("name", named({key: NO_NAMES[key] for key in ("a short option", "an option of ssh")}))
def test_an_option_in_the_place_of_a_name_is_a_usage_error(terminal: Terminal, trap: Trap, name: str) -> None:
    assert_refused(terminal, trap, terminal.run("send", name, "do it", "--new"), 2)


@pytest.mark.parametrize("name", ["PI", "Pi"])
def test_a_twin_in_case_is_another_name_and_cannot_be_added(terminal: Terminal, trap: Trap, name: str) -> None:
    ran = terminal.run("send", name, "do it", "--new")
    assert_refused(terminal, trap, ran, 10)
    assert "did you mean `pi`?" in ran.stderr
    assert_refused(terminal, trap, terminal.run("hosts", "add", name, "me@box.example"), 2)


def test_localhost_is_a_name_like_any_other_and_unknown_unless_it_is_written_down(
    terminal: Terminal, trap: Trap
) -> None:
    assert_refused(terminal, trap, terminal.run("send", "localhost", "do it", "--new"), 10)


@pytest.mark.parametrize("name", named(NO_NAMES))
def test_in_a_hosts_file_it_disables_itself_alone(terminal: Terminal, name: str) -> None:
    terminal.write_hosts(json.dumps({"hosts": {name: "me@box.example", "lab": "me@box.example"}}))
    listed = terminal.run("hosts", "list", "--names")
    assert (listed.exit_code, listed.stdout) == (3, "lab\n")


@pytest.mark.parametrize("name", named(NO_DISPATCHES))
def test_what_is_no_name_of_a_dispatch_is_refused(terminal: Terminal, trap: Trap, name: str) -> None:
    ran = terminal.run("send", "pi", "do it", "--new", f"--name={name}", "--json")
    assert_refused(terminal, trap, ran, 2)


@pytest.mark.parametrize("command", ["show", "collect", "cancel", "logs", "wait"])
@pytest.mark.parametrize("name", named(NO_DISPATCHES))
def test_a_dispatch_that_cannot_be_is_unknown(terminal: Terminal, trap: Trap, command: str, name: str) -> None:
    ran = terminal.run(command, "--json", "--", name)
    assert_refused(terminal, trap, ran, 10)


@pytest.mark.parametrize("name", ["me@box.example", "203.0.113.7"])
def test_an_address_in_the_place_of_a_dispatch_is_not_repeated(terminal: Terminal, trap: Trap, name: str) -> None:
    assert_refused(terminal, trap, terminal.run("show", name, "--json"), 10)
