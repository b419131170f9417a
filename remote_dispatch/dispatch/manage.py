"""What can be asked of a dispatch that was sent: how it stands, and to stop."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.finish import is_home, settle
from remote_dispatch.dispatch.stages import look, stop
from remote_dispatch.errors import DeadlinePassedError, HostUnreachableError, LoginError, TaskFailedError
from remote_dispatch.model import State

if TYPE_CHECKING:
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.store import Store
    from remote_dispatch.model import Dispatch

REFRESH_TIMEOUT_S = 10.0


async def refresh(record: Dispatch, link: Link, store: Store, *, timeout_s: float = REFRESH_TIMEOUT_S) -> Dispatch:
    """Ask the host how a dispatch stands, ten seconds at most.

    A host that does not answer is a remark (`unreachable_since`), never a failure.
    """
    if is_home(record) or record.run_directory is None:
        return record
    try:
        async with asyncio.timeout(timeout_s):
            status = await look(await link.connection(), record)
    except (TimeoutError, HostUnreachableError, LoginError, DeadlinePassedError):
        await link.drop()
        since = record.unreachable_since or datetime.now(UTC)
        return store.save(record.but(unreachable_since=since))
    return store.save(settle(record, status))


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
