"""The command line in this process, which is twenty times faster than a new one, and what every call must hold to."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.cli import main
from tests.bad_input.values import PRIVATE, Trap, controls_in
from tests.rig.world import Ran

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.rig.world import World


@dataclass(frozen=True, slots=True)
class Terminal:
    """A home with an environment of its own, and the directory in which commands are typed."""

    home: Path
    directory: Path
    environment: Mapping[str, str]

    @property
    def hosts_file(self) -> Path:
        """The user's hosts file."""
        return self.home / ".config/opencode/hosts.json"

    @property
    def state(self) -> Path:
        """Where records are kept."""
        return self.home / ".local/state/remote-dispatch"

    def write_hosts(self, text: str | bytes) -> None:
        """Write the hosts file."""
        self.hosts_file.parent.mkdir(parents=True, exist_ok=True)
        self.hosts_file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    def records(self) -> list[Path]:
        """Return the directories of all dispatches."""
        return sorted((self.state / "dispatches").glob("[0-9]*"))

    def run(self, *words: str, stdin: bytes = b"") -> Ran:
        """Run `remote-dispatch WORDS` to its end, and check what holds for every call."""
        out, error = _file(b""), _file(b"")
        with _place(self, words, (_file(stdin), out, error)):
            try:
                main()
            except SystemExit as end:
                status = end.code
        ran = Ran(words, status if isinstance(status, int) else 1, _text(out), _text(error))
        assert_civil(ran)
        return ran


def laptop_of(world: World) -> Terminal:
    """Return the command line on the laptop of a world."""
    environment = {**world.laptop.opencode.environment, "NO_COLOR": "1"}
    return Terminal(world.laptop.home, world.laptop.project, environment)


def assert_civil(ran: Ran) -> None:
    """Check what holds for every call: no traceback, no bug of ours, no address, nothing that a terminal obeys."""
    said = ran.stdout + ran.stderr
    assert ran.exit_code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), said
    assert "Traceback" not in said
    assert controls_in(said) == "", said
    assert not PRIVATE.search(said), said
    if "--json" in ran.arguments:
        assert ran.envelope["ok"] is (ran.exit_code in (0, 3))
        assert not controls_in(json.dumps(ran.envelope["error"], ensure_ascii=False).replace("\\n", " "))


def assert_refused(terminal: Terminal, trap: Trap, ran: Ran, *exit_codes: int) -> None:
    """Check that a command ended with one of these exit codes, said why, connected nowhere and recorded nothing."""
    assert ran.exit_code in exit_codes, ran.stdout + ran.stderr
    assert "rror" in ran.stderr
    assert not trap.was_called()
    assert terminal.records() == []
    assert not list(terminal.home.rglob("canary"))


def _file(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="strict")


def _text(file: io.TextIOWrapper) -> str:
    file.flush()
    assert isinstance(file.buffer, io.BytesIO)
    return file.buffer.getvalue().decode()


@contextlib.contextmanager
def _place(terminal: Terminal, words: tuple[str, ...], files: tuple[io.TextIOWrapper, ...]) -> Iterator[None]:
    """Be that user, in that directory, with these words and files, for one command."""
    before = dict(os.environ), sys.argv, (sys.stdin, sys.stdout, sys.stderr), os.getcwd()  # noqa: PTH109 - a plain text
    os.environ.clear()
    os.environ.update(terminal.environment)
    sys.argv = ["remote-dispatch", *words]
    sys.stdin, sys.stdout, sys.stderr = files
    os.chdir(terminal.directory)
    try:
        yield
    finally:
        os.chdir(before[3])
        sys.stdin, sys.stdout, sys.stderr = before[2]
        sys.argv = before[1]
        os.environ.clear()
        os.environ.update(before[0])
