"""`session send` and `session run` as users type them, on the real server by its URL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.cli.session import send
from remote_dispatch.cli.session.app import session_app
from tests.rig.calls import call
from tests.rig.sshd import wait_until
from tests.rig.world import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.served import Bench

PATIENCE_S = 60
REGISTERED = send
"""Importing it registers its commands."""


class Laptop:
    """A home with one host, which is the server by its URL."""

    def __init__(self, home: Path, served: Bench) -> None:
        self.served = served
        self.environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "OPENCODE_SERVER_PASSWORD": served.server.password,
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
        }
        self.home = home
        hosts = {"box": {"server": served.server.url, "directory": served.directory}}
        (home / ".config/opencode").mkdir(parents=True)
        (home / ".config/opencode/hosts.json").write_text(json.dumps({"hosts": hosts}))

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start `remote-dispatch session WORDS`."""
        return subprocess.Popen(
            [sys.executable, "-m", "remote_dispatch", "session", *words],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def cli(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run it to its end; no address and no password is in what it says."""
        process = self.start(*words)
        stdout, stderr = process.communicate(stdin, timeout=PATIENCE_S)
        for secret in (self.served.server.password, str(self.served.server.port), "Traceback"):
            assert secret not in stdout + stderr
        return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


@pytest.fixture
def laptop(tmp_path: Path, served: Bench) -> Laptop:
    return Laptop(tmp_path, served)


def envelope(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def sessions_of(laptop: Laptop) -> list[str]:
    return [one.stem for one in (laptop.home / ".local/state/remote-dispatch/sessions").glob("*.json")]


async def _titles(served: Bench) -> list[str]:
    async with served.api() as api:
        return [one.title for one in await api.sessions()]


@pytest.mark.real
def test_the_answer_is_on_stdout_and_everything_else_on_stderr(laptop: Laptop) -> None:
    assert laptop.cli("new", "box", "--name", "kumo").returncode == 0
    ran = laptop.cli("send", "kumo", stdin="!bash sleep 0.5; echo hi\n!say the end\n")
    assert (ran.returncode, ran.stdout) == (0, "the end\n")
    assert "> !bash sleep 0.5; echo hi" in ran.stderr
    assert "bash: sleep 0.5; echo hi" in ran.stderr
    ran = laptop.cli("send", "kumo", "!fail 401", "--json", "--retries", "0")
    answer = envelope(ran)
    assert ran.returncode == answer["error"]["exit_code"] == 1
    assert answer["error"]["kind"] == answer["data"]["failure"] == "auth_failed"
    assert answer["data"]["prompt"]["text"] == "!fail 401"
    assert {json.loads(line)["type"] for line in ran.stdout.splitlines()[:-1]} == {"prompt", "state"}


@pytest.mark.real
def test_a_turn_that_was_not_waited_for_keeps_the_session_from_the_next_prompt(laptop: Laptop) -> None:
    laptop.cli("new", "box", "--name", "kumo")
    sent = laptop.cli("send", "kumo", "--no-wait", "!hang")
    assert sent.returncode == 0
    assert "remote-dispatch session watch kumo" in sent.stdout
    refused = laptop.cli("send", "kumo", "!say no")
    assert refused.returncode == 8
    assert "--abort-first" in refused.stderr
    done = laptop.cli("send", "kumo", "--abort-first", "!say yes")
    assert (done.returncode, done.stdout) == (0, "yes\n")


@pytest.mark.real
async def test_run_leaves_nothing_behind_after_an_answer_a_failure_and_ctrl_c(laptop: Laptop) -> None:
    title = f"of {laptop.home.name}"
    ran = laptop.cli("run", "box", "--title", title, "!say fresh")
    assert (ran.returncode, ran.stdout) == (0, "fresh\n")
    failed = laptop.cli("run", "box", "--title", title, "--idle-timeout", "0.5s", "--retries", "0", "!hang")
    assert failed.returncode == 6
    calls = len(laptop.served.model.calls)
    process = laptop.start("run", "box", "--title", title, "!hang")
    wait_until(lambda: len(laptop.served.model.calls) > calls, "no turn began")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "deleted" in stderr
    assert title not in await _titles(laptop.served)
    assert sessions_of(laptop) == []


@pytest.mark.real
def test_run_keeps_the_session_under_a_name_where_asked(laptop: Laptop) -> None:
    ran = laptop.cli("run", "box", "--keep", "--name", "mika", "--json", '!say {"a": 1}', "--expect", "json")
    assert ran.returncode == 0
    assert envelope(ran)["data"]["value"] == {"a": 1}
    assert sessions_of(laptop) == ["mika"]


@pytest.mark.parametrize(
    "words",
    [
        ("send", "kumo"),
        ("send", "kumo", "a", "--no-wait", "--watch"),
        ("send", "kumo", "a", "--no-wait", "--expect", "json"),
        ("send", "kumo", "a", "--no-wait", "--timeout", "5m"),
        ("send", "kumo", "a", "--watch", "--retries", "0"),
        ("send", "kumo", "a", "--every", "5m", "--idle-timeout", "60s"),
        ("send", "kumo", "a", "--expect", "yaml"),
        ("send", "kumo", "a", "--attach", "nothing.txt"),
        ("send", "kumo", "a", "--file", "nothing.txt"),
        ("run", "box", "a", "--name", "mika"),
    ],
    ids=[
        "no-prompt",
        "two-ways-to-wait",
        "expect-without-a-wait",
        "timeout-without-a-wait",
        "retries-of-a-watch",
        "silence-in-a-watch",
        "expect",
        "attach",
        "two-prompts",
        "name-without-keep",
    ],
)
def test_a_call_that_makes_no_sense_is_refused_before_anything_is_asked(words: tuple[str, ...]) -> None:
    ran = call(session_app, words)
    assert ran.exit_code == 2, ran.output
    assert "error:" in ran.output
