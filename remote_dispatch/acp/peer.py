"""One side of a JSON-RPC conversation: our requests and their answers, and what the other side asks and tells.

It knows neither the protocol on top nor what carries the messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Protocol, Self

from remote_dispatch.errors import DeadlinePassedError, RemoteDispatchError
from remote_dispatch.text import clean
from remote_dispatch.transcript.shape import mapping

if TYPE_CHECKING:
    from remote_dispatch.acp.lines import Message

METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
CANCELLED = -32800
_WORDS = 500

logger = logging.getLogger(__name__)


class Wire(Protocol):
    """What carries messages, both ways and in order."""

    async def send(self, message: Message) -> None:
        """Send one; it waits while the other side takes none. Raises ConnectionLostError when the link broke."""
        ...

    async def receive(self) -> Message | None:
        """Return the next one; None at the end. Raises ConnectionLostError when the link broke."""
        ...

    async def close(self) -> None:
        """Say that nothing more is sent. Calling it again does nothing."""
        ...


class RpcError(RemoteDispatchError):
    """An error of JSON-RPC: one that the other side answered, or that we answer. `data` is any JSON value or None."""

    exit_code = 1
    kind = "protocol"

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(clean(message, _WORDS))
        self.code = code
        self.words = message
        self.data = data

    def as_json(self) -> Message:
        """Return it as the `error` of an answer."""
        return {"code": self.code, "message": self.words} | ({} if self.data is None else {"data": self.data})


class PeerGoneError(RemoteDispatchError):
    """The other side ended before it answered."""

    exit_code = 1
    kind = "agent-gone"


class Handler(Protocol):
    """What a peer does with what the other side asks and tells."""

    async def on_request(self, method: str, params: Message) -> Any:
        """Return the result. An RpcError is answered as it is; it may wait for a person as long as it takes."""
        ...

    async def on_notification(self, method: str, params: Message) -> None:
        """Take note. The next notification waits until this returns."""
        ...


class Peer:
    """One side. Use as an async context manager: it reads in between, and leaving closes the wire.

    Notifications are handled one after the other in the order of their arrival; requests start in that order too, each
    in a task of its own. An answer to a request of ours is delivered after the notifications that came before it.
    """

    def __init__(self, wire: Wire, handler: Handler) -> None:
        self._wire = wire
        self._handler = handler
        self._next_id = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._end: Exception | None = None

    async def __aenter__(self) -> Self:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._reader is not None
        tasks = [self._reader, *self._answering]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail(PeerGoneError("the conversation was closed"))
        await self._wire.close()

    async def request(self, method: str, params: Message, *, timeout_s: float | None) -> Any:
        """Ask, and return the result. `timeout_s` None: as long as it takes.

        Raises RpcError, DeadlinePassedError (a late answer is dropped), PeerGoneError when the other side ended, and
        what the wire raised when it broke.
        """
        if self._end is not None:
            raise self._end
        number, self._next_id = self._next_id, self._next_id + 1
        answer = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._wire.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
                return await answer
        except TimeoutError:
            raise DeadlinePassedError(f"the agent did not answer `{method}` within {timeout_s:g} s") from None
        finally:
            self._pending.pop(number, None)
            _look_at(answer)

    async def notify(self, method: str, params: Message) -> None:
        """Tell something. Raises what the wire raises."""
        await self._wire.send({"jsonrpc": "2.0", "method": method, "params": params})

    async def finished(self) -> None:
        """Wait for the end of what the other side sends. Raises what the wire raised when it broke."""
        assert self._reader is not None
        await asyncio.wait([self._reader])
        if self._end is not None and not isinstance(self._end, PeerGoneError):
            raise self._end

    async def _read(self) -> None:
        end: Exception = PeerGoneError("the agent ended before it answered")
        try:
            while (message := await self._wire.receive()) is not None:
                await self._take(message)
        except (RemoteDispatchError, OSError) as error:
            end = error
        except Exception as error:
            end = error
            raise
        finally:
            self._fail(end)

    async def _take(self, message: Message) -> None:
        method, params = message.get("method"), message.get("params")
        if not isinstance(method, str):
            self._settle(message)
        elif "id" not in message:
            await self._note(method, mapping(params))
        else:
            task = asyncio.create_task(self._answer(message["id"], method, mapping(params)))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
            # Its first step, so that requests start in the order in which they came.
            await asyncio.sleep(0)

    async def _note(self, method: str, params: Message) -> None:
        try:
            await self._handler.on_notification(method, params)
        except RpcError as error:
            logger.debug("a notification `%s` was not understood: %s", method, error.message)

    async def _answer(self, number: object, method: str, params: Message) -> None:
        try:
            answer: Message = {"result": await self._handler.on_request(method, params)}
        except RpcError as error:
            answer = {"error": error.as_json()}
        except RemoteDispatchError as error:
            answer = {"error": RpcError(INTERNAL_ERROR, error.message).as_json()}
        except Exception:
            # The other side would wait for ever.
            logger.exception("answering `%s` failed", method)
            answer = {"error": RpcError(INTERNAL_ERROR, "this could not be answered").as_json()}
        with contextlib.suppress(RemoteDispatchError, OSError):
            await self._wire.send({"jsonrpc": "2.0", "id": number, **answer})

    def _settle(self, message: Message) -> None:
        number = message.get("id")
        future = self._pending.get(number) if isinstance(number, int) else None
        if future is None or future.done():
            logger.debug("an answer to nothing that was asked")
        elif "error" in message:
            future.set_exception(_rpc_error(message["error"]))
        else:
            future.set_result(message.get("result"))

    def _fail(self, error: Exception) -> None:
        self._end = self._end or error
        for future in self._pending.values():
            if not future.done():
                future.set_exception(self._end)


class _MemoryWire:
    """One end of two in memory."""

    def __init__(self, incoming: asyncio.Queue[Message | None], outgoing: asyncio.Queue[Message | None]) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._is_closed = False

    async def send(self, message: Message) -> None:
        """Send one; dropped once it is closed."""
        if not self._is_closed:
            await self._outgoing.put(message)

    async def receive(self) -> Message | None:
        """Return the next one."""
        message = await self._incoming.get()
        if message is None:
            self._incoming.put_nowait(None)
        return message

    async def close(self) -> None:
        """Say that nothing more is sent."""
        if not self._is_closed:
            self._is_closed = True
            self._outgoing.put_nowait(None)


def wires() -> tuple[Wire, Wire]:
    """Return the two ends of a wire in memory."""
    there: asyncio.Queue[Message | None] = asyncio.Queue()
    back: asyncio.Queue[Message | None] = asyncio.Queue()
    return _MemoryWire(back, there), _MemoryWire(there, back)


def _look_at(answer: asyncio.Future[Any]) -> None:
    """Retrieve an exception that nobody waited for: sending failed first, or the wait was given up."""
    if not answer.cancel() and not answer.cancelled():
        answer.exception()


def _rpc_error(error: object) -> RpcError:
    raw = mapping(error)
    code = raw.get("code")
    words = raw.get("message")
    return RpcError(
        code if isinstance(code, int) else INTERNAL_ERROR,
        words if isinstance(words, str) and words else "the agent answered with an error and no words",
        raw.get("data"),
    )
