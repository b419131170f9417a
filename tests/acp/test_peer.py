"""JSON-RPC from our side: order, answers, ends and errors; then with the public SDK as the agent."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import acp
import acp.schema
import pytest

from remote_dispatch.acp.peer import INTERNAL_ERROR, METHOD_NOT_FOUND, Peer, PeerGoneError, RpcError, wires
from remote_dispatch.errors import ConnectionLostError, DeadlinePassedError, HostNotReadyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from remote_dispatch.acp.lines import Message
    from remote_dispatch.acp.peer import Wire

LIMIT_S = 10


class Handler:
    """Writes down what comes; `answers` are asked by method, `pauses` are waited for by the text of a notification."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.answers: dict[str, Callable[[Message], Awaitable[Any]]] = {}
        self.pauses: dict[Any, asyncio.Event] = {}

    async def on_request(self, method: str, params: Message) -> Any:
        self.seen.append(method)
        if method not in self.answers:
            raise RpcError(METHOD_NOT_FOUND, f"no such method: {method}", {"method": method})
        return await self.answers[method](params)

    async def on_notification(self, method: str, params: Message) -> None:
        if pause := self.pauses.get(params.get("text")):
            await pause.wait()
        self.seen.append(params.get("text"))


@asynccontextmanager
async def conversation(handler: Handler | None = None) -> AsyncIterator[tuple[Peer, Wire]]:
    ours, theirs = wires()
    async with asyncio.timeout(LIMIT_S), Peer(ours, handler or Handler()) as peer:
        yield peer, theirs


async def note(theirs: Wire, text: Any) -> None:
    await theirs.send({"jsonrpc": "2.0", "method": "session/update", "params": {"text": text}})


async def answered(theirs: Wire) -> Message:
    message = await theirs.receive()
    assert message is not None
    return message


async def test_answers_find_their_requests_in_any_order() -> None:
    async with conversation() as (peer, theirs):
        asked = [asyncio.create_task(peer.request("echo", {"n": number}, timeout_s=5)) for number in range(3)]
        messages = [await answered(theirs) for _ in asked]
        assert [message["params"] for message in messages] == [{"n": 0}, {"n": 1}, {"n": 2}]
        for message in reversed(messages):
            await theirs.send({"jsonrpc": "2.0", "id": message["id"], "result": message["params"]["n"]})
        assert await asyncio.gather(*asked) == [0, 1, 2]


async def test_notifications_are_handled_one_after_the_other_and_before_the_answer_behind_them() -> None:
    handler = Handler()
    handler.pauses[0] = asyncio.Event()
    async with conversation(handler) as (peer, theirs):
        asked = asyncio.create_task(peer.request("prompt", {}, timeout_s=5))
        message = await answered(theirs)
        for text in range(5):
            await note(theirs, text)
        await theirs.send({"id": message["id"], "result": "done"})
        done, _ = await asyncio.wait([asked], timeout=0.05)
        assert not done
        assert handler.seen == []
        handler.pauses[0].set()
        assert await asked == "done"
        assert handler.seen == [0, 1, 2, 3, 4]


async def test_a_request_that_waits_for_a_person_holds_up_nothing() -> None:
    handler, person = Handler(), asyncio.get_running_loop().create_future()

    async def permission(_: Message) -> Any:
        return await person

    handler.answers["session/request_permission"] = permission
    async with conversation(handler) as (peer, theirs):
        await theirs.send({"id": 0, "method": "session/request_permission", "params": {}})
        await note(theirs, "later")
        await theirs.send({"id": "x", "method": "unknown"})
        assert (await answered(theirs))["id"] == "x"
        assert handler.seen == ["session/request_permission", "later", "unknown"]
        asked = asyncio.create_task(peer.request("ours", {}, timeout_s=5))
        mine = await answered(theirs)
        assert mine["id"] == 0, "ids of the two directions are counted apart"
        person.set_result("once")
        assert await answered(theirs) == {"jsonrpc": "2.0", "id": 0, "result": "once"}
        await theirs.send({"id": 0, "result": "fine"})
        assert await asked == "fine"


async def test_errors_go_both_ways_with_code_words_and_data() -> None:
    async with conversation() as (peer, theirs):
        await theirs.send({"id": 7, "method": "nope", "params": {}})
        error = (await answered(theirs))["error"]
        assert error == {"code": METHOD_NOT_FOUND, "message": "no such method: nope", "data": {"method": "nope"}}
        asked = asyncio.create_task(peer.request("x", {}, timeout_s=5))
        message = await answered(theirs)
        await theirs.send({"id": message["id"], "error": {"code": -32000, "message": "lo\x07gin", "data": [1]}})
        with pytest.raises(RpcError, match="login") as caught:
            await asked
        assert (caught.value.code, caught.value.words, caught.value.data) == (-32000, "lo\x07gin", [1])


@pytest.mark.parametrize("error", [5, None, {}, {"code": "x", "message": 3}])
async def test_an_error_of_no_known_shape_is_one_all_the_same(error: object) -> None:
    async with conversation() as (peer, theirs):
        asked = asyncio.create_task(peer.request("x", {}, timeout_s=5))
        message = await answered(theirs)
        await theirs.send({"id": message["id"], "error": error})
        with pytest.raises(RpcError) as caught:
            await asked
        assert caught.value.code == INTERNAL_ERROR


async def test_what_fails_inside_is_answered_and_does_not_end_the_conversation() -> None:
    handler = Handler()

    async def broken(_: Message) -> Any:
        raise ZeroDivisionError

    async def not_ready(_: Message) -> Any:
        raise HostNotReadyError("box", "no space left")

    handler.answers = {"broken": broken, "not ready": not_ready}
    async with conversation(handler) as (_, theirs):
        for method, words in (("broken", "could not be answered"), ("not ready", "box: no space left")):
            await theirs.send({"id": 1, "method": method, "params": {}})
            error = (await answered(theirs))["error"]
            assert error["code"] == INTERNAL_ERROR
            assert words in error["message"]


async def test_a_deadline_ends_the_wait_and_a_late_answer_is_dropped() -> None:
    async with conversation() as (peer, theirs):
        with pytest.raises(DeadlinePassedError, match=r"`slow` within 0\.01 s"):
            await peer.request("slow", {}, timeout_s=0.01)
        late = await answered(theirs)
        await theirs.send({"id": late["id"], "result": "late"})
        asked = asyncio.create_task(peer.request("next", {}, timeout_s=5))
        message = await answered(theirs)
        assert message["id"] != late["id"]
        await theirs.send({"id": message["id"], "result": "right"})
        assert await asked == "right"


@pytest.mark.parametrize(
    "odd",
    [{}, {"id": 99, "result": 1}, {"id": "x", "error": {}}, {"method": 5}, {"id": None}, {"id": [1], "result": 2}],
)
async def test_messages_that_fit_nothing_change_nothing(odd: Message) -> None:
    handler = Handler()
    async with conversation(handler) as (peer, theirs):
        asked = asyncio.create_task(peer.request("x", {}, timeout_s=5))
        message = await answered(theirs)
        await theirs.send(odd)
        await theirs.send({"method": "session/update", "params": [1]})
        await theirs.send({"id": message["id"], "result": "right"})
        assert await asked == "right"
        assert handler.seen == [None]


async def test_the_end_fails_what_is_asked_and_what_will_be() -> None:
    async with conversation() as (peer, theirs):
        asked = asyncio.create_task(peer.request("x", {}, timeout_s=None))
        await answered(theirs)
        await theirs.close()
        with pytest.raises(PeerGoneError):
            await asked
        await peer.finished()
        with pytest.raises(PeerGoneError):
            await peer.request("y", {}, timeout_s=5)


class LostWire:
    """A wire whose link breaks when `lose` is set."""

    def __init__(self) -> None:
        self.lose = asyncio.Event()

    async def send(self, message: Message) -> None:
        if self.lose.is_set():
            raise ConnectionLostError("box", "gone")

    async def receive(self) -> Message | None:
        await self.lose.wait()
        raise ConnectionLostError("box", "gone")

    async def close(self) -> None:
        return


async def test_a_lost_link_is_told_as_such() -> None:
    wire = LostWire()
    async with asyncio.timeout(LIMIT_S), Peer(wire, Handler()) as peer:
        asked = asyncio.create_task(peer.request("x", {}, timeout_s=None))
        await asyncio.sleep(0)
        wire.lose.set()
        for wait in (asked, peer.finished(), peer.request("y", {}, timeout_s=5), peer.notify("z", {})):
            with pytest.raises(ConnectionLostError):
                await wait


async def test_leaving_gives_up_what_is_being_answered_and_closes_the_wire() -> None:
    handler, begun = Handler(), asyncio.Event()
    given_up = asyncio.Event()

    async def permission(_: Message) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    handler.answers["ask"] = permission
    async with conversation(handler) as (_, theirs):
        await theirs.send({"id": 0, "method": "ask"})
        await begun.wait()
    assert given_up.is_set()
    assert await theirs.receive() is None


class ScriptedAgent:
    """What the SDK serves: a prompt streams its words and asks for permission in between."""

    def __init__(self) -> None:
        self.client: Any = None

    def on_connect(self, conn: Any) -> None:
        self.client = conn

    async def initialize(self, protocol_version: int, **_: Any) -> acp.InitializeResponse:
        return acp.InitializeResponse(protocol_version=protocol_version)

    async def new_session(self, cwd: str, **_: Any) -> acp.NewSessionResponse:
        return acp.NewSessionResponse(session_id=f"ses of {cwd}")

    async def prompt(self, prompt: list[Any], session_id: str, **_: Any) -> acp.PromptResponse:
        for word in prompt[0].text.split():
            await self.client.session_update(session_id, acp.update_agent_message_text(word))
        options = [acp.schema.PermissionOption(option_id="once", name="Once", kind="allow_once")]
        answer = await self.client.request_permission(
            session_id=session_id,
            tool_call=acp.schema.ToolCallUpdate(tool_call_id="call_1", title="ls"),
            options=options,
        )
        return acp.PromptResponse(stop_reason="end_turn" if answer.outcome.outcome == "selected" else "cancelled")


async def test_the_sdks_agent_understands_us_and_we_understand_it() -> None:
    ours, theirs = wires()
    updates: list[Any] = []

    class Client:
        async def on_request(self, method: str, params: Message) -> Any:
            assert method == "session/request_permission"
            return {"outcome": {"outcome": "selected", "optionId": params["options"][0]["optionId"]}}

        async def on_notification(self, method: str, params: Message) -> None:
            updates.append(params["update"]["content"]["text"])

    scripted: Any = ScriptedAgent()
    served = asyncio.create_task(acp.run_agent(scripted, theirs))
    async with asyncio.timeout(LIMIT_S), Peer(ours, Client()) as peer:
        assert (await peer.request("initialize", {"protocolVersion": 1}, timeout_s=5))["protocolVersion"] == 1
        session = (await peer.request("session/new", {"cwd": "/work", "mcpServers": []}, timeout_s=5))["sessionId"]
        prompt = {"sessionId": session, "prompt": [{"type": "text", "text": "one two three"}]}
        ended = await peer.request("session/prompt", prompt, timeout_s=5)
        assert ended["stopReason"] == "end_turn"
        with pytest.raises(RpcError) as caught:
            await peer.request("session/unheard_of", {}, timeout_s=5)
        assert caught.value.code == METHOD_NOT_FOUND
        with pytest.raises(RpcError):
            await peer.request("session/new", {}, timeout_s=5)
    assert (session, updates) == ("ses of /work", ["one", "two", "three"])
    await served
