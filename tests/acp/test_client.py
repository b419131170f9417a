"""The client of the protocol: what is asked of an agent, and how its turns truthfully end."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.acp.client import Client, Listed
from remote_dispatch.acp.conversation import Conversation, Restarts
from remote_dispatch.acp.happening import Asked, Other, Retried, TodosChanged, ToolChanged, read_asked, read_update
from remote_dispatch.acp.peer import Peer, RpcError, wires
from remote_dispatch.acp.turn import Ended, Heard, Manners, failed, judge, take_turn
from remote_dispatch.errors import ConnectionLostError, HostNotReadyError, UnknownNameError
from remote_dispatch.failure import Failure
from tests.rig.scripted import Scripted, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from remote_dispatch.acp.agent import Agent
    from remote_dispatch.acp.happening import Happening

Raw = dict[str, Any]
PATIENCE_S = 20


@dataclass
class Person:
    """Hears a turn, and answers what is asked with `choice`, at once or once `may_answer` is set."""

    choice: str | None = "once"
    heard: list[Happening] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    is_slow: bool = False
    when_asked: Callable[[], None] = lambda: None

    def update(self, what: Happening) -> None:
        self.heard.append(what)

    async def ask(self, asked: Asked) -> str | None:
        self.asked.append(asked)
        self.is_asked.set()
        self.when_asked()
        if self.is_slow:
            await self.may_answer.wait()
        return self.choice


@dataclass
class Box:
    """A client at a scripted agent, with a session."""

    agent: Scripted
    client: Client
    session: str
    person: Person = field(default_factory=Person)

    async def ask(self, text: str, **options: Any) -> Ended:
        async with asyncio.timeout(PATIENCE_S):
            return await take_turn(self.client, self.session, text, self.person, **options)

    def sent(self, method: str) -> list[Raw]:
        return [one["params"] for one in self.agent.agent.received if one.get("method") == method]

    def answers(self) -> list[Raw]:
        return [one["result"]["outcome"] for one in self.agent.agent.received if "outcome" in one.get("result", {})]


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with scripted() as agent, Client(agent.wire, "pi") as client:
        await client.initialize()
        yield Box(agent, client, (await client.new(str(tmp_path))).id)


@asynccontextmanager
async def conversation(
    *, first: str = "", most: int = 3, delays: list[float] | None = None
) -> AsyncIterator[tuple[Conversation, list[Scripted]]]:
    """A conversation whose processes share their sessions. `first`: what its first process does when it starts."""
    boxes: list[Scripted] = []
    sessions: Raw = {}

    @asynccontextmanager
    async def start() -> AsyncIterator[Agent]:
        async with scripted(sessions=sessions) as agent:
            boxes.append(agent)
            if first == "die":
                agent.end(1)
            process = agent.process()
            yield process
            await process.close()

    async def sleep(delay_s: float) -> None:
        (delays if delays is not None else []).append(delay_s)

    async with asyncio.timeout(PATIENCE_S), Conversation(start, "pi", restarts=Restarts(most), sleep=sleep) as made:
        yield made, boxes


def prompts(boxes: list[Scripted]) -> list[str]:
    received = [one for agent in boxes for one in agent.agent.received]
    return [one["params"]["prompt"][-1]["text"] for one in received if one.get("method") == "session/prompt"]


# --- opening


async def test_an_agent_that_speaks_another_version_of_the_protocol_is_refused() -> None:
    async with scripted(protocol=7) as agent, Client(agent.wire, "pi") as client:
        with pytest.raises(HostNotReadyError, match="speaks version 7"):
            await client.initialize()


async def test_the_introduction_has_version_and_capabilities(box: Box) -> None:
    assert box.client.introduction is not None
    assert box.client.introduction.version == "1.18.33"
    assert box.client.introduction.can("resume")
    assert not box.client.introduction.can("delete")


async def test_every_page_of_a_long_list_is_read_and_a_page_that_comes_again_ends_it() -> None:
    pages = [{"sessions": [{"sessionId": f"ses_{n}", "cwd": "/p"}], "nextCursor": str(n + 1)} for n in range(3)]

    class Listing:
        async def on_request(self, method: str, params: Raw) -> Raw:
            return pages[min(int(params.get("cursor", 0)), 2)]

        async def on_notification(self, method: str, params: Raw) -> None: ...

    here, there = wires()
    async with Peer(there, Listing()), Client(here, "pi") as client, asyncio.timeout(PATIENCE_S):
        assert {one.id for one in await client.sessions()} == {"ses_0", "ses_1", "ses_2"}


async def test_a_session_is_taken_up_in_its_own_directory(box: Box, tmp_path: Path) -> None:
    found = await box.client.session(box.session)
    await box.client.resume(found)
    assert box.sent("session/resume")[-1]["cwd"] == str(tmp_path)


async def test_a_session_that_is_not_there_is_an_error_of_ours(box: Box) -> None:
    with pytest.raises(UnknownNameError, match="no session `ses_none`"):
        await box.client.session("ses_none")


async def test_a_loaded_session_replays_its_history_to_whoever_loads_it(box: Box, tmp_path: Path) -> None:
    await box.ask("!say hello")
    reader = Person()
    await box.client.load(Listed(box.session, str(tmp_path)), reader)
    assert [type(one).__name__ for one in reader.heard][:2] == ["UserText", "Text"]


# --- turns


async def test_the_answer_is_what_the_model_said_last(box: Box) -> None:
    ended = await box.ask("!say hello")
    assert (ended.failure, ended.answer, ended.stop_reason) == (None, "hello", "end_turn")
    assert ended.usage["totalTokens"] == 15


@pytest.mark.parametrize(
    ("reason", "failure", "warns"),
    [
        ("refusal", Failure.CONTENT_FILTER, False),
        ("cancelled", Failure.ABORTED, False),
        ("max_tokens", None, True),
        ("max_turn_requests", None, True),
        ("a_new_one", None, True),
    ],
)
async def test_a_stop_reason_is_told_truthfully(box: Box, reason: str, failure: Failure | None, *, warns: bool) -> None:
    ended = await box.ask(f"!say hello\n!stop {reason}")
    assert ended.failure is failure
    assert ended.stop_reason == reason
    assert bool(ended.warnings) is warns
    assert not ended.is_ours


def test_a_turn_that_ran_nothing_is_no_success() -> None:
    assert judge({"stopReason": "end_turn", "_meta": {}}, Heard()).failure is Failure.CONFIG_ERROR


def test_a_turn_without_a_word_is_no_success() -> None:
    assert judge({"stopReason": "end_turn", "usage": {"totalTokens": 3}}, Heard()).failure is Failure.NO_TEXT


async def test_a_path_at_the_head_of_a_prompt_is_not_swallowed(box: Box) -> None:
    assert (await box.ask("/etc/hosts is wrong\n!say seen")).answer == "seen"


async def test_a_command_that_the_agent_knows_stays_one(box: Box) -> None:
    await box.ask("/init\n!say done")
    assert [one["text"] for one in box.sent("session/prompt")[-1]["prompt"]] == ["/init\n!say done"]


@pytest.mark.parametrize(
    ("code", "words", "failure"),
    [
        (-32603, "Rate limit exceeded, try later", Failure.RATE_LIMITED),
        (-32603, "This model's maximum context length is exceeded", Failure.CONTEXT_OVERFLOW),
        (-32603, "the server had an error", Failure.PROVIDER_UNAVAILABLE),
        (-32000, "log in first", Failure.AUTH_FAILED),
    ],
)
async def test_an_error_of_the_provider_is_told_in_its_words(box: Box, code: int, words: str, failure: Failure) -> None:
    ended = await box.ask(f"!error {code} {words}")
    assert (ended.failure, ended.detail) == (failure, words)


def test_no_address_of_a_provider_is_told() -> None:
    error = RpcError(-32603, "Internal error: Cannot connect to API: http://10.1.2.3:8080/v1")
    assert "10.1.2.3" not in failed(error, Heard()).detail


async def test_a_rejected_permission_is_no_success_and_names_what_was_refused(box: Box) -> None:
    box.person.choice = "reject"
    ended = await box.ask("!permission rm -r x")
    assert ended.failure is Failure.REJECTED
    assert ended.refused == ("rm -r x",)


async def test_a_permission_that_was_given_lets_the_turn_go_on(box: Box) -> None:
    ended = await box.ask("!permission pwd\n!say done")
    assert (ended.failure, ended.answer, ended.refused) == (None, "done", ())
    assert box.person.asked[0].title == "pwd"


async def test_what_the_agent_asks_of_files_is_answered_and_the_rest_refused(box: Box, tmp_path: Path) -> None:
    assert (await box.ask("!edit new.txt abc\n!say done")).answer == "done"
    assert "-32601" in (await box.ask("!request fs/read_text_file")).answer


async def test_two_prompts_on_one_session_run_one_after_the_other(box: Box) -> None:
    box.person.is_slow = True
    first = asyncio.create_task(box.ask("!permission pwd\n!say one"))
    await asyncio.wait_for(box.person.is_asked.wait(), PATIENCE_S)
    second = asyncio.create_task(box.ask("!say two"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(box.sent("session/prompt")) == 1
    box.person.may_answer.set()
    assert [(await first).answer, (await second).answer] == ["one", "two"]


async def test_what_comes_late_of_a_turn_is_not_the_next_ones(box: Box) -> None:
    await box.ask("!say one\n!late much later")
    assert (await box.ask("!say two")).answer == "two"


async def test_a_tool_of_a_cancelled_turn_is_not_heard_in_the_next_one(box: Box) -> None:
    stop = asyncio.Event()
    box.person.is_slow, box.person.when_asked = True, stop.set
    await box.ask("!permission pwd", stop=stop)
    call = next(one.call_id for one in box.person.heard if isinstance(one, ToolChanged))
    box.person = Person()
    late = json.dumps({"sessionUpdate": "tool_call_update", "toolCallId": call, "status": "failed"})
    await box.ask(f"!update {late}\n!say done")
    assert [one for one in box.person.heard if isinstance(one, ToolChanged)] == []


# --- cancelled


async def test_a_cancelled_turn_answers_its_open_request_cancelled(box: Box) -> None:
    stop = asyncio.Event()
    box.person.is_slow, box.person.when_asked = True, stop.set
    ended = await box.ask("!permission pwd", stop=stop)
    assert (ended.failure, ended.is_ours, ended.is_settled) == (Failure.ABORTED, True, True)
    assert ended.refused == ()
    assert box.answers() == [{"outcome": "cancelled"}]
    assert len(box.sent("session/cancel")) == 1


async def test_end_turn_after_our_cancel_is_no_success(box: Box) -> None:
    stop = asyncio.Event()
    box.person.update = lambda what: stop.set()  # type: ignore[method-assign]  # it cancels at the first sign of life
    ended = await box.ask("!say one\n!retry 1 60", stop=stop)
    assert (ended.failure, ended.stop_reason) == (Failure.ABORTED, "end_turn")


async def test_an_agent_that_does_not_confirm_a_cancel_is_waited_for_only_so_long(box: Box) -> None:
    stop = asyncio.Event()
    box.person.update = lambda what: stop.set()  # type: ignore[method-assign]  # as above
    ended = await box.ask("!say one\n!deaf", stop=stop, manners=Manners(cancel_s=0.05))
    assert (ended.failure, ended.is_settled, ended.answer) == (Failure.ABORTED, False, "one")


async def test_a_prompt_that_was_cancelled_before_it_was_sent_is_not_sent(box: Box) -> None:
    stop = asyncio.Event()
    stop.set()
    assert (await box.ask("!say one", stop=stop)).failure is Failure.ABORTED
    assert box.sent("session/prompt") == []


async def test_a_turn_without_a_sign_of_life_is_cancelled(box: Box) -> None:
    ended = await box.ask("!say one\n!hang", manners=Manners(inactivity_s=0.05))
    assert (ended.failure, ended.is_ours, ended.answer) == (Failure.TIMEOUT, True, "one")
    assert len(box.sent("session/cancel")) == 1


async def test_nobody_is_hurried_while_being_asked(box: Box) -> None:
    now = 0.0

    def long_after() -> None:
        nonlocal now
        now += 10_000
        asyncio.get_running_loop().call_later(0.3, box.person.may_answer.set)

    box.person.is_slow, box.person.when_asked = True, long_after
    ended = await box.ask("!permission pwd\n!say done", manners=Manners(inactivity_s=0.1), clock=lambda: now)
    assert ended.answer == "done"


# --- processes


async def test_a_process_that_dies_in_a_prompt_is_started_anew_and_the_prompt_never_sent_again() -> None:
    async with conversation() as (talk, boxes):
        session = await talk.new()
        ended = await talk.prompt("!kill", Person())
        assert ended.failure is Failure.INTERRUPTED
        assert "signal" in ended.detail
        assert (await talk.prompt("!say back", Person())).answer == "back"
        assert talk.session is not None
        assert talk.session.id == session.id
        assert prompts(boxes) == ["!kill", "!say back"]


async def test_what_was_chosen_for_a_session_is_chosen_again_in_the_next_process() -> None:
    async with conversation() as (talk, boxes):
        await talk.new()
        await talk.choose(model="scripted/small")
        await talk.prompt("!exit 1", Person())
        await talk.prompt("!say back", Person())
        chosen = [one["params"] for one in boxes[1].agent.received if one["method"] == "session/set_config_option"]
        assert [(one["configId"], one["value"]) for one in chosen] == [("model", "scripted/small")]


async def test_a_process_that_dies_again_and_again_is_given_up() -> None:
    delays: list[float] = []
    async with conversation(first="die", most=3, delays=delays) as (talk, boxes):
        with pytest.raises(HostNotReadyError, match="ended 4 times in a row"):
            await talk.new()
        assert (len(boxes), delays) == (4, [1.0, 2.0, 4.0])


async def test_a_session_that_the_process_forgot_is_taken_up_once_more() -> None:
    async with conversation() as (talk, boxes):
        session = await talk.new()
        await boxes[0].agent._result("session/close", {"sessionId": session.id})
        assert (await talk.prompt("!say back", Person())).answer == "back"


async def test_a_lost_link_is_told_and_the_next_prompt_begins_a_new_process() -> None:
    async with conversation() as (talk, boxes):
        await talk.new()
        person = Person(is_slow=True, when_asked=lambda: boxes[0].cut(ConnectionLostError("pi", "the link broke")))
        with pytest.raises(ConnectionLostError, match="the link broke"):
            await talk.prompt("!permission pwd", person)
        assert (await talk.prompt("!say back", Person())).answer == "back"
        assert prompts(boxes) == ["!permission pwd", "!say back"]


async def test_a_sub_agent_that_asks_is_answered_through_the_side_channel() -> None:
    async with conversation() as (talk, _):
        await talk.new()
        person = Person()
        ended = await talk.prompt("!child pwd", person)
        assert ended.answer == "the sub-agent was told once"
        assert person.asked[0].sub_agent == "explore"


# --- what is heard


async def test_an_update_of_an_unknown_kind_is_kept_whole(box: Box) -> None:
    await box.ask('!update {"sessionUpdate": "novel", "x": {"y": 1}}\n!say done')
    assert Other("novel", {"sessionUpdate": "novel", "x": {"y": 1}}) in box.person.heard


async def test_todos_are_read_from_the_tool_that_writes_them(box: Box) -> None:
    await box.ask("!todo one;two\n!say done")
    todos = [one for one in box.person.heard if isinstance(one, TodosChanged)][-1].todos
    assert [(one.content, one.status) for one in todos] == [("one", "in_progress"), ("two", "pending")]


def test_a_retry_of_the_provider_is_told_from_a_tool() -> None:
    update = {"sessionUpdate": "tool_call", "_meta": {"retry": {"attempt": 2, "message": "Rate limited", "nextMs": 5}}}
    assert read_update(update) == (Retried(2, "Rate limited", 5),)


@pytest.mark.parametrize(
    "odd", [{}, {"sessionUpdate": 5}, {"sessionUpdate": "tool_call", "content": [1], "rawInput": 3}]
)
def test_odd_updates_do_no_harm(odd: Raw) -> None:
    assert len(read_update(odd)) == 1


@pytest.mark.parametrize("odd", [{}, {"options": "x", "toolCall": []}, {"options": [{"optionId": 4}, 7]}])
def test_odd_requests_offer_nothing(odd: Raw) -> None:
    assert read_asked(odd).choices == ()


def test_a_failed_tool_carries_its_error_and_its_exit_status() -> None:
    raw = {"output": "out", "error": "no", "metadata": {"exit": 3}}
    update = {"sessionUpdate": "tool_call_update", "toolCallId": "c", "status": "failed", "rawOutput": raw}
    assert read_update(update) == (ToolChanged("c", "failed", output="out", error="no", exit_status=3),)
