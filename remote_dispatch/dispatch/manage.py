"""What can be asked of a dispatch that was sent: how it stands, and to stop."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.finish import is_home, settle
from remote_dispatch.dispatch.stages import look, stop
from remote_dispatch.errors import DeadlinePassedError, HostUnreachableError, TaskFailedError
from remote_dispatch.model import State

if TYPE_CHECKING:
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.store import Store
    from remote_dispatch.model import Dispatch
    from remote_dispatch.remote.connection import Connection

REACH_TIMEOUT_S = 10.0


async def reach(record: Dispatch, link: Link, store: Store, *, timeout_s: float = REACH_TIMEOUT_S) -> Connection:
    """Open the link to a dispatch's host, ten seconds at most. Raises HostUnreachableError, and remarks it."""
    try:
        async with asyncio.timeout(timeout_s):
            return await link.connection()
    except (TimeoutError, HostUnreachableError) as error:
        since = record.unreachable_since or datetime.now(UTC)
        store.save(record.but(unreachable_since=since))
        await link.drop()
        if isinstance(error, HostUnreachableError):
            raise
        raise HostUnreachableError(
            record.host, f"no answer within {timeout_s:.0f} s", hint="what runs there goes on; try again later"
        ) from error


async def refresh(record: Dispatch, link: Link, store: Store) -> Dispatch:
    """Ask the host how a dispatch stands, ten seconds at most.

    A host that does not answer is a remark (`unreachable_since`), never a failure.
    """
    if is_home(record) or record.run_directory is None:
        return record
    try:
        connection = await reach(record, link, store)
        return store.save(settle(record, await look(connection, record)))
    except (HostUnreachableError, DeadlinePassedError):
        stored = store.load(record.id)
        since = stored.unreachable_since or datetime.now(UTC)
        return store.save(stored.but(unreachable_since=since))


async def cancel(record: Dispatch, link: Link, store: Store) -> Dispatch:
    """End the run with all its processes. What was done so far is exported there, and can be collected."""
    if record.state.is_end or record.state is State.FINISHED:
        return record
    if record.run_directory is None:
        return store.save(record.advance(State.CANCELLED, datetime.now(UTC), kind="cancelled", detail="it never left"))
    status = await stop(await link.connection(), record)
    if not status.exists:
        raise TaskFailedError(f"{record.host}: the run directory of `{record.name}` is gone", hint="nothing runs there")
    if status.outcome is None and status.held == "yes":
        raise DeadlinePassedError(
            f"{record.host}: the runner of `{record.name}` has not ended yet",
            hint=f"try `remote-dispatch cancel {record.name}` again",
        )
    return store.save(settle(record, status))
