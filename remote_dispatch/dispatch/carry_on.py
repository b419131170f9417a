"""Take a dispatch from wherever it stands to where it is wanted: the one way of send, wait, collect and resume.

Each step looks at what is there, does what is missing, and may be interrupted anywhere. A connection that breaks is
made anew, and the step begins again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.hand_over import hand_over
from remote_dispatch.dispatch.life import begin
from remote_dispatch.dispatch.passage import Passage
from remote_dispatch.dispatch.settle import needs_begin
from remote_dispatch.errors import ConnectionLostError, HostUnreachableError, RemoteDispatchError
from remote_dispatch.model import Mode, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remote_dispatch.dispatch.life import Life
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.report import Report
    from remote_dispatch.dispatch.store import Store
    from remote_dispatch.model import Dispatch
    from remote_dispatch.opencode.program import Program


class Goal(StrEnum):
    """How far to take a dispatch."""

    LAUNCHED = "launched"
    """The host works on it: where a one-way dispatch stops."""
    ENDED = "ended"
    """The run has ended."""
    HOME = "home"
    """What there is of the result is proved to be here, and the host is clean."""


def goal_of(record: Dispatch) -> Goal:
    """Where its mode takes a dispatch by itself."""
    return Goal.HOME if record.mode is Mode.ROUND_TRIP else Goal.LAUNCHED


def next_step(record: Dispatch, goal: Goal) -> Callable[[Passage], Awaitable[bool | None]] | None:
    """Return what is to be done next; None when the goal is reached."""
    if record.state.is_end and record.is_cleaned_up:
        return None
    if record.state.rank <= State.STAGING.rank:
        return hand_over
    if needs_begin(record):
        return begin
    return None if goal is Goal.LAUNCHED else _way_home(record, goal)


def _way_home(record: Dispatch, goal: Goal) -> Callable[[Passage], Awaitable[bool | None]] | None:
    """A one-way dispatch needs none of what is imported here.

    It is imported before a run is waited for: that takes long enough for an upgrade to put other modules there.
    """
    if goal is Goal.HOME:
        from remote_dispatch.dispatch.finish import bring_home  # noqa: PLC0415 - 15 ms that a hand-over alone does not pay
    if record.state is State.RUNNING:
        from remote_dispatch.dispatch.follow import follow  # noqa: PLC0415 - as above

        return follow
    return bring_home if goal is Goal.HOME else None


async def carry_on(
    record: Dispatch,
    link: Link,
    store: Store,
    program: Program | None,
    report: Report,
    *,
    goal: Goal,
    is_waiting: bool = True,
    is_fresh: bool = False,
    timeout_s: float | None = None,
    life: Life | None = None,
) -> Dispatch:
    """Take a dispatch to its goal and return its record. Doing it again changes nothing.

    `program` is needed for `Goal.HOME`, `life` for live dispatches. `is_fresh` says that it was recorded a moment ago.
    Raises DeadlinePassedError after `timeout_s` seconds of waiting for the run, or where it still runs and nobody is to
    wait; IntegrityError when a copy is not equal to its source: both are kept.
    """
    passage = Passage(record.id, link, store, program, report, is_waiting, timeout_s, is_fresh=is_fresh, life=life)
    try:
        while (step := next_step(passage.record, goal)) is not None:
            try:
                if await step(passage) is False:
                    break
            except ConnectionLostError as error:
                await passage.reconnect(error)
    except RemoteDispatchError as error:
        error.dispatch = record.id
        if isinstance(error, HostUnreachableError):
            known = passage.update(lambda current: current.but(unreachable_since=_since(current)))
            error.hint = f"nothing is lost; `remote-dispatch {_word(known, goal)} {record.name}` carries on"
        raise
    return passage.record


def _since(record: Dispatch) -> datetime:
    return record.unreachable_since or datetime.now(UTC)


def _word(record: Dispatch, goal: Goal) -> str:
    """The command that does what is left: `resume` takes a dispatch only as far as its mode does."""
    if goal is goal_of(record) or record.state.rank <= State.STAGING.rank:
        return "resume"
    return "collect" if goal is Goal.HOME else "wait"
