"""Ask a session and get the answer: send, follow, and try again where that helps, never the same a third time."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from remote_dispatch.errors import DeadlinePassedError
from remote_dispatch.failure import Failure, Policy
from remote_dispatch.sessions.stuck import check_progress, learned, place_of
from remote_dispatch.sessions.turn import IDLE_TIMEOUT_S, check, follow, send

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.sessions.happening import Update
    from remote_dispatch.sessions.prompt import Prompt, Sent
    from remote_dispatch.sessions.turn import Answer
    from remote_dispatch.sessions.values import End, NamedSession, Reading, Standing

RETRIES = 2
RETRY_DELAYS_S = (5.0, 20.0, 60.0)
_MADE_UP_TITLE = "New session - "
"""How OpenCode 1.18 calls a session that was given no title."""
STRICTER = (
    "Your last answer is not valid JSON. Give the same answer again as one JSON value and nothing else: no words "
    "before or after it, no code fence."
)


@dataclass(frozen=True, slots=True)
class Manners:
    """How a session is asked. Times in seconds; None: without an end."""

    abort_first: bool = False
    """Abort a turn that runs, instead of refusing."""
    is_forced: bool = False
    """Send what ended twice with the same failure."""
    idle_timeout_s: float | None = IDLE_TIMEOUT_S
    timeout_s: float | None = None
    """For everything together."""
    retries: int = RETRIES
    """How often a failed turn is tried again, where its policy is to try again."""
    expects_json: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of it: the last turn of a question."""

    named: NamedSession
    sent: Sent
    standing: Standing
    reading: Reading
    attempts: int = 1
    value: Any = None
    """The answer, read as JSON, where that was expected."""

    @property
    def failure(self) -> Failure | None:
        """What kept it from a good end, or whom it waits for."""
        return failure_of(self.standing)


class Talk:
    """What the one who asks hears, and what is kept. Every method may be replaced; by default nothing happens."""

    def sent(self, named: NamedSession, sent: Sent) -> None:
        """The session took the prompt."""

    def update(self, update: Update) -> None:
        """Something happened."""

    def again(self, failure: Failure, delay_s: float) -> None:
        """The turn failed, and is tried again after so many seconds."""

    def keep(self, named: NamedSession) -> None:
        """The record changed."""


async def deliver(
    api: Api, named: NamedSession, prompt: Prompt, manners: Manners, talk: Talk
) -> tuple[NamedSession, Sent]:
    """Check and send a prompt, and wait for nothing. Raises what `check` and `send` raise."""
    if not manners.is_forced:
        check_progress(named, place_of(prompt))
    await check(api, named.directory, prompt)
    return await _send(api, named, prompt, manners, talk)


async def ask(
    api: Api,
    named: NamedSession,
    prompt: Prompt,
    manners: Manners,
    talk: Talk,
    *,
    answer: Answer | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Taken:
    """Send a prompt and wait for the end of its turn; try again what may be tried again.

    How it ended is in the result, a request that nobody answered too. Raises what `check`, `send` and `follow` raise.
    """
    end_s = None if manners.timeout_s is None else time.monotonic() + manners.timeout_s
    place, earlier, asked, attempts = place_of(prompt), None, prompt, 0
    if not manners.is_forced:
        check_progress(named, place)
    await check(api, named.directory, prompt)
    while True:
        attempts += 1
        named, sent = await _send(api, named, asked, manners, talk)
        taken = await _follow(api, named, sent, manners, talk, answer, end_s)
        failure = taken.failure
        if failure is None or failure == earlier or attempts > manners.retries or failure.policy is not Policy.RETRY:
            named = learned(named, place, failure, datetime.now(UTC))
            talk.keep(named)
            return replace(taken, named=named, attempts=attempts)
        earlier, asked = failure, _again(prompt, failure)
        await _wait(failure, attempts, talk, sleep, end_s)


def failure_of(standing: Standing) -> Failure | None:
    """Return what keeps a turn from a good end; None for one that ended well."""
    return standing.end.failure if standing.end else standing.failure


async def _send(
    api: Api, named: NamedSession, prompt: Prompt, manners: Manners, talk: Talk
) -> tuple[NamedSession, Sent]:
    sent = await send(api, named, prompt, abort_first=manners.abort_first)
    works_on = named.works_on or ("" if _has_title(named) else " ".join(prompt.text.split())[:200])
    named = named.but(message_id=sent.message_id, expects_json=manners.expects_json, works_on=works_on)
    talk.keep(named)
    talk.sent(named, sent)
    return named, sent


def _has_title(named: NamedSession) -> bool:
    """Whether somebody gave it a title: that says what it is about, better than a prompt."""
    return bool(named.title) and not named.title.startswith(_MADE_UP_TITLE)


async def _follow(
    api: Api,
    named: NamedSession,
    sent: Sent,
    manners: Manners,
    talk: Talk,
    answer: Answer | None,
    end_s: float | None,
) -> Taken:
    standing, reading = await follow(
        api,
        named.session_id,
        named.directory,
        sent,
        idle_timeout_s=manners.idle_timeout_s,
        timeout_s=None if end_s is None else max(end_s - time.monotonic(), 0.0),
        tell=talk.update,
        answer=answer,
    )
    taken = Taken(named, sent, standing, reading)
    return _as_json(taken) if manners.expects_json else taken


def _as_json(taken: Taken) -> Taken:
    """Read the answer as JSON; one that is none is a failure."""
    end = taken.standing.end
    if end is None or end.failure is not None:
        return taken
    try:
        return replace(taken, value=parse_json(end.answer))
    except ValueError:
        why, standing = _why_not(end), taken.standing
        failed = replace(end, failure=Failure.NOT_JSON, detail=why)
        return replace(taken, standing=replace(standing, failure=Failure.NOT_JSON, detail=why, end=failed))


def parse_json(text: str) -> Any:
    """Read strict JSON. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("too deep") from error


def _refuse(word: str) -> float:
    raise ValueError(f"`{word}` is not JSON")


def _why_not(end: End) -> str:
    return "JSON was expected, and the answer was cut off" if end.finish == "length" else "JSON was expected"


def _again(prompt: Prompt, failure: Failure) -> Prompt:
    """What is asked next: the same, or, where only the form was wrong, the form."""
    return replace(prompt, text=STRICTER, files=()) if failure is Failure.NOT_JSON else prompt


async def _wait(
    failure: Failure,
    attempts: int,
    talk: Talk,
    sleep: Callable[[float], Awaitable[None]],
    end_s: float | None,
) -> None:
    is_form = failure is Failure.NOT_JSON
    delay_s = 0.0 if is_form else RETRY_DELAYS_S[min(attempts, len(RETRY_DELAYS_S)) - 1]
    if end_s is not None and time.monotonic() + delay_s >= end_s:
        raise DeadlinePassedError(
            f"the turn failed (`{failure}`), and there is no time left to try it again",
            hint="give it more time with `--timeout`",
        )
    talk.again(failure, delay_s)
    await sleep(delay_s)
