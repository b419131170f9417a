"""The requests under way through the bridge: the editor's and our own at the agent, the agent's at the editor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from remote_dispatch.acp.memory import REPEATABLE
from remote_dispatch.acp.peer import INTERNAL_ERROR, RpcError
from remote_dispatch.transcript.shape import mapping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remote_dispatch.acp.lines import Message
    from remote_dispatch.errors import RemoteDispatchError

PROMPT = "session/prompt"


@dataclass(eq=False)
class Call:
    """One request to the agent. `answer` gets its result, or raises RpcError, or why there is none."""

    method: str
    params: Message
    is_own: bool = False
    """Whether the bridge itself asks, not the editor."""
    editor_id: object = None
    task: asyncio.Task[None] | None = None
    """What asks for the editor, and brings it the answer."""
    is_sent: bool = False
    is_cancelled: bool = False
    has_begun: bool = False
    """Whether the editor has seen a part of what it brings: then it cannot be repeated unseen."""
    answer: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    is_settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the editor has its answer: what the agent says next must not overtake that."""
    limit_s: float | None = None
    """How long an agent that is there may take; None: as long as it takes."""
    clock: asyncio.Timeout | None = None

    @property
    def session(self) -> str | None:
        """The id of the session that it is about."""
        found = self.params.get("sessionId")
        return found if isinstance(found, str) else None

    @property
    def is_repeatable(self) -> bool:
        """Whether a new process may be asked the same."""
        return not self.is_own and self.method in REPEATABLE and not self.has_begun

    def request(self, number: int) -> Message:
        """Return it as the agent gets it."""
        return {"jsonrpc": "2.0", "id": number, "method": self.method, "params": self.params}

    def settle(self, message: Message) -> None:
        """Take the agent's answer."""
        if self.answer.done():
            return
        if "error" in message:
            self.fail(_error_of(message["error"]))
        else:
            self.answer.set_result(message.get("result"))

    def fail(self, error: Exception) -> None:
        """There is no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)
            # Whoever waited may be gone; asyncio would complain of an exception that nobody looked at.
            self.answer.exception()

    def renew(self) -> None:
        """Make ready to be asked once more: the agent's refusal never reaches the editor."""
        self.is_settled.set()
        self.is_settled = asyncio.Event()
        self.answer = asyncio.get_running_loop().create_future()

    def wind(self) -> None:
        """Let its clock run anew."""
        if self.clock is not None and self.limit_s is not None and not self.clock.expired():
            self.clock.reschedule(asyncio.get_running_loop().time() + self.limit_s)

    def stop_clock(self) -> None:
        """Let it wait as long as it takes: nobody is there to answer."""
        if self.clock is not None and not self.clock.expired():
            self.clock.reschedule(None)


class Calls:
    """The requests at the agent. Numbers are never used twice, whatever process they went to."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._last = 0

    def add(self, call: Call) -> int:
        """Give a request its number."""
        self._last += 1
        self._calls[self._last] = call
        return self._last

    def take(self, number: object) -> Call | None:
        """Return the request that is answered, and forget it; None for one that nobody waits for."""
        return self._calls.pop(number, None) if isinstance(number, int) else None

    def drop(self, call: Call) -> None:
        """Forget a request: its answer is of no use any more."""
        for number in [number for number, one in self._calls.items() if one is call]:
            del self._calls[number]

    def items(self) -> list[tuple[int, Call]]:
        """Return all of them with their numbers, the oldest first."""
        return list(self._calls.items())

    def all(self) -> list[Call]:
        """Return all of them, the oldest first."""
        return list(self._calls.values())

    def give_up(self, error: Callable[[Call], Exception], *, is_all: bool = False) -> None:
        """Fail what cannot be asked again of a new process; with `is_all` everything."""
        for number, call in self.items():
            if is_all or not call.is_repeatable:
                del self._calls[number]
                call.fail(error(call))
            call.stop_clock()


@dataclass(frozen=True, slots=True)
class AgentsNumber:
    """A request of the agent, under its own number."""

    number: object
    method: str


def with_outcome(method: str, answer: Message) -> Message:
    """Return an answer that OpenCode 1.18 can take: a permission without an outcome would hang its turn for ever."""
    result = answer.get("result")
    if method != "session/request_permission" or "error" in answer or mapping(mapping(result).get("outcome")):
        return answer
    return {"result": {"outcome": {"outcome": "cancelled"}}}


Asker = AgentsNumber | asyncio.Future[Any]
"""Who gets the editor's answer: the agent, or the side channel."""


class Questions:
    """The requests at the editor. Numbers are never used twice."""

    def __init__(self) -> None:
        self._open: dict[int, Asker] = {}
        self._last = 0

    def add(self, asker: Asker) -> int:
        """Note who asks, and return the number for the editor."""
        self._last += 1
        self._open[self._last] = asker
        return self._last

    def take(self, number: object) -> Asker | None:
        """Return who asked, and forget it; None for a question that is not open any more."""
        return self._open.pop(number, None) if isinstance(number, int) else None

    def forget_the_agents(self) -> list[int]:
        """The process that asked is gone: what the editor still answers is meant for nobody. Returns the numbers."""
        gone = [number for number, asker in self._open.items() if isinstance(asker, AgentsNumber)]
        for number in gone:
            del self._open[number]
        return gone


class Held:
    """Messages about sessions of which the editor does not know yet: they must not overtake the answer that names them.

    A `config_option_update` is dropped: the answer has what it says.
    """

    def __init__(self) -> None:
        self._held: dict[str, list[Message]] = {}

    def hold(self, session: str) -> None:
        """Keep from now on what is said about a session."""
        self._held[session] = []

    def takes(self, message: Message) -> bool:
        """Whether a `session/update` was kept, or dropped; otherwise it is to be passed on."""
        params = mapping(message.get("params"))
        held = self._held.get(str(params.get("sessionId")))
        if held is not None and mapping(params.get("update")).get("sessionUpdate") != "config_option_update":
            held.append(message)
        return held is not None

    async def release(self, session: object, send: Callable[[Message], Awaitable[None]]) -> None:
        """Send what was kept, in its order, and keep nothing more."""
        while held := self._held.get(str(session)):
            await send(held.pop(0))
        self._held.pop(str(session), None)


def as_rpc(error: RemoteDispatchError) -> RpcError:
    """Return an error as the editor gets it, with its hint."""
    if isinstance(error, RpcError):
        return error
    hint = f"; {error.hint}" if error.hint else ""
    return RpcError(INTERNAL_ERROR, f"{error.message}{hint}", {"kind": error.kind})


def _error_of(error: object) -> RpcError:
    raw = error if isinstance(error, dict) else {}
    code, words = raw.get("code"), raw.get("message")
    return RpcError(
        code if isinstance(code, int) else INTERNAL_ERROR,
        words if isinstance(words, str) and words else "the agent answered with an error and no words",
        raw.get("data"),
    )
