"""The plugin in the real OpenCode on both machines, and terminals in which people use it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from tests.real.conftest import Machines, stored, two_machines
from tests.rig.sshd import wait_until
from tests.rig.world import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from remote_dispatch.demo.provider import ModelCall
    from tests.rig.world import Machine, Transcript
    from tests.rig.zygote import Zygote

PLUGIN = REPOSITORY / "remote_dispatch/plugin/remote-dispatch.js"
TOOL = "remote_dispatch"
PATIENCE_S = 60
WIDTH, HEIGHT = 110, 80
_NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class Place:
    """A directory of its own on the laptop: what was closed in one is not taken up in another."""

    machines: Machines
    directory: Path

    def run(self, *lines: str, arguments: tuple[str, ...] = ()) -> str:
        """Have one turn with `opencode run`; return what it printed."""
        words = ("run", *arguments, "--", "\n".join(lines))
        return self.machines.laptop.run(*words, cwd=self.directory, timeout_s=150).stdout

    @property
    def session(self) -> str:
        """The first session that began here."""
        rows = self.machines.laptop.query(
            "select id from session where directory = ? order by time_created", str(self.directory)
        )
        return str(rows[0]["id"])

    @property
    def stored(self) -> Transcript:
        """That session as it lies in OpenCode's database."""
        return stored(self.machines.laptop, self.session)

    @property
    def calls(self) -> list[ModelCall]:
        """What the model was asked from here."""
        return [call for call in self.machines.model.calls if call.directory == str(self.directory)]

    @property
    def calls_there(self) -> list[ModelCall]:
        """What the host's model was asked in this session."""
        return [call for call in self.machines.calls(self.session) if call.directory != str(self.directory)]

    @property
    def tool_states(self) -> list[dict[str, Any]]:
        """The states of the calls of our tool, in order."""
        parts = (part for message in self.stored["messages"] for part in message["parts"])
        return [part["state"] for part in parts if part["type"] == "tool" and part["tool"] == TOOL]

    def await_calls(self, count: int) -> ModelCall:
        """Wait until the model was asked so often from here; return the newest request."""
        wait_until(lambda: len(self.calls) >= count, f"the model saw no {count} calls", timeout_s=PATIENCE_S)
        return self.calls[-1]

    def dispatches(self) -> list[dict[str, Any]]:
        """What `list` says of the dispatches that left from here."""
        found: list[dict[str, Any]] = self.machines.command("list").data["dispatches"]
        return [one for one in found if one["local_directory"] == str(self.directory)]

    def waited_for(self) -> list[str]:
        """The names of the dispatches that an OpenCode waits for, or waited for when it was closed, in this place."""
        folder = self.machines.laptop.home / ".local/state/remote-dispatch/plugin"
        notes = [json.loads(one.read_text()) for one in folder.glob("*.json")]
        return [one["name"] for one in notes if one["directory"] == str(self.directory)]


@dataclass(frozen=True, slots=True)
class Terminal:
    """One terminal with a program in it."""

    socket: Path
    name: str

    def tmux(self, *words: str) -> str:
        """Ask tmux."""
        argv = ["tmux", "-f", "/dev/null", "-S", str(self.socket), *words]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout

    @property
    def screen(self) -> str:
        """What stands on the screen."""
        lines = self.tmux("capture-pane", "-p", "-t", self.name).splitlines()
        return "\n".join(line.rstrip() for line in lines)

    @property
    def pid(self) -> int:
        """The process in it; 0 when it has ended."""
        return int(self.tmux("list-panes", "-t", self.name, "-F", "#{pane_pid}").strip() or 0)

    def wait_for(self, pattern: str, *, timeout_s: float = PATIENCE_S) -> str:
        """Wait until this stands somewhere on the screen, and return the screen."""
        seen = ""

        def is_there() -> bool:
            nonlocal seen
            seen = self.screen
            return re.search(pattern, seen, re.MULTILINE) is not None

        try:
            wait_until(is_there, pattern, timeout_s=timeout_s)
        except TimeoutError as error:
            raise AssertionError(f"no {pattern!r} on the screen:\n{seen}") from error
        return seen

    def say(self, *lines: str) -> None:
        """Paste a prompt, and send it once it is there: typed keys may come before the prompt listens."""
        self.tmux("set-buffer", "\n".join(lines))
        self.tmux("paste-buffer", "-p", "-d", "-t", self.name)
        self.wait_for(r"\[Pasted|" + re.escape(lines[-1][-20:]))
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self.tmux("send-keys", "-t", self.name, *keys)

    def quit(self) -> None:
        """Leave OpenCode as its users do."""
        self.press("C-c")
        wait_until(lambda: not self.pid, "OpenCode did not end", timeout_s=20)

    def kill(self) -> None:
        """End it as a crash would."""
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: not self.pid, "OpenCode did not end", timeout_s=20)


class Terminals:
    """Opens terminals."""

    def __init__(self, machines: Machines, directory: Path) -> None:
        self._machines = machines
        self._socket = directory / "tmux"
        self._count = 0

    def open(self, place: Place, *arguments: str) -> Terminal:
        """Start `opencode ARGUMENTS` in this place and wait until it can be typed into."""
        self._count += 1
        terminal = Terminal(self._socket, f"t{self._count}")
        laptop = self._machines.laptop
        environment = {**laptop.opencode.environment, "PWD": str(place.directory), "TERM": "xterm-256color"}
        program = ["env", "-i", *(f"{name}={value}" for name, value in environment.items())]
        terminal.tmux(
            "new-session", "-d", "-s", terminal.name, "-x", str(WIDTH), "-y", str(HEIGHT), "-c", str(place.directory),
            *program, str(laptop.bin / "opencode"), *arguments,
        )  # fmt: skip
        terminal.wait_for(r"Ask anything|ctrl\+p")
        return terminal

    def close(self) -> None:
        """End all that still runs in them."""
        Terminal(self._socket, "").tmux("kill-server")


def call_tool(host: str = "pi", **arguments: object) -> str:
    """A line that makes the scripted model call our tool."""
    return f"!tool {TOOL} {json.dumps({'host': host, **arguments})}"


def in_order(text: str, *wanted: str) -> bool:
    """Whether these stand in the text one behind the other. Fails at the first that does not."""
    place = 0
    for one in wanted:
        found = text.find(one, place)
        assert found >= 0, f"{one!r} is not behind the others in:\n{text[place:]}"
        place = found + len(one)
    return True


def install(machine: Machine, **options: object) -> None:
    """Write the plugin into the user's configuration, as `plugin install` does."""
    path = machine.opencode.configuration / "opencode.json"
    configuration = json.loads(path.read_text())
    configuration["plugin"] = [[f"file://{PLUGIN}", options]]
    path.write_text(json.dumps(configuration))


@contextmanager
def configured(machine: Machine, **settings: object) -> Iterator[None]:
    """Have these settings in the user's configuration for a while."""
    path = machine.opencode.configuration / "opencode.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), **settings}))
    try:
        yield
    finally:
        path.write_text(before)


@pytest.fixture(scope="session")
def machines(
    tmp_path_factory: pytest.TempPathFactory, real_opencode: Path, zygote: Zygote | None
) -> Iterator[Machines]:
    """The machines of this worker, the plugin on both."""
    with two_machines(tmp_path_factory.mktemp("machines"), real_opencode, starter=zygote) as made:
        install(made.laptop)
        install(made.host)
        yield made


@pytest.fixture
def place(machines: Machines) -> Iterator[Place]:
    """A place for one test. No request of the model's, and nothing in it, holds an address."""
    directory = machines.laptop.home / f"place{next(_NUMBERS)}"
    directory.mkdir()
    yield Place(machines, directory)
    heard = json.dumps([asdict(call) for call in machines.model.calls])
    for secret in machines.world.secrets:
        pattern = rf"(?<![\w.]){re.escape(secret)}" + ("" if secret.endswith("@") else r"(?!\w)")
        found = re.search(pattern, heard)
        assert found is None, heard[max(0, found.start() - 500) : found.end() + 500]


@pytest.fixture
def terminals(machines: Machines, tmp_path: Path) -> Iterator[Terminals]:
    """Terminals of one test."""
    if shutil.which("tmux") is None:
        pytest.fail("tmux is missing: install it (Debian: `apt-get install tmux`)")
    opened = Terminals(machines, tmp_path)
    yield opened
    opened.close()
