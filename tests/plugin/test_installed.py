"""The plugin as the command installs it, in the real OpenCode: what a model is offered, and that it leaves no trace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pytest

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.provider import ScriptedModel
from remote_dispatch.plugin import seed
from tests.rig.world import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real
ADDRESS = "203.0.113.7"


class Recorder(ThreadingHTTPServer):
    """Stands before the scripted model, which keeps the names of tools alone, and keeps every request as it came."""

    def __init__(self, model: ScriptedModel) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.model = urlsplit(model.url)
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        """The base URL for OpenCode's configuration."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def tools(self) -> list[dict[str, Any]]:
        """Every tool of every request."""
        return [tool["function"] for request in self.requests for tool in json.loads(request).get("tools", ())]

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Relay(BaseHTTPRequestHandler):
    server: Recorder

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(body.decode())
        there = HTTPConnection(str(self.server.model.hostname), self.server.model.port, timeout=30)
        there.request("POST", self.path, body, {"Content-Type": "application/json"})
        answer = there.getresponse()
        self.send_response(answer.status)
        self.send_header("Content-Type", str(answer.getheader("Content-Type")))
        self.end_headers()
        self.wfile.write(answer.read())
        there.close()

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


class Laptop:
    """An OpenCode home without packages, two hosts and a project."""

    def __init__(self, directory: Path, opencode: Path, model_url: str) -> None:
        self.home = OpencodeHome(directory / "home", opencode)
        self.project = directory / "project"
        self.home.make(model_url)
        shutil.rmtree(self.home.configuration / "node_modules")
        (self.home.configuration / "package-lock.json").unlink()
        (self.home.configuration / "hosts.json").write_text(
            f'{{"hosts": {{"lab": "me@{ADDRESS}", "pi": "me@{ADDRESS}"}}}}'
        )
        (self.project / ".git").mkdir(parents=True)

    def run(self, *argv: str) -> str:
        """Run a program to its end, and return what it printed."""
        environment = {**self.home.environment, "PYTHONPATH": str(REPOSITORY), "PWD": str(self.project)}
        options: dict[str, Any] = {"cwd": self.project, "env": environment, "timeout": 60}
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True, **options)
        return bytes(done.stdout).decode()

    def command(self, *words: str) -> dict[str, Any]:
        """Run `remote-dispatch WORDS --json`."""
        envelope = json.loads(self.run(sys.executable, "-m", "remote_dispatch", *words, "--json").splitlines()[-1])
        assert isinstance(envelope, dict)
        return envelope

    def opencode(self, *words: str) -> str:
        """Run OpenCode."""
        return self.run(str(self.home.bin / "opencode"), *words)

    def configuration(self) -> dict[str, bytes]:
        """What is in OpenCode's directory, but for the file that OpenCode adds at every start."""
        files = (path for path in self.home.configuration.rglob("*") if path.is_file() and path.name != ".gitignore")
        return {str(path): path.read_bytes() for path in files}


def test_a_model_is_offered_the_names_and_uninstall_leaves_no_trace(tmp_path: Path, real_opencode: Path) -> None:
    with ScriptedModel() as model, Recorder(model) as recorder:
        laptop = Laptop(tmp_path, real_opencode, recorder.url)
        before = laptop.configuration()
        laptop.command("plugin", "install")
        status = laptop.command("plugin", "status")["data"]
        assert status["user"]["version"]
        assert status["opencode"]["version"]

        configured = json.loads(laptop.opencode("debug", "config"))
        assert configured["plugin"] == [[f"file://{status['user']['file']}", {"command": status["user"]["command"]}]]
        laptop.opencode("run", "--dir", str(laptop.project), "hello")

        (tool,) = [tool for tool in recorder.tools if tool["name"] == "remote_dispatch"]
        assert tool["description"] == status["tool"]["description"]
        assert "`lab`, `pi`" in tool["description"]
        assert ADDRESS not in "".join(recorder.requests)

        laptop.command("plugin", "uninstall")
        assert laptop.configuration() == before
        assert not (laptop.home.configuration / "node_modules").exists()


def start_without_network(laptop: Laptop, opencode: Path, *, timeout_s: float, **environment: str) -> None:
    """List OpenCode's sessions in the project, where nothing is reached. Raises TimeoutExpired."""
    subprocess.run(
        ["unshare", "--net", str(opencode), "session", "list"],
        cwd=laptop.project,
        env={"PATH": os.environ["PATH"], "HOME": str(laptop.home.directory), "PWD": str(laptop.project), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=timeout_s,
    )


@pytest.mark.skipif(
    subprocess.run(["unshare", "--net", "true"], stdin=subprocess.DEVNULL, check=False).returncode != 0,
    reason="no network namespaces here",
)
def test_without_network_a_projects_own_directory_is_waited_for_once(tmp_path: Path, real_opencode: Path) -> None:
    """Without a seed it takes over seventy seconds each time; the first is cut short here by npm's own setting."""
    laptop = Laptop(tmp_path, real_opencode, "http://127.0.0.1:1/v1")
    laptop.command("plugin", "install")
    project = laptop.project / ".opencode"
    project.mkdir()
    start_without_network(laptop, real_opencode, timeout_s=60, npm_config_fetch_retries="0")
    assert seed.is_seeded(project)
    start_without_network(laptop, real_opencode, timeout_s=45)
    laptop.command("plugin", "uninstall")
    assert [path.name for path in project.iterdir()] == [".gitignore"]
