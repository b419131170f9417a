"""One look at a session: everything that the gate decides by, read at once. It judges nothing."""

from __future__ import annotations

import asyncio
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from remote_dispatch.dispatch.tasks import as_itself
from remote_dispatch.opencode.api import NoSuchSessionError, RefusedError
from remote_dispatch.sessions.values import Reading

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping, Sequence

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Raw, Request, Served, Status

DEPTH_LIMIT = 4
DESCENDANT_LIMIT = 200


async def read(api: Api, session_id: str, directory: str, *, tail: int = 20, message_id: str | None = None) -> Reading:
    """Look at a session and its sub-agents; `directory` is the session's own, `tail` the number of messages.

    Give `message_id`, our user message, where it is known: a long turn has more messages than the tail, and then
    it is fetched by itself and stands first. Open requests are those of sessions at work whose tool call still runs:
    the others are stale (OpenCode 1.18 keeps them after an abort, even during the next turn). Raises what Api raises,
    NoSuchSessionError when the session is gone.
    """
    at_s, now_ms = time.monotonic(), int(time.time() * 1000)
    session, statuses, messages, todos, children = await _all(
        api.session(session_id),
        api.statuses(directory),
        _messages(api, session_id, directory, tail, message_id),
        api.todos(session_id),
        api.children(session_id),
    )
    below = await descendants(api, session_id, children, statuses)
    at_work = {session_id, *(one.id for one in below)} & statuses.keys()
    return Reading(
        session=session,
        status=statuses.get(session_id),
        messages=messages,
        requests=await _requests(api, directory, at_work, messages) if at_work else (),
        todos=todos,
        descendants=below,
        at_s=at_s,
        server_offset_ms=api.clock_offset_ms,
        now_ms=now_ms,
    )


async def _all(*questions: Coroutine[None, None, Any]) -> list[Any]:
    """Ask at the same time; the first error ends all and is raised as itself."""
    with as_itself():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(question) for question in questions]
    return [task.result() for task in tasks]


async def _messages(api: Api, session_id: str, directory: str, tail: int, message_id: str | None) -> tuple[Raw, ...]:
    newest = await _tail(api, session_id, directory, tail)
    if message_id is None or len(newest) < tail or _is_named(newest, message_id):
        return tuple(newest)
    ours = await api.message(session_id, message_id)
    return (ours, *newest) if ours else tuple(newest)


async def _tail(api: Api, session_id: str, directory: str, tail: int) -> list[Raw]:
    """Return the newest messages. A session that was ever prompted with `format` refuses all but the last one."""
    try:
        return await api.messages(session_id, limit=tail)
    except RefusedError as error:
        if error.status != 400:
            raise
    try:
        return await api.messages(session_id, limit=1)
    except RefusedError:
        # Its last message is that prompt itself: the answer is not stored yet.
        if session_id in await api.statuses(directory):
            return []
        raise


def _is_named(messages: Iterable[Raw], message_id: str) -> bool:
    return any(_info(one).get("id") == message_id for one in messages)


def _info(message: Raw) -> Raw:
    info = message.get("info")
    return info if isinstance(info, dict) else {}


async def descendants(
    api: Api, session_id: str, children: tuple[Served, ...], statuses: Mapping[str, Status] = MappingProxyType({})
) -> tuple[Served, ...]:
    """Return the children and what is below them, within limits: DEPTH_LIMIT, DESCENDANT_LIMIT.

    While the session is busy, by the statuses, only busy children are asked for theirs: the others' turns are over,
    and twenty sub-agents would cost twenty requests a look.
    """
    found = {one.id: one for one in children}
    level = list(children)
    for _ in range(DEPTH_LIMIT - 1):
        asked = [one for one in level if session_id not in statuses or one.id in statuses]
        if not asked or len(found) >= DESCENDANT_LIMIT:
            break
        below = await _all(*(_children(api, one.id) for one in asked[:DESCENDANT_LIMIT]))
        level = [one for group in below for one in group if one.id not in found]
        found.update((one.id, one) for one in level)
    return tuple(found.values())[:DESCENDANT_LIMIT]


async def _children(api: Api, session_id: str) -> tuple[Served, ...]:
    """A sub-agent's session may be deleted while the tree is read: the tree is there all the same."""
    try:
        return await api.children(session_id)
    except NoSuchSessionError:
        return ()


async def _requests(api: Api, directory: str, at_work: set[str], messages: Sequence[Raw]) -> tuple[Request, ...]:
    permissions, questions = await _all(api.permissions(directory), api.questions(directory))
    asked = [one for one in (*permissions, *questions) if one.session_id in at_work]
    still = await still_running(api, asked, messages)
    return tuple(one for one in asked if one.id in still)


async def still_running(api: Api, asked: Sequence[Request], known: Sequence[Raw] = ()) -> set[str]:
    """Return the ids of the requests whose tool call has not ended: a new turn makes old stale ones look real.

    `known` are messages that were read already. A call that cannot be seen (yet) has not ended.
    """
    read_before = {str(_info(one).get("id")): one for one in known}
    ended = await _all(*(_has_ended(api, one, read_before) for one in asked))
    return {one.id for one, is_over in zip(asked, ended, strict=True) if not is_over}


async def _has_ended(api: Api, request: Request, known: Mapping[str, Raw]) -> bool:
    message = known.get(request.message_id or "")
    if message is None and request.message_id:
        message = await api.message(request.session_id, request.message_id)
    parts = message.get("parts") if message else None
    calls = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    states = [part.get("state") for part in calls if part.get("callID") == request.call_id]
    return any(isinstance(state, dict) and state.get("status") in ("completed", "error") for state in states)
