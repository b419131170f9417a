"""The real OpenCode behind a real sshd, started and stopped as users do it."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.demo.processes import processes_of
from remote_dispatch.demo.provider import ScriptedModel
from tests.rig.sshd import wait_until
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.world import Ran
    from tests.rig.zygote import Zygote

pytestmark = pytest.mark.real


@dataclass
class Box:
    """The host `pi`, and its server as its owner sees it there."""

    world: World

    def server(self, word: str, *options: str) -> Ran:
        return self.world.cli("session", "server", word, "pi", *options, "--json")

    @property
    def place(self) -> Path:
        return self.world.host.home / ".local/state/remote-dispatch/server" / os.uname().nodename

    def known(self, key: str) -> str:
        """What is written down of the server that runs."""
        lines = (self.place / "server").read_text().splitlines()
        return next(line.partition(" ")[2] for line in lines if line.startswith(f"{key} "))

    def ask(self, path: str, body: object = None, *, password: str | None = None) -> Any:
        login = b64encode(f"opencode:{self.known('password') if password is None else password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "x-opencode-directory": str(self.world.host.project)}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.known('port')}{path}",
            headers={**headers, "Content-Type": "application/json"},
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def begin(self, command: str) -> str:
        """Have a new session run a command of the shell; return its id once the command runs."""
        proof = self.world.host.project / f"begun-{len(self.world.host.sessions())}"
        session: str = self.ask("/session", {})["id"]
        text = f"!bash touch {proof.name} && {command}\n!say done"
        self.ask(f"/session/{session}/prompt_async", {"parts": [{"type": "text", "text": text}]})
        self.world.await_file(proof)
        return session

    def last_answer(self, session: str) -> Any:
        rows = self.world.host.query(
            "select data from message where session_id = ? order by time_created desc, id desc limit 1", session
        )
        return json.loads(rows[0]["data"])


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, real_opencode: Path, zygote: Zygote | None) -> Iterator[Box]:
    directory = tmp_path_factory.mktemp("server")
    with ScriptedModel() as model, World(directory, real_opencode, model.url, starter=zygote) as world:
        yield Box(world)


def listening_on(port: int) -> set[str]:
    """The local addresses where that port listens, as the kernel writes them."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


def test_a_server_is_reached_from_its_host_only_and_with_its_password_only(box: Box) -> None:
    started = box.server("start")
    assert (started.exit_code, started.data["state"], started.data["is_loopback_only"]) == (0, "up", True)
    again = box.server("start")
    assert (again.data["is_new"], again.data["started"]) == (False, started.data["started"])
    port, password = box.known("port"), box.known("password")
    assert listening_on(int(port)) == {"0100007F"}
    assert box.ask("/global/health")["version"] == started.data["version"]
    for wrong in ("", "wrong"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            box.ask("/session", password=wrong)
        assert caught.value.code == 401
        caught.value.close()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            assert password.encode() not in place.read_bytes()
    assert password not in started.stdout + started.stderr
    assert port not in started.stdout + started.stderr


def test_a_server_at_work_is_stopped_by_force_only_and_then_nothing_is_left(box: Box) -> None:
    box.server("start")
    session = box.begin("sleep 600")
    assert box.server("status").data["busy_sessions"] == 1
    for word in ("stop", "restart"):
        refused = box.server(word)
        assert (refused.exit_code, refused.envelope["error"]["kind"]) == (8, "diverged")
        assert "--force" in refused.envelope["error"]["hint"]
    stopped = box.server("stop", "--force")
    assert (stopped.exit_code, stopped.data) == (0, {"host": "pi", "is_stopped": True, "aborted_sessions": 1})
    assert processes_of(box.world.host.home) == frozenset()
    assert list(box.place.iterdir()) == []
    last = box.last_answer(session)
    assert last["time"]["completed"]
    assert box.server("status").data["state"] == "down"


@pytest.mark.thorough
def test_a_server_stops_by_itself_only_when_nothing_works_there(box: Box) -> None:
    box.server("start")
    session = box.begin("sleep 4")
    assert box.server("start", "--idle-stop", "1").data["idle_stop_s"] == 1
    wait_until(lambda: not processes_of(box.world.host.home), "the server lives", timeout_s=60)
    last = box.last_answer(session)
    assert (last["finish"], last.get("error")) == ("stop", None)
    assert list(box.place.iterdir()) == []


def test_a_server_by_url_is_not_ours_to_start(box: Box) -> None:
    box.world.write_hosts(pi={}, web={"host": None, "directory": None, "server": "http://127.0.0.1:9"})
    refused = box.world.cli("session", "server", "start", "web", "--json")
    assert (refused.exit_code, refused.envelope["error"]["kind"]) == (2, "usage")
    down = box.world.cli("session", "server", "status", "web", "--json")
    assert (down.exit_code, down.data["state"], down.data["is_ours"]) == (5, "down", False)
