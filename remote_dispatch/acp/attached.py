"""How a bridge behaves, and the agent that is at its other end for now."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from remote_dispatch.acp.agent import Ending
    from remote_dispatch.acp.peer import Wire
    from remote_dispatch.acp.rewrite import PathMap
    from remote_dispatch.acp.side import Side
    from remote_dispatch.opencode.api import Api

PATIENCE_S = 120.0
"""For how long a lost link is tried again before the editor is told."""
DEATHS = 3
DEATHS_WITHIN_S = 300.0


class Far(Protocol):
    """What a bridge needs of an agent; `acp.agent.Agent` is one."""

    @property
    def wire(self) -> Wire:
        """Leads to it."""
        ...

    @property
    def side(self) -> Api:
        """The HTTP API of the same process."""
        ...

    @property
    def directory(self) -> str:
        """Where it started, as a real path there."""
        ...

    @property
    def home(self) -> str:
        """The home there."""
        ...

    @property
    def is_new(self) -> bool:
        """Whether it was started just now; otherwise it went on while the link was lost."""
        ...

    async def ending(self) -> Ending:
        """Return how its process ended."""
        ...

    async def rotate(self) -> bool:
        """Forget output that was read, between turns."""
        ...


Way = Callable[[float], AbstractAsyncContextManager[Far]]
"""Connects and starts the agent, or comes back to it. The argument: for how many seconds to try again."""


@dataclass(frozen=True, slots=True)
class Manners:
    """How a bridge behaves."""

    is_durable: bool = False
    """The agent lives through a lost link."""
    keeps_mcp: bool = False
    """MCP servers travel even when they make sense on the editor's machine only."""
    patience_s: float = PATIENCE_S
    agent: str | None = None
    """The agent of new sessions, where OpenCode has it."""
    model: str | None = None
    """The model of new sessions, as `provider/id`."""
    answer_s: float = 60.0
    """For how long OpenCode may leave a request that is no prompt without an answer: its MCP servers start first."""
    look_every_s: float = 1.0
    """How often the side channel looks while a prompt runs."""


class Deaths:
    """How often the agent's process has ended by itself of late."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def is_one_too_many(self) -> bool:
        """Note one more; True for the fourth within five minutes."""
        now = time.monotonic()
        self._times.append(now)
        while self._times[0] < now - DEATHS_WITHIN_S:
            self._times.popleft()
        return len(self._times) > DEATHS


@dataclass(eq=False)
class Attached:
    """An agent that is there, with what belongs to this process of it."""

    agent: Far
    places: PathMap
    make_side: Callable[[Far], Side]
    is_gone: asyncio.Event = field(default_factory=asyncio.Event)

    @cached_property
    def side(self) -> Side:
        """What looks after prompts; made once the editor has said what it can do."""
        return self.make_side(self.agent)
