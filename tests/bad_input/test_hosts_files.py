"""field.md section 6, "Files: hosts file": read without a hang and in bounded time and memory, and an error that has
file and line, or harmless."""

from __future__ import annotations

import json
import os
import resource
import time
from typing import TYPE_CHECKING

import pytest

from tests.bad_input.terminal import assert_refused
from tests.bad_input.values import ESCAPES, named

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bad_input.terminal import Terminal
    from tests.bad_input.values import Trap

GOOD = '{"hosts": {"lab": "me@box.example"}}'
QUICK_S = 5
SMALL_BYTES = 300_000_000

BROKEN = {
    "empty": b"",
    "blanks": b" \n\t\n",
    "cut": GOOD[:20].encode(),
    "a list": b"[]",
    "a text": b'"me@box.example"',
    "a number": b"1",
    "NaN": b'{"hosts": NaN}',
    "NaN as a value": b'{"hosts": {"lab": {"host": "box.example", "port": NaN}}}',
    "Infinity": b'{"hosts": {"lab": {"host": "box.example", "port": -Infinity}}}',
    "UTF-16 with its mark": GOOD.encode("utf-16"),
    "UTF-16 without": GOOD.encode("utf-16-le"),
    "UTF-32": GOOD.encode("utf-32"),
    "Latin-1": '{"hosts": {"lab": "b\u00f6x"}}'.encode("latin-1"),
    "a lone surrogate": b'{"hosts": {"lab": "\xed\xa0\x80"}}',
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD.encode(),
    "NUL bytes": b"\0" * 1000,
    "nested 100,000 times": b'{"hosts": ' + b"[" * 100_000,
    "objects nested 100,000 times": b'{"a":' * 100_000,
    "a million values": b'{"hosts": [' + b"1," * 300_000 + b"1]}",
    "a number of 100,000 digits": b'{"hosts": {"lab": {"host": "box.example", "port": ' + b"9" * 100_000 + b"}}}",
    "hosts twice": b'{"hosts": {"lab": "a"}, "hosts": {"lab": "b"}}',
    "a name twice": b'{"hosts": {"lab": "a", "lab": "b"}}',
    "a name twice, once escaped": b'{"hosts": {"lab": "a", "l\\u0061b": "b"}}',
    "a field twice": b'{"hosts": {"lab": {"host": "a", "host": "b"}}}',
    "an unknown field": b'{"hosts": {"lab": {"host": "a", "prot": 1}}}',
    "an unknown field that is an address": b'{"hosts": {"lab": {"host": "a", "me@box.example": 1}}}',
    "the prototype as a field": b'{"hosts": {"lab": {"host": "a", "__proto__": {"host": "b"}}}}',
    "single quotes": b"{'hosts': {'lab': 'a'}}",
    "a comment that never ends": b'{"hosts": /* {"lab": "a"}}',
    "a comment of a shell": b'{"hosts": # a\n {"lab": "a"}}',
    "a line break in a text": b'{"hosts": {"lab": "a\nb"}}',
    "an unknown escape": b'{"hosts": {"lab": "\\x41"}}',
    "two commas": b'{"hosts": {"lab": "a",, "b": "c"}}',
    "no comma": b'{"hosts": {"lab": "a" "b": "c"}}',
    "text behind it": GOOD.encode() + b"}",
    "an agent that is an option": b'{"hosts": {"lab": {"host": "a", "agent": "--help"}}}',
    "a model that is none": b'{"hosts": {"lab": {"host": "a", "model": "x"}}}',
    "a directory with a newline": b'{"hosts": {"lab": {"host": "a", "directory": "a\\nb"}}}',
    "a program with an escape": b'{"hosts": {"lab": {"host": "a", "opencode": "\\u001b[31m"}}}',
    "permissions that are none": b'{"hosts": {"lab": {"host": "a", "permissions": "yes"}}}',
    "a variable that is none": b'{"hosts": {"lab": {"host": "a", "env": {"A=B; touch canary": "x"}}}}',
    "a variable that is a number": b'{"hosts": {"lab": {"host": "a", "env": {"A": 1}}}}',
    "rules that are none": b'{"hosts": {"lab": {"host": "a", "permission_rules": {"bash": "maybe"}}}}',
    "a server with a password": b'{"hosts": {"lab": {"server": "http://me:secret@box.example/"}}}',
    "a server that is a file": b'{"hosts": {"lab": {"server": "file:///etc/passwd"}}}',
    "a server that is an option": b'{"hosts": {"lab": {"server": "-x"}}}',
    "an entry that is null": b'{"hosts": {"lab": null}}',
    "an entry that is a list": b'{"hosts": {"lab": ["a"]}}',
    "an entry that is empty": b'{"hosts": {"lab": {}}}',
    "another system": b'{"hosts": {"lab": {"host": "a", "os": "plan9"}}}',
}
HARMLESS = {
    "a byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "CRLF": GOOD.replace(" ", "\r\n").encode(),
    "comments and trailing commas": b'/* a */ {"hosts": { // b\n"lab": "me@box.example", }, }',
    "two slashes in a text": b'{"hosts": {"lab": {"host": "me@box.example", "directory": "//srv//*x*/"}}}',
    "the prototype as another host": b'{"hosts": {"__proto__": {"host": "a"}, "lab": "me@box.example"}}',
    "a bad neighbour": b'{"hosts": {"bad": 1, "lab": "me@box.example"}}',
    "a deep neighbour": b'{"hosts": {"bad": ' + b"[" * 50 + b"]" * 50 + b', "lab": "me@box.example"}}',
}


@pytest.mark.parametrize("content", named(BROKEN))
def test_a_broken_file_or_entry_is_an_error_with_its_place(terminal: Terminal, trap: Trap, content: bytes) -> None:
    terminal.write_hosts(content)
    began = time.monotonic()
    ran = terminal.run("send", "lab", "do it", "--new", "--json")
    assert_refused(terminal, trap, ran, 11)
    assert str(terminal.hosts_file) in ran.error["message"]
    assert time.monotonic() - began < QUICK_S
    assert "lab" not in terminal.run("hosts", "list", "--names").stdout.split()


@pytest.mark.parametrize("content", named(HARMLESS))
def test_what_looks_odd_and_is_right_is_read(terminal: Terminal, content: bytes) -> None:
    terminal.write_hosts(content)
    assert terminal.run("hosts", "show", "lab").exit_code == 0


@pytest.mark.parametrize("text", named(ESCAPES))
@pytest.mark.parametrize("field", ["agent", "model", "variant", "directory", "opencode", "permissions"])
def test_what_a_terminal_obeys_is_removed_or_refused_in_every_field(terminal: Terminal, field: str, text: str) -> None:
    """`Terminal.run` looks at all that is printed."""
    value = f"test/{text.replace(' ', '')}" if field == "model" else text
    terminal.write_hosts(json.dumps({"hosts": {"lab": {"host": "box.example", field: value}}}))
    assert terminal.run("hosts", "list").exit_code in (0, 3)
    assert terminal.run("hosts", "show", "lab").exit_code in (0, 11)


# --- what is no plain file


def _symlink(path: Path) -> None:
    real = path.with_name("real.json")
    real.write_text(GOOD)
    path.symlink_to(real)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def _of_mode(mode: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_text(GOOD)
        path.chmod(mode)

    return make


PLACES: dict[str, tuple[int, Callable[[Path], object]]] = {
    "a symlink to a file": (0, _symlink),
    "a symlink to a device without end": (11, lambda path: path.symlink_to("/dev/zero")),
    "a symlink to nothing": (10, lambda path: path.symlink_to("nothing")),
    "a symlink to itself": (11, lambda path: path.symlink_to(path.name)),
    "a symlink to a secret": (11, lambda path: path.symlink_to("/etc/passwd")),
    "a pipe": (11, os.mkfifo),
    "a directory": (11, lambda path: path.mkdir()),
    "a file that everybody may write to": (11, _of_mode(0o666)),
    "a file that everybody may read": (0, _of_mode(0o644)),
    "a gigabyte": (11, _huge),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("way", ["usual", "named"])
def test_what_is_no_plain_file_is_an_error_at_once_or_read(terminal: Terminal, trap: Trap, name: str, way: str) -> None:
    exit_code, make = PLACES[name]
    path = terminal.hosts_file
    path.unlink()
    make(path)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    words = () if way == "usual" else ("--hosts", str(path))
    began = time.monotonic()
    ran = terminal.run("hosts", "show", "lab", "--json", *words)
    assert time.monotonic() - began < QUICK_S
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 < SMALL_BYTES
    assert ran.exit_code == (11 if name == "a symlink to nothing" and way == "named" else exit_code)
    assert "/bin/" not in ran.stdout
    if exit_code:
        assert_refused(terminal, trap, terminal.run("send", "lab", "do it", "--new", *words), ran.exit_code)


@pytest.mark.parametrize("name", [name for name, (exit_code, _) in PLACES.items() if exit_code == 11])
def test_what_is_no_plain_file_is_not_edited(terminal: Terminal, trap: Trap, name: str) -> None:
    path = terminal.hosts_file
    path.unlink()
    PLACES[name][1](path)
    before = os.lstat(path)
    assert_refused(terminal, trap, terminal.run("hosts", "add", "lab", "box.example"), 11)
    after = os.lstat(path)
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_names_put_beside_it_in_advance_are_left_alone_by_an_edit(terminal: Terminal) -> None:
    secret = terminal.home / "secret"
    secret.write_text("kept")
    beside = [terminal.hosts_file.with_name(name) for name in ("hosts.json.part", ".hosts.json.tmp", "hosts.json~")]
    for path in beside:
        path.symlink_to(secret)
    assert terminal.run("hosts", "add", "lab", "box.example").exit_code == 0
    assert secret.read_text() == "kept"
    assert all(path.is_symlink() for path in beside)


def test_a_projects_hosts_file_is_inert_whatever_it_is(terminal: Terminal, trap: Trap) -> None:
    os.mkfifo(terminal.directory / "hosts.json")
    (terminal.directory / ".opencode").mkdir()
    (terminal.directory / ".opencode/hosts.json").write_text(GOOD)
    ran = terminal.run("send", "lab", "do it", "--new", "--json")
    assert_refused(terminal, trap, ran, 10)


@pytest.mark.parametrize("name", ["hosts.json", "hosts\x1b[31m.json", "nothing/\x1b]0;owned\x07"])
def test_a_named_file_that_is_not_there_is_an_error(terminal: Terminal, trap: Trap, name: str) -> None:
    ran = terminal.run("send", "lab", "do it", "--new", "--hosts", str(terminal.home / name))
    assert_refused(terminal, trap, ran, 11)
