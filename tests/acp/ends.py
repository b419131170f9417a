"""What is tested against the scripted agent: an editor behind the bridge, and the command line's client."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from remote_dispatch.acp.attached import Manners
from remote_dispatch.acp.bridge import Bridge
from remote_dispatch.acp.conversation import Conversation
from remote_dispatch.acp.peer import METHOD_NOT_FOUND, Peer, RpcError, wires
from remote_dispatch.acp.rewrite import Pair, PathMap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from remote_dispatch.acp.client import Timeouts
    from remote_dispatch.acp.happening import Asked, Happening
    from tests.rig.scripted import Boxes

Raw = dict[str, Any]

PATIENCE_S = 20
FORMS: Raw = {"elicitation": {"form": {}}}


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


@dataclass
class Editor:
    """An editor that notes what it is told, and answers requests with what is put into `answers`."""

    peer: Peer | None = None
    told: list[Raw] = field(default_factory=list)
    asked: list[tuple[str, Raw]] = field(default_factory=list)
    answers: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    session: str = ""
    remarks: list[str] = field(default_factory=list)
    """What the bridge notes for its user."""
    bridging: asyncio.Task[None] | None = None

    async def on_notification(self, method: str, params: Raw) -> None:
        self.told.append(params)

    async def on_request(self, method: str, params: Raw) -> Any:
        if method not in ("session/request_permission", "elicitation/create"):
            raise RpcError(METHOD_NOT_FOUND, method)
        return await self.ask(method, params)

    async def tell(self, params: Raw) -> None:
        self.told.append(params)

    async def ask(self, method: str, params: Raw) -> Any:
        self.asked.append((method, params))
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def choose(self, *options: str) -> None:
        """Select these options, one for each thing that is asked."""
        for option in options:
            self.answers.put_nowait({"outcome": {"outcome": "selected", "optionId": option}})

    async def call(self, method: str, **params: Any) -> Any:
        """Ask something of the agent."""
        assert self.peer is not None
        return await self.peer.request(method, params, timeout_s=PATIENCE_S)

    async def open(self, directory: Path) -> str:
        """Make a session."""
        self.session = (await self.call("session/new", cwd=str(directory), mcpServers=[]))["sessionId"]
        return self.session

    async def prompt(self, text: str) -> Raw:
        """Send a prompt, and return its result."""
        block = {"type": "text", "text": text}
        result: Raw = await self.call("session/prompt", sessionId=self.session, prompt=[block])
        return result

    async def cancel(self) -> None:
        """Cancel the prompt."""
        assert self.peer is not None
        await self.peer.notify("session/cancel", {"sessionId": self.session})

    def said(self) -> str:
        """What the model said, in one piece."""
        updates = [one["update"] for one in self.told]
        return "".join(one["content"]["text"] for one in updates if one["sessionUpdate"] == "agent_message_chunk")

    def calls(self, prefix: str) -> list[Raw]:
        """What was told of the tool calls whose id begins so."""
        return [one["update"] for one in self.told if str(one["update"].get("toolCallId")).startswith(prefix)]


@asynccontextmanager
async def bridged(boxes: Boxes, directory: Path, *, capabilities: Raw | None = None) -> AsyncIterator[Editor]:
    """Have an editor behind the bridge, with a session in this directory."""
    async with a_bridge(boxes, directory) as editor:
        await editor.call("initialize", protocolVersion=1, clientCapabilities=capabilities or {})
        await editor.open(directory)
        yield editor


@asynccontextmanager
async def a_bridge(boxes: Boxes, directory: Path) -> AsyncIterator[Editor]:
    """Have an editor behind the bridge that has said nothing yet."""
    ours, theirs = wires()
    editor = Editor()
    bridge = Bridge(
        theirs,
        "box",
        boxes.start,
        places=PathMap((Pair(str(directory), str(directory)),)),
        manners=Manners(look_every_s=0.01),
        note=editor.remarks.append,
    )
    editor.bridging = asyncio.create_task(bridge.run())
    async with Peer(ours, editor) as editor.peer:
        yield editor
    await asyncio.wait([editor.bridging], timeout=PATIENCE_S)
    assert editor.bridging.done()
    editor.bridging.exception()


@dataclass
class Ear:
    """A listener that notes what it hears, and chooses what is put into `answers`; None is no answer."""

    heard: list[Happening] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    answers: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)

    def update(self, what: Happening) -> None:
        self.heard.append(what)

    async def ask(self, asked: Asked) -> str | None:
        self.asked.append(asked)
        return await self.answers.get()


async def at_once(_: float) -> None:
    """Wait not at all."""


@asynccontextmanager
async def conversing(boxes: Boxes, directory: Path, timeouts: Timeouts | None = None) -> AsyncIterator[Conversation]:
    """Have a conversation with a session in this directory."""
    boxes.directory = str(directory)
    async with Conversation(boxes.start, "box", sleep=at_once, timeouts=timeouts) as conversation:
        await conversation.new()
        yield conversation


@asynccontextmanager
async def under_way(editor: Editor, text: str) -> AsyncIterator[asyncio.Task[Raw]]:
    """Have a prompt run."""
    prompt = asyncio.create_task(editor.prompt(text))
    try:
        yield prompt
    finally:
        prompt.cancel()
        await asyncio.gather(prompt, return_exceptions=True)


def prompts(boxes: Boxes) -> int:
    """How many prompts arrived at all agents together."""
    return sum(one.get("method") == "session/prompt" for box in boxes.started for one in box.agent.received)
