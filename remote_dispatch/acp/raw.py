"""The bridge that changes nothing, to see what an editor and OpenCode say. A lost link is its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from remote_dispatch.acp.agent import AgentEndedError
from remote_dispatch.acp.editor import EditorGoneError

if TYPE_CHECKING:
    from remote_dispatch.acp.attached import Way
    from remote_dispatch.acp.peer import Wire


async def pass_unchanged(editor: Wire, host: str, way: Way) -> None:
    """Pass messages both ways until the editor closes its side. Raises AgentEndedError, ConnectionLostError."""
    async with way(0.0) as agent:
        outward = asyncio.create_task(_passed(editor, agent.wire))
        homeward = asyncio.create_task(_passed(agent.wire, editor))
        try:
            await asyncio.wait([outward, homeward], return_when=asyncio.FIRST_COMPLETED)
            if homeward.done():
                await homeward
                raise AgentEndedError(host, await agent.ending())
            await outward
        except EditorGoneError:
            return
        finally:
            for task in (outward, homeward):
                task.cancel()
            await asyncio.gather(outward, homeward, return_exceptions=True)
            await editor.close()


async def _passed(source: Wire, target: Wire) -> None:
    while (message := await source.receive()) is not None:
        await target.send(message)
