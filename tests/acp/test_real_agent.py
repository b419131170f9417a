"""The real `opencode acp` behind a real sshd, without a bridge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.acp.agent import agent, new_owner
from remote_dispatch.acp.peer import Peer
from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.processes import end_processes_of, processes_of
from remote_dispatch.demo.provider import ScriptedModel
from remote_dispatch.errors import AuthenticationError
from remote_dispatch.model import Host
from remote_dispatch.opencode.wire import api_through
from remote_dispatch.remote.ssh import connect
from tests.acp.sdk import command_line
from tests.rig.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.acp.lines import Message

pytestmark = pytest.mark.real

BOX = Host(name="box", host="box")
START_S = 60


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, real_opencode: Path) -> Iterator[OpencodeHome]:
    home = OpencodeHome(tmp_path_factory.mktemp("real") / "home", real_opencode)
    with ScriptedModel() as model:
        home.make(model.url)
        (home.directory / "project").mkdir()
        yield home
        end_processes_of(home.directory)


@pytest.fixture
def box(home: OpencodeHome, tmp_path: Path, private_home: Path) -> Iterator[None]:
    environment = dict(home.environment)
    with Sshd(tmp_path / "sshd", home=home.directory, path=environment["PATH"], environment=environment) as sshd:
        sshd.write_client_home(private_home)
        yield


class Person:
    """Whoever answers permissions."""

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self.asked = 0

    async def on_request(self, method: str, params: Message) -> Any:
        assert method == "session/request_permission"
        self.asked += 1
        return {"outcome": {"outcome": "selected", "optionId": "once"}}

    async def on_notification(self, method: str, params: Message) -> None:
        self.updates.append(params["update"])

    @property
    def words(self) -> str:
        chunks = [update["content"] for update in self.updates if update["sessionUpdate"] == "agent_message_chunk"]
        return "".join(chunk["text"] for chunk in chunks)


async def session(peer: Peer, directory: str) -> str:
    await peer.request("initialize", {"protocolVersion": 1, "clientCapabilities": {}}, timeout_s=START_S)
    made = await peer.request("session/new", {"cwd": directory, "mcpServers": []}, timeout_s=START_S)
    return str(made["sessionId"])


def prompt(session_id: str, text: str) -> Message:
    return {"sessionId": session_id, "prompt": [{"type": "text", "text": text}]}


def command_lines() -> bytes:
    found = b""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and (process / "cmdline").exists():
            try:
                found += (process / "cmdline").read_bytes()
            except OSError:
                continue
    return found


async def test_it_answers_on_both_sides_and_ends_with_its_input(home: OpencodeHome, box: None) -> None:
    person = Person()
    async with connect(BOX) as connection, agent(connection, BOX, "~/project", owner=new_owner()) as running:
        async with Peer(running.wire, person) as peer:
            session_id = await session(peer, running.directory)
            assert (await running.side.health()).version == running.version
            assert session_id in {one.id for one in await running.side.sessions()}
            async with api_through(connection, "box", running._place.port, "wrong") as stranger:
                with pytest.raises(AuthenticationError):
                    await stranger.sessions()
            assert running._place.password.encode() not in command_lines()
            ended = await peer.request("session/prompt", prompt(session_id, "!bash pwd\n!say done"), timeout_s=START_S)
        assert (ended["stopReason"], person.words, person.asked) == ("end_turn", "done", 0)
        assert await running.wire.receive() is None
        assert (await running.ending()).is_clean
    assert not left(home)


def left(home: OpencodeHome) -> list[int]:
    """What still runs there, without sshd's own processes."""
    return [pid for pid in processes_of(home.directory) if b"opencode" in command_line(pid)]
