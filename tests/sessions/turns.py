"""A model of OpenCode's turns: what is stored and what the status says, state after state, in the measured order.

Each script of events ends in a truth; readings are taken at arbitrary moments of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from remote_dispatch.failure import Failure
from remote_dispatch.opencode.served import PermissionRequest, Status
from tests.sessions.recordings import SESSION, reading
from tests.transcript.samples import assistant, message_id, part, tool, user

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from remote_dispatch.opencode.served import Raw
    from remote_dispatch.sessions.values import Reading

OURS = 10
BUSY = Status("busy")
REJECTED = "The user rejected permission to use this specific tool call."
RETRY = Status("retry", 1, "Too Many Requests", 99)
ASKED = PermissionRequest("per_1", SESSION.id, "bash")


@dataclass(frozen=True)
class State:
    """What a look would show, for so long; `is_over` once nothing will happen by itself any more."""

    messages: tuple[Raw, ...]
    status: Status | None = None
    lasts_s: float = 0.1
    requests: tuple[PermissionRequest, ...] = ()
    is_over: bool = False

    def seen(self, at_s: float) -> Reading:
        return reading(at_s, self.messages, self.status, requests=self.requests)


def begun(number: int, parent: int, *parts: Raw, **info: Any) -> Raw:
    """An answer that is being written."""
    made = assistant(number, *parts, parent=parent, **info)
    return {"info": {**made["info"], "time": {"created": number * 1000}}, "parts": list(parts)}


def said(number: int, parent: int, text: str = "done", **info: Any) -> Raw:
    return assistant(number, part(number * 100, number, text=text), parent=parent, **{"finish": "stop", **info})


def error(name: str, **data: Any) -> Raw:
    return {"name": name, "data": {"message": "no", **data}}


def step(before: tuple[Raw, ...], number: int) -> Iterator[State]:
    """A step that calls a tool: its message is completed, and the turn goes on."""
    running = tool(number * 100, number, "bash", status="running", input={})
    done = tool(number * 100, number, "bash", status="completed", input={}, output="ok")
    yield State((*before, begun(number, OURS)), BUSY)
    yield State((*before, begun(number, OURS, running)), BUSY, 30)
    yield State((*before, begun(number, OURS, done, finish="tool-calls")), BUSY)
    yield State((*before, assistant(number, done, parent=OURS, finish="tool-calls")), BUSY)


def waiting(before: tuple[Raw, ...], number: int) -> Iterator[State]:
    """A step that asks for leave."""
    running = tool(number * 100, number, "bash", status="running", input={})
    yield State((*before, begun(number, OURS, running)), BUSY, 60, (ASKED,))
    yield from step(before, number)


def retrying(before: tuple[Raw, ...], number: int) -> Iterator[State]:
    """The provider fails once, and OpenCode asks again."""
    yield State((*before, begun(number, OURS)), BUSY)
    yield State((*before, begun(number, OURS)), RETRY, 20)
    yield State((*before, begun(number, OURS)), BUSY)
    yield from step(before, number)


def compaction(before: tuple[Raw, ...], number: int) -> Iterator[State]:
    """OpenCode summarises the conversation in the middle of the turn, and goes on with a prompt of its own."""
    ask = {**user(number), "parts": [part(number * 100, number, "compaction", auto=True)]}
    summary = said(number + 1, number, "so far", summary=True, mode="compaction")
    on = {**user(number + 2), "parts": [part(number * 100 + 2, number + 2, text="go on", synthetic=True)]}
    yield State((*before, ask), BUSY)
    yield State((*before, ask, begun(number + 1, number, summary=True)), BUSY, 5)
    yield State((*before, ask, summary), BUSY)
    yield State((*before, ask, summary, on), BUSY)
    yield from step((*before, ask, summary, on), number + 3)


def queued(before: tuple[Raw, ...], number: int) -> Iterator[State]:
    """Somebody prompts the session while it answers: the next step takes it up, one answer for both."""
    late = user(number + 1, "and this")
    done = tool(number * 100, number, "bash", status="completed", input={}, output="ok")
    yield State((*before, begun(number, OURS)), BUSY)
    yield State((*before, begun(number, OURS), late), BUSY, 30)
    called = (*before, assistant(number, done, parent=OURS, finish="tool-calls"), late)
    yield State(called, BUSY)
    yield from step(called, number + 2)


MIDDLES = {"step": step, "waiting": waiting, "retrying": retrying, "compaction": compaction, "queued": queued}


@dataclass(frozen=True)
class Ending:
    """How a turn ends: what its last message becomes."""

    failure: Failure | None
    info: Raw
    text: str = "the end"
    is_rejection: bool = False


ENDINGS = {
    "stop": Ending(None, {"finish": "stop"}),
    "length": Ending(None, {"finish": "length"}),
    "empty": Ending(Failure.NO_TEXT, {"finish": "stop"}, ""),
    "filter": Ending(
        Failure.CONTENT_FILTER, {"finish": "content-filter", "error": error("ContentFilterError")}, "some"
    ),
    "401": Ending(Failure.AUTH_FAILED, {"error": error("APIError", statusCode=401)}, ""),
    "500": Ending(Failure.PROVIDER_UNAVAILABLE, {"error": error("APIError", statusCode=500)}, ""),
    "overflow": Ending(Failure.CONTEXT_OVERFLOW, {"finish": "error", "error": error("ContextOverflowError")}, ""),
    "abort": Ending(Failure.ABORTED, {"error": error("MessageAbortedError")}, "so far"),
    "abort in a retry": Ending(Failure.ABORTED, {}, ""),
    "rejection": Ending(Failure.REJECTED, {"finish": "tool-calls"}, "", is_rejection=True),
}


def last_states(before: tuple[Raw, ...], number: int, ending: Ending) -> Iterator[State]:
    """The last step. An error is stored after the session was idle for the first time."""
    parts = [part(number * 100, number, text=ending.text)] if ending.text else []
    if ending.is_rejection:
        parts = [tool(number * 100, number, "bash", status="error", input={}, error=REJECTED)]
    open_message = begun(number, OURS, *parts)
    made = assistant(number, *parts, parent=OURS, **ending.info)
    final = {**made, "parts": parts}
    yield State((*before, begun(number, OURS)), BUSY, 2)
    yield State((*before, open_message), BUSY)
    if "error" in ending.info:
        yield State((*before, open_message), None, 0.15)
    else:
        yield State((*before, final), BUSY, 0.05)
    yield State((*before, final), None, 1000, is_over=True)


def turn(middles: Sequence[str], ending: str, *, has_past: bool = True) -> list[State]:
    """Return all states of one turn, from the moment in which the prompt was sent."""
    past = (user(1), said(2, 1, "an earlier answer")) if has_past else ()
    ours = (*past, user(OURS, "our prompt"))
    states = [State(past, None, 0.05), State(ours, None, 1.0), State(ours, BUSY, 0.1)]
    number = OURS + 1
    for name in middles:
        states.extend(MIDDLES[name](states[-1].messages, number))
        number += 10
    states.extend(last_states(states[-1].messages, number, ENDINGS[ending]))
    return states


def interrupted(middles: Sequence[str], cut: int) -> list[State]:
    """Return a turn whose server died in one of its states; nothing changes after that."""
    states = turn(middles, "stop")
    alive = states[: 3 + cut % (len(states) - 4)]
    return [*alive, replace(alive[-1], status=None, requests=(), lasts_s=1000, is_over=True)]


def ours() -> str:
    return message_id(OURS)
