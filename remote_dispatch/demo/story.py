"""The demo: a real round trip on one machine, with the real OpenCode, a scripted model and an SSH host on loopback.

Everything lives in one temporary directory, and everything that was started is ended and removed, on Ctrl-C too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.host import serve_host
from remote_dispatch.demo.processes import end_processes_of
from remote_dispatch.demo.provider import ScriptedModel
from remote_dispatch.errors import CommandError, DeadlinePassedError, HostNotReadyError, TaskFailedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

HOST = "lab"
THIS_MACHINE = "this machine"
INSTALLED_BY_MAKE = Path(".cache/opencode/node_modules/.bin/opencode")
FOUND_ON_HOST = "findings.txt"
STEP_TIMEOUT_S = 120
DISPATCH_TIMEOUT_S = 300
LINE_LIMIT = 1 << 20
LONGEST_TEXT = 160

GREETING = 'for name in ("Ada", "Grace"):\n    print("Hello", name)\n'
QUESTION = """What does greet.py do?
!read greet.py
!say It greets Ada and Grace, one line each.
"""
TASK = """Finish this on the lab machine, and keep your findings there.
!write findings.txt greet.py greets two people; measured on the lab machine
!bash cat findings.txt
!say Done: the findings are in findings.txt on the lab machine.
"""


@dataclass(frozen=True, slots=True)
class Ending:
    """What the demo proved."""

    directory: Path
    """Where everything was; it is gone unless it was kept."""
    session_id: str
    turns: tuple[tuple[str, str], ...]
    """The returned conversation: role and text."""
    is_on_host: bool
    """Whether the file that the model wrote was on the host."""
    is_at_home: bool
    """Whether it was in the local project; it must not be."""
    model_calls: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Two machines in one directory."""

    directory: Path
    laptop: OpencodeHome
    lab: OpencodeHome
    model: ScriptedModel

    @property
    def local_project(self) -> Path:
        """The project on the laptop."""
        return self.laptop.directory / "project"

    @property
    def remote_project(self) -> Path:
        """Where the session works on the host."""
        return self.lab.directory / "project"


async def play(report: Callable[[str], None], *, opencode: Path | None = None, keep: bool = False) -> Ending:
    """Show one round trip, telling it line by line through `report`.

    Raises HostNotReadyError without OpenCode, and CommandError, DeadlinePassedError or TaskFailedError
    when a step fails.
    """
    binary = find_opencode(opencode)
    with _temporary_directory(keep=keep) as directory:
        async with _stage(directory, binary) as stage:
            report(f"Two machines, played in {directory}: `laptop` is yours, `{HOST}` is the host.")
            session = await _talk_at_home(stage, report)
            await _dispatch(stage, session, report)
            ending = await _show_return(stage, session, report)
    _say_goodbye(report, ending, keep=keep)
    return ending


def find_opencode(given: Path | None) -> Path:
    """Return the OpenCode to play with: the given one, the one in PATH, or the one that `make` installed here.

    Raises HostNotReadyError when there is none.
    """
    in_path = shutil.which("opencode")
    candidates = [given] if given else [Path(in_path) if in_path else None, INSTALLED_BY_MAKE]
    for candidate in candidates:
        if candidate is not None and os.access(candidate, os.X_OK) and candidate.is_file():
            return candidate.resolve()
    raise HostNotReadyError(
        THIS_MACHINE,
        "OpenCode is missing" if given is None else "the given OpenCode is not a program",
        hint="install it with `npm install -g opencode-ai`, or name it with `remote-dispatch demo --opencode PATH`",
    )


async def _talk_at_home(stage: Stage, report: Callable[[str], None]) -> str:
    report("")
    report("1. A conversation on the laptop, with the real OpenCode and a model that follows a script:")
    report(f"   $ opencode run {_quoted(QUESTION)}")
    arguments = ["run", "--format", "json", "--dir", str(stage.local_project)]
    events = await _opencode(stage, arguments, stdin=QUESTION.encode())
    session = str(json.loads(events.splitlines()[0])["sessionID"])
    for _, text in (await _turns(stage, session))[1:]:
        report(f"   {text}")
    return session


async def _dispatch(stage: Stage, session: str, report: Callable[[str], None]) -> None:
    """Type the very command that a user would type."""
    report("")
    report("2. The conversation goes to the host, is continued there, and comes home:")
    report(f"   $ remote-dispatch send {HOST} {_quoted(TASK)} --session {session} --mode round-trip")
    argv = [sys.executable, "-m", "remote_dispatch", "send", HOST, TASK, "--session", session, "--mode", "round-trip"]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=stage.local_project,
        env={**_environment(stage), **_python_environment()},
        limit=LINE_LIMIT,
    )
    said = await _relay(process, report)
    if process.returncode:
        raise CommandError(THIS_MACHINE, "remote-dispatch send", process.returncode, " ".join(said[-3:]))


async def _relay(process: asyncio.subprocess.Process, report: Callable[[str], None]) -> list[str]:
    """Report the process's lines as they come, to its end, and return them."""
    if process.stdout is None:
        raise TypeError("the process has no output to relay")
    said: list[str] = []
    async with _ended(process, "remote-dispatch send", DISPATCH_TIMEOUT_S):
        async for line in process.stdout:
            said.append(line.decode(errors="replace").rstrip())
            report(f"   {said[-1]}")
        await process.wait()
    return said


async def _show_return(stage: Stage, session: str, report: Callable[[str], None]) -> Ending:
    report("")
    report("3. The session on the laptop now holds the whole conversation:")
    turns = await _turns(stage, session)
    for role, text in turns:
        report(f"   {role + ':':<10} {_shortened(text)}")
    is_on_host = (stage.remote_project / FOUND_ON_HOST).is_file()
    is_at_home = (stage.local_project / FOUND_ON_HOST).exists()
    report(f"   The model wrote {FOUND_ON_HOST}: on the host {_yes(is_on_host)}, on the laptop {_yes(is_at_home)}.")
    if not is_on_host or is_at_home:
        raise TaskFailedError(f"{FOUND_ON_HOST} is not where the demo should have left it")
    return Ending(stage.directory, session, turns, is_on_host, is_at_home, len(stage.model.calls))


def _say_goodbye(report: Callable[[str], None], ending: Ending, *, keep: bool) -> None:
    report("")
    report(
        f"Everything is kept in {ending.directory}." if keep else "Everything that was started is ended and removed."
    )
    report("Now with a machine of yours:")
    report("   $ remote-dispatch hosts add gpu-box me@gpu.example")
    report('   $ remote-dispatch send gpu-box "finish this" --last --mode round-trip')


async def _turns(stage: Stage, session: str) -> tuple[tuple[str, str], ...]:
    """Return what was said in the local session: role and text of every message that has text."""
    exported = await _opencode(stage, ["export", session])
    messages: list[dict[str, Any]] = json.loads(exported)["messages"]
    said = ((message["info"]["role"], _without_script(_text(message["parts"]))) for message in messages)
    return tuple((role, text) for role, text in said if text)


async def _opencode(stage: Stage, arguments: list[str], stdin: bytes = b"") -> bytes:
    """Run OpenCode on the laptop and return its output; files on both sides, since OpenCode cuts pipes."""
    box = stage.laptop.directory / "tmp"
    (box / "stdin").write_bytes(stdin)
    with (box / "stdin").open("rb") as source, (box / "out").open("wb") as out, (box / "err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            stage.laptop.bin / "opencode",
            *arguments,
            stdin=source,
            stdout=out,
            stderr=err,
            cwd=stage.local_project,
            env=_environment(stage),
        )
        async with _ended(process, f"opencode {arguments[0]}", STEP_TIMEOUT_S):
            await process.wait()
    if process.returncode:
        last_words = (box / "err").read_text(encoding="utf-8", errors="replace").strip()[-300:]
        raise CommandError(THIS_MACHINE, f"opencode {arguments[0]}", process.returncode, last_words)
    return (box / "out").read_bytes()


@asynccontextmanager
async def _stage(directory: Path, opencode: Path) -> AsyncIterator[Stage]:
    """Set up both machines, the model and the SSH host; on leaving, end everything that runs in them."""
    laptop, lab = (OpencodeHome(directory / name, opencode, name) for name in ("laptop", HOST))
    with ScriptedModel() as model:
        stage = Stage(directory, laptop, lab, model)
        _furnish(stage)
        try:
            async with serve_host(stage.lab.directory, stage.lab.environment) as host:
                host.introduce(stage.laptop.directory, HOST)
                yield stage
        finally:
            for home in (laptop, lab):
                end_processes_of(home.directory)


def _furnish(stage: Stage) -> None:
    for home in (stage.laptop, stage.lab):
        home.make(stage.model.url)
    for project in (stage.local_project, stage.remote_project):
        project.mkdir()
    (stage.local_project / "greet.py").write_text(GREETING, encoding="utf-8")
    hosts = {"hosts": {HOST: {"host": HOST, "directory": "~/project", "model": stage.lab.model}}}
    (stage.laptop.configuration / "hosts.json").write_text(json.dumps(hosts, indent=2) + "\n", encoding="utf-8")


@contextmanager
def _temporary_directory(*, keep: bool) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="remote-dispatch-demo-")).resolve()
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def _ended(process: asyncio.subprocess.Process, command: str, timeout_s: float) -> AsyncIterator[None]:
    """Leave no process behind, whatever happens inside."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise DeadlinePassedError(f"`{command}` did not end within {timeout_s} seconds and was killed") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _environment(stage: Stage) -> dict[str, str]:
    return {**stage.laptop.environment, "PWD": str(stage.local_project), "NO_COLOR": "1", "COLUMNS": "100"}


def _python_environment() -> Mapping[str, str]:
    """What lets the same Python find this package, installed or not."""
    package = Path(__file__).resolve().parents[2]
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))}


def _text(parts: list[dict[str, Any]]) -> str:
    return "".join(part["text"] for part in parts if part["type"] == "text" and not part.get("synthetic"))


def _without_script(text: str) -> str:
    """Leave out the lines that are for the scripted model only."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("!"))


def _shortened(text: str) -> str:
    """Keep both ends of a long text: the brief's end holds the user's own words."""
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT // 2]} [...] {text[-LONGEST_TEXT // 2 :]}"


def _quoted(prompt: str) -> str:
    return f'"{_without_script(prompt)}"'


def _yes(value: bool) -> str:  # noqa: FBT001 - a word for a fact
    return "yes" if value else "no"
