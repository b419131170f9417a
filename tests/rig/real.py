"""The real OpenCode for tests marked `real`: separate homes, the scripted model, and a host to dispatch to.

A `run` takes about 3 s, an export or an import about 1.5 s, on a fresh home as well: OpenCode makes its database in
milliseconds, so no prepared home is copied around.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.host import DemoHost, serve_host
from remote_dispatch.demo.provider import ScriptedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLED = REPOSITORY / ".cache/opencode/node_modules/.bin/opencode"
VARIABLE = "REMOTE_DISPATCH_TEST_OPENCODE"
PATIENCE_S = 90

Transcript = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RealHome:
    """One machine's OpenCode: a home of its own, and what a user does there."""

    opencode: OpencodeHome

    @property
    def directory(self) -> Path:
        """The HOME."""
        return self.opencode.directory

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every process of this home."""
        return self.opencode.environment

    def run(
        self, *arguments: str, cwd: Path, stdin: bytes = b"", timeout_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `opencode ARGUMENTS` to its end and return it, whatever its exit status; stdin is a regular file."""
        return self.command(self.opencode.bin / "opencode", *arguments, cwd=cwd, stdin=stdin, timeout_s=timeout_s)

    def command(
        self,
        *argv: str | Path,
        cwd: Path,
        stdin: bytes = b"",
        variables: Mapping[str, str] | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run any command with this home's environment; output goes through files, so that OpenCode cuts nothing."""
        box = self.directory / "tmp"
        (box / "stdin").write_bytes(stdin)
        environment = {**self.environment, "PWD": str(cwd), **(variables or {})}
        with (box / "stdin").open("rb") as source, (box / "out").open("wb") as out, (box / "err").open("wb") as err:
            done = subprocess.run(
                argv, cwd=cwd, env=environment, stdin=source, stdout=out, stderr=err, timeout=timeout_s, check=False
            )
        stdout, stderr = (box / "out").read_bytes(), (box / "err").read_bytes()
        return subprocess.CompletedProcess(argv, done.returncode, stdout, stderr)

    def converse(self, prompt: str, *, cwd: Path, session: str | None = None, arguments: tuple[str, ...] = ()) -> str:
        """Have one turn, in a new session or a known one, and return the session's id."""
        chosen = ("--session", session) if session else ()
        flags = ("--format", "json", "--dir", str(cwd), *chosen, *arguments)
        done = self.run("run", *flags, cwd=cwd, stdin=prompt.encode())
        assert done.returncode == 0, done.stderr.decode()
        sessions = {event["sessionID"] for event in map(json.loads, done.stdout.splitlines())}
        assert len(sessions) == 1, done.stdout.decode()
        return str(sessions.pop())

    def export(self, session: str) -> Transcript:
        """Return a session's transcript."""
        done = self.run("export", session, cwd=self.directory)
        assert done.returncode == 0, done.stderr.decode()
        transcript: Transcript = json.loads(done.stdout)
        return transcript

    def bring_in(self, transcript: Transcript, *, cwd: Path) -> str:
        """Import a transcript in a directory, and return the session's id."""
        file = self.directory / "tmp/import.json"
        file.write_text(json.dumps(transcript), encoding="utf-8")
        done = self.run("import", str(file), cwd=cwd)
        session = str(transcript["info"]["id"])
        assert f"Imported session: {session}" in done.stdout.decode(), done.stderr.decode()
        return session


def turns(transcript: Transcript) -> list[tuple[str, str]]:
    """Return who said what: role and joined text of each message that has text."""
    said = ((message["info"]["role"], _text(message)) for message in transcript["messages"])
    return [(role, text) for role, text in said if text]


def _text(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text" and not part.get("synthetic"))


@pytest.fixture(scope="session")
def real_opencode() -> Path:
    """The binary; a test that needs it fails without it."""
    found = Path(os.environ.get(VARIABLE) or INSTALLED).expanduser()
    if not os.access(found, os.X_OK):
        pytest.fail(f"OpenCode is missing: run `sh tools/ensure-opencode.sh .cache/opencode`, or set {VARIABLE}")
    return found.resolve()


@pytest.fixture
def scripted_model() -> Iterator[ScriptedModel]:
    """The model of both homes; its `calls` count both."""
    with ScriptedModel() as model:
        yield model


@pytest.fixture
def local_home(tmp_path: Path, real_opencode: Path, scripted_model: ScriptedModel) -> RealHome:
    """The user's machine; its provider is `scripted`."""
    return make_home(tmp_path / "local", real_opencode, scripted_model)


@pytest.fixture
def remote_home(tmp_path: Path, real_opencode: Path, scripted_model: ScriptedModel) -> RealHome:
    """The host; its provider is `scripted`, too."""
    return make_home(tmp_path / "remote", real_opencode, scripted_model)


@pytest.fixture
def local_project(local_home: RealHome) -> Path:
    """A directory with one file in it, on the user's machine."""
    return _make_project(local_home)


@pytest.fixture
def remote_project(remote_home: RealHome) -> Path:
    """A directory with one file in it, on the host."""
    return _make_project(remote_home)


@pytest.fixture
def lab(local_home: RealHome, remote_home: RealHome, remote_project: Path) -> Iterator[DemoHost]:
    """An SSH server for `remote_home`, known to `local_home` as `lab`: in its .ssh/config and in its hosts file."""
    with host_in_a_thread(remote_home) as host:
        host.introduce(local_home.directory, "lab")
        hosts = {"hosts": {"lab": {"host": "lab", "directory": str(remote_project)}}}
        (local_home.opencode.configuration / "hosts.json").write_text(json.dumps(hosts), encoding="utf-8")
        yield host


def make_home(directory: Path, opencode: Path, model: ScriptedModel, *, provider: str = "scripted") -> RealHome:
    """Make a home whose models are `provider/small` and `provider/large`."""
    home = OpencodeHome(directory, opencode, provider)
    home.make(model.url)
    return RealHome(home)


@contextmanager
def host_in_a_thread(home: RealHome) -> Iterator[DemoHost]:
    """Serve a home over SSH from an event loop of its own, so that blocking tests can use it."""
    ready: Future[tuple[DemoHost, Callable[[], object]]] = Future()

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with serve_host(home.directory, home.environment) as host:
            ready.set_result((host, lambda: loop.call_soon_threadsafe(ended.set)))
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    host, end = ready.result(PATIENCE_S)
    try:
        yield host
    finally:
        end()
        thread.join(PATIENCE_S)


def _make_project(home: RealHome) -> Path:
    project = home.directory / "project"
    project.mkdir()
    (project / "README").write_text("a small project\n", encoding="utf-8")
    return project
