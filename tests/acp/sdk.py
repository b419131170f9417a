"""The public SDK of the protocol as an editor: an independent reading of the specification."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from acp import connect_to_agent, text_block
from acp.schema import (
    AcceptElicitationResponse,
    AllowedOutcome,
    ClientCapabilities,
    DeniedOutcome,
    ElicitationCapabilities,
    ElicitationFormCapabilities,
    FileSystemCapabilities,
    RequestPermissionResponse,
)

from tests.rig.world import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.rig.world import World

LINE_LIMIT_BYTES = 64 * 1024 * 1024
PATIENCE_S = 60
_END_S = 20
CAPABILITIES = ClientCapabilities(
    fs=FileSystemCapabilities(read_text_file=True, write_text_file=True),
    terminal=True,
    elicitation=ElicitationCapabilities(form=ElicitationFormCapabilities()),
)


class SdkEditor:
    """What the SDK calls: it notes everything, selects `choice` when it is asked, and fills forms with `content`.

    `choice` None: its user dismisses the question.
    """

    def __init__(self, *, choice: str | None = "once", content: dict[str, Any] | None = None) -> None:
        self.choice = choice
        self.content = content or {}
        self.updates: list[Any] = []
        self.asked: list[Any] = []
        self.written: list[str] = []
        self.permission_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    def as_client(self) -> Any:
        """Return it as the SDK takes it: its protocol has methods that OpenCode never calls."""
        return self

    async def session_update(self, session_id: str, update: Any, **kwargs: Any) -> None:
        self.updates.append(update)

    async def request_permission(
        self, session_id: str, tool_call: Any, options: list[Any], **kwargs: Any
    ) -> RequestPermissionResponse:
        self.asked.append(tool_call)
        self.permission_asked.set()
        await self.may_answer.wait()
        if self.choice is None:
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        assert self.choice in [one.option_id for one in options]
        return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=self.choice))

    async def create_elicitation(self, message: str, mode: Any, **kwargs: Any) -> AcceptElicitationResponse:
        self.asked.append(mode)
        return AcceptElicitationResponse(action="accept", content=self.content)

    async def write_text_file(self, session_id: str, path: str, content: str, **kwargs: Any) -> None:
        self.written.append(path)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """Others are of no interest."""

    def of(self, kind: str) -> list[Any]:
        """The updates of one kind."""
        return [one for one in self.updates if one.session_update == kind]

    def said(self) -> str:
        """What the model said, in one piece."""
        return "".join(one.content.text for one in self.of("agent_message_chunk"))

    def titles(self) -> list[str]:
        """The titles of all tool calls."""
        return [one.title for one in (*self.of("tool_call"), *self.of("tool_call_update")) if one.title]


@dataclass
class Bridged:
    """A bridge that runs, and the editor's connection to it."""

    process: asyncio.subprocess.Process
    editor: SdkEditor
    agent: Any
    stderr: bytearray = field(default_factory=bytearray)

    async def hello(self, *, has_forms: bool = False) -> Any:
        """Initialize, as an editor with files and terminals does."""
        forms = CAPABILITIES.elicitation if has_forms else None
        offered = CAPABILITIES.model_copy(update={"elicitation": forms})
        return await self.agent.initialize(1, client_capabilities=offered)

    async def new(self, directory: Path) -> str:
        """Open a session."""
        return str((await self.agent.new_session(cwd=str(directory), mcp_servers=[])).session_id)

    async def prompt(self, session: str, *lines: str) -> str:
        """Send a prompt, and return how the turn ended."""
        return str((await self.agent.prompt(session, [text_block("\n".join(lines))])).stop_reason)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message behind the SDK's back."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def close(self) -> int:
        """Close the editor's side, and return the exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.process.wait()


@asynccontextmanager
async def bridged(
    world: World,
    *arguments: str,
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
    patience_s: float = PATIENCE_S,
) -> AsyncIterator[Bridged]:
    """Start `remote-dispatch acp bridge pi ARGUMENTS` in the laptop's project, as an editor does.

    With another `stdout` than a pipe of its own the SDK hears nothing.
    """
    place = world.laptop.project
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "remote_dispatch", "acp", "bridge", "pi", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        cwd=place,
        env={**world.laptop.opencode.environment, "PWD": str(place), "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"},
        limit=LINE_LIMIT_BYTES,
        start_new_session=True,
    )
    editor, reader = SdkEditor(), process.stdout or asyncio.StreamReader()
    agent = connect_to_agent(editor.as_client(), process.stdin, reader, use_unstable_protocol=True)
    bridge = Bridged(process, editor, agent)
    draining = asyncio.create_task(_drained(process.stderr, bridge.stderr))
    try:
        async with asyncio.timeout(patience_s):
            yield bridge
    finally:
        await bridge.agent.close()
        if process.stdin is not None:
            process.stdin.close()
        await _ended(process)
        await draining


async def _drained(stream: asyncio.StreamReader | None, into: bytearray) -> None:
    while stream is not None and (chunk := await stream.read(65536)):
        into += chunk


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        os.kill(process.pid, 9)
        raise


async def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.01)


def command_line(pid: int) -> bytes:
    """What a process was started with; nothing once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
