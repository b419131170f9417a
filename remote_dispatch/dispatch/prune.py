"""Take away what is not needed any more: records with their files here, run directories there. Never the only copy."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.attention import attention
from remote_dispatch.dispatch.settle import NEVER_BEGAN, is_code_there, is_collected
from remote_dispatch.dispatch.stages import clean_up, look
from remote_dispatch.errors import DeadlinePassedError, HostUnreachableError, IntegrityError, RemoteDispatchError
from remote_dispatch.model import DISPATCH_ID, Dispatch, State
from remote_dispatch.runner.scripts import script
from remote_dispatch.runner.status import parse_sweep

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import datetime

    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.store import Store
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.runner.status import RunStatus

HOSTS_AT_ONCE = 8
SWEEP_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A dispatch that stays, why, and the next command where there is one."""

    name: str
    why: str
    command: str | None = None
    is_trouble: bool = False
    """Whether it stays only because its host could not be asked."""


@dataclass(slots=True)
class Pruned:
    """What went and what stayed. Of a dry run: what would."""

    removed: list[str] = field(default_factory=list)
    """Names of dispatches."""
    kept: list[Kept] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    """Ids of what senders that were killed left here without a record."""
    locks: int = 0
    """How many locks that nobody holds were removed here: each session has one."""
    leftovers: dict[str, int] = field(default_factory=dict)
    """How many remains of killed probes were removed, by host."""


async def prune(
    store: Store, link_to: Callable[[str], Link], *, before: datetime | None = None, is_dry_run: bool = False
) -> Pruned:
    """Remove every dispatch of which all is proved to be here, or of which nothing ever ran.

    `link_to` gives the link to a host by its name. Only those that ended before `before` go. A run directory goes
    first, its record last: what is interrupted is done by the next call. In a dry run hosts are asked, and nothing
    changes.
    """
    pruned = Pruned()
    at_hosts: defaultdict[str, list[Dispatch]] = defaultdict(list)
    for record in store.all():
        reason = reason_to_keep(record, before)
        if reason is not None:
            pruned.kept.append(reason)
        elif record.is_cleaned_up:
            _drop(record, store, pruned, is_dry_run=is_dry_run)
            if not is_dry_run:
                # Nothing of it is there; what killed probes left may be.
                at_hosts[record.host] += []
        else:
            at_hosts[record.host].append(record)
    gate = asyncio.Semaphore(HOSTS_AT_ONCE)

    async def at(host: str, records: list[Dispatch]) -> None:
        async with gate:
            await _prune_host(host, records, link_to, store, pruned, is_dry_run=is_dry_run)

    await asyncio.gather(*(at(host, records) for host, records in at_hosts.items()))
    if not is_dry_run:
        swept = store.sweep()
        pruned.orphans = [one for one in swept if DISPATCH_ID.fullmatch(one)]
        pruned.locks = len(swept) - len(pruned.orphans)
    return pruned


def reason_to_keep(record: Dispatch, before: datetime | None) -> Kept | None:
    """Why a dispatch stays, as far as its record says; None where only its host can still object."""
    next_one = attention(record)
    command = next_one.command if next_one else None
    if not record.state.is_end:
        why = next_one.reason if next_one else f"it is running on {record.host}"
        return Kept(record.name, why, command or f"remote-dispatch wait {record.name}")
    if before is not None and record.history[-1].at >= before:
        return Kept(record.name, "it has ended only lately")
    if record.stays_there:
        why = f"a sub-agent's session is on {record.host} only"
        return Kept(record.name, why, f"remote-dispatch remove {record.name}")
    if code := _code_to_keep(record):
        return code
    if is_collected(record) or record.is_cleaned_up or record.state is not State.LOST:
        return None
    return Kept(record.name, next_one.reason if next_one else "it is lost", command)


def _code_to_keep(record: Dispatch) -> Kept | None:
    """Code that would be lost with it, there or here."""
    if is_code_there(record) and not record.is_cleaned_up:
        next_one = attention(record)
        command = next_one.command if next_one else f"remote-dispatch collect {record.name}"
        return Kept(record.name, f"code of it is only on {record.host}", command)
    if record.code is not None and record.code.further:
        why = f"it keeps further branches that were made on {record.host}"
        return Kept(record.name, why, f"remote-dispatch show {record.name}")
    return None


async def _prune_host(
    host: str,
    records: list[Dispatch],
    link_to: Callable[[str], Link],
    store: Store,
    pruned: Pruned,
    *,
    is_dry_run: bool,
) -> None:
    waiting = list(records)
    try:
        async with link_to(host) as link:
            connection = await link.connection()
            while waiting:
                with _alone(waiting[0], store, is_dry_run=is_dry_run) as is_alone:
                    busy = Kept(waiting[0].name, "another command works on it")
                    reason = await _asked(connection, waiting[0], is_dry_run=is_dry_run) if is_alone else busy
                    record = waiting.pop(0)
                    if reason is None:
                        _drop(record, store, pruned, is_dry_run=is_dry_run)
                    else:
                        pruned.kept.append(reason)
            if not is_dry_run and (swept := await _sweep_host(connection)):
                pruned.leftovers[host] = swept
    except RemoteDispatchError as error:
        pruned.kept += [Kept(record.name, error.message, is_trouble=True) for record in waiting]


def _alone(record: Dispatch, store: Store, *, is_dry_run: bool) -> AbstractContextManager[bool]:
    """Nobody copies, launches or removes it meanwhile. A dry run makes no lock."""
    return nullcontext(enter_result=True) if is_dry_run else store.held_if_free(f"dispatch-{record.id}")


async def _asked(connection: Connection, record: Dispatch, *, is_dry_run: bool) -> Kept | None:
    """An odd run directory keeps its own dispatch only; a silent host keeps all of its dispatches."""
    try:
        return await _reason_there(connection, record, is_dry_run=is_dry_run)
    except (HostUnreachableError, DeadlinePassedError):
        raise
    except RemoteDispatchError as error:
        return Kept(record.name, error.message, is_trouble=True)


async def _reason_there(connection: Connection, record: Dispatch, *, is_dry_run: bool) -> Kept | None:
    """Why the host keeps the run directory; None when it is gone, or in a dry run would go."""
    status = await look(connection, record)
    if not is_collected(record) and may_have_run(record, status):
        next_one = attention(record)
        return Kept(record.name, _only_there(record, status), next_one.command if next_one else None)
    if is_alive(status) or not (is_dry_run or await clean_up(connection, record)):
        return Kept(record.name, f"something of it still runs on {record.host}", f"remote-dispatch show {record.name}")
    return None


def _only_there(record: Dispatch, status: RunStatus) -> str:
    if status.exists:
        return f"its result is only on {record.host}"
    return f"its run directory on {record.host} is gone, and its result never came home"


async def _sweep_host(connection: Connection) -> int:
    completed = await connection.run(script("sweep"), timeout_s=SWEEP_TIMEOUT_S)
    try:
        return parse_sweep(completed.stdout)
    except ValueError as error:
        raise IntegrityError(f"{connection.name}: what its sweep says makes no sense") from error


def _drop(record: Dispatch, store: Store, pruned: Pruned, *, is_dry_run: bool) -> None:
    if not is_dry_run:
        store.remove(record)
    pruned.removed.append(record.name)


def may_have_run(record: Dispatch, status: RunStatus) -> bool:
    """Whether OpenCode was started on the brief; where the run directory is gone, whether it may have been."""
    if not status.exists:
        return record.state.rank > State.STAGING.rank and record.kind not in NEVER_BEGAN
    return status.started or (status.outcome is not None and status.outcome.is_started)


def is_alive(status: RunStatus) -> bool:
    """Whether a runner or OpenCode works on it."""
    return status.held == "yes" or status.is_opencode_alive
