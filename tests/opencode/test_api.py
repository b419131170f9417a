"""The client against the real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.rig.served import Bench

pytestmark = pytest.mark.real


async def test_a_session_is_made_prompted_and_read(served: Bench) -> None:
    async with served.api() as api:
        assert (await api.health()).version
        made = await api.create(served.directory, title="a title")
        assert made.title == "a title"
        stream = api.events()
        assert (await anext(stream)).type == "server.connected"
        await api.prompt(made.id, served.directory, {"parts": [{"type": "text", "text": "!say hello"}]})
        async for event in stream:
            if event.type == "session.idle" and event.session_id == made.id:
                break
        await stream.aclose()
        assert [one["info"]["role"] for one in await api.messages(made.id)] == ["user", "assistant"]
        await api.delete(made.id)
