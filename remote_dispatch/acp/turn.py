"""One turn over the protocol: prompt, wait, cancel, and say truthfully how it ended. A prompt is never sent twice.

The protocol's own words are not enough: OpenCode 1.18 ends a turn with `end_turn` when it ran nothing at all, when a
permission was rejected, and when a retry was cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from remote_dispatch.acp.client import words_of
from remote_dispatch.acp.happening import Asked, CommandsKnown, OptionsChanged, Raw, Text, ToolChanged
from remote_dispatch.acp.peer import INVALID_PARAMS, PeerGoneError, RpcError
from remote_dispatch.acp.rewrite import slash_word, unslashed
from remote_dispatch.failure import Failure
from remote_dispatch.transcript.verdict import CUT, failure_kind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from remote_dispatch.acp.client import Client, Listener
    from remote_dispatch.acp.happening import Happening

INACTIVITY_S = 300.0
CANCEL_S = 10.0
"""So long a turn may take to end after it was cancelled."""
COMMANDS_S = 2.0
LOGIN_NEEDED = -32000
_REJECTED = "The user rejected permission to use this specific tool call"
_NOTHING_RAN = "OpenCode ran nothing: it took the prompt for a command"
_DIED = "OpenCode there ended in the middle of the turn; what it said may be lost, what its tools did is done"


@dataclass(frozen=True, slots=True)
class Manners:
    """How a turn is waited for, in seconds."""

    inactivity_s: float | None = INACTIVITY_S
    """Cancel a turn that shows no sign of life for so long, while nobody is asked; None: never."""
    cancel_s: float = CANCEL_S


@dataclass(frozen=True, slots=True)
class Ended:
    """How a turn ended."""

    failure: Failure | None
    """None: the model finished its answer."""
    detail: str = ""
    """The same for people, cleaned."""
    answer: str = ""
    """What the model said last."""
    stop_reason: str | None = None
    """The agent's own word; None when it gave none."""
    usage: Raw = field(default_factory=dict)
    """The agent's own count of tokens: `inputTokens`, `outputTokens`, `totalTokens`."""
    refused: tuple[str, ...] = ()
    """Titles of what was not permitted."""
    warnings: tuple[str, ...] = ()
    is_settled: bool = True
    """Whether the agent confirmed the end. If not, the turn may go on there."""
    is_ours: bool = False
    """Whether we cancelled it: the caller, or our patience."""
    is_error: bool = False
    """Whether the agent answered the prompt with an error: that of its provider, mostly."""
    is_unattached: bool = False
    """Whether the agent refused the prompt, because its process does not have the session open."""


def nothing_beside(_session_id: str) -> AbstractAsyncContextManager[None]:
    """No side channel."""
    return contextlib.nullcontext()


async def take_turn(
    client: Client,
    session_id: str,
    text: str,
    listener: Listener,
    *,
    manners: Manners | None = None,
    stop: asyncio.Event | None = None,
    beside: Callable[[str], AbstractAsyncContextManager[None]] = nothing_beside,
    clock: Callable[[], float] = time.monotonic,
) -> Ended:
    """Send a prompt and wait for the end of its turn; two at once on one session wait for each other.

    `stop` cancels the turn: open requests are answered `cancelled`, and the agent has `cancel_s` to end it. `beside`
    is entered with the session's id for the time of the turn (`Side.watching`). How it ended is in the result, also
    when the agent's process died; raises ConnectionLostError when the link to it broke.
    """
    turn = _Turn(client, session_id, listener, manners or Manners(), stop or asyncio.Event(), clock)
    async with client.turn(session_id, turn):
        prompt = await as_prompt(client, session_id, text)
        try:
            async with beside(session_id):
                return await turn.take(prompt)
        finally:
            turn.close()


async def as_prompt(client: Client, session_id: str, text: str) -> list[Raw]:
    """Return a prompt that is not swallowed: one that begins with a slash and no known command gets words in front.

    OpenCode 1.18 ends such a turn at once, without a word.
    """
    blocks = [{"type": "text", "text": text}]
    if slash_word(blocks) is None:
        return blocks
    return unslashed(blocks, await client.commands_of(session_id, timeout_s=COMMANDS_S))


class _Turn:
    """What is heard during a turn, and whether it still lives: the `Listener` between agent and caller."""

    def __init__(
        self,
        client: Client,
        session_id: str,
        listener: Listener,
        manners: Manners,
        stop: asyncio.Event,
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._session_id = session_id
        self._listener = listener
        self._manners = manners
        self._stop = stop
        self._clock = clock
        self._heard = Heard()
        self._asking: set[asyncio.Task[str | None]] = set()
        self._alive = clock()
        self._is_over = False

    # --- listening

    def update(self, what: Happening) -> None:
        self._alive = self._clock()
        self._heard.take(what)
        self._listener.update(what)

    async def ask(self, asked: Asked) -> str | None:
        """Ask the caller; nobody is asked once the turn is being cancelled."""
        if self._is_over or self._stop.is_set():
            return None
        asking = asyncio.ensure_future(self._listener.ask(asked))
        self._asking.add(asking)
        try:
            chosen = await asyncio.shield(asking)
        except asyncio.CancelledError:
            if not asking.cancelled():
                asking.cancel()
                raise
            chosen = None
        finally:
            self._asking.discard(asking)
            self._alive = self._clock()
        self._note(asked, chosen)
        return chosen

    def _note(self, asked: Asked, chosen: str | None) -> None:
        """Remember what was refused; what a cancel left without an answer was not."""
        is_permitted = any(one.id == chosen and one.is_leave for one in asked.choices)
        if not is_permitted and not self._is_over:
            self._heard.refused.append(asked.title)

    # --- waiting

    async def take(self, prompt: list[Raw]) -> Ended:
        if self._stop.is_set():
            return replace(self._heard.ended(Failure.ABORTED, "it was cancelled before it was sent"), is_ours=True)
        self._alive = self._clock()
        answering = asyncio.create_task(self._client.prompt(self._session_id, prompt))
        async with _ended(answering):
            await self._awaited(answering)
            if answering.done():
                return self._judged(answering, None)
            why = Failure.ABORTED if self._stop.is_set() else Failure.TIMEOUT
            return await self._cancelled(answering, why)

    def close(self) -> None:
        """Ask nobody any more."""
        self._is_over = True
        for asking in self._asking:
            asking.cancel()

    async def _awaited(self, answering: asyncio.Task[Raw]) -> None:
        """Wait for the answer, for `stop`, or for the end of our patience."""
        stopping = asyncio.create_task(self._stop.wait())
        async with _ended(stopping):
            while not answering.done() and not stopping.done():
                left_s = self._left_s()
                if left_s is not None and left_s <= 0:
                    return
                await asyncio.wait({answering, stopping}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    def _left_s(self) -> float | None:
        limit_s = self._manners.inactivity_s
        if limit_s is None or self._asking:
            return limit_s
        return self._alive + limit_s - self._clock()

    async def _cancelled(self, answering: asyncio.Task[Raw], why: Failure) -> Ended:
        """Cancel the turn and wait for its end. Open requests are answered `cancelled`, as the protocol demands."""
        self.close()
        with contextlib.suppress(PeerGoneError):
            await self._client.cancel(self._session_id)
        await asyncio.wait({answering}, timeout=self._manners.cancel_s)
        if answering.done():
            return self._judged(answering, why)
        return replace(self._heard.ended(why, _WHY[why], is_settled=False), is_ours=True)

    def _judged(self, answering: asyncio.Task[Raw], why: Failure | None) -> Ended:
        """Judge the answer. `why`: we cancelled the turn, so whatever it says is no success."""
        try:
            ended = judge(answering.result(), self._heard)
        except RpcError as error:
            ended = failed(error, self._heard)
        except PeerGoneError:
            ended = self._heard.ended(why or Failure.INTERRUPTED, _DIED)
        return replace(ended, failure=why, detail=_WHY[why], is_error=False, is_ours=True) if why else ended


_WHY = {
    Failure.ABORTED: "it was cancelled",
    Failure.TIMEOUT: "it showed no sign of life for too long and was cancelled",
}


@contextlib.asynccontextmanager
async def _ended(task: asyncio.Task[object]) -> AsyncIterator[None]:
    """End a task with the context, whatever becomes of it."""
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()


class Heard:
    """What a turn said and did, as far as its end is judged by it."""

    def __init__(self) -> None:
        self.answer = ""
        self.refused: list[str] = []
        self.is_rejected = False
        self.is_anything = False
        self._message = ""

    def take(self, what: Happening) -> None:
        """Take note of an update. The answer is the text of the last message that has any."""
        if not isinstance(what, CommandsKnown | OptionsChanged):
            self.is_anything = True
        if isinstance(what, Text):
            if what.message_id != self._message:
                self.answer, self._message = "", what.message_id
            self.answer += what.text
            self.is_rejected = False
        elif isinstance(what, ToolChanged) and what.status == "failed":
            self.is_rejected = what.error.removeprefix("Error: ").startswith(_REJECTED)

    def ended(self, failure: Failure | None, detail: str = "", *, is_settled: bool = True) -> Ended:
        """Return the end of the turn."""
        return Ended(failure, detail, self.answer, refused=tuple(self.refused), is_settled=is_settled)


def judge(answer: Raw, heard: Heard) -> Ended:
    """Return how a turn ended that the agent answered. Pure."""
    reason = str(answer.get("stopReason") or "")
    usage = answer.get("usage")
    ended = replace(heard.ended(None), stop_reason=reason or None, usage=usage if isinstance(usage, dict) else {})
    match reason:
        case "end_turn":
            return _at_its_end(ended, heard)
        case "max_tokens":
            return replace(ended, warnings=(CUT,))
        case "max_turn_requests":
            return replace(ended, warnings=("the turn reached the limit of requests to the model and is cut",))
        case "refusal":
            return replace(
                ended, failure=Failure.CONTENT_FILTER, detail="the provider's content filter stopped the answer"
            )
        case "cancelled":
            return replace(ended, failure=Failure.ABORTED, detail="somebody cancelled it")
        case _:
            return replace(
                ended, warnings=(f"the agent ended the turn with a word that is not known: `{reason[:60]}`",)
            )


def failed(error: RpcError, heard: Heard) -> Ended:
    """Return how a turn ended that the agent answered with an error: mostly its provider's. Pure."""
    data = error.data if isinstance(error.data, dict) else {}
    words = words_of(error)
    name = "ProviderAuthError" if error.code == LOGIN_NEEDED else data.get("errorName")
    ended = heard.ended(failure_kind({"name": name, "data": {**data, "message": words}}), words)
    is_unattached = error.code == INVALID_PARAMS and "session not found" in error.words.lower()
    return replace(ended, is_error=True, is_unattached=is_unattached)


def _at_its_end(ended: Ended, heard: Heard) -> Ended:
    if not ended.usage and not heard.is_anything:
        return replace(ended, failure=Failure.CONFIG_ERROR, detail=_NOTHING_RAN)
    if heard.is_rejected:
        return replace(ended, failure=Failure.REJECTED, detail="a request was rejected, and the turn ended there")
    if not ended.answer.strip():
        return replace(ended, failure=Failure.NO_TEXT, detail="it ended without an answer")
    return ended
