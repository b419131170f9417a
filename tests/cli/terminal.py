"""Runs `remote-dispatch hosts` as a user does: in this process, as a program, and with a person at a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from remote_dispatch.cli import hosts_edit, hosts_import, hosts_trust
from remote_dispatch.cli.hosts import hosts_app
from tests.rig.calls import call

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import sys
import typer
from remote_dispatch.cli import hosts_edit, hosts_import, hosts_trust
from remote_dispatch.cli.hosts import hosts_app
app = typer.Typer(pretty_exceptions_enable=False)
app.add_typer(hosts_app, name="hosts")
app(prog_name="remote-dispatch")
"""
APP = typer.Typer(pretty_exceptions_enable=False)
APP.add_typer(hosts_app, name="hosts")
REGISTERED = (hosts_edit, hosts_import, hosts_trust)
"""Importing them registers their commands."""
HOSTS = """{ "hosts": {
  "dev": "me@10.0.0.5",
  "pi": { "host": "me@pi.lan", "port": 2222, "agent": "build", "model": "provider/id" },
  "lab": { "host": "lab", "directory": "~/src", "permissions": "auto", "env": { "TOKEN": "s3cret" } }
} }
"""
SECRETS = ("10.0.0.5", "pi.lan", "2222", "me@", "s3cret", "203.0.113.7", "box.example")
DEADLINE_S = 20


@dataclass
class Terminal:
    """Runs the program in a home of its own."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.path / ".config" / "opencode" / "hosts.jsonc"

    @property
    def project(self) -> Path:
        return self.path / "project"

    def write(self, text: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(text)

    def variables(self) -> dict[str, str]:
        base = {"PATH": os.environ["PATH"], "HOME": str(self.path), "PYTHONPATH": str(REPOSITORY)}
        return {**base, "LANG": "C.UTF-8", **self.environment}

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command in this process, which is a hundred times faster, with these variables and no others."""
        hidden: dict[str, str | None] = dict.fromkeys(os.environ)
        called = call(APP, words, environment={**hidden, **self.variables()})
        return subprocess.CompletedProcess(words, called.exit_code, called.stdout, called.stderr)

    def process(self, *words: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=self.project,
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )


def envelope(completed: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    value = json.loads(completed.stdout.splitlines()[-1])
    assert list(value) == ["schema", "command", "ok", "data", "error"]
    assert value["schema"] == 1
    assert value["ok"] == (completed.returncode in (0, 3))
    assert isinstance(value, dict)
    return value


def on_a_terminal(terminal: Terminal, *words: str, program: str = PROGRAM) -> tuple[int, str]:
    """Run the program with a real terminal as its stdout; return the exit status and what the terminal got."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program, *words],
        cwd=terminal.project,
        env=terminal.variables(),
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        output = read_to_the_end(leader)
        os.close(leader)
        return process.wait(DEADLINE_S), output


def read_to_the_end(leader: int) -> str:
    output = b""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and select.select([leader], [], [], DEADLINE_S)[0]:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # Linux: the other end is closed
            break
        if not chunk:
            break
        output += chunk
    return output.decode()


def converse(
    terminal: Terminal, *words: str, answers: Sequence[tuple[str, str]], program: str = PROGRAM
) -> tuple[int, str]:
    """Run the program with a person: each answer is typed once its prompt is seen. Return status and screen."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program, *words],
        cwd=terminal.project,
        env=terminal.variables(),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        seen = ""
        for prompt, answer in answers:
            seen += _read_until(leader, prompt)
            os.write(leader, answer.encode())
        seen += read_to_the_end(leader)
        os.close(leader)
        return process.wait(DEADLINE_S), seen


def _read_until(leader: int, prompt: str) -> str:
    output = b""
    while prompt.encode() not in output:
        assert select.select([leader], [], [], DEADLINE_S)[0], f"no prompt {prompt!r}: {output!r}"
        output += os.read(leader, 4096)
    return output.decode()
