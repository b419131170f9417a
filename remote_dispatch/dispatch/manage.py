"""What can be asked of a dispatch that was sent: how it stands, and to stop."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.settle import is_collected, is_home, settle
from remote_dispatch.dispatch.stages import clean_up, look, stop
from remote_dispatch.errors import DeadlinePassedError, HostUnreachableError, RemoteDispatchError
from remote_dispatch.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from remote_dispatch.dispatch.life import Life
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.store import Store
    from remote_dispatch.model import Dispatch
    from remote_dispatch.runner.status import RunStatus

ANSWER_TIMEOUT_S = 10.0
HOSTS_AT_ONCE = 64
"""A dead one holds its place for ten seconds, and costs nothing meanwhile."""


async def ask(record: Dispatch, link: Link, store: Store, *, deadline: float | None = None) -> Dispatch:
    """Ask the host how a dispatch stands, and note what it says: ten seconds at most, or until `deadline` (loop time).

    Raises HostUnreachableError when it does not answer. That is a remark in the record, never a failure of the work.
    """
    if not _is_asked(record):
        return record
    try:
        async with asyncio.timeout_at(_in_time() if deadline is None else deadline):
            status = await look(await link.connection(), record)
    except (TimeoutError, DeadlinePassedError, HostUnreachableError) as error:
        await link.drop()
        store.update(record.id, _unreachable)
        if isinstance(error, HostUnreachableError):
            raise
        raise HostUnreachableError(record.host, f"no answer within {ANSWER_TIMEOUT_S:.0f} s") from error
    return store.update(record.id, lambda current: settle(current, status))


async def ask_hosts(records: Iterable[Dispatch], link_to: Callable[[str], Link], store: Store) -> None:
    """Ask all hosts at the same time how these dispatches stand, each over one connection, and note what they say.

    `link_to` makes the link to a host by its name. What cannot be asked stays as it is stored, with a remark where its
    host does not answer.
    """
    by_host: dict[str, list[Dispatch]] = {}
    for record in filter(_is_asked, records):
        by_host.setdefault(record.host, []).append(record)
    gate = asyncio.Semaphore(HOSTS_AT_ONCE)

    async def ask_one(host: str, asked: list[Dispatch]) -> None:
        async with gate:
            with contextlib.suppress(RemoteDispatchError):
                async with link_to(host) as link:
                    await _ask_host(asked, link, store)

    await asyncio.gather(*(ask_one(host, asked) for host, asked in by_host.items()))


async def _ask_host(records: list[Dispatch], link: Link, store: Store) -> None:
    """The connection is opened before they share it. Login and answers have ten seconds together."""
    deadline = _in_time()
    try:
        async with asyncio.timeout_at(deadline):
            await link.connection()
    except (TimeoutError, HostUnreachableError):
        for record in records:
            store.update(record.id, _unreachable)
        return
    answers = (ask(record, link, store, deadline=deadline) for record in records)
    for answer in await asyncio.gather(*answers, return_exceptions=True):
        if isinstance(answer, BaseException) and not isinstance(answer, RemoteDispatchError):
            raise answer


def _is_asked(record: Dispatch) -> bool:
    return record.run_directory is not None and not is_home(record)


def _in_time() -> float:
    return asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S


def _unreachable(record: Dispatch) -> Dispatch:
    if is_home(record):
        return record
    return record.but(unreachable_since=record.unreachable_since or datetime.now(UTC))


async def cancel(record: Dispatch, link: Link, store: Store, life: Life | None = None) -> Dispatch:
    """End the run with all its processes. What was done so far is exported there, and can be collected.

    `life` aborts the turn of a live dispatch; the server goes on.
    """
    if is_over(record):
        return record
    if record.state is State.NEW:
        withdrawn = await _withdrawn(record, link, store)
        # Unless another command carried it on at that moment.
        return withdrawn if withdrawn.state is State.CANCELLED else await cancel(withdrawn, link, store, life)
    status = await _stopped(record, link, store, life)
    if not status.started and status.outcome is None and status.held != "yes":
        return await _withdrawn(record, link, store)
    if status.outcome is None and status.held == "yes":
        raise DeadlinePassedError(
            f"{record.host}: the runner of `{record.name}` has not ended yet",
            hint=f"try `remote-dispatch cancel {record.name}` again",
        )
    return store.update(record.id, lambda current: settle(current, status))


async def _stopped(record: Dispatch, link: Link, store: Store, life: Life | None) -> RunStatus:
    """A live turn is aborted first. Alone: who is about to open it has done so before, or sees the cancellation."""
    connection = await link.connection()
    if life is None or not record.request.is_live or record.state not in (State.RUNNING, State.LOST):
        return await stop(connection, record)
    async with store.held(f"dispatch-{record.id}"):
        await life.abort(link.host, record)
        status = await stop(connection, record)
        store.update(record.id, lambda current: settle(current, status))
        return status


async def _withdrawn(record: Dispatch, link: Link, store: Store) -> Dispatch:
    """Cancel what had not begun. Recorded first: a sender that still copies looks before it launches, and cleans up.

    After `stop` no runner begins it any more; what was still here only, and was carried on meanwhile, is left alone.
    """

    def withdraw(current: Dispatch) -> Dispatch:
        is_gone_on = record.state is State.NEW and current.state.rank > State.STAGING.rank
        return current if is_gone_on else _cancelled(current)

    withdrawn = store.update(record.id, withdraw)
    if withdrawn.state is not State.CANCELLED:
        return withdrawn
    with store.held_if_free(f"dispatch-{record.id}") as is_alone:
        if not is_alone:
            return withdrawn
        has_left = withdrawn.reached(State.STAGING) is not None
        is_removed = not has_left or await clean_up(await link.connection(), record, is_unbegun=True)
        store.folder(record.id).drop_outgoing()
        return store.update(record.id, lambda current: current.but(is_cleaned_up=is_removed))


def is_over(record: Dispatch) -> bool:
    """Whether nothing of it can be running: a lost one's OpenCode may have outlived its runner."""
    if record.state is State.LOST:
        return is_collected(record)
    if record.state is State.CANCELLED:
        return is_collected(record) or record.is_cleaned_up
    return record.state.is_end or record.state is State.FINISHED


def _cancelled(record: Dispatch) -> Dispatch:
    return record.advance(State.CANCELLED, datetime.now(UTC), kind="cancelled", detail="nothing had run")
