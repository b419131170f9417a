"""One look at a session of the real server."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.failure import Failure
from remote_dispatch.opencode.api import NoSuchSessionError
from remote_dispatch.sessions.gate import Gate, settled
from remote_dispatch.sessions.reading import read
from tests.sessions import play
from tests.sessions.play import Row

if TYPE_CHECKING:
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Served
    from remote_dispatch.sessions.values import Reading, Standing
    from tests.rig.served import Bench

pytestmark = pytest.mark.real


async def ask(api: Api, made: Served, text: str, **body: object) -> str:
    """Prompt and follow to the end; return the id of the user message."""
    message_id = f"msg_{secrets.token_hex(6)}{'x' * 14}"
    await api.prompt(
        made.id, made.directory, {"messageID": message_id, "parts": [{"type": "text", "text": text}], **body}
    )
    await play.follow(api, made, Row(text, None), Gate(message_id, began_s=time.monotonic()))
    return message_id


async def test_a_prompt_beyond_the_tail_is_fetched_and_stands_first(served: Bench) -> None:
    async with served.api() as api:
        made = await api.create(served.directory)
        ours = await ask(api, made, "!bash true\n!bash true\n!say the end")
        short = await read(api, made.id, made.directory, tail=2)
        assert ours not in [one["info"]["id"] for one in short.messages]
        looked = await read(api, made.id, made.directory, tail=2, message_id=ours)
        assert looked.messages[0]["info"]["id"] == ours
        assert looked.messages[1:] == short.messages
        gate = Gate(ours)
        gate.judge(looked)
        end = gate.judge(replace(looked, at_s=looked.at_s + 1)).end
    assert end
    assert (end.failure, end.answer) == (None, "the end")


async def test_what_nobody_waits_for_any_more_is_left_out(served: Bench) -> None:
    async with served.api() as api:
        made = await api.create(served.directory, permission=play.ASK)
        asked = Row("!bash true", Failure.ABORTED, act=abort_what_waits)
        await api.prompt(made.id, made.directory, {"parts": [{"type": "text", "text": asked.prompt}]})
        played = await play.follow(api, made, asked, Gate())
        stale = [one for one in await api.permissions(made.directory) if one.session_id == made.id]
        looked = await read(api, made.id, made.directory)
        await api.prompt(made.id, made.directory, {"parts": [{"type": "text", "text": "!bash true"}]})
        again = await until_asked(api, made)
        await api.abort(made.id)
    assert Failure.PENDING_PERMISSION in played.on_the_way
    assert stale
    assert looked.requests == ()
    assert len(again.requests) == 1
    assert again.requests[0].id not in [one.id for one in stale]


async def until_asked(api: Api, made: Served) -> Reading:
    async with asyncio.timeout(30):
        while not (looked := await read(api, made.id, made.directory)).requests:
            await asyncio.sleep(0.05)
    return looked


async def abort_what_waits(api: Api, session: Served, standing: Standing, looked: Reading) -> bool:
    # A request may be seen before the prompt that leads to it: the one is asked for behind the other.
    waits = standing.failure is Failure.PENDING_PERMISSION
    if waits:
        await api.abort(session.id)
    return waits


async def test_sub_agents_sessions_and_todos_are_seen(served: Bench) -> None:
    async with served.api() as api:
        made = await api.create(served.directory)
        await ask(api, made, "!todo one;two\n!task !say below\n!say up")
        looked = await read(api, made.id, made.directory)
    assert [one.parent_id for one in looked.descendants] == [made.id]
    assert [todo.content for todo in looked.todos] == ["one", "two"]


async def test_a_session_that_used_a_format_is_still_judged(served: Bench) -> None:
    schema = {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
    async with served.api() as api:
        made = await api.create(served.directory)
        script = '!tool StructuredOutput {"a": "b"}'
        ours = f"msg_{secrets.token_hex(6)}{'x' * 14}"
        body = {"messageID": ours, "format": schema, "parts": [{"type": "text", "text": script}]}
        await api.prompt(made.id, made.directory, body)
        await play.answer_ends(api, made)
        looked = await read(api, made.id, made.directory, message_id=ours)
    assert [one["info"]["role"] for one in looked.messages] == ["assistant"]
    end = settled(looked, ours).end
    assert end
    assert (end.failure, end.answer) == (None, '{"a": "b"}')


async def test_a_session_that_is_gone_is_told(served: Bench) -> None:
    async with served.api() as api:
        made = await api.create(served.directory)
        await api.delete(made.id)
        with pytest.raises(NoSuchSessionError):
            await read(api, made.id, made.directory)
