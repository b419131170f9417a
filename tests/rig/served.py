"""A real `opencode serve` on the loopback, with a password, a scripted model and a home of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import httpx
import pytest

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.processes import end_processes_of
from remote_dispatch.demo.provider import ScriptedModel
from remote_dispatch.opencode.api import Api
from tests.rig.sshd import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_S = 60
_TRY_S = 1


@dataclass
class Server:
    """One server and its model; use as a context manager. `opencode` is the binary, `model_url` that of the model."""

    directory: Path
    opencode: Path
    model_url: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(16), repr=False)
    port: int = 0

    def __enter__(self) -> Self:
        self.home.make(self.model_url)
        self.project.mkdir(exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        end_processes_of(self.home.directory)

    @property
    def home(self) -> OpencodeHome:
        """Where everything of it lives."""
        return OpencodeHome(self.directory / "home", self.opencode)

    @property
    def project(self) -> Path:
        """A directory to work in; no git repository, so that no snapshots are made."""
        return self.home.directory / "project"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.port = self.port or free_port()
        with (self.directory / "serve.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.home.bin / "opencode", "serve", "--hostname", "127.0.0.1", "--port", str(self.port)],
                cwd=self.project,
                env={
                    **self.home.environment,
                    "PWD": str(self.project),
                    "OPENCODE_SERVER_PASSWORD": self.password,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_S
        while not self._answers():
            assert self._process.poll() is None, (self.directory / "serve.log").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.05)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End it; SIGKILL leaves everything as it is."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal_number)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)

    def api(self) -> Api:
        """A client of it, by its URL."""
        login = ("opencode", self.password)
        return Api("box", httpx.AsyncClient(base_url=self.url, auth=login, trust_env=False))

    def _answers(self) -> bool:
        login = b64encode(f"opencode:{self.password}".encode()).decode()
        request = urllib.request.Request(f"{self.url}/global/health", headers={"Authorization": f"Basic {login}"})
        try:
            with urllib.request.urlopen(request, timeout=_TRY_S) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@dataclass(frozen=True, slots=True)
class Bench:
    """A server and the model behind it."""

    server: Server
    model: ScriptedModel

    def api(self) -> Api:
        """A client of the server."""
        return self.server.api()

    @property
    def directory(self) -> str:
        """The directory to work in."""
        return str(self.server.project)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, real_opencode: Path) -> Iterator[Bench]:
    """The real server of this worker, shared by all its tests: each makes sessions of its own."""
    with (
        ScriptedModel() as model,
        Server(tmp_path_factory.mktemp("served"), real_opencode, model.url) as server,
    ):
        yield Bench(server, model)
