"""Forget one dispatch: say what would be lost with it, and remove its run directory and its record."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch.packing import read_export
from remote_dispatch.dispatch.prune import is_alive, may_have_run
from remote_dispatch.dispatch.settle import is_code_there, is_collected
from remote_dispatch.dispatch.stages import clean_up, look
from remote_dispatch.dispatch.verify import binary_of
from remote_dispatch.errors import (
    ConnectionLostError,
    DivergedError,
    HostUnreachableError,
    IntegrityError,
    LoginError,
    RemoteDispatchError,
)
from remote_dispatch.model import Dispatch, State
from remote_dispatch.opencode.far import list_far

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.store import Folder, Store
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.runner.status import RunStatus

ALONE_S = 5.0
_NOTHING_RAN = "nothing of it ran"


@dataclass(frozen=True, slots=True)
class Loss:
    """What would be gone with a dispatch, and what would stay."""

    lines: tuple[str, ...]
    """What would be lost, a sentence each; nothing: all of it is somewhere else."""
    stays: tuple[str, ...] = ()
    """Where the conversation, or a part of it, stays."""
    new_messages: int | None = None
    """How many messages of the host are not home; None where that is not known."""
    session_there: str | None = None
    """The session's id on the host, where OpenCode there still has the conversation."""
    directory_there: str | None = None


def is_on_host(record: Dispatch) -> bool:
    """Whether there may be something of a dispatch on its host."""
    return record.state is not State.NEW and not record.is_cleaned_up and record.run_directory is not None


async def loss_of(record: Dispatch, link: Link, store: Store) -> Loss:
    """Ask the host what would be lost with this dispatch. Changes nothing.

    Raises DivergedError while its runner or its OpenCode lives, HostUnreachableError.
    """
    if not is_on_host(record):
        return _nothing(record)
    try:
        connection = await link.connection()
        status = await look(connection, record)
    except (HostUnreachableError, LoginError) as error:
        way = f"`remote-dispatch remove {record.name} --local` removes what is here"
        error.hint = f"{error.hint}; {way}" if error.hint else way
        raise
    if is_alive(status):
        raise _still_alive(record)
    if not may_have_run(record, status):
        return _nothing(record)
    known = _nothing(record) if is_collected(record) else await _loss_there(record, link, connection, store, status)
    return _with_code(record, known)


def _with_code(record: Dispatch, loss: Loss) -> Loss:
    """The working tree there goes with the run directory."""
    if record.code is None or not is_code_there(record):
        return loss
    lost = f"what was done to the code is only on {record.host}, in {record.code.directory}"
    return replace(loss, lines=(*loss.lines, lost))


def _further(record: Dispatch) -> tuple[str, ...]:
    """Branches that were made there beside the one that came home; they are here with the record."""
    names = record.code.further if record.code else ()
    return (f"further branches that were made there: {', '.join(names)}",) if names else ()


def loss_without_host(record: Dispatch) -> Loss:
    """What would be lost as far as is known here, when the host is not asked."""
    if not is_on_host(record):
        return _nothing(record)
    if is_collected(record):
        return _with_code(record, _nothing(record))
    there = f"what is on {record.host} stays there and is forgotten here: its run directory {record.run_directory}"
    lines = [f"what was done on {record.host} is not home, as far as is known here"]
    if record.state is State.RUNNING:
        lines.append("it was at work there when last heard of, and `cancel` cannot name it any more")
    session = record.travel.session_id if record.travel else None
    return Loss(tuple(lines), (there, *_stays_here(record)), None, session, record.remote_directory)


async def remove(record: Dispatch, link: Link | None, store: Store, *, patience_s: float = ALONE_S) -> None:
    """Remove the run directory, then the record with all its files. Without a link only what is here.

    Raises DivergedError when another command works on it, when it changed since `record` was read, or when something
    of it lives on the host; HostUnreachableError. Then it is still here.
    """
    async with _alone_with(record, store, patience_s):
        now = store.load(record.id)
        if (now.history, now.collected, now.is_cleaned_up) != (record.history, record.collected, record.is_cleaned_up):
            raise DivergedError(
                f"dispatch `{record.name}` went on meanwhile",
                hint=f"see how it stands with `remote-dispatch show {record.name}`, then remove it again",
            )
        if link is not None and is_on_host(record) and not await clean_up(await link.connection(), record):
            raise DivergedError(
                f"{record.host} keeps the run directory of `{record.name}`: something lives there, or it is not ours",
                hint=f"stop what lives there with `remote-dispatch cancel {record.name}`, then remove it again",
            )
        store.remove(record)


@asynccontextmanager
async def _alone_with(record: Dispatch, store: Store, patience_s: float) -> AsyncIterator[None]:
    """Neither sent nor merged meanwhile by another command."""
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(patience_s):
                for key in (f"dispatch-{record.id}", record.session_id or record.id):
                    await stack.enter_async_context(store.held(key))
        except TimeoutError as error:
            raise DivergedError(
                f"another command works on dispatch `{record.name}`, or on its session",
                hint=f"end that one first; `remote-dispatch cancel {record.name}` stops the work itself",
            ) from error
        yield


async def _loss_there(record: Dispatch, link: Link, connection: Connection, store: Store, status: RunStatus) -> Loss:
    there = await _messages_there(record, link, connection)
    sent = await asyncio.to_thread(_count_sent, record, store.folder(record.id))
    new = max(0, there - sent) if there else None
    where = f"the result is only on {record.host}" if status.exists else f"the run directory on {record.host} is gone"
    lost = (f"{where}{_counted(new)}",)
    if not there:
        return Loss(lost, _stays_here(record))
    session = record.travel.session_id if record.travel else None
    stays = f"OpenCode on {record.host} still has the conversation: session {session} in {record.remote_directory}"
    return Loss(lost, (stays, *_stays_here(record)), new, session, record.remote_directory)


def _counted(new: int | None) -> str:
    if new is None:
        return ""
    return ": 1 new message is not home" if new == 1 else f": {new} new messages are not home"


async def _messages_there(record: Dispatch, link: Link, connection: Connection) -> int | None:
    """How many messages the session has on the host; 0 without it, None when OpenCode there does not say."""
    if record.travel is None:
        return None
    session = record.travel.session_id
    try:
        far = await list_far(connection, binary_of(record, link), session, link.host.env or {})
    except ConnectionLostError:
        raise
    except RemoteDispatchError:
        return None
    return far.messages.get(session, 0)


def _count_sent(record: Dispatch, folder: Folder) -> int:
    """A damaged file must not keep anybody from removing it."""
    try:
        return len(transcripts.without_reverted(read_export(folder.session))["messages"])
    except (FileNotFoundError, IntegrityError):
        return record.origin.messages if record.origin else 0


def _nothing(record: Dispatch) -> Loss:
    if not is_collected(record):
        return Loss((), (_NOTHING_RAN, *_stays_here(record)))
    home = record.copy_session_id or record.session_id
    return Loss(_further(record), (f"the result is home, in session {home}",))


def _stays_here(record: Dispatch) -> tuple[str, ...]:
    session = record.request.session_id
    return (f"the session here stays as it is: {session}",) if session else ()


def _still_alive(record: Dispatch) -> DivergedError:
    return DivergedError(
        f"dispatch `{record.name}` is still at work on {record.host}",
        hint=f"stop it first with `remote-dispatch cancel {record.name}`",
    )
