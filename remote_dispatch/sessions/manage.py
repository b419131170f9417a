"""Make, adopt, fork, abort and delete sessions. OpenCode takes a wrong directory, agent or model: we do not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch import transcript
from remote_dispatch.errors import TurnFailedError, UnknownNameError, UsageError
from remote_dispatch.failure import Failure
from remote_dispatch.model import SESSION_ID, Model, Permissions
from remote_dispatch.opencode.api import NoSuchSessionError
from remote_dispatch.sessions.gate import settled
from remote_dispatch.sessions.offers import check_agent, check_model, offers, work_directory
from remote_dispatch.sessions.reading import read
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remote_dispatch.model import Host, PermissionRules
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Raw, Served, ServedAgent
    from remote_dispatch.sessions.offers import Offers
    from remote_dispatch.sessions.store import SessionStore
    from remote_dispatch.sessions.values import NamedSession, Standing

ABORT_S = 10.0
_POLL_S = 0.25
ASK = "ask"
"""The policy that leaves OpenCode's own rules as they are: what asks is asked."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a new session is to be. None leaves the choice to the host's entry, then to OpenCode."""

    title: str | None = None
    name: str | None = None
    directory: str | None = None
    agent: str | None = None
    model: str | None = None
    permissions: str | None = None
    """`ask`, `deny` or `auto`; None is the entry's, else `ask`."""
    permission_rules: PermissionRules | None = None
    works_on: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """A new session, and what was chosen for it. A model that is None is OpenCode's choice."""

    named: NamedSession
    agent: str
    model: str | None
    permissions: str
    offers: Offers
    """What there was to choose from."""


async def create(
    api: Api,
    host: Host,
    store: SessionStore,
    wish: Wish,
    *,
    choose: Callable[[Offers], Awaitable[str | None]] | None = None,
) -> Made:
    """Make a session on the server of this host and record it.

    `choose` is asked for the agent where neither the wish nor the host's entry names one. Raises HostNotReadyError for
    a directory, agent or model that is not there, UsageError for a name that is taken; then nothing was made.
    """
    store.check_name(wish.name)
    directory = await work_directory(api, host, wish.directory)
    found = await offers(api, directory)
    model = wish.model or host.model
    check_model(host.name, found, model)
    agent = wish.agent or host.agent
    if agent is None and choose is not None:
        agent = await choose(found)
    check_agent(host.name, found, agent)
    policy = wish.permissions or host.permissions or ASK
    session = await api.create(
        directory,
        title=wish.title,
        agent=agent,
        model=_model_field(model),
        permission=permission_rules(policy, wish.permission_rules or host.permission_rules, found.agent_named(agent)),
    )
    named = await _recorded(api, host.name, store, session, name=wish.name, works_on=wish.works_on)
    return Made(named, agent or found.agent, model or found.model, policy, found)


async def adopt(
    api: Api, host: Host, store: SessionStore, session_id: str, *, name: str | None = None, works_on: str = ""
) -> NamedSession:
    """Give a session a name that is on the server already, whoever made it.

    Raises NoSuchSessionError, and UsageError when a name stands for it already, or for a sub-agent's session.
    """
    if SESSION_ID.fullmatch(session_id) is None:
        raise UsageError(
            f"`{clean(session_id, 60)}` is not the id of a session",
            hint=f"see the ids with `remote-dispatch session list --host {host.name} --all`",
        )
    session = await api.session(session_id)
    if session.parent_id is not None:
        raise UsageError("this is the session of a sub-agent", hint=f"its parent is `{session.parent_id}`")
    return store.create(host.name, session, name=name, works_on=works_on)


async def fork(
    api: Api, named: NamedSession, store: SessionStore, *, message_id: str | None = None, name: str | None = None
) -> NamedSession:
    """Copy a session under a name of its own; with a message, only what came before it. Raises UnknownNameError.

    The copy has the rules of the session too: OpenCode leaves them out (1.18), and the copy would ask, or be allowed,
    what the session is not.
    """
    store.check_name(name)
    if message_id is not None:
        await _check_message(api, named, message_id)
    rules = (await api.session(named.session_id)).permission
    session = await api.fork(named.session_id, message_id)
    if rules:
        session = await api.permit(session.id, rules)
    return await _recorded(api, named.host, store, session, name=name, works_on=named.works_on)


async def abort(api: Api, named: NamedSession, *, timeout_s: float = ABORT_S) -> Standing:
    """Abort the turn with those of its sub-agents, and see that it ended.

    Raises TurnFailedError when it still runs after `timeout_s`.
    """
    await api.abort(named.session_id)
    try:
        async with asyncio.timeout(timeout_s):
            return await _over(api, named)
    except TimeoutError as error:
        raise TurnFailedError(
            Failure.TIMEOUT,
            f"the turn of `{named.name}` was aborted and still seems to run on {named.host}",
            hint=f"look again with `remote-dispatch session show {named.name}`",
        ) from error


async def is_at_work(api: Api, named: NamedSession) -> bool:
    """Whether a turn runs, or OpenCode tries one again."""
    return named.session_id in await api.statuses(named.directory)


async def delete(api: Api, named: NamedSession, store: SessionStore) -> bool:
    """Abort what runs, delete the session with its sub-agents' on the server, and forget the name.

    Returns whether it was there. A turn goes on when its session is deleted (OpenCode 1.18): hence the abort.
    """
    is_there = True
    try:
        if await is_at_work(api, named):
            await abort(api, named)
        await api.delete(named.session_id)
    except NoSuchSessionError:
        is_there = False
    store.forget(named.name)
    return is_there


def permission_rules(
    policy: str, extra: PermissionRules | None = None, agent: ServedAgent | None = None
) -> tuple[Raw, ...]:
    """Return the rules of a session: those that decide what the agent's own rules would ask, then the extra ones.

    They come after the rules of every agent (OpenCode 1.18), so only permissions that ask are named. What is asked by a
    sub-agent, or by another agent later, is asked all the same.
    """
    decided: list[Raw] = []
    if policy != ASK:
        decided = transcript.decisions(agent.permission if agent else (), Permissions(policy))
    return (*decided, *(transcript.rules_from(extra) if extra else ()))


async def _over(api: Api, named: NamedSession) -> Standing:
    while True:
        standing = settled(await read(api, named.session_id, named.directory))
        if standing.is_over:
            return standing
        await asyncio.sleep(_POLL_S)


async def _recorded(
    api: Api, host: str, store: SessionStore, session: Served, *, name: str | None, works_on: str
) -> NamedSession:
    """A session that cannot be recorded does not stay behind."""
    try:
        return store.create(host, session, name=name, works_on=works_on)
    except BaseException:
        await api.delete(session.id)
        raise


async def _check_message(api: Api, named: NamedSession, message_id: str) -> None:
    """OpenCode 1.18 copies everything when it does not know the message."""
    known = {
        info.get("id") for one in await api.messages(named.session_id) if isinstance(info := one.get("info"), dict)
    }
    if message_id not in known:
        raise UnknownNameError(
            f"`{named.name}` has no message `{clean(message_id, 60)}`",
            hint=f"see their ids with `remote-dispatch session messages {named.name}`",
        )


def _model_field(model: str | None) -> Raw | None:
    """Sessions are created with `id`, prompts have `modelID` (OpenCode 1.18)."""
    if model is None:
        return None
    parsed = Model.parse(model)
    return {"id": parsed.id, "providerID": parsed.provider}
