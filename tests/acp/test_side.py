"""What ACP does not deliver reaches the editor, and the answers reach OpenCode."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.acp.asking import LATER_WORDS
from remote_dispatch.acp.peer import METHOD_NOT_FOUND, Peer, PeerGoneError, RpcError
from remote_dispatch.acp.plan import Plans, plan_of
from remote_dispatch.acp.side import Side
from tests.acp.ends import Editor, until
from tests.rig.scripted import Scripted, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Raw = dict[str, Any]
STRANGER = f"ses_{'0' * 12}{'X' * 14}"


@dataclass
class Neighbour(Editor):
    """An editor that speaks to the agent without a bridge, and to the side channel itself."""

    box: Scripted = field(default_factory=Scripted)


@asynccontextmanager
async def an_editor(directory: Path) -> AsyncIterator[Neighbour]:
    async with scripted() as box:
        editor = Neighbour(box=box)
        async with Peer(box.wire, editor) as editor.peer:
            await editor.open(directory)
            yield editor


def a_side(editor: Neighbour, *, has_forms: bool = False) -> Side:
    return Side(editor.box.api(), ask=editor.ask, tell=editor.tell, has_forms=has_forms, every_s=0.01)


async def watched(editor: Neighbour, text: str, *, has_forms: bool = False) -> Raw:
    side = a_side(editor, has_forms=has_forms)
    async with side.watching(editor.session):
        return await editor.prompt(text)


# --- sub-agents


@pytest.mark.parametrize("word", ["once", "always", "reject"])
async def test_a_sub_agents_permission_is_asked_and_its_answer_reaches_the_sub_agent(word: str, tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.choose(word)
        await watched(editor, "!child uname -a")
        assert editor.said() == f"the sub-agent was told {word}"


async def test_a_sub_agents_permission_names_it_and_belongs_to_the_session_that_the_editor_knows(
    tmp_path: Path,
) -> None:
    async with an_editor(tmp_path) as editor:
        editor.choose("once")
        await watched(editor, "!child uname -a")
        [(method, params)] = editor.asked
        assert method == "session/request_permission"
        assert params["sessionId"] == editor.session
        assert params["toolCall"]["title"] == "explore (sub-agent): bash `uname -a`"
        assert params["toolCall"]["kind"] == "execute"
        assert [one["kind"] for one in params["options"]] == ["allow_once", "allow_always", "reject_once"]
        assert params["_meta"] == {"subAgent": "explore"}


@pytest.mark.parametrize(("word", "status"), [("once", "completed"), ("reject", "failed")])
async def test_the_tool_call_of_a_sub_agent_does_not_stay_pending(word: str, status: str, tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.choose(word)
        await watched(editor, "!child")
        assert [one["status"] for one in editor.calls("per_")] == ["pending", status]


@pytest.mark.parametrize(
    "answer",
    [
        {"outcome": {"outcome": "cancelled"}},
        {"outcome": {"outcome": "selected", "optionId": "surely"}},
        {},
        RpcError(METHOD_NOT_FOUND, "no"),
    ],
    ids=["cancelled", "unknown option", "malformed", "error"],
)
async def test_whatever_is_no_clear_leave_is_a_rejection(answer: Raw | Exception, tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.answers.put_nowait(answer)
        await watched(editor, "!child")
        assert editor.said() == "the sub-agent was told reject"


async def test_a_permission_of_the_session_itself_is_left_to_acp(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        side = a_side(editor)
        async with side.watching(editor.session):
            prompt = asyncio.create_task(editor.prompt("!sleep 5"))
            await until(lambda: editor.session in editor.box.agent.statuses)
            editor.box.agent.listed["per_1"] = {"id": "per_1", "sessionID": editor.session, "permission": "bash"}
            editor.box.agent.listed["que_1"] = {"id": "que_1", "sessionID": editor.session, "questions": [{}]}
            await until(lambda: editor.asked)
            await editor.cancel()
            await prompt
        assert [params["toolCall"]["toolCallId"] for _, params in editor.asked] == ["que_1"]


async def test_what_a_strangers_session_asks_is_not_put_to_this_editor(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        agent = editor.box.agent
        agent.sessions[STRANGER] = {"cwd": str(tmp_path), "title": "Other", "history": []}
        agent.statuses[STRANGER] = {"type": "busy"}
        agent.listed["per_0"] = {"id": "per_0", "sessionID": STRANGER, "permission": "bash"}
        editor.choose("once")
        await watched(editor, "!child")
        assert [params["toolCall"]["toolCallId"] for _, params in editor.asked] != ["per_0"]
        assert len(editor.asked) == 1


async def test_a_question_that_nobody_waits_for_any_more_is_not_asked(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        async with a_side(editor).watching(editor.session):
            prompt = asyncio.create_task(editor.prompt("!tool bash\n!child\n!sleep 5"))
            await until(lambda: editor.asked)
            stale = {"sessionID": editor.session, "questions": [{}], "tool": {"messageID": "msg_1", "callID": "call_1"}}
            editor.box.agent.listed["que_1"] = {"id": "que_1", **stale}
            editor.box.agent.listed["que_2"] = {"id": "que_2", **stale, "tool": {}}
            editor.choose("once", "reject")
            await until(lambda: editor.answers.empty() and "/question/que_2/reject" in dict(editor.box.agent.replies))
            await editor.cancel()
            await prompt
        assert "que_1" not in [params["toolCall"]["toolCallId"] for _, params in editor.asked]


async def test_a_request_that_somebody_else_answers_is_withdrawn(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        side = a_side(editor)
        async with side.watching(editor.session):
            prompt = asyncio.create_task(editor.prompt("!child\n!sleep 5"))
            await until(lambda: side.is_asking and editor.asked)
            [request] = editor.box.agent.waiting
            await editor.box.api().reply_permission(request, str(tmp_path), "once")
            await until(lambda: not side.is_asking)
            assert editor.calls("per_")[-1]["status"] == "failed"
            await editor.cancel()
            await prompt


async def test_the_end_of_the_prompt_withdraws_what_is_still_asked(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        side = a_side(editor)
        async with side.watching(editor.session):
            prompt = asyncio.create_task(editor.prompt("!child"))
            await until(lambda: editor.asked)
            await editor.cancel()
            await prompt
        assert not side.is_asking
        assert editor.calls("per_")[-1]["status"] == "failed"


async def test_an_editor_that_is_gone_answers_nothing(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.answers.put_nowait(PeerGoneError("gone"))
        async with a_side(editor).watching(editor.session):
            prompt = asyncio.create_task(editor.prompt("!child"))
            await until(lambda: editor.calls("per_")[1:])
            assert editor.box.agent.replies == []
            await editor.cancel()
            await prompt


async def test_an_api_that_fails_is_asked_again_and_the_prompt_never_notices(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.box.is_api_down = True
        side = a_side(editor)
        async with side.watching(editor.session):
            prompt = asyncio.create_task(editor.prompt("!child"))
            await until(lambda: editor.box.agent.listed and not side.is_asking)
            editor.box.is_api_down = False
            await until(lambda: editor.asked)
            editor.box.is_api_down = True
            editor.choose("once")
            await until(editor.answers.empty)
            editor.box.is_api_down = False
            assert (await prompt)["stopReason"] == "end_turn"
        assert editor.said() == "the sub-agent was told once"


async def test_after_a_cancel_the_next_prompt_is_held_until_it_is_not_cancelled_too(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        side = a_side(editor)
        async with side.watching(editor.session):
            prompt = asyncio.create_task(editor.prompt("!child"))
            await until(lambda: editor.asked)
            await editor.cancel()
            await prompt
        assert (await editor.prompt("!say too early"))["stopReason"] == "cancelled"
        assert await side.settled(editor.session)
        assert (await editor.prompt("!say now"))["stopReason"] == "end_turn"


async def test_a_session_that_never_becomes_idle_is_not_waited_for_without_end(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.box.agent.statuses[editor.session] = {"type": "busy"}
        assert not await a_side(editor).settled(editor.session, timeout_s=0.05)


# --- questions


async def test_a_question_is_asked_as_a_permission_with_its_options(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.choose("1")
        await watched(editor, "!question red;green")
        [(method, params)] = editor.asked
        assert method == "session/request_permission"
        assert params["_meta"] == {"kind": "question"}
        assert params["toolCall"]["title"] == "Which one?"
        assert params["toolCall"]["toolCallId"] == editor.calls("call_")[0]["toolCallId"]
        assert [one["name"] for one in params["options"]] == ["red", "green", "Do not answer"]
        assert editor.said() == 'you said [["green"]]'


async def test_a_question_that_takes_several_answers_is_asked_until_that_is_all(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.choose("2", "0", "done")
        await watched(editor, "!questions red;green;blue")
        assert editor.said() == 'you said [["blue", "red"]]'
        assert [one["name"] for one in editor.asked[1][1]["options"]] == [
            "red",
            "green",
            "That is all",
            "Do not answer",
        ]


async def test_a_question_without_options_can_be_put_off(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.choose("later")
        await watched(editor, "!question")
        assert editor.said() == f'you said [["{LATER_WORDS}"]]'


async def test_a_question_that_is_not_answered_is_rejected(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.choose("reject")
        await watched(editor, "!question red;green")
        assert [path.rpartition("/")[2] for path, _ in editor.box.agent.replies] == ["reject"]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ({"answer0": "green"}, '[["green"]]'),
        ({"answer0": "green", "answer0_own": " blue "}, '[["blue"]]'),
    ],
    ids=["an option", "words of one's own"],
)
async def test_an_editor_with_forms_gets_a_question_as_a_form(content: Raw, answer: str, tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.answers.put_nowait({"action": "accept", "content": content})
        await watched(editor, "!question red;green", has_forms=True)
        [(method, params)] = editor.asked
        assert (method, params["mode"]) == ("elicitation/create", "form")
        choice = params["requestedSchema"]["properties"]["answer0"]
        assert [one["const"] for one in choice["oneOf"]] == ["red", "green"]
        assert editor.said() == f"you said {answer}"


async def test_a_form_takes_several_answers_at_once(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        content = {"answer0": ["red", "blue"], "answer0_own": "pink"}
        editor.answers.put_nowait({"action": "accept", "content": content})
        await watched(editor, "!questions red;green;blue", has_forms=True)
        assert editor.said() == 'you said [["red", "blue", "pink"]]'


@pytest.mark.parametrize("result", [{"action": "decline"}, {"action": "accept", "content": {}}])
async def test_a_form_that_was_declined_or_left_empty_rejects_the_question(result: Raw, tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        editor.answers.put_nowait(result)
        await watched(editor, "!question red;green", has_forms=True)
        assert [path.rpartition("/")[2] for path, _ in editor.box.agent.replies] == ["reject"]


# --- retries


async def test_a_provider_that_is_asked_again_is_shown_as_one_tool_call(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        await watched(editor, "!retry 2 0.2\n!sleep 0.2\n!say done")
        first, second, last = editor.calls("retry-")
        assert first["sessionUpdate"] == "tool_call"
        assert first["title"] == "waiting for the provider, attempt 1: Too many requests"
        assert second["_meta"]["retry"]["attempt"] == 2
        assert last["status"] == "completed"
        assert {one["toolCallId"] for one in (first, second, last)} == {first["toolCallId"]}


@pytest.mark.parametrize("then", ["!say done", "!error -32603 the quota is used up", "!hang"])
async def test_the_waiting_for_a_provider_is_over_with_the_prompt(then: str, tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        with contextlib.suppress(RpcError):
            async with a_side(editor).watching(editor.session):
                prompt = asyncio.create_task(editor.prompt(f"!retry 1 0.1\n{then}"))
                await until(lambda: editor.calls("retry-"))
                if then == "!hang":
                    await editor.cancel()
                await prompt
        assert [one["status"] for one in editor.calls("retry-")] == ["in_progress", "completed"]


# --- plans


async def test_todos_become_a_plan(tmp_path: Path) -> None:
    async with an_editor(tmp_path) as editor:
        await editor.prompt("!todo read;write")
        [plan] = [plan for one in editor.told if (plan := plan_of(one))]
        assert plan == {
            "sessionId": editor.session,
            "update": {
                "sessionUpdate": "plan",
                "entries": [
                    {"content": "read", "status": "in_progress", "priority": "high"},
                    {"content": "write", "status": "pending", "priority": "high"},
                ],
            },
        }


def test_a_plan_that_did_not_change_is_told_once() -> None:
    plans, todos = Plans(), [{"content": "read", "status": "cancelled", "priority": "?"}]
    params = {"sessionId": "S", "update": {"sessionUpdate": "tool_call_update", "rawInput": {"todos": todos}}}
    first = plans.of(params)
    assert first is not None
    assert first["update"]["entries"] == [{"content": "read (cancelled)", "status": "completed", "priority": "medium"}]
    assert plans.of(params) is None
    assert plans.of({**params, "sessionId": "T"}) is not None


def test_other_updates_have_no_plan() -> None:
    for update in ({"sessionUpdate": "agent_message_chunk"}, {"sessionUpdate": "tool_call", "rawInput": []}, None):
        assert plan_of({"sessionId": "S", "update": update}) is None
