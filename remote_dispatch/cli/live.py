"""What commands for dispatches need where a session lives on an OpenCode server instead of in a runner."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from remote_dispatch.cli.desk import Desk
    from remote_dispatch.sessions.live import LiveTurns


@asynccontextmanager
async def life(desk: Desk, *, is_live: bool) -> AsyncIterator[LiveTurns | None]:
    """What keeps a live dispatch; None for all others, which then import nothing of it."""
    if not is_live:
        yield None
        return
    from remote_dispatch.servers.reach import Servers
    from remote_dispatch.sessions.live import LiveTurns
    from remote_dispatch.sessions.store import default_session_store

    async with LiveTurns(Servers(desk.link, os.environ), default_session_store(desk.store)) as turns:
        yield turns


def live_commands(name: str) -> tuple[tuple[str, str], ...]:
    """What can be done with a live dispatch while it works: commands, each with what it does."""
    return (
        (f"remote-dispatch session watch {name}", "look on"),
        (f"remote-dispatch session requests {name}", "see what it asks"),
        (f"remote-dispatch session send {name}", "talk to it"),
        (f"remote-dispatch collect {name}", "bring it home"),
        (f"remote-dispatch cancel {name}", "stop it"),
    )
