"""Turns played on a real server and judged by the gate: a small wait loop, and what is done while it waits."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from remote_dispatch.opencode.api import RefusedError
from remote_dispatch.opencode.served import PermissionRequest, read_status
from remote_dispatch.sessions import classify
from remote_dispatch.sessions.gate import QUIET_S, Gate
from remote_dispatch.sessions.reading import read
from remote_dispatch.sessions.values import Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from remote_dispatch.failure import Failure
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Raw, Served
    from remote_dispatch.sessions.values import End, Reading, Standing

QUICKLY = "\n!retry-after-ms 20"
"""OpenCode 1.18 honours the header, so that its six tries are over in a second."""
ASK = (
    {"permission": "bash", "pattern": "*", "action": "ask"},
    {"permission": "question", "pattern": "*", "action": "allow"},
)
POLL_S = 0.25
_DEADLINE_S = 150


@dataclass(frozen=True)
class Row:
    """One turn: what is asked, what the gate must say on the way and at the end."""

    prompt: str
    end: Failure | None
    on_the_way: Failure | None = None
    act: Callable[[Api, Served, Standing, Reading], Awaitable[bool]] | None = None
    body: Raw = field(default_factory=dict)
    permission: tuple[Raw, ...] = ()
    answer: str | None = None


@dataclass
class Played:
    """What the gate said of a turn."""

    readings: list[Reading] = field(default_factory=list)
    on_the_way: set[Failure] = field(default_factory=set)
    end: End | None = None


async def play(api: Api, directory: str, row: Row) -> Played:
    """Make a session, prompt it, and follow it to its end."""
    made = await api.create(directory, permission=row.permission)
    began_s = time.monotonic()
    await api.prompt(made.id, directory, {**row.body, "parts": [{"type": "text", "text": row.prompt}]})
    return await follow(api, made, row, Gate(row.body.get("messageID"), began_s=began_s))


async def follow(api: Api, session: Served, row: Row, gate: Gate) -> Played:
    """Read and judge until the turn ended; abort what never ends; do the row's act until it is done."""
    played, is_done, deadline = Played(), row.act is None, time.monotonic() + _DEADLINE_S
    while played.end is None:
        assert time.monotonic() < deadline, row.prompt
        reading = await read(api, session.id, session.directory)
        standing = gate.judge(reading)
        played.readings.append(reading)
        if standing.phase is Phase.ENDED:
            played.end = standing.end
        elif standing.failure:
            played.on_the_way.add(standing.failure)
        if standing.must_abort:
            await api.abort(session.id)
        if not is_done and row.act is not None:
            is_done = await row.act(api, session, standing, reading)
        await asyncio.sleep(QUIET_S if standing.phase is Phase.ENDING else POLL_S)
    return played


@asynccontextmanager
async def retries_heard(api: Api) -> AsyncIterator[defaultdict[str, set[Failure]]]:
    """Gather what each retry of OpenCode's looks like, by session."""
    heard: defaultdict[str, set[Failure]] = defaultdict(set)

    async def listen(is_connected: asyncio.Event) -> None:
        async for event in api.events():
            is_connected.set()
            status = read_status(event.properties.get("status") or {}) if event.session_id else None
            if event.session_id and status and status.type == "retry":
                heard[event.session_id].add(classify.of_retry(status))

    is_connected = asyncio.Event()
    listening = asyncio.create_task(listen(is_connected))
    try:
        async with asyncio.timeout(_DEADLINE_S):
            await is_connected.wait()
        yield heard
    finally:
        listening.cancel()
        await asyncio.wait({listening})


async def answer_begins(api: Api, session_id: str) -> None:
    """Wait until the model's message is there."""
    deadline = time.monotonic() + _DEADLINE_S
    while not any(one["info"]["role"] == "assistant" for one in await api.messages(session_id)):
        assert time.monotonic() < deadline
        await asyncio.sleep(POLL_S)


async def answer_ends(api: Api, session: Served) -> None:
    """Wait until the session is idle after an answer, without the gate."""
    deadline = time.monotonic() + _DEADLINE_S
    while session.id in await api.statuses(session.directory) or not await _has_answer(api, session):
        assert time.monotonic() < deadline
        await asyncio.sleep(POLL_S)


async def _has_answer(api: Api, session: Served) -> bool:
    """Whether the newest message is the model's. OpenCode 1.18 refuses to show a prompt that had a `format`."""
    try:
        newest = await api.messages(session.id, limit=1)
    except RefusedError:
        return False
    return bool(newest) and newest[0]["info"]["role"] == "assistant"


async def abort_a_retry(api: Api, session: Served, standing: Standing, _: Reading) -> bool:
    """Abort while OpenCode waits to ask the provider again."""
    if standing.phase is Phase.RETRYING:
        await api.abort(session.id)
    return standing.phase is Phase.RETRYING


async def abort_a_tool(api: Api, session: Served, _: Standing, reading: Reading) -> bool:
    """Abort while a tool runs."""
    is_running = any(
        (part.get("state") or {}).get("status") == "running" for one in reading.messages for part in one["parts"]
    )
    if is_running:
        await api.abort(session.id)
    return is_running


async def reject(api: Api, session: Served, standing: Standing, _: Reading) -> bool:
    """Reject what is asked first."""
    for request in standing.requests[:1]:
        if isinstance(request, PermissionRequest):
            return await api.reply_permission(request.id, session.directory, "reject")
        return await api.reject_question(request.id, session.directory)
    return False


async def reject_with_words(api: Api, session: Served, standing: Standing, _: Reading) -> bool:
    """Reject a permission, and say why."""
    for request in standing.requests[:1]:
        return await api.reply_permission(request.id, session.directory, "reject", "use something else")
    return False


async def allow_once(api: Api, session: Served, standing: Standing, _: Reading) -> bool:
    """Give leave once, to a sub-agent too."""
    for request in standing.requests[:1]:
        return await api.reply_permission(request.id, session.directory, "once")
    return False


async def answer_yes(api: Api, session: Served, standing: Standing, _: Reading) -> bool:
    """Answer a question, a sub-agent's too."""
    for request in standing.requests[:1]:
        return await api.reply_question(request.id, session.directory, [["yes"]])
    return False
