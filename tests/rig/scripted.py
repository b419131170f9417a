"""The scripted agent where tests need it: in memory, as a wire and an API, or as the `opencode` of a PATH."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from remote_dispatch.acp.agent import Agent, Ending, Place
from remote_dispatch.acp.wire import AgentWire, Inbox
from remote_dispatch.opencode.api import Api
from remote_dispatch.remote.local import LocalConnection
from tests.rig.scripted_agent import ScriptedAgent
from tests.rig.scripted_api import answer
from tests.rig.scripted_words import VERSION, Raw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REPOSITORY = Path(__file__).resolve().parents[2]


def install(directory: Path, **variables: object) -> Path:
    """Put the scripted agent into a directory as `opencode`; `variables` are set whenever it starts."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = {"PYTHONPATH": REPOSITORY, **variables}
    exports = "".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in settings.items())
    command = shlex.join([sys.executable, "-PS", "-m", "tests.rig.scripted_program"])
    program = directory / "opencode"
    program.write_text(f'#!/bin/sh\n{exports}exec {command} "$@"\n')
    program.chmod(0o755)
    return program


class MemoryDuplex:
    """The open stdin and stdout of a scripted agent in memory: what a channel of a connection would be."""

    def __init__(self, box: Scripted) -> None:
        self._box = box
        self._out: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        """Hand lines to the agent; one that has ended reads nothing. Raises what the link was cut with."""
        if self._box.problem is not None:
            raise self._box.problem
        for line in data.splitlines() if self._box.exit_status is None else ():
            self._box.agent.take_line(line)

    def write_eof(self) -> None:
        """End of its stdin: it ends well."""
        self._box.end(0)

    def put(self, piece: bytes | Exception | None) -> None:
        """Have this arrive; None is the end, an exception breaks the channel."""
        self._out.put_nowait(piece)

    async def stdout(self) -> AsyncIterator[bytes]:
        """Yield what it prints."""
        while (piece := await self._out.get()) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def stderr(self) -> AsyncIterator[bytes]:
        """Yield what it complained of so far."""
        for line in self._box.complaints:
            yield line

    async def wait(self) -> int:
        """Return the exit status."""
        await self._box.ended.wait()
        assert self._box.exit_status is not None
        return self._box.exit_status


class Scripted:
    """A scripted agent in memory: `wire` leads to it, `api()` to its HTTP API, `agent` is itself."""

    def __init__(self, *, version: str = VERSION, protocol: int = 1, sessions: Raw | None = None) -> None:
        self.duplex = MemoryDuplex(self)
        self.inbox = Inbox()
        self.wire = AgentWire(self.duplex, self.inbox)
        self.ended = asyncio.Event()
        self.directory = "/"
        self.exit_status: int | None = None
        self.problem: Exception | None = None
        self.complaints: list[bytes] = []
        self.is_api_down = False
        self.agent = ScriptedAgent(
            send=self._send,
            end=self.end,
            complain=self.complaints.append,
            version=version,
            protocol=protocol,
            sessions={} if sessions is None else sessions,
        )

    @property
    def skipped(self) -> int:
        """How many of its lines were no messages."""
        return self.inbox.reader.skipped

    def end(self, status: int) -> None:
        """End as a process does."""
        if self.exit_status is None:
            self.exit_status = status
            self.agent.close()
            self.duplex.put(None)
            self.ended.set()

    def cut(self, error: Exception) -> None:
        """Break the link; the agent goes on, and nobody hears it."""
        self.problem = error
        self.duplex.put(error)

    def process(self) -> Agent:
        """Return it as the process that `acp.agent.agent` starts."""
        place = Place(1, "none", self.directory, "/")

        async def ending() -> Ending:
            return Ending(await self.duplex.wait(), b"".join(self.complaints[-1:]).decode().strip())

        found = Agent(LocalConnection(environment={}), place, self.duplex, self.inbox, ending)
        found._side = self.api()
        return found

    def _send(self, line: bytes) -> None:
        if self.exit_status is None and self.problem is None:
            self.duplex.put(line)

    def api(self) -> Api:
        """A client of its HTTP API; `is_api_down` breaks it."""
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer), base_url="http://agent")
        return Api("box", client)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_api_down:
            raise httpx.ReadError("down")
        body = json.loads(request.content or b"{}")
        directory = request.headers.get("x-opencode-directory", "")
        status, value = answer(self.agent, request.method, request.url.path, body, directory)
        return httpx.Response(status, json=value)


@asynccontextmanager
async def scripted(
    *, version: str = VERSION, protocol: int = 1, sessions: Raw | None = None
) -> AsyncIterator[Scripted]:
    """Have a scripted agent in memory. `sessions` may be those of an earlier one, as a restarted process finds them."""
    box = Scripted(version=version, protocol=protocol, sessions=sessions)
    filling = asyncio.create_task(box.inbox.fill(box.duplex.stdout()))
    try:
        yield box
    finally:
        box.end(0)
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


class Boxes:
    """Agents, one after the other, as a bridge or a conversation starts them; the sessions are kept in between."""

    def __init__(self, *, version: str = VERSION, protocol: int = 1) -> None:
        self.started: list[Scripted] = []
        self.sessions: Raw = {}
        self.directory = "/"
        """Where they start."""
        self._version = version
        self._protocol = protocol

    @property
    def box(self) -> Scripted:
        """The present one."""
        return self.started[-1]

    @asynccontextmanager
    async def start(self, *_: object) -> AsyncIterator[Agent]:
        """Start another one."""
        async with scripted(version=self._version, protocol=self._protocol, sessions=self.sessions) as box:
            self.started.append(box)
            box.directory = self.directory
            process = box.process()
            try:
                yield process
            finally:
                await process.close()
