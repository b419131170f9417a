"""A whole world: a laptop, a host behind a real sshd, OpenCode on both, and the command line as users type it.

Each of its calls is checked: no address in what a model can read, no traceback, no hint that names what does not exist.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from remote_dispatch.cli.app import app
from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.processes import end_processes_of, processes_of
from tests.rig.sshd import USER, Sshd, wait_until
from tests.rig.stub import OPENCODE_STUB, a_transcript

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import typer

REPOSITORY = Path(__file__).resolve().parents[2]
ALIAS = "berry-lan"
CHEAP = "Ciphers aes128-gcm@openssh.com"
"""Of all ciphers the one that costs our side of a connection least; tests/remote has the usual ones."""
PATIENCE_S = 60
MARK = "This conversation was handed over to another machine"
ENVELOPE = {"schema", "command", "ok", "data", "error"}

_NAMED_COMMAND = re.compile(r"remote-dispatch ([a-z]+)(?: ([a-z][a-z-]*))?")
_VERBS = "show|logs -f|logs|wait|collect|cancel|resume|verify|remove"
_NAMED_DISPATCH = re.compile(rf"`remote-dispatch (?:{_VERBS}) ([a-z][a-z0-9-]+)`")
_RUN_LOG = """#!/bin/sh
[ -f {variables} ] && . {variables}
if [ "$1" = -e ]; then echo "reader $3"; else printf "%s\\n" "$1 $2 $3"; fi >>{calls}
exec {program} "$@"
"""

Transcript = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ran:
    """A command line that has ended."""

    arguments: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The last line of stdout."""
        envelope: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return envelope

    @property
    def streams(self) -> list[dict[str, Any]]:
        """The JSON lines before the envelope."""
        return [json.loads(line) for line in self.stdout.splitlines()[:-1]]

    @property
    def data(self) -> dict[str, Any]:
        """`data` of the envelope."""
        data: dict[str, Any] = self.envelope["data"]
        return data

    @property
    def error(self) -> dict[str, Any]:
        """`error` of the envelope."""
        error: dict[str, Any] = self.envelope["error"]
        return error

    def steps(self) -> list[str]:
        """The phases of the stream, in order."""
        return [line["phase"] for line in self.streams if line["type"] == "step"]


@dataclass(frozen=True, slots=True)
class Machine:
    """A home with an OpenCode in its PATH, which notes each call, and takes variables that change while it is used."""

    opencode: OpencodeHome

    @property
    def home(self) -> Path:
        """The HOME."""
        return self.opencode.directory

    @property
    def project(self) -> Path:
        """The directory in which work is done."""
        return self.home / "project"

    @property
    def bin(self) -> Path:
        """The first directory in PATH."""
        return self.opencode.bin

    def make(self, model_url: str | None) -> None:
        """Create the home; without a model OpenCode's configuration stays empty."""
        if model_url is not None:
            self.opencode.make(model_url)
        for directory in (self.opencode.configuration, self.bin, self.home / "tmp", self.project):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        program = str(self.opencode.opencode)
        if self.opencode.opencode == OPENCODE_STUB:
            program = f"{sys.executable} -IS {program}"
        text = _RUN_LOG.format(variables=self.home / "variables", calls=self.home / "calls", program=program)
        self.put_program("opencode", text)

    def put_program(self, name: str, text: str) -> Path:
        """Put a program at the head of PATH."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def set(self, **variables: object) -> None:
        """Set variables of every OpenCode that starts here from now on; earlier ones are forgotten."""
        lines = (f"export {name}='{value}'\n" for name, value in variables.items())
        (self.home / "variables").write_text("".join(lines))

    def run(
        self, *arguments: str, cwd: Path | None = None, timeout_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run OpenCode here, as its user would; it must succeed."""
        output = self.home / "tmp" / "output"
        with output.open("wb") as stdout:
            done = subprocess.run(
                [self.bin / "opencode", *arguments],
                cwd=cwd or self.project,
                env={**self.opencode.environment, "PWD": str(cwd or self.project)},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                timeout=timeout_s,
                check=False,
            )
        assert done.returncode == 0, done.stderr.decode()
        return subprocess.CompletedProcess(done.args, 0, output.read_text(), done.stderr.decode())

    def bring_in(self, transcript: Transcript, *, cwd: Path | None = None) -> str:
        """Import a transcript and return its id."""
        file = self.home / "tmp" / "import.json"
        file.write_text(json.dumps(transcript))
        self.run("import", str(file), cwd=cwd)
        return str(transcript["info"]["id"])

    def export(self, session: str) -> Transcript:
        """Return a session as OpenCode exports it."""
        transcript: Transcript = json.loads(self.run("export", session).stdout)
        return transcript

    def query(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Ask OpenCode's database itself; nothing where there is none yet."""
        path = self.opencode.data / "opencode.db"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(statement, values)]

    def sessions(self) -> list[str]:
        """Return the ids of all sessions, the oldest first."""
        return [row["id"] for row in self.query("select id from session order by time_created, id")]

    def content(self) -> dict[str, list[dict[str, Any]]]:
        """Return every row of sessions, messages, parts and todos: what must not change."""
        return {table: self.query(f"select * from {table} order by 1, 2") for table in _tables(self)}

    def calls(self, command: str) -> int:
        """Count how often `opencode COMMAND` was called, with or without `--pure`; `reader` is its runtime alone."""
        log = self.home / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return sum(line.removeprefix("--pure ").split(" ")[0] == command for line in lines)


def _tables(machine: Machine) -> list[str]:
    found = machine.query("select name from sqlite_master where type = 'table'")
    return sorted({row["name"] for row in found} & {"session", "message", "part", "todo"})


class Process(Protocol):
    """As much of `subprocess.Popen` as is used of a command line."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """The exit status, as far as it is known."""

    def poll(self) -> int | None:
        """Return the exit status if it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it still runs."""


class Starter(Protocol):
    """Starts the command line in another way than as a new Python."""

    def start(self, argv: list[str], cwd: Path, environment: Mapping[str, str], output: Path) -> Process:
        """Start it in a session of its own; its files are OUTPUT.in, .out and .err, its umask is 0."""


@dataclass(slots=True)
class Running:
    """A command line at work; its output so far can be read."""

    world: World
    arguments: tuple[str, ...]
    process: Process
    output: Path

    def stdout(self) -> str:
        """What it printed so far."""
        return self.output.with_suffix(".out").read_text(errors="replace")

    def stderr(self) -> str:
        """What it said so far."""
        return self.output.with_suffix(".err").read_text(errors="replace")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=PATIENCE_S)

    def end(self, timeout_s: float = PATIENCE_S) -> Ran:
        """Wait for its end and return it. Raises subprocess.TimeoutExpired, and ends it then."""
        try:
            exit_code = self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return Ran(self.arguments, exit_code, self.stdout(), self.stderr())

    def finish(self, timeout_s: float = PATIENCE_S) -> Ran:
        """Wait for its end, check what it said, and return it."""
        ran = self.end(timeout_s)
        self.world.check(ran)
        return ran


@dataclass
class World:
    """A laptop with a session's worth of OpenCode, and the host `pi`; use as a context manager.

    `opencode` is the binary of both sides: the stub, or the real one, which needs `model_url`. `providers` are the
    names of the laptop's and the host's only provider. `sshd_options` are further lines of sshd_config,
    `host_variables` further variables of every process on the host. With a `starter` the command line is started by it.
    `listen` is where the host's sshd listens: elsewhere than on the loopback only in a network of our own.
    """

    directory: Path
    opencode: Path = OPENCODE_STUB
    model_url: str | None = None
    sshd_options: tuple[str, ...] = ()
    providers: tuple[str, str] = ("scripted", "scripted")
    host_variables: Mapping[str, str] = field(default_factory=dict)
    starter: Starter | None = None
    sftp: Literal["external", "internal", "off"] = "external"
    listen: str = "127.0.0.1"
    _started: list[Running] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def __enter__(self) -> Self:
        here, there = self.providers
        self.laptop = Machine(OpencodeHome(self.directory / "laptop", self.opencode, here))
        self.host = Machine(OpencodeHome(self.directory / "pi", self.opencode, there, self.host_variables))
        for machine in (self.laptop, self.host):
            machine.make(self.model_url)
        environment = dict(self.host.opencode.environment)
        self.sshd = Sshd(
            self.directory / "sshd",
            home=self.host.home,
            path=environment.pop("PATH"),
            environment=environment,
            sftp=self.sftp,
            listen=self.listen,
            extra=(*self.sshd_options, *(() if self.starter is None else (CHEAP,))),
        )
        self.sshd.start()
        self.sshd.write_client_home(self.laptop.home, alias=ALIAS)
        self.write_hosts(pi={})
        (self.directory / "output").mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._started:
            if running.process.poll() is None:
                running.kill()
        self.sshd.stop()
        for machine in (self.laptop, self.host):
            end_processes_of(machine.home)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every private string: what must appear in nothing that a model can read."""
        key = self.laptop.home / ".ssh" / f"id_{ALIAS}"
        return (
            ALIAS,
            f"{USER}@",
            self.sshd.listen,
            str(self.sshd.port),
            str(key),
            str(self.laptop.home / ".ssh" / "known_hosts"),
        )

    # --- what a user does

    def write_hosts(self, **entries: Mapping[str, object]) -> Path:
        """Write the hosts file; an entry without `host` is our host, in its project; None leaves a field out."""
        usual = {"host": ALIAS, "directory": str(self.host.project)}
        wanted = ((name, {**usual, **entry}) for name, entry in entries.items())
        hosts = {name: {key: value for key, value in one.items() if value is not None} for name, one in wanted}
        (path := self.laptop.opencode.configuration / "hosts.json").write_text(json.dumps({"hosts": hosts}))
        return path

    def start(
        self,
        *arguments: str,
        cwd: Path | None = None,
        stdin: bytes = b"",
        variables: Mapping[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> Running:
        """Start `remote-dispatch ARGUMENTS` on the laptop; `prefix` is a program that starts it in turn."""
        output = self.directory / "output" / str(next(self._numbers))
        output.with_suffix(".in").write_bytes(stdin)
        place = cwd or self.laptop.project
        environment = {
            **self.laptop.opencode.environment,
            "PWD": str(place),
            "PYTHONPATH": str(REPOSITORY),
            "NO_COLOR": "1",
            **(variables or {}),
        }
        start = self.starter.start if self.starter and not prefix else _start
        argv = [*prefix, sys.executable, "-m", "remote_dispatch", *arguments] if start is _start else [*arguments]
        process = start(argv, place, environment, output)
        self._started.append(Running(self, arguments, process, output))
        return self._started[-1]

    def cli(
        self,
        *arguments: str,
        cwd: Path | None = None,
        stdin: bytes = b"",
        variables: Mapping[str, str] | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> Ran:
        """Run `remote-dispatch ARGUMENTS` on the laptop to its end, and check what it said."""
        return self.start(*arguments, cwd=cwd, stdin=stdin, variables=variables).finish(timeout_s)

    def send(self, *arguments: str, **options: Any) -> Ran:
        """Run `send pi ARGUMENTS --json`."""
        return self.cli("send", "pi", *arguments, "--json", **options)

    def round_trip(self, *arguments: str, **options: Any) -> Ran:
        """Run `send pi ARGUMENTS --mode round-trip --json`."""
        return self.send(*arguments, "--mode", "round-trip", **options)

    # --- the two sides

    def local_session(self, *texts: str, directory: Path | None = None, **info: Any) -> str:
        """Make a session on the laptop with these texts of user and model in turn; return its id.

        `info` are fields of the session; its messages are of 2023.
        """
        transcript = a_transcript(*(texts or ("hello", "hi there")))
        transcript["info"] |= info
        return self.laptop.bring_in(transcript, cwd=directory)

    def export_local(self, session: str) -> Transcript:
        """Return a session of the laptop."""
        return self.laptop.export(session)

    def remote_sessions(self) -> list[str]:
        """Return the ids of the sessions that the host has."""
        return self.host.sessions()

    def count_runs(self) -> int:
        """Count how often a brief ran on the host."""
        return self.host.calls("run")

    def run_directories(self) -> list[Path]:
        """Return the run directories on the host, the oldest first."""
        return sorted((self.host.home / ".local/state/remote-dispatch/runs").glob("*"))

    def dispatch_folders(self) -> list[Path]:
        """Return the directories of the dispatches on the laptop, the oldest first."""
        return sorted((self.laptop.home / ".local/state/remote-dispatch/dispatches").glob("[0-9]*"))

    def connections(self) -> int:
        """Count the logins that the host has seen."""
        return self.sshd.log.read_text().count("Accepted publickey")

    def brief(self) -> str:
        """Return the text that opened the newest turn on the host."""
        return (self.run_directories()[-1] / "brief.txt").read_text()

    def await_file(self, path: Path, *, timeout_s: float = 20) -> Path:
        """Wait until a file exists."""
        wait_until(path.exists, f"{path.name} did not appear", timeout_s=timeout_s)
        return path

    def await_end(self, *, timeout_s: float = 20) -> None:
        """Wait until every run directory has its outcome."""
        wait_until(
            lambda: all((one / "outcome.json").exists() for one in self.run_directories()),
            "the run on the host did not end",
            timeout_s=timeout_s,
        )

    def host_kill(self, pid: int) -> None:
        """Kill a process of the host that we started there, as a power cut would."""
        assert pid in processes_of(self.host.home)
        os.kill(pid, signal.SIGKILL)

    def is_alive(self, pid_file: Path) -> bool:
        """Whether the process whose id is in this file lives on the host."""
        return int(pid_file.read_text()) in processes_of(self.host.home)

    # --- what holds for every call

    def check(self, ran: Ran) -> None:
        """Check what holds for every call of the command line."""
        said = f"{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in said, said
        assert ran.exit_code != 70, said
        if "--json" in ran.arguments and ran.stdout:
            _check_envelope(ran)
        self.assert_no_address(ran)
        self._check_hints(said)

    def assert_no_address(self, ran: Ran) -> None:
        """Fail when a private string stands in the output, in a brief, in events, or in what the host was told."""
        texts = {"stdout": ran.stdout, "stderr": ran.stderr}
        for directory in (*self.run_directories(), *self.dispatch_folders()):
            for name in ("brief.txt", "events.jsonl", "job.json"):
                with contextlib.suppress(FileNotFoundError):
                    texts[name] = (directory / name).read_text(errors="replace")
        for secret in self.secrets:
            pattern = rf"(?<![\w.]){re.escape(secret)}" + ("" if secret.endswith("@") else r"(?!\w)")
            for name, text in texts.items():
                assert not re.search(pattern, text), f"{secret} in {name} of {ran.arguments}:\n{text[:4000]}"

    def _check_hints(self, said: str) -> None:
        for match in _NAMED_COMMAND.finditer(said):
            assert match[1] in commands(), said
            if commands()[match[1]]:
                assert match[2] in commands()[match[1]], said
        records = [one / "record.json" for one in self.dispatch_folders() if (one / "record.json").exists()]
        names = {json.loads(one.read_text()).get("name") for one in records}
        assert set(_NAMED_DISPATCH.findall(said)) <= names, said


def _start(argv: list[str], cwd: Path, environment: Mapping[str, str], output: Path) -> Process:
    with (
        output.with_suffix(".in").open("rb") as source,
        output.with_suffix(".out").open("wb") as out,
        output.with_suffix(".err").open("wb") as err,
    ):
        return subprocess.Popen(
            argv, cwd=cwd, env=environment, stdin=source, stdout=out, stderr=err, start_new_session=True, umask=0
        )


@cache
def commands() -> dict[str, frozenset[str]]:
    """Return the commands of `remote-dispatch`, and what stands below each."""
    own: dict[str, frozenset[str]] = {str(one.name): frozenset() for one in app.registered_commands}
    below = {
        str(group.name): frozenset(str(one.name) for one in _members(group.typer_instance or app))
        for group in app.registered_groups
    }
    return own | below


def _members(group: typer.Typer) -> list[Any]:
    return [*group.registered_commands, *group.registered_groups]


def _check_envelope(ran: Ran) -> None:
    envelope = ran.envelope
    assert set(envelope) == ENVELOPE, envelope
    assert envelope["schema"] == 1
    assert envelope["command"].split()[0] == ran.arguments[0]
    assert envelope["ok"] is (ran.exit_code in (0, 3)), envelope
    assert (envelope["error"] is None) is envelope["ok"], envelope
    if envelope["error"]:
        assert set(envelope["error"]) == {"kind", "message", "hint", "exit_code"}
        assert envelope["error"]["exit_code"] == ran.exit_code
    assert all(line["type"] for line in ran.streams)
