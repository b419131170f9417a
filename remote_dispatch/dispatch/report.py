"""What the main path tells whoever watches: steps of ours, and what OpenCode's own events show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from remote_dispatch.runner.events import Progress

Phase = Literal[
    "session",
    "export",
    "connect",
    "code",
    "stage",
    "launch",
    "run",
    "alive",
    "unreachable",
    "collect",
    "merge",
    "done",
    "note",
]


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a dispatch begins, or something worth a line happened. `text` is for people and holds no address."""

    phase: Phase
    text: str
    dispatch: str | None = None
    """The name of the dispatch, from the moment it has one."""


Report = Callable[[Step | Progress], None]


def silent(_: Step | Progress) -> None:
    """A report that nobody reads."""
