"""The journal of the main path: every step is recorded before it begins and after it was seen to be done.

A step may be interrupted anywhere and is begun again from its start: each one finds out by itself what is done already.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, get_args

from remote_dispatch.failpoints import reach

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from remote_dispatch.dispatch.store import Store

JournalStep = Literal["stage", "launch", "follow", "recover", "fetch", "merge", "judge", "code", "release"]
LiveStep = Literal["prompt", "turn"]
"""What is done besides for a live dispatch, after its launch."""

POINTS = (
    *("plan.before", "plan.after", "pack.before", "pack.after", "record.after"),
    *(f"{step}.{place}" for step in get_args(JournalStep) for place in ("before", "begun", "done", "after")),
    *("merge.children", "merge.imported"),
)
"""Every place of this side at which a test can stop: see `failpoints`. `begun` and `after` come after the record.
Those of a LiveStep, `prompt.ready` and `prompt.sent` are reached by live dispatches only."""


@asynccontextmanager
async def journaled(step: JournalStep | LiveStep, dispatch_id: str, store: Store) -> AsyncIterator[None]:
    """Record that a step begins, and, when the block ends well, that it is done."""
    await reach(f"{step}.before")
    store.update(dispatch_id, lambda record: record.begun(step, datetime.now(UTC)))
    await reach(f"{step}.begun")
    yield
    await reach(f"{step}.done")
    store.update(dispatch_id, lambda record: record.completed(step, datetime.now(UTC)))
    await reach(f"{step}.after")
