"""Who has a session: it is refused before anything is sent where it is at work already, here or on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch.settle import settle
from remote_dispatch.dispatch.stages import look
from remote_dispatch.errors import DivergedError, IntegrityError, TaskFailedError
from remote_dispatch.model import State

if TYPE_CHECKING:
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.prepare import Source
    from remote_dispatch.dispatch.store import Store
    from remote_dispatch.model import Dispatch, DispatchRequest
    from remote_dispatch.opencode.probe import Probed

_COPY = "`--copy` sends an independent copy"


async def check_away(request: DispatchRequest, link: Link, store: Store) -> None:
    """Raise DivergedError when another dispatch of this session is under way. Its own host is asked first."""
    for record in [] if request.is_copy else unfinished(store, request.session_id):
        known = await _asked(record, link, store) if record.host == link.host.name else record
        if known.state.rank <= State.STAGING.rank:
            raise DivergedError(
                f"this session is about to leave already: dispatch `{record.name}` takes it to {record.host}",
                hint=f"`remote-dispatch resume {record.name}` carries on, `cancel` gives it up; {_COPY}",
            )
        if known.state.rank < State.FINISHED.rank:
            raise DivergedError(
                f"this session is away already: dispatch `{record.name}` has it on {record.host}",
                hint=f"wait for it with `remote-dispatch wait {record.name}`; {_COPY}",
            )


def unfinished(store: Store, session_id: str | None) -> list[Dispatch]:
    """Return the dispatches of a local session that have not ended, as far as is known here."""
    return [
        record
        for record in ([] if session_id is None else store.mentioning(session_id))
        if record.request.session_id == session_id
        and not record.request.is_copy
        and record.state.rank < State.FINISHED.rank
    ]


async def _asked(record: Dispatch, link: Link, store: Store) -> Dispatch:
    """What has not reached the host cannot be asked about there."""
    if record.state is State.NEW:
        return record
    try:
        status = await look(await link.connection(), record)
        return store.update(record.id, lambda current: settle(current, status))
    except (TaskFailedError, IntegrityError):
        # Its run directory is gone, or odd: then what is known here counts.
        return record


def check_here(request: DispatchRequest, source: Source, store: Store, now_ms: int) -> None:
    """Raise DivergedError when a turn of the session is open on this machine, and it is not the one that asks."""
    if request.is_forced or source.is_new or _ends_as_it_came_home(source, store):
        return
    if transcripts.is_busy(source.session, changed_ms=source.changed_ms, now_ms=now_ms):
        raise DivergedError(
            "the model is at work on this session here",
            hint="wait until it has answered, or abort it; `--force` sends the session as it is now",
        )


def check_there(request: DispatchRequest, host: str, probed: Probed, source: Source, store: Store) -> None:
    """Raise DivergedError when the host has the session under way, or is the very OpenCode that it is in."""
    if source.database is not None and probed.database == source.database:
        raise DivergedError(
            f"{host} is this machine: the session is in the same OpenCode database",
            hint="go on with it here, or choose a host with an OpenCode of its own",
        )
    is_busy = probed.is_busy and not (_ends_as_it_came_home(source, store) and _is_all_here(probed, source))
    if (is_busy or probed.running) and not request.is_copy:
        raise DivergedError(
            f"this session is being worked on already on {host}",
            hint=f"wait until that has ended; {_COPY}",
        )


def _ends_as_it_came_home(source: Source, store: Store) -> bool:
    """A turn that was killed on the host came home without its end, and is open nowhere."""
    last = transcripts.message_ids(source.session)[-1:]
    return bool(last) and any(record.last_message_id == last[0] for record in store.mentioning(last[0]))


def _is_all_here(probed: Probed, source: Source) -> bool:
    """Whether the session was left alone there since it came home."""
    return probed.held["message"] <= {one for session in source.family for one in transcripts.message_ids(session)}
