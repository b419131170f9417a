"""`hosts add|set|unset|remove|rename|edit` as a user meets them: words, exit codes, questions, and no address."""

from __future__ import annotations

import stat
import tempfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.dispatch import default_store
from remote_dispatch.model import Dispatch, DispatchRequest, Moment, State
from remote_dispatch.opencode.served import Served
from remote_dispatch.sessions.store import default_session_store
from tests.cli.terminal import HOSTS, SECRETS, converse, envelope

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.sessions.store import SessionStore
    from tests.cli.terminal import Terminal

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python looks for the place of temporary files once; the copies that stay are to go with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def a_dispatch_on(terminal: Terminal, host: str) -> str:
    """Record a dispatch that runs on a host; return its name."""

    def record(name: str) -> Dispatch:
        request = DispatchRequest(host=host, local_directory=terminal.project)
        history = (Moment(state=State.RUNNING, at=NOW),)
        return Dispatch(id=folder.path.name, name=name, request=request, history=history, run_directory="/x")

    terminal.environment["REMOTE_DISPATCH_STATE"] = str(terminal.path / "state")
    store = default_store(terminal.environment)
    with store.reserved(NOW) as folder:
        return store.create("kumo", record).name


def editor(terminal: Terminal, text: str) -> Path:
    """Make an editor that writes this text, and says so on its stdout."""
    (terminal.path / "wanted").write_text(text)
    program = terminal.path / "editor"
    program.write_text(f'#!/bin/sh\necho editing\ncat {terminal.path}/wanted > "$1"\n')
    program.chmod(0o755)
    return program


def test_every_field_has_an_option(terminal: Terminal) -> None:
    rules = terminal.path / "rules.json"
    rules.write_text('{"bash": {"*": "deny"}}')
    words = ["--port", "2222", "--agent", "build", "--model", "p/m", "--variant", "high", "--directory", "~/src"]
    words += ["--permissions", "auto", "--permission-rules", str(rules), "--opencode", "~/oc", "--code", "existing"]
    words += ["--env", "A=1", "--env", "B=x=y", "--server", "http://box.example:4096", "--os", "linux"]
    words += ["--server-user", "ada", "--server-password-env", "A_1", "--server-password-command", "pass show 'a b'"]
    completed = terminal("hosts", "add", "lab", "me@10.0.0.5", *words, "--json")
    assert completed.returncode == 0
    data = envelope(completed)["data"]
    assert data["host"] == {
        "name": "lab",
        "agent": "build",
        "model": "p/m",
        "variant": "high",
        "directory": "~/src",
        "permissions": "auto",
        "permission_rules": {"bash": {"*": "deny"}},
        "opencode": "~/oc",
        "env": ["A", "B"],
        "code": "existing",
        "server_password_env": "A_1",
        "os": "linux",
    }
    assert '"env": { "A": "1", "B": "x=y" }' in terminal.file.read_text()
    assert '"server_password_command": ["pass", "show", "a b"]' in terminal.file.read_text()
    assert stat.S_IMODE(terminal.file.stat().st_mode) == 0o600


def test_a_server_needs_no_address_and_nothing_else_does(terminal: Terminal) -> None:
    assert terminal("hosts", "add", "web", "--server", "http://box.example:4096").returncode == 0
    completed = terminal("hosts", "add", "lab")
    assert completed.returncode == 2
    assert "needs an address" in completed.stderr


@pytest.mark.parametrize("words", [("--env", "s3cret"), ("--env", "=s3cret"), ("--permission-rules", "missing.json")])
def test_what_an_option_cannot_take_changes_nothing(terminal: Terminal, words: tuple[str, ...]) -> None:
    terminal.write(HOSTS)
    completed = terminal("hosts", "add", "new", "x", *words)
    assert completed.returncode in (2, 11)
    assert "s3cret" not in completed.stderr
    assert terminal.file.read_text() == HOSTS


def test_a_field_is_set_and_unset(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    completed = terminal("hosts", "set", "pi", "port", "22")
    assert (completed.returncode, completed.stdout) == (0, "")
    assert completed.stderr == f"set `port` of `pi` in {terminal.file}\n"
    assert terminal.file.read_text() == HOSTS.replace("2222", "22")
    assert terminal("hosts", "set", "lab", "env.TOKEN", "other").stderr.startswith("set `env.TOKEN` of `lab`")
    data = envelope(terminal("hosts", "unset", "pi", "model", "--json"))["data"]
    assert data == {"host": {"name": "pi", "agent": "build"}, "file": str(terminal.file)}


def test_a_misspelt_field_or_host_is_suggested_and_nothing_is_changed(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    for words, code, hint in (
        (("set", "pi", "prot", "22"), 2, "did you mean `port`"),
        (("set", "pii", "port", "22"), 10, "did you mean `pi`?"),
        (("unset", "pi", "modl"), 2, "did you mean `model`?"),
        (("remove", "pii", "--yes"), 10, "did you mean `pi`?"),
        (("rename", "lba", "x"), 10, "did you mean `lab`?"),
        (("path", "--origin", "lba"), 10, "did you mean `lab`?"),
    ):
        completed = terminal("hosts", *words)
        assert (completed.returncode, hint in completed.stderr) == (code, True), completed.stderr
    assert terminal.file.read_text() == HOSTS


def test_what_is_still_wrong_after_a_cure_is_said(terminal: Terminal) -> None:
    terminal.write('{"hosts": {"bad": {"host": "x", "port": "y",\n"modle": "z"}}}')
    completed = terminal("hosts", "set", "bad", "port", "22")
    assert completed.returncode == 3
    assert f"warning: still wrong: {terminal.file}:2: host `bad`: `modle`: unknown field" in completed.stderr
    assert terminal("hosts", "unset", "bad", "modle").returncode == 0
    assert terminal("hosts", "validate").returncode == 0


def test_without_a_terminal_removing_needs_yes(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    completed = terminal("hosts", "remove", "pi")
    assert completed.returncode == 7
    assert "`remote-dispatch hosts remove pi --yes`" in completed.stderr
    assert terminal.file.read_text() == HOSTS
    completed = terminal("hosts", "remove", "pi", "--yes")
    assert (completed.returncode, completed.stderr) == (0, f"removed `pi` from {terminal.file}\n")
    assert terminal("hosts", "list", "--names").stdout == "dev\nlab\n"


def test_on_a_terminal_removing_asks(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    status, screen = converse(terminal, "hosts", "remove", "pi", answers=[("[y/N]", "n\n")])
    assert (status, "nothing was changed" in screen) == (2, True)
    assert terminal.file.read_text() == HOSTS
    status, screen = converse(terminal, "hosts", "remove", "pi", answers=[("[y/N]", "y\n")])
    assert (status, "removed `pi`" in screen) == (0, True)
    assert not [secret for secret in SECRETS if secret in screen]


@pytest.mark.parametrize("words", [("remove", "pi"), ("rename", "pi", "raspi")])
def test_a_host_with_an_unfinished_dispatch_goes_only_with_yes(terminal: Terminal, words: tuple[str, ...]) -> None:
    terminal.write(HOSTS)
    a_dispatch_on(terminal, "pi")
    completed = terminal("hosts", *words)
    assert completed.returncode == 7
    assert "`remote-dispatch collect kumo`" in completed.stderr
    assert terminal.file.read_text() == HOSTS
    completed = terminal("hosts", *words, "--yes", "--json")
    assert completed.returncode == 3
    assert envelope(completed)["data"]["dispatches"] == ["kumo"]
    assert "pi" not in terminal("hosts", "list", "--names").stdout.split()


def a_session_on(terminal: Terminal, host: str) -> SessionStore:
    """Record a named session, `zeju`, that lives on a host."""
    terminal.environment["REMOTE_DISPATCH_STATE"] = str(terminal.path / "state")
    sessions = default_session_store(default_store(terminal.environment))
    sessions.create(host, Served(f"ses_{'a' * 26}", "/srv", "The leak"), name="zeju")
    return sessions


def test_a_host_with_a_named_session_is_removed_only_with_yes(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    a_session_on(terminal, "pi")
    completed = terminal("hosts", "remove", "pi")
    assert completed.returncode == 7
    assert "`remote-dispatch session forget zeju`" in completed.stderr
    assert terminal.file.read_text() == HOSTS
    completed = terminal("hosts", "remove", "pi", "--yes", "--json")
    assert (completed.returncode, envelope(completed)["data"]["sessions"]) == (3, ["zeju"])


def test_named_sessions_go_along_with_a_host_that_gets_another_name(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    sessions = a_session_on(terminal, "pi")
    completed = terminal("hosts", "rename", "pi", "raspi", "--json")
    assert (completed.returncode, envelope(completed)["data"]["sessions"]) == (0, ["zeju"])
    assert sessions.load("zeju").host == "raspi"


def test_a_dispatch_on_another_host_is_no_obstacle(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    a_dispatch_on(terminal, "lab")
    assert terminal("hosts", "rename", "pi", "raspi").stderr == f"renamed `pi` to `raspi` in {terminal.file}\n"
    assert terminal.file.read_text() == HOSTS.replace('"pi"', '"raspi"')


def test_an_entry_that_comes_to_light_is_told(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    later = terminal.file.with_name("hosts.json")
    later.write_text('{"hosts": {"pi": "other"}}')
    assert f"note: `pi` is now the one in {terminal.file}:3" in terminal("hosts", "remove", "pi", "--yes").stderr


def test_a_right_edit_is_kept(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    terminal.environment["EDITOR"] = str(editor(terminal, HOSTS.replace("pi", "po")))
    completed = terminal.process("hosts", "edit", "--json")
    assert completed.returncode == 0
    assert envelope(completed)["data"] == {"file": str(terminal.file), "is_changed": True}
    assert completed.stdout.count("\n") == 1
    assert terminal.file.read_text() == HOSTS.replace("pi", "po")


def test_a_wrong_edit_is_shown_and_not_kept_and_the_copy_stays(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    terminal.environment = {"VISUAL": str(editor(terminal, HOSTS.replace("2222", "0"))), "TMPDIR": str(terminal.path)}
    completed = terminal.process("hosts", "edit")
    assert completed.returncode == 11
    (copy,) = terminal.path.glob("remote-dispatch-*/hosts.jsonc")
    assert f"warning: {copy}:3: host `pi`: `port`: expected a whole number" in completed.stderr
    assert f"hint: your copy is {copy}" in completed.stderr
    assert terminal.file.read_text() == HOSTS


def test_on_a_terminal_a_wrong_edit_may_be_edited_again(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    program = editor(terminal, HOSTS.replace("2222", "0"))
    program.write_text(program.read_text() + f"sed -i s/0,/2223,/ {terminal.path}/wanted\n")
    terminal.environment = {"EDITOR": str(program), "TMPDIR": str(terminal.path)}
    status, screen = converse(terminal, "hosts", "edit", answers=[("Edit it again?", "y\n")])
    assert (status, f"changed {terminal.file}" in screen) == (0, True)
    assert terminal.file.read_text() == HOSTS.replace("2222", "2223")


def test_an_edit_that_changes_nothing_leaves_nothing(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    terminal.environment = {"EDITOR": "test -e"}
    completed = terminal("hosts", "edit")
    assert (completed.returncode, completed.stderr) == (0, "nothing was changed\n")
    assert not list(terminal.path.glob("remote-dispatch-*"))


@pytest.mark.parametrize(("name", "code"), [("", 7), ("false", 9), ("no-such-editor", 2), ("'", 2)])
def test_without_a_usable_editor_nothing_is_changed(terminal: Terminal, name: str, code: int) -> None:
    terminal.write(HOSTS)
    terminal.environment = {"EDITOR": name}
    assert terminal("hosts", "edit").returncode == code
    assert terminal.file.read_text() == HOSTS
    assert not list(terminal.path.glob("remote-dispatch-*"))


def test_p30_no_edit_repeats_an_address_or_a_value(terminal: Terminal) -> None:
    text = '{"hosts": {"dev": "me@10.0.0.5", "10.0.0.5": "me@pi.lan", "bad": {"host": "me@10.0.0.5", "port": "2222"}}}'
    commands = [
        ("set", "dev", "host", "me@box.example"),
        ("set", "dev", "host", "me@@box.example"),
        ("set", "dev", "env.TOKEN", "s3cret"),
        ("set", "dev", "env", "s3cret"),
        ("set", "dev", "me@box.example", "x"),
        ("set", "dev", "port", "2222"),
        ("set", "10.0.0.5", "port", "2222"),
        ("set", "bad", "agent", "build"),
        ("unset", "dev", "me@box.example"),
        ("unset", "10.0.0.5", "host"),
        ("remove", "10.0.0.5"),
        ("rename", "10.0.0.5", "203.0.113.7"),
        ("rename", "10.0.0.5", "dev"),
        ("rename", "10.0.0.5", "new"),
        ("remove", "me@box.example", "--yes"),
        ("remove", "dev", "--yes"),
        ("path", "--origin", "10.0.0.5"),
        ("path", "--origin", "dev"),
        ("validate",),
    ]
    for words in commands:
        for more in ((), ("--json",)):
            terminal.write(text)
            completed = terminal("hosts", *words, *more)
            output = completed.stdout + completed.stderr
            assert not [secret for secret in SECRETS if secret in output], (words, output)
            assert "fault of remote-dispatch" not in output
            assert completed.returncode != 1
