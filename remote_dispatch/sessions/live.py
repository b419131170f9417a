"""Where dispatches and named sessions meet: live dispatches, adopted ones, and who may write to a session."""

from __future__ import annotations

import asyncio
import hashlib
import string
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from remote_dispatch.dispatch.attention import attention
from remote_dispatch.dispatch.report import Step
from remote_dispatch.dispatch.settle import needs_begin
from remote_dispatch.dispatch.stages import look
from remote_dispatch.errors import (
    AnswerNeededError,
    DeadlinePassedError,
    DivergedError,
    HostNotReadyError,
    TaskFailedError,
    TurnFailedError,
    UnknownNameError,
)
from remote_dispatch.failpoints import reach
from remote_dispatch.failure import Failure
from remote_dispatch.model import Model, State
from remote_dispatch.opencode.api import NoSuchSessionError
from remote_dispatch.runner.events import Progress
from remote_dispatch.sessions.gate import QUIET_S, Gate
from remote_dispatch.sessions.happening import (
    Changed,
    Happened,
    LinkBack,
    LinkLost,
    TodosChanged,
    ToolChanged,
)
from remote_dispatch.sessions.monitor import AWAY, Monitor
from remote_dispatch.sessions.reading import read
from remote_dispatch.sessions.values import Phase, TodoCount
from remote_dispatch.transcript.shape import TODO_TOOL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from datetime import datetime

    from remote_dispatch.dispatch import Link, Store
    from remote_dispatch.dispatch.report import Report
    from remote_dispatch.hosts import Registry
    from remote_dispatch.model import Dispatch, Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Raw, Request
    from remote_dispatch.servers.reach import Servers
    from remote_dispatch.sessions.happening import Update
    from remote_dispatch.sessions.store import SessionStore
    from remote_dispatch.sessions.values import NamedSession, Standing

TAKEN_S = 15.0
"""How long a server may need until the brief is seen in the session (cold: 10 s, OpenCode 1.18)."""
_LOOK_S = 0.2
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


class LiveTurns:
    """Keeps live dispatches on OpenCode servers: the `Life` of the room dispatch."""

    def __init__(self, servers: Servers, sessions: SessionStore) -> None:
        self._servers = servers
        self._sessions = sessions

    async def __aenter__(self) -> Self:
        await self._servers.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._servers.__aexit__(*error)

    async def prepare(self, host: Host) -> None:
        """Have a server run on the host. Raises HostNotReadyError, before anything has left."""
        await self._servers.api(host, starts=True)

    async def begin(self, host: Host, record: Dispatch, brief: str) -> str:
        """Open the turn with the brief and return the id of its user message: the same one, however often."""
        api = await self._servers.api(host, starts=True)
        named = await self._named(api, record)
        message_id, part_id = turn_ids(record)
        await reach("prompt.ready")
        if await api.message(named.session_id, message_id) is None:
            # OpenCode 1.18 gives a message that comes again the time of now: it would stand behind its own answer.
            await api.prompt(named.session_id, named.directory, _body(record, message_id, part_id, brief))
        await reach("prompt.sent")
        await _see(api, record, named.session_id, message_id)
        with suppress(UnknownNameError):  # it was renamed or forgotten meanwhile: its turn goes on all the same
            self._sessions.update(named.name, lambda current: current.but(message_id=message_id))
        return message_id

    async def await_end(self, host: Host, record: Dispatch, report: Report, *, is_waiting: bool) -> bool:
        """Wait until the session is quiet, whatever was said to it meanwhile; return whether its turn ended well."""
        api = await self._servers.api(host, starts=True)
        session_id = session_there(record)
        directory = (await api.session(session_id)).directory
        if is_waiting:
            standing = await _followed(api, session_id, directory, record, report)
        else:
            standing = await _judged(api, session_id, directory)
            _check_quiet(record, standing)
        return standing.end is not None and standing.end.failure is None

    async def abort(self, host: Host, record: Dispatch) -> None:
        """Abort what it is at; a server that does not run is none that works."""
        try:
            api = await self._servers.api(host)
            await api.abort(session_there(record))
        except (HostNotReadyError, NoSuchSessionError):
            return

    async def _named(self, api: Api, record: Dispatch) -> NamedSession:
        """The session stays reachable by the dispatch's name, also after it was collected."""
        try:
            session = await api.session(session_there(record))
        except NoSuchSessionError as error:
            raise HostNotReadyError(
                record.host,
                "its OpenCode server does not have the session that was imported there",
                hint="does it run as another user, or with other data, than `opencode` in a shell there?",
            ) from error
        known = self._sessions.find(record.host, session.id)
        if known is not None and known.dispatch not in (None, record.id):
            # An earlier dispatch brought the same session there.
            self._sessions.forget(known.name)
            known = None
        return known or self._sessions.create(
            record.host, session, name=record.name, works_on=_works_on(record), dispatch=record.id
        )


def session_there(record: Dispatch) -> str:
    """Return the session's id on its host. Raises TaskFailedError for a dispatch that never got an id there."""
    session_id = record.travel.session_id if record.travel else record.session_id
    if session_id is None:
        raise TaskFailedError(f"dispatch `{record.name}` has no session on {record.host}")
    return session_id


def turn_ids(record: Dispatch) -> tuple[str, str]:
    """Return the ids of the message and the part that carry the brief: the same ones for the same dispatch.

    A server that gets them again changes nothing (OpenCode 1.18). They sort by the host's clock, as its own do, and
    behind everything that travelled.
    """
    offset_ms = record.travel.clock_offset_ms if record.travel else 0
    began_ms = int(record.history[0].at.timestamp() * 1000) + offset_ms
    stem = f"{(began_ms * 4096) & ((1 << 48) - 1):012x}"
    return f"msg_{stem}{_tail(record.id, 'message')}", f"prt_{stem}{_tail(record.id, 'part')}"


def _tail(dispatch_id: str, what: str) -> str:
    number = int.from_bytes(hashlib.sha256(f"{what} of {dispatch_id}".encode()).digest())
    letters = []
    for _ in range(14):
        number, place = divmod(number, len(_BASE62))
        letters.append(_BASE62[place])
    return "".join(letters)


def _body(record: Dispatch, message_id: str, part_id: str, brief: str) -> Raw:
    body: Raw = {"messageID": message_id, "parts": [{"id": part_id, "type": "text", "text": brief}]}
    if record.travel is not None:
        model = Model.parse(record.travel.model)
        body |= {"agent": record.travel.agent, "model": {"providerID": model.provider, "modelID": model.id}}
        body |= {"variant": record.travel.variant} if record.travel.variant else {}
    return body


async def _see(api: Api, record: Dispatch, session_id: str, message_id: str) -> None:
    """A prompt is answered before it is taken: only the message in the session proves it."""
    try:
        async with asyncio.timeout(TAKEN_S):
            while await api.message(session_id, message_id) is None:  # noqa: ASYNC110 - another machine sets no event
                await asyncio.sleep(_LOOK_S)
    except TimeoutError as error:
        raise TurnFailedError(
            Failure.CONFIG_ERROR,
            f"{record.host}: the OpenCode server did not take the brief",
            hint=f"try `remote-dispatch resume {record.name}`; `cancel` gives it up, nothing ran",
        ) from error


async def _followed(api: Api, session_id: str, directory: str, record: Dispatch, report: Report) -> Standing:
    """Watch until nothing more happens by itself; an answer that never ends is aborted."""
    monitor = Monitor(api)
    monitor.add(session_id, directory)
    last: Standing | None = None
    async with aclosing(monitor.updates()) as updates:
        async for update in updates:
            for progress in _told(update, last, record):
                report(progress)
            if isinstance(update, Changed):
                last = update.standing
                if last.must_abort:
                    with suppress(*AWAY):  # it goes on without an end, and is aborted at the next look
                        await api.abort(session_id)
                if last.is_over:
                    return last
    raise NoSuchSessionError(
        f"{record.host}: the session of `{record.name}` was deleted there",
        hint=f"`remote-dispatch cancel {record.name}` ends the dispatch",
    )


async def _judged(api: Api, session_id: str, directory: str) -> Standing:
    """Look, and look again where a turn seems to begin or to end: that takes seconds at most."""
    gate = Gate()
    while True:
        standing = gate.judge(await read(api, session_id, directory))
        if standing.phase not in (Phase.STARTING, Phase.ENDING):
            return standing
        await asyncio.sleep(QUIET_S)


def _check_quiet(record: Dispatch, standing: Standing) -> None:
    if standing.phase is Phase.WAITING:
        raise AnswerNeededError(_waiting(record, standing), hint=_answer_hint(record))
    if not standing.is_over:
        raise DeadlinePassedError(
            f"dispatch `{record.name}` is still at work on {record.host}",
            hint=f"watch it with `remote-dispatch session watch {record.name}`; "
            "`collect` without `--no-wait` waits for it",
        )


def _waiting(record: Dispatch, standing: Standing) -> str:
    return f"dispatch `{record.name}` waits on {record.host} for an answer: {_asked(standing.requests)}"


def _asked(requests: Collection[Request]) -> str:
    count = len(requests)
    return "1 request is open" if count == 1 else f"{count} requests are open"


def _answer_hint(record: Dispatch) -> str:
    return f"see what it asks with `remote-dispatch session requests {record.name}`"


def _told(update: Update, last: Standing | None, record: Dispatch) -> Iterable[Step | Progress]:
    """What the screen of a dispatch shows of a session's life: the same things as of a run."""
    match update:
        case Changed(standing=standing) if standing.phase is Phase.WAITING and not _is_waiting(last):
            yield Step("note", f"{_waiting(record, standing)}; {_answer_hint(record)}", record.name)
        case LinkLost(message=message):
            yield Step("unreachable", f"{message}; nothing is lost, trying again", record.name)
        case LinkBack():
            yield Step("note", f"connected to {record.host} again", record.name)
        case Happened(what=ToolChanged(status=status) as tool) if status in ("completed", "error"):
            is_error = status == "error"
            yield Progress("tool", tool.error if is_error else tool.title, tool=tool.tool, is_error=is_error)
        case Happened(what=TodosChanged(todos=todos)):
            count = TodoCount.of(todos)
            yield Progress("todo", count.active or "", tool=TODO_TOOL, done=count.done, total=count.total)
        case Changed(standing=standing) if standing.end is not None and standing.end.answer:
            yield Progress("text", standing.end.answer)
        case _:
            return


def _is_waiting(standing: Standing | None) -> bool:
    return standing is not None and standing.phase is Phase.WAITING


def _works_on(record: Dispatch) -> str:
    words = (record.request.prompt or "").strip()
    return words.splitlines()[0][:120] if words else ""


# --- dispatches beside named sessions


@dataclass(frozen=True, slots=True)
class DispatchRow:
    """A dispatch as one line among the named sessions."""

    name: str
    host: str
    state: State
    mode: str
    session_id: str | None
    """On the host."""
    title: str
    is_live: bool
    since: datetime
    """When it reached its state."""
    attention: str | None
    """What it waits for, with the command."""


def dispatch_rows(records: Iterable[Dispatch], named: Iterable[NamedSession]) -> list[DispatchRow]:
    """Return the dispatches that are not at their end, without those that are in the list as named sessions."""
    listed = {one.dispatch for one in named}
    return [_row(record) for record in records if not record.state.is_end and record.id not in listed]


def _row(record: Dispatch) -> DispatchRow:
    needed = attention(record)
    return DispatchRow(
        name=record.name,
        host=record.host,
        state=record.state,
        mode=record.mode,
        session_id=record.travel.session_id if record.travel else None,
        title=(record.origin.title if record.origin else "") or _works_on(record),
        is_live=record.request.is_live,
        since=record.history[-1].at,
        attention=f"{needed.reason}: `{needed.command}`" if needed else None,
    )


async def adopt_dispatch(
    name: str,
    dispatches: Store,
    registry: Registry,
    servers: Servers,
    link: Callable[[Host], Link],
    sessions: SessionStore,
    *,
    rename: str | None = None,
) -> NamedSession:
    """Make the session of a dispatch a named one, under the dispatch's own name unless another is asked for.

    Raises DivergedError while its runner works on it, TaskFailedError when nothing of it reached its host, UsageError
    when a name stands for the session already. A live one that was forgotten gets its name again.
    """
    record = dispatches.load(name)
    host = registry[record.host]
    if record.state.rank <= State.STAGING.rank or record.run_directory is None:
        raise TaskFailedError(
            f"dispatch `{record.name}` has not reached {record.host}",
            hint=f"`remote-dispatch resume {record.name}` carries on",
        )
    await check_writable(host, session_there(record), dispatches, link)
    api = await servers.api(host, starts=True)
    session = await api.session(session_there(record))
    return sessions.create(
        record.host, session, name=rename or record.name, works_on=_works_on(record), dispatch=record.id
    )


async def check_writable(host: Host, session_id: str, dispatches: Store, link: Callable[[Host], Link]) -> None:
    """Raise DivergedError when a dispatch has `opencode run` work on this session of a host, or is about to.

    Two writers interleave without any lock (OpenCode 1.18). The host is asked only where such a dispatch is known.
    """
    for record in dispatches.all():
        if record.host == host.name and _may_write(record) and session_there(record) == session_id:
            await _check_runner(record, host, link)


def _may_write(record: Dispatch) -> bool:
    has_begun = record.state in (State.STAGING, State.RUNNING, State.LOST) and not record.is_cleaned_up
    is_open = has_begun and (not record.request.is_live or needs_begin(record) or record.state is State.STAGING)
    return is_open and record.run_directory is not None and record.travel is not None


async def _check_runner(record: Dispatch, host: Host, link: Callable[[Host], Link]) -> None:
    async with link(host) as opened:
        status = await look(await opened.connection(), record)
    if status.outcome is None and (status.held == "yes" or status.is_opencode_alive):
        raise DivergedError(
            f"dispatch `{record.name}` works on this session of {record.host}",
            hint=f"wait for it with `remote-dispatch wait {record.name}`, or stop it with "
            f"`remote-dispatch cancel {record.name}`",
        )
