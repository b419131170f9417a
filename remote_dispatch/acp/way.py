"""How a bridge reaches its agent: which directories stand for which, and a connection made anew when it broke."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.acp.agent import agent, new_owner
from remote_dispatch.acp.durable import Journal, durable
from remote_dispatch.acp.rewrite import Pair, PathMap
from remote_dispatch.errors import UsageError
from remote_dispatch.hosts.layers import top_level

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from remote_dispatch.acp.agent import Agent
    from remote_dispatch.dispatch import Link

QUESTIONS = {"OPENCODE_ENABLE_QUESTION_TOOL": "1"}
"""OpenCode 1.18 never asks an editor anything: without a side channel its turn would hang."""

logger = logging.getLogger(__name__)


class AgentWay:
    """The way to the agents of one bridge, one after the other, over one link."""

    def __init__(
        self,
        link: Link,
        directory: str,
        *,
        is_durable: bool = False,
        has_side: bool = True,
        on_stderr: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """`directory` is where they start, `~` being the home there; `on_stderr` gets what they print there.

        Without `has_side` nobody looks after questions, and the model cannot ask any.
        """
        self._link = link
        self._directory = directory
        self._on_stderr = on_stderr
        self._owner = new_owner()
        self._journal = Journal() if is_durable else None
        self._environment = QUESTIONS if has_side else {}

    @asynccontextmanager
    async def __call__(self, patience_s: float) -> AsyncIterator[Agent]:
        """Connect, for so long, and start an agent; a durable one is come back to. Raises what these raise."""
        if patience_s:
            connection = await self._link.again(lambda error: logger.info("%s", error), patience_s=patience_s)
        else:
            connection = await self._link.connection()
        host = self._link.host
        if self._journal is not None:
            context = durable(
                connection,
                host,
                self._directory,
                self._journal,
                environment=self._environment,
                on_stderr=self._on_stderr,
            )
        else:
            context = agent(
                connection,
                host,
                self._directory,
                owner=self._owner,
                environment=self._environment,
                on_stderr=self._on_stderr,
            )
        async with context as running:
            yield running


def places_of(maps: Sequence[str], directory: str | None, *, here: Sequence[Path], home: Path) -> tuple[PathMap, Pair]:
    """Return which directories stand for which, and the pair in which the agent starts.

    `maps` are `LOCAL=REMOTE` each. Without any the project of the current directory stands for `directory`, and
    without that too the home here for the home there. `here` are the names of the current directory: what the shell
    calls it, and its real path. Raises UsageError.
    """
    if maps:
        pairs = tuple(_pair(text, here[0], home) for text in maps)
        holding = PathMap(pairs)
        start = next((pair for pair in pairs if any(PathMap((pair,)).to_remote(str(one)) for one in here)), pairs[0])
        return holding, Pair(start.local, directory) if directory else start
    if directory:
        pairs = tuple(dict.fromkeys(Pair(str(top_level(one)), directory) for one in here))
    else:
        pairs = (Pair(str(home), "~"),)
    return PathMap(pairs), pairs[0]


def _pair(text: str, here: Path, home: Path) -> Pair:
    local, equals, remote = text.partition("=")
    if not (equals and local and (remote == "~" or remote.startswith(("/", "~/")))):
        raise UsageError(
            f"`--map {text}` is no pair of directories",
            hint="write `--map LOCAL=REMOTE`, where REMOTE begins with `/` or `~/`",
        )
    expanded = home / local[2:] if local.startswith("~/") else home if local == "~" else Path(local)
    return Pair(str(here / expanded), remote)
