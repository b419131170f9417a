"""`session requests` and `session reply` as they are typed, on the real server; asking on a terminal, without one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import typer

from remote_dispatch.cli.session import requests
from remote_dispatch.cli.session.app import SessionDesk, session_app
from remote_dispatch.cli.session.asking import answer_on_terminal, request_lines
from remote_dispatch.opencode.served import Option, PermissionRequest, Question, QuestionRequest, Served
from remote_dispatch.sessions.requests import Answers, Decision, Waiting, open_requests
from tests.cli.terminal import DEADLINE_S, REPOSITORY, Terminal, converse
from tests.rig.calls import call
from tests.rig.served import served
from tests.rig.sshd import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.opencode.served import Request
    from remote_dispatch.sessions.requests import Reply
    from remote_dispatch.sessions.values import NamedSession
    from tests.rig.served import Bench

__all__ = ["served"]

APP = typer.Typer(pretty_exceptions_enable=False)
APP.add_typer(session_app, name="session")
REGISTERED = (requests,)
"""Importing it registers its commands."""
ASKS = [{"permission": "bash", "pattern": "*", "action": "ask"}]
TEXT = "!bash printf one\\nprintf two\n!question Which colour?"


@dataclass
class Desk:
    """A user whose only host is the real server, by its URL."""

    bench: Bench

    def __call__(self, *words: str) -> tuple[int, str]:
        """Run `session WORDS`; return the exit code and everything that was printed."""
        result = call(APP, ["session", *words])
        assert "Traceback" not in result.output
        assert self.bench.server.password not in result.output
        assert str(self.bench.server.port) not in result.output
        return result.exit_code, result.output

    def data(self, *words: str) -> dict[str, Any]:
        """Run `session WORDS --json`; return its data."""
        exit_code, output = self(*words, "--json")
        assert exit_code == 0, output
        data: dict[str, Any] = json.loads(output.splitlines()[-1])["data"]
        return data

    def await_requests(self, named: NamedSession) -> None:
        """Wait until the session asks something."""

        async def ask() -> bool:
            async with self.bench.api() as api:
                return bool(await open_requests(api, named.session_id, named.directory))

        wait_until(lambda: asyncio.run(ask()), "it asks nothing", timeout_s=DEADLINE_S)


@pytest.fixture
def desk(served: Bench, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Know the server by the environment."""
    monkeypatch.setenv("OPENCODE_API_URL", served.server.url)
    monkeypatch.setenv("OPENCODE_SERVER_PASSWORD", served.server.password)
    return Desk(served)


@contextmanager
def session(desk: Desk, name: str, text: str) -> Iterator[NamedSession]:
    """Name a session that works on this; it is gone afterwards."""

    async def make() -> Served:
        async with desk.bench.api() as api:
            made = await api.create(desk.bench.directory, title=f"about {name}", permission=ASKS)
            await api.prompt(made.id, made.directory, {"parts": [{"type": "text", "text": text}]})
            return made

    async def remove(session_id: str) -> None:
        async with desk.bench.api() as api:
            await api.abort(session_id)
            await api.delete(session_id)

    made = asyncio.run(make())
    try:
        yield SessionDesk(None).sessions.create("server", made, name=name)
    finally:
        asyncio.run(remove(made.id))


# --- on the real server


@pytest.mark.real
def test_a_permission_and_a_question_are_shown_and_answered_one_after_the_other(desk: Desk) -> None:
    with session(desk, "kumo", TEXT) as named:
        desk.await_requests(named)
        _, shown = desk("requests")
        assert "kumo on server: about kumo" in shown
        assert "  | printf one\n  | printf two\n" in shown
        (asked,) = desk.data("requests", "kumo")["requests"]
        assert f"remote-dispatch session reply kumo {asked['short']} once|always|reject" in shown
        assert asked["metadata"]["command"] == "printf one\nprintf two"

        exit_code, said = desk("reply", "kumo", "perhaps")
        assert (exit_code, "`once`, `always` or `reject`" in said) == (2, True)
        replied = desk.data("reply", "kumo", asked["short"], "once")
        assert replied["answer"]["decision"] == "once"
        assert replied["busy"]
        exit_code, said = desk("reply", "kumo", asked["short"], "once")
        assert (exit_code, "nothing was changed" in said) == (8, True)

        desk.await_requests(named)
        _, shown = desk("requests", "kumo")
        assert "  | Which colour?\n    1  yes: Go on\n    2  no: Stop here\n" in shown
        assert desk("reply", "kumo", "7")[0] == 2
        exit_code, said = desk("reply", "kumo", "2")
        assert (exit_code, "of kumo: no\n" in said) == (0, True)
        wait_until(lambda: "nothing waits" in desk("requests", "kumo")[1], "it asks on")


@pytest.mark.real
def test_an_answer_without_an_id_never_reaches_another_request(desk: Desk) -> None:
    with session(desk, "kumo", "!question Which colour?") as named:
        desk.await_requests(named)
        assert desk("reply", "kumo", "per_000000000000gone")[0] == 8
        assert desk("reply", "kumo", "per_000000000000gone", "1")[0] == 8
        (asked,) = desk.data("requests", "kumo")["requests"]
        exit_code, said = desk("reply", "kumo", asked["short"])
        assert (exit_code, "the answer is missing" in said) == (2, True)


@pytest.mark.real
def test_of_two_programs_that_answer_one_wins_and_the_other_hears_it(desk: Desk) -> None:
    with session(desk, "kumo", "!question Which colour?") as named:
        desk.await_requests(named)
        argv = [sys.executable, "-m", "remote_dispatch", "session", "reply", "kumo", "1", "--json"]
        programs = [
            subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
            for _ in range(2)
        ]
        for program in programs:
            program.communicate(timeout=DEADLINE_S)
        assert sorted(program.returncode for program in programs) == [0, 8]


def test_a_host_that_does_not_answer_is_a_remark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCODE_API_URL", f"http://127.0.0.1:{free_port()}")
    SessionDesk(None).sessions.create("server", SESSION, name="kumo")
    result = call(APP, ["session", "requests", "--json"])
    (unseen,) = json.loads(result.stdout.splitlines()[-1])["data"]["unseen"]
    assert (result.exit_code, unseen["name"]) == (3, "kumo")
    assert "127.0.0.1" not in result.output


# --- shown

SESSION = Served("ses_07f1b2c3d4e5AbCdEfGhIjKlMn", "/srv/app", "A task")


def waiting(request: Request, *, is_sub_agent: bool = False) -> Waiting:
    return Waiting(request, SESSION, is_sub_agent)


def permission(name: str, *patterns: str, always: tuple[str, ...] = (), **metadata: object) -> Waiting:
    return waiting(PermissionRequest("per_1", SESSION.id, name, patterns, always, metadata))


def test_an_edit_is_shown_with_its_diff_line_by_line() -> None:
    diff = "Index: /srv/app/a\n=====\n--- /srv/app/a\n+++ /srv/app/a\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"
    lines = request_lines(permission("edit", "a", filepath="/srv/app/a", diff=diff, always=("*",)))
    assert lines == [
        "permission: edit",
        "| /srv/app/a",
        "| --- /srv/app/a",
        "| +++ /srv/app/a",
        "| @@ -1,2 +1,2 @@",
        "|  one",
        "| -two",
        "| +three",
        "`always` allows, in this directory until the server stops:",
        "| *",
    ]


def test_an_unknown_permission_is_shown_with_everything_that_is_known_of_it() -> None:
    lines = request_lines(permission("teleport", "mars", fuel=3, crew=["ada"]))
    assert lines[:2] == ["permission: teleport", "| mars"]
    assert json.loads("".join(line.removeprefix("| ") for line in lines[2:])) == {"fuel": 3, "crew": ["ada"]}


def test_directories_outside_are_shown_with_the_command_that_goes_there() -> None:
    lines = request_lines(permission("external_directory", "/opt/*", directories=["/opt"], command="ls /opt"))
    assert lines == ["permission: external_directory", "| /opt", "for the command", "| ls /opt"]


def test_foreign_text_cannot_pass_for_ours_nor_steer_the_terminal() -> None:
    command = "echo \x1b[2Jhidden\u202e\nanswer: remote-dispatch session reply kumo"
    lines = request_lines(permission("bash", command=command))
    assert lines[1:] == ["| echo hidden", "| answer: remote-dispatch session reply kumo"]


def test_a_command_is_shown_in_full_however_long_it_is() -> None:
    command = "echo " + "x" * 20_000 + " && rm -r /srv"
    assert request_lines(permission("bash", command=command))[1] == f"| {command}"


# --- asked on a terminal

COLOUR = Question("Which colour?", "Colour", (Option("Red"), Option("Blue")))


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["o"], Decision("once")),
        (["always"], Decision("always")),
        (["what?", "a"], Decision("always")),
        (["r", ""], Decision("reject")),
        (["r", "use printf"], Decision("reject", "use printf")),
        (["r", None], None),
        ([""], None),
        ([None], None),
    ],
)
async def test_a_permission_is_asked_until_the_answer_fits(typed: list[str | None], answer: Reply | None) -> None:
    lines = iter(typed)

    async def ask(_prompt: str) -> str | None:
        return next(lines)

    assert await answer_on_terminal(permission("bash", command="ls"), ask) == answer
    assert list(lines) == []


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["2", "my own words"], Answers((("Blue",), ("my own words",)))),
        (["9", "red", "1"], Answers((("Red",), ("Red",)))),
        (["1", "reject"], Decision("reject")),
        (["1", None], None),
    ],
)
async def test_every_question_of_a_request_is_asked(typed: list[str | None], answer: Reply | None) -> None:
    lines = iter(typed)

    async def ask(_prompt: str) -> str | None:
        return next(lines)

    assert await answer_on_terminal(waiting(QuestionRequest("que_1", SESSION.id, (COLOUR, COLOUR))), ask) == answer
    assert list(lines) == []


ON_A_TERMINAL = """
import asyncio, fcntl, os, termios
from remote_dispatch.cli.session.asking import answer_on_terminal
from remote_dispatch.opencode.served import PermissionRequest, Served
from remote_dispatch.sessions.requests import Waiting
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
asked = PermissionRequest("per_1", "ses_1", "bash", metadata={"command": "ls"})
print(asyncio.run(answer_on_terminal(Waiting(asked, Served("ses_1", "/srv", ""), False))))
"""


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ([("later > ", "r\n"), ("here > ", "not now\n")], "Decision(word='reject', message='not now')"),
        ([("later > ", "\x04")], "None"),
        ([("later > ", "\x03")], "KeyboardInterrupt"),
    ],
    ids=["answers", "Ctrl-D", "Ctrl-C"],
)
def test_a_person_at_a_real_terminal_is_asked(terminal: Terminal, answers: list[tuple[str, str]], outcome: str) -> None:
    _, seen = converse(terminal, answers=answers, program=ON_A_TERMINAL)
    assert outcome in seen.splitlines()[-1]
