"""One run of the matrix: which fault, where, in which kind of dispatch, and how it is finished afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Self

MODES = ("round-trip", "detached", "one-way")
"""`detached` is a round trip that nobody waits for at first."""
TASKS = ("say", "tool", "child", "rich")
"""What the model does on the host: an answer; a command; a sub-agent; all of it, in a session that has sub-agents."""
CODE_TASKS = ("bundle", "archive")
"""Code travels along, and the model edits two files, commits them, and leaves a third one uncommitted; for `archive`
the host has no git, and nothing is committed."""
ENDINGS = ("resume", "wait", "collect", "cancel")


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that decides a run; two runs of one scenario differ in nothing but time."""

    kind: str
    point: str
    """Where or how the fault happens; what it means depends on the kind."""
    mode: str = "round-trip"
    task: str = "say"
    ending: str = "resume"
    """The documented command that finishes the dispatch after the fault is over."""
    seed: int = 0

    @property
    def has_code(self) -> bool:
        """Whether code travels along."""
        return self.task in CODE_TASKS

    @property
    def name(self) -> str:
        """The name, from which it can be played again."""
        return "/".join((self.kind, self.point, self.mode, self.task, self.ending, str(self.seed)))

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a name. Raises ValueError."""
        kind, point, mode, task, ending, seed = name.split("/")
        if mode not in MODES or task not in TASKS + CODE_TASKS or ending not in ENDINGS:
            raise ValueError(f"`{name}` is not a scenario")
        return cls(kind, point, mode, task, ending, int(seed))

    def random(self) -> Random:
        """Return the source of everything that this scenario leaves to chance."""
        return Random(self.name)
