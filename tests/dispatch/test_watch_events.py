"""Reading the two streams of a watch, which arrive as they please."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from remote_dispatch.dispatch.follow import watch_events
from remote_dispatch.model import State
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.runner.events import EventReader
from tests.dispatch.values import a_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class LateEvents:
    """A channel whose last event comes when the other stream has ended."""

    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def stdout(self) -> AsyncIterator[bytes]:
        yield b'{"type": "one"}\n'
        await self._ended.wait()
        yield b'{"type": "two"}\n'

    async def stderr(self) -> AsyncIterator[bytes]:
        yield b"ended outcome 32\nbehind"
        asyncio.get_running_loop().call_later(0.01, self._ended.set)


class Late(LocalConnection):
    @asynccontextmanager
    async def open(self, *_: str) -> AsyncIterator[Any]:
        yield LateEvents()


async def test_events_behind_the_end_of_the_other_stream_are_read() -> None:
    seen: list[dict[str, Any]] = []
    record = a_record(State.RUNNING, run_directory="/run")
    async with asyncio.timeout(10):
        behind = await watch_events(Late(), record, EventReader(), seen.append)
    assert [event["type"] for event in seen] == ["one", "two"]
    assert behind == b"behind"
