"""The bridge between an editor and an agent on another machine, which may come and go without the editor noticing.

It holds both ends of the conversation: requests of either side get numbers of ours, so that an answer never reaches
another process than the one that asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from remote_dispatch.acp.agent import AgentEndedError, cancelled
from remote_dispatch.acp.attached import Attached, Deaths, Manners
from remote_dispatch.acp.calls import PROMPT, AgentsNumber, Call, Calls, Held, Questions, as_rpc, with_outcome
from remote_dispatch.acp.editor import EditorGoneError
from remote_dispatch.acp.errands import Errands
from remote_dispatch.acp.memory import Memory
from remote_dispatch.acp.peer import CANCELLED, INTERNAL_ERROR, METHOD_NOT_FOUND, PeerGoneError, RpcError
from remote_dispatch.acp.plan import Plans
from remote_dispatch.acp.rewrite import Pair, PathMap, homeward_permission, homeward_update
from remote_dispatch.acp.side import Side
from remote_dispatch.errors import ConnectionLostError, DeadlinePassedError, RemoteDispatchError
from remote_dispatch.transcript.shape import mapping

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_dispatch.acp.agent import Ending
    from remote_dispatch.acp.attached import Far, Way
    from remote_dispatch.acp.lines import Message
    from remote_dispatch.acp.peer import Wire

HELLO_S = 60.0
SETTLE_S = 10.0
FIRST_WORD_S = 2.0

logger = logging.getLogger(__name__)


class Bridge:
    """One editor and the agent of one host. `note` gets sentences for the user: an editor keeps them as its log.

    `directory` is where the agent starts as it was asked for; `places` says which directories stand for which.
    """

    def __init__(
        self,
        editor: Wire,
        host: str,
        way: Way,
        *,
        places: PathMap,
        start: Pair | None = None,
        manners: Manners | None = None,
        note: Callable[[str], None] = logger.warning,
    ) -> None:
        """`start` is the directory in which the agent starts and what stands for it here."""
        self.host = host
        self.manners = manners or Manners()
        self.note = note
        self.memory = Memory()
        self.calls = Calls()
        self.held = Held()
        self.has_forms = False
        self._editor = editor
        self._way = way
        self._places = places
        self._start = start
        self._questions = Questions()
        self._plans = Plans()
        self._later: list[Message] = []
        self._deaths = Deaths()
        self._tasks: dict[asyncio.Task[None], Call] = {}
        self._errands = Errands(self)
        self._is_heard = asyncio.Event()
        self._is_needed = asyncio.Event()
        self._is_restoring = False
        self._coming: asyncio.Future[Attached] = asyncio.get_running_loop().create_future()
        self._verdict: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Bridge until the editor closes its side.

        Raises what kept the first connection from being made, AgentEndedError when the agent's process ends again and
        again, and HostNotReadyError for an agent that speaks another version. The editor gets it as an answer first.
        """
        reading = asyncio.create_task(self._read_editor())
        keeping = asyncio.create_task(self._keep_agent())
        ends: list[asyncio.Future[None]] = [reading, keeping, self._verdict]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                if end.done():
                    await end
        except EditorGoneError:
            logger.debug("the editor is gone")
        except RemoteDispatchError as error:
            await self._say_farewell(error)
            raise
        finally:
            # An editor that reads no more must not hold up the end.
            await asyncio.wait([asyncio.create_task(cancelled([*self._tasks]))], timeout=FIRST_WORD_S)
            await cancelled([reading, keeping, *self._tasks])
            self._coming.cancel()
            self._verdict.cancel()
            await self._editor.close()

    # --- what errands use

    async def attached(self) -> Attached:
        """Return the agent, once there is one. Raises RpcError when none could be reached."""
        self._is_needed.set()
        return await asyncio.shield(self._coming)

    async def ask_agent(self, call: Call) -> Any:
        """Ask, and return the result, whatever happens to the link meanwhile. Raises RpcError, PeerGoneError."""
        attached = await self.attached()
        await self._send(attached, call)
        try:
            async with asyncio.timeout(call.limit_s) as call.clock:
                return await call.answer
        except TimeoutError:
            self.calls.drop(call)
            raise RpcError(
                INTERNAL_ERROR,
                f"OpenCode on {self.host} did not answer `{call.method}` within {call.limit_s:g} s: "
                "does an MCP server of its configuration not start?",
            ) from None

    async def ask_for_us(self, attached: Attached, method: str, params: Message) -> Any:
        """Ask something of which the editor does not learn. Raises RpcError, PeerGoneError, DeadlinePassedError."""
        call = Call(method, params, is_own=True)
        await self._send(attached, call)
        try:
            async with asyncio.timeout(HELLO_S):
                return await call.answer
        except TimeoutError:
            self.calls.drop(call)
            raise DeadlinePassedError(
                f"OpenCode on {self.host} did not answer `{method}` within {HELLO_S:g} s"
            ) from None

    def end_with(self, error: RemoteDispatchError) -> None:
        """End the bridge."""
        if not self._verdict.done():
            self._verdict.set_exception(error)

    # --- the editor

    async def _read_editor(self) -> None:
        while (message := await self._editor.receive()) is not None:
            self._is_heard.set()
            if not isinstance(message.get("method"), str):
                await self._hear_answer(message)
            elif "id" in message:
                await self._start_errand(message)
            else:
                await self._hear_editor(message)

    async def _start_errand(self, message: Message) -> None:
        call = Call(message["method"], mapping(message.get("params")), editor_id=message["id"])
        call.task = asyncio.create_task(self._answer(call))
        self._tasks[call.task] = call
        call.task.add_done_callback(self._tasks.pop)
        # Its first step, so that what comes next finds it under way.
        await asyncio.sleep(0)

    async def _answer(self, call: Call) -> None:
        """Get the answer to a request of the editor, and bring it there."""
        try:
            answer: Message = {"result": await self._errands.run(call)}
        except asyncio.CancelledError:
            if not call.is_cancelled:
                raise
            is_turn = call.method == PROMPT
            refusal = RpcError(CANCELLED, "Request cancelled").as_json()
            answer = {"result": {"stopReason": "cancelled"}} if is_turn else {"error": refusal}
        except RpcError as error:
            answer = {"error": error.as_json()}
        except RemoteDispatchError as error:
            answer = {"error": as_rpc(error).as_json()}
        except Exception:
            # The editor would wait for ever.
            logger.exception("answering `%s` failed", call.method)
            answer = {"error": RpcError(INTERNAL_ERROR, "the bridge failed at this").as_json()}
        call.task = None  # from here on it can not be cancelled
        try:
            await self._tell_editor({"id": call.editor_id, **answer})
            await self.held.release(mapping(answer.get("result")).get("sessionId"), self._tell_editor)
        finally:
            call.is_settled.set()
        if call.method == PROMPT and self.manners.is_durable:
            await self._tidy()

    async def _tidy(self) -> None:
        """Between turns: remove from the host what has arrived here."""
        if self._is_up and not any(one.method == PROMPT for one in self.calls.all()):
            with contextlib.suppress(RemoteDispatchError):
                await self._coming.result().agent.rotate()

    @property
    def _is_up(self) -> bool:
        return self._coming.done() and not self._coming.cancelled() and self._coming.exception() is None

    async def _hear_editor(self, message: Message) -> None:
        """A notification."""
        params = mapping(message.get("params"))
        match message["method"]:
            case "session/cancel":
                if self._errands.cancel(params.get("sessionId")):
                    await self._tell_agent(message)
            case "$/cancel_request":
                await self._cancel_request(params.get("requestId"))
            case _:
                await self._tell_agent(message)

    async def _cancel_request(self, number: object) -> None:
        """OpenCode 1.18 does not know of this: a prompt is cancelled as its session's, the rest given up."""
        for call in [one for one in self._tasks.values() if one.editor_id == number]:
            if self._errands.cancel_one(call):
                await self._tell_agent(
                    {"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": call.session}}
                )
            else:
                self.calls.drop(call)

    async def _hear_answer(self, message: Message) -> None:
        """The editor's answer to what the agent, or the side channel, asked."""
        asker = self._questions.take(message.get("id"))
        if asker is None:
            logger.debug("an answer to a question that is over")
        elif isinstance(asker, asyncio.Future):
            if not asker.done():
                asker.set_result(message)
        else:
            answer: Message = {key: message[key] for key in ("result", "error") if key in message}
            await self._tell_agent({"jsonrpc": "2.0", "id": asker.number, **with_outcome(asker.method, answer)})

    async def _tell_editor(self, message: Message) -> None:
        try:
            await self._editor.send({"jsonrpc": "2.0", **message})
        except EditorGoneError as error:
            self.end_with(error)

    async def _ask_editor(self, method: str, params: Message) -> Message:
        """Ask for the side channel. Raises RpcError with the editor's own error."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        number = self._questions.add(future)
        shown = await self._homeward_request(params)
        await self._tell_editor({"id": number, "method": method, "params": shown})
        try:
            answer = await future
        except asyncio.CancelledError:
            await self._withdraw(number)
            raise
        finally:
            self._questions.take(number)
        if "error" in answer:
            raise RpcError(INTERNAL_ERROR, str(mapping(answer["error"]).get("message") or "refused"))
        return mapping(answer.get("result"))

    async def _withdraw(self, *numbers: int) -> None:
        """Tell the editor that nobody waits for these answers any more: it would show the questions for ever."""
        for number in numbers:
            await self._tell_editor({"method": "$/cancel_request", "params": {"requestId": number}})

    async def _update_editor(self, params: Message) -> None:
        """Tell the editor of a session for the side channel."""
        places = (await self.attached()).places
        await self._tell_editor({"method": "session/update", "params": homeward_update(params, places)})

    async def _homeward_request(self, params: Message) -> Message:
        return homeward_permission(params, (await self.attached()).places)

    async def _say_farewell(self, error: RemoteDispatchError) -> None:
        """Tell the editor why: by answers to what it asked. It may have said nothing yet."""
        self._refuse(error)
        self._coming = _failed(as_rpc(error))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WORD_S):
                await self._is_heard.wait()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=FIRST_WORD_S)

    # --- the agent's coming and going

    async def _keep_agent(self) -> None:
        """Have an agent there for as long as the editor is; after a loss, a new one."""
        patience_s = 0.0  # the first failure is told at once: it is rarely the network's
        while True:
            is_up = False
            try:
                async with self._way(patience_s) as agent:
                    is_up, patience_s = True, self.manners.patience_s
                    await self._converse(agent)
                    ending = await agent.ending()
                self._count(ending)
                await self._lose(self._ended_text(ending), is_all=True)
            except EditorGoneError:
                raise
            except RemoteDispatchError as error:
                if self.memory.hello is None or isinstance(error, AgentEndedError):
                    raise
                if is_up and isinstance(error, ConnectionLostError):
                    self.note(f"the link to {self.host} was lost; connecting again")
                    await self._lose(self._lost_text(), is_all=not self.manners.is_durable)
                else:
                    await self._wait_until_needed(error)

    async def _converse(self, agent: Far) -> None:
        """Pass messages until the process ends. Raises ConnectionLostError."""
        attached = Attached(agent, self._places_of(agent), self._side_of)
        pumping = asyncio.create_task(self._pump(attached))
        try:
            if agent.is_new:
                await self._lose(self._lost_text(), is_all=True)
                await self._restore(attached, pumping)
            await self._go_on(attached)
            await pumping
        finally:
            attached.is_gone.set()
            if self._coming.done():
                self._coming = asyncio.get_running_loop().create_future()
            await cancelled([pumping])

    async def _go_on(self, attached: Attached) -> None:
        """Send what waited for this agent, then what is new."""
        with contextlib.suppress(ConnectionLostError):
            for message in self._later if not attached.agent.is_new else ():
                await attached.agent.wire.send(message)
            for number, call in self.calls.items():
                call.wind()
                if attached.agent.is_new:
                    await attached.agent.wire.send(call.request(number))
        self._later.clear()
        self._is_needed.clear()
        self._coming.set_result(attached)

    async def _restore(self, attached: Attached, pumping: asyncio.Task[None]) -> None:
        """Bring a new process to where the old one was, unseen by the editor."""
        if self.memory.hello is None:
            return
        self._is_restoring = True
        restoring = asyncio.create_task(self._replay(attached, self.memory.hello))
        try:
            await asyncio.wait([restoring, pumping], return_when=asyncio.FIRST_COMPLETED)
            if not restoring.done():
                await pumping
                raise PeerGoneError("the agent ended while it was started again")
            await restoring
        finally:
            self._is_restoring = False
            await cancelled([restoring])
        self.note(f"{self.host} is there again")

    async def _replay(self, attached: Attached, hello: Message) -> None:
        await self.ask_for_us(attached, "initialize", hello)
        for session, params in self.memory.attached():
            try:
                await self.ask_for_us(attached, "session/resume", params)
                for choice in self.memory.chosen(session):
                    await self.ask_for_us(attached, "session/set_config_option", choice)
            except RpcError as error:
                self.note(f"a session could not be taken up again on {self.host}: {error.message}")

    async def _wait_until_needed(self, error: RemoteDispatchError) -> None:
        """It cannot be reached for now: say so to all who wait, and try again once the editor wants something."""
        self.note(f"{error.message}; it is tried again with the next message")
        self._refuse(error)
        await self._is_needed.wait()

    def _refuse(self, error: RemoteDispatchError) -> None:
        """Answer everything that waits with this error."""
        problem = as_rpc(error)
        self.calls.give_up(lambda _: problem, is_all=True)
        self._later.clear()
        self._is_needed.clear()
        if not self._coming.done():
            self._coming.set_exception(problem)
            self._coming.exception()
        self._coming = asyncio.get_running_loop().create_future()

    async def _lose(self, text: str, *, is_all: bool) -> None:
        """What the old process was at is over; `is_all` False: it goes on there, and only clocks stop."""
        if is_all:
            gone = self._questions.forget_the_agents()
            self.calls.give_up(lambda call: RpcError(INTERNAL_ERROR, text, {"method": call.method}))
            await self._withdraw(*gone)
        for call in self.calls.all():
            call.stop_clock()

    def _count(self, ending: Ending) -> None:
        """Note that the process ended. Raises AgentEndedError when that happens too often."""
        if self._deaths.is_one_too_many() or self.memory.hello is None:
            raise AgentEndedError(self.host, ending)
        self.note(f"{self._ended_text(ending)}; starting it again")

    def _lost_text(self) -> str:
        return f"the link to {self.host} was lost; what ran there was ended; send it again"

    def _ended_text(self, ending: Ending) -> str:
        return f"{AgentEndedError(self.host, ending).message}; what it was at is lost; send it again"

    def _side_of(self, agent: Far) -> Side:
        return Side(
            agent.side,
            ask=self._ask_editor,
            tell=self._update_editor,
            has_forms=self.has_forms,
            every_s=self.manners.look_every_s,
        )

    def _places_of(self, agent: Far) -> PathMap:
        places = self._places.at(agent.home)
        # The directory may be a link there, and OpenCode may name either.
        return places.also(Pair(self._start.local, agent.directory)) if self._start else places

    # --- the agent

    async def _send(self, attached: Attached, call: Call) -> None:
        number = self.calls.add(call)
        call.is_sent = True
        # A link that breaks here is told by the reader, too: what becomes of the call is decided there.
        with contextlib.suppress(ConnectionLostError):
            await attached.agent.wire.send(call.request(number))

    async def _tell_agent(self, message: Message) -> None:
        """Send what has no answer. While the link is down it is kept for an agent that lives through that."""
        if self._is_up:
            with contextlib.suppress(ConnectionLostError):
                await self._coming.result().agent.wire.send(message)
        elif self.manners.is_durable:
            self._later.append(message)

    async def _pump(self, attached: Attached) -> None:
        """Pass on what the agent says."""
        try:
            while (message := await attached.agent.wire.receive()) is not None:
                if not isinstance(message.get("method"), str):
                    await self._hear_result(message)
                elif "id" in message:
                    await self._hear_question(attached, message)
                else:
                    await self._hear_agent(attached, message)
        finally:
            for number, call in self.calls.items():
                if call.is_own:
                    self.calls.take(number)
                    call.fail(PeerGoneError("the agent ended before it answered"))

    async def _hear_result(self, message: Message) -> None:
        call = self.calls.take(message.get("id"))
        if call is None:
            logger.debug("an answer to nothing that was asked")
            return
        call.settle(message)
        if not call.is_own:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await call.is_settled.wait()

    async def _hear_question(self, attached: Attached, message: Message) -> None:
        """A request of the agent. Files and terminals are not the editor's: OpenCode has written the file already."""
        method, number = message["method"], message["id"]
        if method.startswith(("fs/", "terminal/")):
            missing = RpcError(METHOD_NOT_FOUND, f"Method not found: {method}").as_json()
            answer: Message = {"result": {}} if method == "fs/write_text_file" else {"error": missing}
            await attached.agent.wire.send({"jsonrpc": "2.0", "id": number, **answer})
            return
        ours = self._questions.add(AgentsNumber(number, method))
        params = homeward_permission(mapping(message.get("params")), attached.places)
        await self._editor.send({**message, "id": ours, "params": params})

    async def _hear_agent(self, attached: Attached, message: Message) -> None:
        """A notification of the agent."""
        if message["method"] != "session/update":
            await self._editor.send(message)
            return
        params = mapping(message.get("params"))
        self.memory.hear(params)
        self._errands.hear(params)
        if self._is_restoring and mapping(params.get("update")).get("sessionUpdate") == "config_option_update":
            return
        shown = {**message, "params": homeward_update(params, attached.places)}
        if self.held.takes(shown):
            return
        await self._editor.send(shown)
        if plan := self._plans.of(params):
            await self._editor.send({"jsonrpc": "2.0", "method": "session/update", "params": plan})


def _failed(error: Exception) -> asyncio.Future[Attached]:
    future: asyncio.Future[Attached] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    future.exception()
    return future
