"""Ask a fresh session once: made for this question, and deleted after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch.errors import RemoteDispatchError
from remote_dispatch.failure import Policy
from remote_dispatch.sessions.ask import ask
from remote_dispatch.sessions.manage import create, delete

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.sessions.ask import Manners, Taken, Talk
    from remote_dispatch.sessions.manage import Wish
    from remote_dispatch.sessions.prompt import Prompt
    from remote_dispatch.sessions.store import SessionStore
    from remote_dispatch.sessions.turn import Answer
    from remote_dispatch.sessions.values import NamedSession


async def run(
    api: Api,
    host: Host,
    store: SessionStore,
    wish: Wish,
    prompt: Prompt,
    manners: Manners,
    talk: Talk,
    *,
    is_kept: bool = False,
    answer: Callable[[NamedSession], Answer | None] = lambda _: None,
    left: Callable[[NamedSession, RemoteDispatchError], None],
) -> Taken:
    """Make a session, ask it, and delete it, whatever happens: a failure, a deadline, Ctrl-C. What runs is aborted.

    It has a name meanwhile, so that it can be watched and answered, and is found when this process is killed. What
    helps only in a fresh session is tried once more in one. With `is_kept` the last session stays under its name.
    `left` hears of a session that could not be deleted. Raises what `create` and `ask` raise.
    """
    taken, is_fresh = await _once(api, host, store, wish, prompt, manners, talk, is_kept, answer, left), True
    while is_fresh and manners.retries and taken.failure and taken.failure.policy is Policy.FRESH:
        is_fresh = False
        if is_kept:
            await _delete(api, taken.named, store, left)
        talk.again(taken.failure, 0.0)
        taken = await _once(api, host, store, wish, prompt, manners, talk, is_kept, answer, left)
    return taken


async def _once(
    api: Api,
    host: Host,
    store: SessionStore,
    wish: Wish,
    prompt: Prompt,
    manners: Manners,
    talk: Talk,
    is_kept: bool,  # noqa: FBT001 - in the order of `run`
    answer: Callable[[NamedSession], Answer | None],
    left: Callable[[NamedSession, RemoteDispatchError], None],
) -> Taken:
    named = (await create(api, host, store, wish)).named
    try:
        return await ask(api, named, prompt, manners, talk, answer=answer(named))
    finally:
        if not is_kept:
            await _delete(api, named, store, left)


async def _delete(
    api: Api, named: NamedSession, store: SessionStore, left: Callable[[NamedSession, RemoteDispatchError], None]
) -> None:
    try:
        await delete(api, named, store)
    except RemoteDispatchError as error:
        left(named, error)
