"""The turn of a live dispatch: an OpenCode server on the host works on it, while the runner waits to export its end.

What is known of servers lies above this room: it comes in as a `Life`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from remote_dispatch.dispatch.hand_over import begin_again
from remote_dispatch.dispatch.journal import journaled
from remote_dispatch.dispatch.report import Step
from remote_dispatch.dispatch.settle import is_idle, needs_begin, settle
from remote_dispatch.dispatch.stages import end_turn, look
from remote_dispatch.errors import IntegrityError, UsageError
from remote_dispatch.runner.directory import BRIEF

if TYPE_CHECKING:
    from remote_dispatch.dispatch.passage import Passage
    from remote_dispatch.dispatch.report import Report
    from remote_dispatch.model import Dispatch, Host


class Life(Protocol):
    """What keeps live dispatches on OpenCode servers: `sessions.live.LiveTurns`."""

    async def prepare(self, host: Host) -> None:
        """Have a server run on the host. Raises HostNotReadyError, before anything has left."""
        ...

    async def begin(self, host: Host, record: Dispatch, brief: str) -> str:
        """Open the turn with the brief and return the id of its user message.

        Again with the same record changes nothing. Raises TurnFailedError when the server did not take it.
        """
        ...

    async def await_end(self, host: Host, record: Dispatch, report: Report, *, is_waiting: bool) -> bool:
        """Wait until the session is quiet; return whether its turn ended well.

        Without waiting: raises DeadlinePassedError while it works, AnswerNeededError while it waits for an answer.
        """
        ...

    async def abort(self, host: Host, record: Dispatch) -> None:
        """Abort what it is at; a server that does not run is none that works."""
        ...


def life_of(passage: Passage) -> Life:
    """Return what keeps the session. Raises UsageError where a live dispatch is carried on without it."""
    if passage.life is None:
        raise UsageError(f"dispatch `{passage.record.name}` lives on an OpenCode server, and none can be reached here")
    return passage.life


async def begin(passage: Passage) -> None:
    """Send the brief of a live dispatch, once: whoever repeats it sends the same message again."""
    status = await look(await passage.connection(), passage.record)
    if is_idle(status):
        await begin_again(passage)
        return
    async with passage.store.held(f"dispatch-{passage.dispatch_id}"):
        record = passage.update(lambda current: settle(current, status))
        if not needs_begin(record):
            return
        async with journaled("prompt", record.id, passage.store):
            passage.report(Step("launch", f"the OpenCode server on {record.host} gets the brief", record.name))
            turn_id = await life_of(passage).begin(passage.link.host, record, _brief(passage))
            passage.update(lambda current: current.but(turn_id=turn_id))
        passage.folder.drop_outgoing()


def _brief(passage: Passage) -> str:
    """It is kept here until the server has it."""
    path = passage.folder.outgoing_files().get(BRIEF)
    if path is None:
        name = passage.record.name
        raise IntegrityError(
            f"what was to be said on {passage.record.host} is not here any more",
            hint=f"nothing ran there: `remote-dispatch cancel {name}`, then send the session again",
        )
    return path.read_bytes().decode("utf-8", "surrogateescape")


async def await_turn(passage: Passage) -> None:
    """Wait for the end of a live turn, and have the runner export it. Nothing is done where no runner waits for it.

    Raises what `Life.await_end` raises.
    """
    record = passage.record
    status = await look(await passage.connection(), record)
    if is_idle(status):
        await begin_again(passage)
        return
    if status.outcome is not None or status.held != "yes" or status.is_recovering or _was_told(record):
        return
    async with journaled("turn", record.id, passage.store), passage.waiting():
        is_good = await life_of(passage).await_end(
            passage.link.host, record, passage.report, is_waiting=passage.is_waiting
        )
        await end_turn(await passage.connection(), record, is_good=is_good)


async def await_quiet(passage: Passage) -> None:
    """Wait until the server is done with a live session whose runner is gone, before it is exported."""
    record = passage.record
    if record.request.is_live and record.turn_id is not None:
        await life_of(passage).await_end(passage.link.host, record, passage.report, is_waiting=passage.is_waiting)


def _was_told(record: Dispatch) -> bool:
    return any(entry.step == "turn" and entry.ended is not None for entry in record.journal)
