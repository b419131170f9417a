"""Completion as the shells do it: in real bash, zsh and fish, quick, silent, and safe against what a model wrote."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from remote_dispatch.dispatch import Store, default_store
from remote_dispatch.dispatch.names import new_id
from remote_dispatch.hosts.entries import FIELDS
from remote_dispatch.model import Dispatch, DispatchRequest, Moment, State
from remote_dispatch.opencode.glance import glance
from remote_dispatch.opencode.served import Served
from remote_dispatch.sessions.store import default_session_store

pytestmark = pytest.mark.thorough


REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 30
ADDRESS = "10.0.0.5"
HOSTS = f'{{"hosts": {{"dev": "me@{ADDRESS}", "pi": "me@pi.lan", "pixel": {{"host": "x", "port": 2222}}}}}}'
NEWEST, OLDER, ELSEWHERE = (f"ses_{number}abcdefghijklmnopqrstuvwx" for number in (1, 2, 3))
SCHEMA = (
    "create table session (id text primary key, parent_id text, title text, directory text, "
    "time_updated integer, time_archived integer)"
)
PROGRAM = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from remote_dispatch.cli import main
sys.exit(main())
"""
BASH = """
source ~/.bashrc
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_remote_dispatch_completion remote-dispatch
printf '%s\\n' "${COMPREPLY[@]}"
"""


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@dataclass
class Desk:
    """A home with the program in PATH."""

    home: Path

    @property
    def variables(self) -> dict[str, str]:
        path = f"{self.home / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return {"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8", "TERM": "dumb", "COLUMNS": "200"}

    def run(self, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv,
            cwd=self.home,
            env=self.variables | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def complete(self, *words: str, **variables: str) -> list[str]:
        """Ask as the script for bash does. Whatever is wrong, nothing is said on stderr."""
        asked = {"COMP_WORDS": "\n".join(["remote-dispatch", *words]), "COMP_CWORD": str(len(words))}
        done = self.run(
            str(self.home / "bin/remote-dispatch"),
            **{"_REMOTE_DISPATCH_COMPLETE": "complete_bash", **asked, **variables},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert ADDRESS not in done.stdout
        return done.stdout.split("\n")[:-1] if done.stdout.strip() else []

    def install(self, shell: str) -> None:
        done = self.run(
            "remote-dispatch", "--install-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1"
        )
        assert done.returncode == 0, done.stderr

    def write_hosts(self, text: str) -> None:
        file = self.home / ".config/opencode/hosts.jsonc"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def write_sessions(self, *rows: tuple[str, str | None, str, str, int, int | None]) -> Path:
        file = self.home / ".local/share/opencode/opencode.db"
        file.parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(file) as connection:
            connection.execute("pragma journal_mode = wal")
            connection.execute(SCHEMA)
            connection.executemany("insert into session values (?, ?, ?, ?, ?, ?)", rows)
        connection.close()
        return file


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    program = tmp_path / "bin/remote-dispatch"
    program.parent.mkdir()
    program.write_text(PROGRAM)
    program.chmod(0o755)
    made = Desk(tmp_path)
    made.write_hosts(HOSTS)
    return made


def store_dispatches(store: Store, *names: str) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for number, name in enumerate(names):
        now = began + timedelta(minutes=number)
        request = DispatchRequest(host="pi", local_directory=Path("/x"))
        with store.reserved(now) as folder:
            store.save(
                Dispatch(id=folder.path.name, name=name, request=request, history=(Moment(state=State.NEW, at=now),))
            )
    (store.root / new_id(began) / "record.json").parent.mkdir()


# --- what is completed


@pytest.mark.parametrize("words", [("send", ""), ("hosts", "show", ""), ("hosts", "rename", ""), ("doctor", "")])
def test_names_of_hosts(desk: Desk, words: tuple[str, ...]) -> None:
    assert desk.complete(*words) == ["dev", "pi", "pixel"]


def test_names_of_hosts_in_the_file_that_is_named_before(desk: Desk) -> None:
    (desk.home / "other.json").write_text('{"hosts": {"box": "x", "bad": 7}}')
    assert desk.complete("send", "--hosts", "~/other.json", "") == ["box"]
    assert desk.complete("send", "", REMOTE_DISPATCH_HOSTS=str(desk.home / "other.json")) == ["box"]


def test_a_broken_hosts_file_completes_nothing(desk: Desk) -> None:
    desk.write_hosts("{")
    assert desk.complete("send", "") == []


def test_names_of_dispatches_the_newest_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(desk.home))
    store_dispatches(default_store(os.environ), "kumo", "nabi", "kuro")
    assert desk.complete("show", "ku") == ["kuro", "kumo"]
    assert desk.complete("wait", "nabi", "") == ["kuro", "nabi", "kumo"]


def test_names_of_dispatches_in_a_state_directory_of_their_own(desk: Desk, tmp_path: Path) -> None:
    variables = {"REMOTE_DISPATCH_STATE": str(tmp_path / "state")}
    store_dispatches(default_store(variables), "kumo")
    assert desk.complete("logs", "", **variables) == ["kumo"]


def test_names_of_named_sessions(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(desk.home))
    store = default_session_store(default_store(os.environ))
    for number, name in enumerate(("kumo", "kuro", "nabi")):
        store.create("pi", Served(f"ses_{number:020}", "/", "It's a title"), name=name)
    (store.root / "kuku.json").write_text("[]")
    assert desk.complete("session", "show", "ku") == ["kumo", "kuro"]
    assert desk.complete("session", "watch", "nabi", "") == ["kumo", "kuro", "nabi"]
    assert desk.complete("session", "new", "") == desk.complete("send", "")


def test_agents_and_models_as_a_host_offered_them_last(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(desk.home))
    store = default_session_store(default_store(os.environ))
    store.create("pi", Served(f"ses_{1:020}", "/", ""), name="kumo")
    offered = store.root.parent / "offers"
    offered.mkdir()
    (offered / "pi.json").write_text('{"agents": ["build", "plan", "$(x)"], "models": ["lab/large", "lab/small"]}')
    assert desk.complete("session", "new", "pi", "--agent", "") == ["build", "plan"]
    assert desk.complete("session", "new", "pi", "--model", "lab/s") == ["lab/small"]
    assert desk.complete("session", "new", "dev", "--agent", "") == []


def test_ids_of_sessions_those_of_this_directory_first(desk: Desk) -> None:
    here = str(desk.home)
    desk.write_sessions(
        (ELSEWHERE, None, "elsewhere", "/x", 9, None),
        (OLDER, None, "older", here, 1, None),
        (NEWEST, None, "newest", here, 2, None),
        (NEWEST.replace("1", "4"), NEWEST, "a sub-agent's", here, 3, None),
        (NEWEST.replace("1", "5"), None, "archived", here, 3, 3),
    )
    assert desk.complete("send", "pi", "--session", "") == [NEWEST, OLDER, ELSEWHERE]
    assert desk.complete("send", "pi", "--session", ELSEWHERE[:6]) == [ELSEWHERE]


def test_fields_of_a_host_and_the_values_of_those_that_have_few(desk: Desk) -> None:
    assert desk.complete("hosts", "set", "pi", "") == list(FIELDS)
    assert desk.complete("hosts", "set", "pi", "permissions", "") == ["deny", "auto"]


# --- sessions are only looked at


def test_a_look_at_the_sessions_leaves_nothing_beside_the_database(desk: Desk) -> None:
    file = desk.write_sessions((NEWEST, None, "newest", "/x", 2, None))
    before = sorted(file.parent.iterdir())
    assert glance(desk.variables, Path("/x")) == [(NEWEST, "newest")]
    assert sorted(file.parent.iterdir()) == before


def test_what_a_running_opencode_wrote_is_seen(desk: Desk) -> None:
    file = desk.write_sessions((OLDER, None, "older", "/x", 1, None))
    with sqlite3.connect(file) as writer:
        writer.execute("insert into session values (?, null, 'newest', '/x', 2, null)", (NEWEST,))
        writer.commit()
        assert [one for one, _ in glance(desk.variables, Path("/x"))] == [NEWEST, OLDER]
    writer.close()


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_database_that_cannot_be_read_has_no_sessions(desk: Desk, content: bytes) -> None:
    file = desk.write_sessions()
    file.write_bytes(content)
    assert glance(desk.variables, Path("/x")) == []


def test_the_database_is_where_opencode_has_it(desk: Desk, tmp_path: Path) -> None:
    file = desk.write_sessions((NEWEST, None, "newest", "/x", 2, None))
    elsewhere = tmp_path / "my data/opencode/my.db"
    elsewhere.parent.mkdir(parents=True)
    file.rename(elsewhere)
    assert glance(desk.variables, Path("/x")) == []
    assert glance({"XDG_DATA_HOME": str(tmp_path / "my data"), "OPENCODE_DB": "my.db"}, Path("/x"))
    assert glance({"HOME": "/nonexistent", "OPENCODE_DB": str(elsewhere)}, Path("/x"))
    assert glance({**desk.variables, "OPENCODE_DB": ":memory:"}, Path("/x")) == []


# --- in the shells


@needs("bash")
def test_in_bash(desk: Desk) -> None:
    desk.install("bash")
    done = desk.run("bash", "--norc", "-c", BASH, "bash", "remote-dispatch", "send", "pi")
    assert (done.stdout.split(), done.stderr) == (["pi", "pixel"], "")


@needs("fish")
def test_in_fish(desk: Desk) -> None:
    desk.install("fish")
    desk.write_sessions((NEWEST, None, "Collector [/memory]", "/x", 2, None))
    done = desk.run(
        "fish", "-c", "complete -C 'remote-dispatch send pi'; complete -C 'remote-dispatch send pi --session '"
    )
    assert done.stdout.splitlines() == ["pi", "pixel", f"{NEWEST}\tCollector /memory"]
    assert done.stderr == ""


@needs("zsh")
def test_in_zsh_where_a_title_is_no_code(desk: Desk) -> None:
    """Typer has zsh evaluate the help; a title with a backslash before `$(...)` would run. The first Tab counts."""
    trap = desk.home / "trap"
    desk.install("zsh")
    desk.write_sessions((NEWEST, None, f"it's \\$(touch {trap}) `touch {trap}` [/x]", "/x", 2, None))
    screen = typed(desk, ["zsh", "-i"], [("remote-dispatch send dev --session \t", NEWEST)])
    assert "Traceback" not in screen
    assert not trap.exists()


def typed(desk: Desk, argv: list[str], keys: list[tuple[str, str]]) -> str:
    """Type into a shell on a terminal; after each text wait until something is shown. Returns the screen's bytes."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(desk.home)
        os.execvpe(argv[0], argv, desk.variables)
    screen = ""
    try:
        screen += until(terminal, "# ", "% ", "$ ")
        for text, shown in keys:
            os.write(terminal, text.encode())
            screen += until(terminal, shown)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)
    return screen


def until(terminal: int, *shown: str) -> str:
    """Read until one of these is shown. Raises AssertionError at the deadline."""
    end, screen = time.monotonic() + DEADLINE_S, ""
    while not any(one in screen for one in shown):
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"not shown: {shown}; but {json.dumps(screen)}"
        screen += os.read(terminal, 65536).decode(errors="replace")
    return screen
