"""`session watch` as it is typed, on real servers: by URL, and through a real sshd whose connections break."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from remote_dispatch.demo.provider import ScriptedModel
from remote_dispatch.opencode.api import Api
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.servers.on_host import find
from remote_dispatch.sessions.store import SessionStore
from tests.rig.sshd import wait_until
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.served import Bench
    from tests.rig.world import Ran, Running

pytestmark = pytest.mark.real

ASK = ({"permission": "bash", "pattern": "*", "action": "ask"},)
WORK = "!todo read;write;test\n!say I have read it\n!bash sleep 3\n!say all\\nis done"
PERMISSION = "!bash touch kept\n!say touched"
RETRIED = "!error rate_limit Too Many Requests\n!retry-after-ms 1500\n!fail 429 1\n!say late"


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path / "world") as world:
        yield world


async def _begin(
    api: Api, world: World, host: str, directory: str, name: str, prompt: str, *rules: dict[str, str]
) -> str:
    """Make a session under a name, and prompt it."""
    session = await api.create(directory, title=f"Work of {name}", permission=rules)
    SessionStore(world.laptop.home / ".local/state/remote-dispatch/sessions").create(host, session, name=name)
    await api.prompt(session.id, session.directory, {"parts": [{"type": "text", "text": prompt}]})
    return session.id


def _lines(running: Running) -> list[dict[str, Any]]:
    whole = running.stdout().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def _await(running: Running, what: str, **fields: Any) -> dict[str, Any]:
    """Wait for a line of the stream with these values."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        assert running.process.poll() is None or found, running.stdout() + running.stderr()
        found.extend(one for one in _lines(running) if fields.items() <= one.items())
        return bool(found)

    wait_until(is_there, what, timeout_s=40)
    return found[0]


def _of(ran: Ran, kind: str, name: str | None = None) -> list[dict[str, Any]]:
    return [one for one in ran.streams if one["type"] == kind and name in (None, one.get("name"))]


async def test_three_sessions_are_reported_as_they_are_until_all_have_ended(served: Bench, laptop: World) -> None:
    async with served.api() as api:
        await _begin(api, laptop, "server", served.directory, "kumo", WORK)
        asking = await _begin(api, laptop, "server", served.directory, "csbx", PERMISSION, *ASK)
        await _begin(api, laptop, "server", served.directory, "nozo", RETRIED)
        variables = {"OPENCODE_API_URL": served.server.url, "OPENCODE_SERVER_PASSWORD": served.server.password}
        running = laptop.start("session", "watch", "--every", "1s", "--json", variables=variables)
        waiting = _await(running, "nothing waits", type="state", name="csbx", failure="pending_permission")
        (request,) = [one for one in await api.permissions(served.directory) if one.session_id == asking]
        assert waiting["requests"][0]["text"] == "bash: touch kept"
        assert waiting["requests"][0]["command"].startswith("remote-dispatch session reply csbx ")
        _await(running, "nothing is retried", type="state", name="nozo", state="retrying", failure="rate_limited")
        once = laptop.cli("session", "watch", "--once", variables=variables)
        assert once.exit_code == 7
        assert "permission: bash: touch kept" in once.stdout
        wait_until(lambda: bool(_reported(running, "kumo", "task", "read")), "no report has the todos", timeout_s=20)
        await api.reply_permission(request.id, served.directory, "once")
        ran = running.finish()
    assert ran.exit_code == 0, ran.stderr
    ends = {one["name"]: (one["verdict"], one["answer"]) for one in _of(ran, "end")}
    assert ends == {"kumo": ("done", "all\nis done"), "csbx": ("done", "touched"), "nozo": ("done", "late")}
    assert [one["type"] for one in ran.streams].count("end") == 3
    assert {one["name"]: one["verdict"] for one in ran.data["sessions"]} == dict.fromkeys(ends, "done")
    assert str(served.server.port) not in ran.stdout + ran.stderr


def _reported(running: Running, name: str, key: str, value: str) -> list[dict[str, Any]]:
    sessions = [one for line in _lines(running) if line["type"] == "report" for one in line["sessions"]]
    return [one for one in sessions if one["name"] == name and one["todo"][key] == value]


@pytest.mark.whole
async def test_an_end_that_came_while_the_host_was_away_is_told_once_and_whole(
    tmp_path: Path, real_opencode: Path
) -> None:
    with ScriptedModel() as model, World(tmp_path / "world", real_opencode, model.url) as world:
        assert world.cli("session", "server", "start", "pi").exit_code == 0
        environment = world.host.opencode.environment
        server = await find(LocalConnection(environment=environment))
        assert server is not None
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", auth=("opencode", server.password), trust_env=False
        )
        async with Api("pi", client) as api:
            flag = world.host.project / "go"
            prompt = f"!todo read;write\n!bash until [ -e {flag} ]; do sleep 0.1; done\n!say the whole answer"
            await _begin(api, world, "pi", str(world.host.project), "kumo", prompt)
            running = world.start("session", "watch", "kumo", "--every", "1s", "--json")
            wait_until(lambda: bool(_reported(running, "kumo", "task", "read")), "no report has the todos")
            world.sshd.stop()
            lost = _await(running, "the loss was not told", type="link", state="unreachable")
            assert (lost["host"], lost["names"]) == ("pi", ["kumo"])
            flag.touch()
            async with asyncio.timeout(30):
                while await api.statuses(str(world.host.project)):
                    await asyncio.sleep(0.05)
            world.sshd.start()
            ran = running.finish()
        assert world.cli("session", "server", "stop", "pi").exit_code == 0
    assert ran.exit_code == 0, ran.stderr
    (end,) = _of(ran, "end")
    assert (end["verdict"], end["answer"], end["todo"]["task"]) == ("done", "the whole answer", "read")
    assert [one["state"] for one in _of(ran, "link")] == ["unreachable", "back"]
