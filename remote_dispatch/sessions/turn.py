"""One turn of a session: check what is asked for, send it exactly once, and follow it to its end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from remote_dispatch.errors import (
    DeadlinePassedError,
    DivergedError,
    HostNotReadyError,
    HostUnreachableError,
    TurnFailedError,
)
from remote_dispatch.failure import Failure
from remote_dispatch.sessions.monitor import AWAY
from remote_dispatch.sessions.offers import check_agent, check_model, offers
from remote_dispatch.sessions.prompt import Sent, body_of, new_id
from remote_dispatch.sessions.reading import read
from remote_dispatch.sessions.watching import Watching
from remote_dispatch.transcript.shape import mapping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Raw
    from remote_dispatch.sessions.happening import Update
    from remote_dispatch.sessions.offers import Offers
    from remote_dispatch.sessions.prompt import Prompt
    from remote_dispatch.sessions.values import NamedSession, Reading, Standing

    Answer = Callable[[Reading], Awaitable[bool]]
    """Puts the open requests to somebody; False leaves one of them waiting."""

IDLE_TIMEOUT_S = 60.0
ABORT_S = 15.0
WARM_S = 5.0
COLD_S = 10.0
"""How long a prompt may take until it is seen, in a directory that OpenCode 1.18 knows, and in one new to it."""
AWAY_S = 30.0
"""How much longer, while the server cannot be reached."""
POST_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
_USUAL_VARIANT = "default"


async def check(api: Api, directory: str, prompt: Prompt) -> None:
    """Refuse an agent, a model or a variant that the server does not offer: OpenCode takes wrong ones silently.

    Raises HostNotReadyError with what was meant; nothing was changed. Costs nothing when none of them is named.
    """
    if prompt.agent is None and prompt.model is None and prompt.variant is None:
        return
    found = await offers(api, directory)
    check_agent(api.name, found, prompt.agent)
    check_model(api.name, found, str(prompt.model) if prompt.model else None)
    if prompt.variant is not None and prompt.model is not None:
        _check_variant(api.name, found, str(prompt.model), prompt.variant)


async def send(api: Api, named: NamedSession, prompt: Prompt, *, abort_first: bool = False) -> Sent:
    """Start a turn; the prompt is taken exactly once, whatever breaks on the way.

    What the prompt leaves open goes on as it was: the session's last agent and variant, which OpenCode 1.18 would drop.
    Raises DivergedError while a turn runs, unless that is aborted first, and TurnFailedError (`config_error`) when the
    server does not take it. After a HostUnreachableError it may have been taken.
    """
    reading = await read(api, named.session_id, named.directory)
    if reading.status is not None:
        await _make_free(api, named, reading, abort_first=abort_first)
    going = await _continued(api, named.directory, prompt, reading)
    message_id = new_id("msg")
    body = body_of(going, message_id, named.directory)
    at_s = time.monotonic()
    try:
        for patience_s in (WARM_S, COLD_S):
            await _post(api, named, body)
            if await _is_taken(api, named.session_id, message_id, patience_s):
                return Sent(message_id, going, at_s)
    except HostUnreachableError as error:
        error.hint = f"was it taken? See `remote-dispatch session messages {named.name} -n 1` before you send it again"
        raise
    raise TurnFailedError(
        Failure.CONFIG_ERROR,
        f"{api.name}: OpenCode did not take the prompt of `{named.name}`",
        hint=f"is its agent still there? see `remote-dispatch session agents {named.host}`",
    )


async def follow(
    api: Api,
    session_id: str,
    directory: str,
    sent: Sent | None,
    *,
    idle_timeout_s: float | None = IDLE_TIMEOUT_S,
    timeout_s: float | None = None,
    tell: Callable[[Update], None] = lambda _: None,
    answer: Answer | None = None,
) -> tuple[Standing, Reading]:
    """Follow a turn to its end; without `sent` the last one. Nothing but the gate says that it has ended.

    A request that nobody answers ends it too, with the phase WAITING; the turn goes on waiting. A turn without any sign
    of life for `idle_timeout_s` is aborted, and its end says so; not counted is while a tool runs, a request waits, or
    the server cannot be reached. Raises DeadlinePassedError after `timeout_s`: the turn goes on.
    """
    watching = Watching(api, session_id, directory, sent, idle_timeout_s, tell, answer)
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            return await watching.to_the_end()
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise DeadlinePassedError(
            f"{api.name}: the turn has not ended in time; it goes on",
            hint="look on with `remote-dispatch session watch`, or end it with `remote-dispatch session abort`",
        ) from error


async def free(api: Api, session_id: str, directory: str) -> bool:
    """Abort the turn of a session and wait until it is over; return whether it is."""
    await api.abort(session_id)
    end_s = time.monotonic() + ABORT_S
    while is_busy := session_id in await api.statuses(directory):
        if time.monotonic() > end_s:
            break
        await asyncio.sleep(0.1)
    return not is_busy


def _check_variant(host: str, found: Offers, model: str, variant: str) -> None:
    names = found.offer.variants.get(model, ())
    if variant in names or variant == _USUAL_VARIANT:
        return
    offered = ", ".join(f"`{name}`" for name in names)
    raise HostNotReadyError(
        host,
        f"`{model}` has no variant `{variant}`",
        hint=f"it has {offered}" if offered else "it has no variants: leave `--variant` out",
    )


async def _make_free(api: Api, named: NamedSession, reading: Reading, *, abort_first: bool) -> None:
    if not abort_first:
        raise DivergedError(
            f"`{named.name}` on {named.host} {_doing(reading)}; nothing was sent",
            hint=f"wait with `remote-dispatch session watch {named.name}`, or end that turn with `--abort-first`",
        )
    if not await free(api, named.session_id, named.directory):
        raise TurnFailedError(
            Failure.TIMEOUT,
            f"`{named.name}` on {named.host} is still busy after an abort; nothing was sent",
            hint=f"see how it is with `remote-dispatch session show {named.name}`",
        )


def _doing(reading: Reading) -> str:
    if reading.requests:
        return "waits for an answer"
    is_retrying = reading.status is not None and reading.status.type == "retry"
    return "waits for its provider" if is_retrying else "is busy"


async def _continued(api: Api, directory: str, prompt: Prompt, reading: Reading) -> Prompt:
    """Name the agent and the variant that the session had: a prompt without them falls back to OpenCode's default."""
    if prompt.variant is not None and prompt.model is None:
        await _check_own_variant(api, directory, prompt.variant, reading)
    agent, variant = prompt.agent, prompt.variant
    if agent is None and reading.session.agent:
        names = [one.name for one in await api.agents(directory) if one.is_primary]
        agent = reading.session.agent if reading.session.agent in names else None
    if variant is None and prompt.model is None:
        variant = _last_variant(reading)
    return replace(prompt, agent=agent, variant=variant)


async def _check_own_variant(api: Api, directory: str, variant: str, reading: Reading) -> None:
    found = await offers(api, directory)
    model = str(reading.session.model) if reading.session.model else found.model
    if model is not None:
        _check_variant(api.name, found, model, variant)


def _last_variant(reading: Reading) -> str | None:
    for message in reversed(reading.messages):
        info = mapping(message.get("info"))
        if info.get("role") == "user":
            variant = mapping(info.get("model")).get("variant")
            return variant if isinstance(variant, str) and variant != _USUAL_VARIANT else None
    return None


async def _post(api: Api, named: NamedSession, body: Raw) -> None:
    """Post it, again after a break: the ids in it make one message of all.

    A message that is there is not posted again: OpenCode would move its time to now, past its answer's (1.18).
    """
    for place, delay_s in enumerate(POST_DELAYS_S, 1):
        await asyncio.sleep(delay_s)
        try:
            if place > 1 and await api.message(named.session_id, body["messageID"]) is not None:
                return
            await api.prompt(named.session_id, named.directory, body)
        except AWAY as error:
            is_unsent = place == 1 and isinstance(error, HostNotReadyError)
            if is_unsent or place == len(POST_DELAYS_S):
                raise
        else:
            return


async def _is_taken(api: Api, session_id: str, message_id: str, patience_s: float) -> bool:
    """Whether the message is seen in time. What was posted may be there: a broken connection is waited for."""
    delay_s, end_s = 0.02, time.monotonic() + patience_s
    while True:
        try:
            if await api.message(session_id, message_id) is not None:
                return True
            if time.monotonic() > end_s:
                return False
        except AWAY:
            if time.monotonic() > end_s + AWAY_S:
                raise
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, 0.5)
