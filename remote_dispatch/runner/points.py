"""The named places of the runner at which a test can stop or end it; see failpoints.py.

Each stands in the journal of a run directory as well, as `EPOCH STEP POINT`.
"""

from __future__ import annotations

_IMPORT = ("lock", "prepare", "code", "directory", "unpack", "delete", "import", "prove", "tool-output", "started")
_END = (
    "runner.export.before",
    "runner.export.written",
    "runner.export.after",
    "runner.pack.before",
    "runner.pack.after",
    "runner.children.before",
    "runner.children.after",
    "runner.outcome.before",
    "runner.outcome.written",
    "runner.outcome.after",
)


def _around(step: str) -> tuple[str, str]:
    return f"runner.{step}.before", f"runner.{step}.after"


RUNNER_POINTS: tuple[str, ...] = (
    *(point for step in _IMPORT for point in _around(step)),
    "runner.run.before",
    "runner.run.running",
    "runner.run.after",
    *_around("ended"),
    *_END,
)
"""What an ordinary run reaches, in this order. The brief may run once `runner.started.after` is reached."""

CODE_POINTS: tuple[str, ...] = ("runner.code.stored", "runner.code.unpacked", "runner.pack.written")
"""What is reached besides, and only where code travels; `stored` only where git unpacks it."""

RECOVERY_POINTS: tuple[str, ...] = (*_around("recover"), *_around("await"), *_END)
"""What a recovery reaches, in this order."""
