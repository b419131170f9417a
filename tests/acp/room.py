"""A bridge in memory: an editor at one end, at the other scripted agents that come one after the other."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.acp.agent import Ending
from remote_dispatch.acp.attached import Manners
from remote_dispatch.acp.bridge import Bridge
from remote_dispatch.acp.peer import Peer, wires
from remote_dispatch.acp.rewrite import Pair, PathMap
from remote_dispatch.errors import ConnectionLostError, RemoteDispatchError
from tests.rig.scripted import Scripted, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from remote_dispatch.acp.lines import Message
    from remote_dispatch.acp.peer import Wire
    from remote_dispatch.opencode.api import Api

HERE = "/laptop/app"
PATIENCE_S = 10
LOST = ConnectionLostError("pi", "the connection was lost")


@dataclass
class BoxedAgent:
    """A scripted agent as the bridge knows agents."""

    box: Scripted
    side: Api
    directory: str
    home: str = "/root"
    is_new: bool = True

    @property
    def wire(self) -> Wire:
        return self.box.wire

    async def ending(self) -> Ending:
        return Ending(self.box.exit_status or 0, "its last words")

    async def rotate(self) -> bool:
        return False


@dataclass
class Editor:
    """What an editor sees: updates and questions, in order. `answer` is its user."""

    updates: list[Message] = field(default_factory=list)
    asked: list[tuple[str, Message]] = field(default_factory=list)
    withdrawn: list[object] = field(default_factory=list)
    answer: Callable[[str, Message], Any] = lambda _, __: {"outcome": {"outcome": "selected", "optionId": "once"}}

    async def on_request(self, method: str, params: Message) -> Any:
        self.asked.append((method, params))
        answer = self.answer(method, params)
        return await answer if asyncio.iscoroutine(answer) else answer

    async def on_notification(self, method: str, params: Message) -> None:
        if method == "session/update":
            self.updates.append(params)
        elif method == "$/cancel_request":
            self.withdrawn.append(params["requestId"])

    def kinds(self) -> list[str]:
        return [one["update"]["sessionUpdate"] for one in self.updates]

    def text(self) -> str:
        chunks = [one["update"] for one in self.updates if one["update"]["sessionUpdate"] == "agent_message_chunk"]
        return "".join(one["content"]["text"] for one in chunks)


@dataclass
class Room:
    """A bridge, its editor, and the agents that were started for it, one after the other."""

    project: Path
    protocol: int = 1
    editor: Editor = field(default_factory=Editor)
    boxes: list[Scripted] = field(default_factory=list)
    obstacles: list[RemoteDispatchError] = field(default_factory=list)
    """What the next attempts to connect meet."""
    patience: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def way(self, patience_s: float) -> AsyncIterator[BoxedAgent]:
        self.patience.append(patience_s)
        if self.obstacles:
            raise self.obstacles.pop(0)
        sessions = self.boxes[-1].agent.sessions if self.boxes else {}
        async with scripted(sessions=sessions, protocol=self.protocol) as box, box.api() as api:
            self.boxes.append(box)
            yield BoxedAgent(box, api, str(self.project))

    @asynccontextmanager
    async def open(self, *, end: type[RemoteDispatchError] | None = None, **manners: Any) -> AsyncIterator[Peer]:
        """Have the bridge run; leaving is the editor closing its side. It ends well, or with the error `end`."""
        editors_end, bridges_end = wires()
        bridge = Bridge(
            bridges_end,
            "pi",
            self.way,
            places=PathMap((Pair(HERE, str(self.project)),)),
            manners=Manners(look_every_s=0.02, **manners),
            note=self.notes.append,
        )
        running = asyncio.create_task(bridge.run())
        async with Peer(editors_end, self.editor) as peer:
            yield peer
        async with asyncio.timeout(PATIENCE_S):
            if end is None:
                await running
                return
            with pytest.raises(end):
                await running

    @asynccontextmanager
    async def opened(self, **manners: Any) -> AsyncIterator[tuple[Peer, str]]:
        """The same, with a session that is open."""
        async with self.open(**manners) as peer:
            await hello(peer)
            yield peer, await new(peer)

    def heard(self, method: str, box: int = -1) -> list[Message]:
        """The parameters with which an agent was asked this."""
        return [one["params"] for one in self.boxes[box].agent.received if one.get("method") == method]


async def ask(peer: Peer, method: str, **params: Any) -> Any:
    return await peer.request(method, params, timeout_s=PATIENCE_S)


async def hello(peer: Peer, **capabilities: Any) -> Message:
    answer: Message = await ask(peer, "initialize", protocolVersion=1, clientCapabilities=capabilities)
    return answer


async def new(peer: Peer, cwd: str = HERE) -> str:
    return str((await ask(peer, "session/new", cwd=cwd, mcpServers=[]))["sessionId"])


async def prompt(peer: Peer, session: str, *lines: str) -> Message:
    blocks = [{"type": "text", "text": "\n".join(lines)}]
    answer: Message = await ask(peer, "session/prompt", sessionId=session, prompt=blocks)
    return answer


def deaf(line: bytes) -> None:
    """Hear nothing."""


async def never() -> Message:
    """Answer nothing."""
    await asyncio.Event().wait()
    return {}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)
