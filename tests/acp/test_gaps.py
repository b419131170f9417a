"""Where ACP or OpenCode has a gap: unknown sessions and methods, prompts that vanish, what sub-agents ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.acp.happening import Text, ToolChanged
from remote_dispatch.acp.peer import INVALID_PARAMS, METHOD_NOT_FOUND, RpcError
from remote_dispatch.errors import HostNotReadyError, UnknownNameError
from remote_dispatch.failure import Failure
from tests.acp.ends import FORMS, Ear, a_bridge, bridged, conversing, under_way, until
from tests.rig.scripted import Boxes

if TYPE_CHECKING:
    from pathlib import Path


Raw = dict[str, Any]

UNKNOWN = f"ses_{'9' * 12}{'S' * 14}"


# --- sessions and methods


@pytest.mark.parametrize("method", ["session/load", "session/resume", "session/fork"])
async def test_an_unknown_session_is_named_instead_of_a_service_failure(
    method: str, boxes: Boxes, tmp_path: Path
) -> None:
    async with bridged(boxes, tmp_path) as editor:
        with pytest.raises(RpcError, match=f"no session {UNKNOWN} on box"):
            await editor.call(method, sessionId=UNKNOWN, cwd=str(tmp_path), mcpServers=[])


async def test_the_client_looks_for_a_session_before_it_asks_for_it(boxes: Boxes, tmp_path: Path) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        with pytest.raises(UnknownNameError, match="no session"):
            await conversation.resume(UNKNOWN)
        assert "session/resume" not in [one.get("method") for one in boxes.box.agent.received]


async def test_a_session_that_this_process_has_not_opened_is_opened_and_asked_once_more(
    boxes: Boxes, tmp_path: Path
) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await editor.call("session/close", sessionId=editor.session)
        assert (await editor.prompt("!say here"))["stopReason"] == "end_turn"
        assert editor.said() == "here"


async def test_the_client_opens_a_session_that_its_process_let_go_of(boxes: Boxes, tmp_path: Path) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        assert conversation.session is not None
        boxes.box.agent.detach(conversation.session.id)
        assert (await conversation.prompt("!say here", Ear())).answer == "here"


async def test_a_method_that_opencode_does_not_have_is_an_error_and_no_end(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        with pytest.raises(RpcError) as caught:
            await editor.call("logout")
        assert caught.value.code == METHOD_NOT_FOUND
        await editor.prompt("!say still here")
        assert editor.said() == "still here"


async def test_the_client_knows_what_the_agent_cannot_do(boxes: Boxes, tmp_path: Path) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        assert conversation.introduction is not None
        assert conversation.introduction.can("list")
        assert not conversation.introduction.can("delete")


@pytest.mark.parametrize("method", ["terminal/create", "fs/read_text_file"])
async def test_files_and_terminals_of_the_editors_machine_are_not_the_agents(
    method: str, boxes: Boxes, tmp_path: Path
) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await editor.prompt(f"!request {method}")
        assert editor.said() == f"the client said {METHOD_NOT_FOUND}"
        assert editor.asked == []


async def test_another_version_of_the_protocol_ends_the_bridge(tmp_path: Path) -> None:
    async with a_bridge(Boxes(protocol=7), tmp_path) as editor:
        with pytest.raises(RpcError, match="version 7"):
            await editor.call("initialize", protocolVersion=1, clientCapabilities={})
        assert editor.bridging is not None
        with pytest.raises(HostNotReadyError, match="version 7"):
            await editor.bridging


async def test_another_version_of_the_protocol_is_refused_by_the_client(tmp_path: Path) -> None:
    with pytest.raises(HostNotReadyError, match="version 7"):
        async with conversing(Boxes(protocol=7), tmp_path):
            pass


async def test_a_directory_that_is_missing_there_is_refused_at_once(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        with pytest.raises(RpcError, match="no directory") as caught:
            await editor.open(tmp_path / "missing")
        assert caught.value.code == INVALID_PARAMS


# --- prompts that vanish


async def test_a_slash_that_is_no_command_is_not_swallowed_at_the_bridge(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        assert "usage" in await editor.prompt("/etc/hosts is wrong\n!say seen")
        assert editor.said() == "seen"


async def test_a_slash_that_is_no_command_is_not_swallowed_by_the_client(boxes: Boxes, tmp_path: Path) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        assert (await conversation.prompt("/etc/hosts is wrong\n!say seen", Ear())).answer == "seen"


async def test_two_prompts_at_once_run_one_after_the_other(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await asyncio.gather(editor.prompt("!say a\n!sleep 0.05\n!say b"), editor.prompt("!say c"))
        assert editor.said() == "abc"


# --- what ACP does not deliver


async def test_a_sub_agents_permission_reaches_the_editor_through_the_bridge(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        editor.choose("always")
        await editor.prompt("!child uname -a")
        assert editor.said() == "the sub-agent was told always"
        assert editor.asked[0][1]["sessionId"] == editor.session


async def test_a_sub_agents_permission_reaches_the_client(boxes: Boxes, tmp_path: Path) -> None:
    ear = Ear()
    ear.answers.put_nowait("once")
    async with conversing(boxes, tmp_path) as conversation:
        ended = await conversation.prompt("!child uname -a", ear)
    assert ended.answer == "the sub-agent was told once"
    assert (ear.asked[0].sub_agent, ear.asked[0].is_question) == ("explore", False)


async def test_a_question_reaches_the_client(boxes: Boxes, tmp_path: Path) -> None:
    ear = Ear()
    ear.answers.put_nowait("0")
    async with conversing(boxes, tmp_path) as conversation:
        ended = await conversation.prompt("!question red;green", ear)
    assert ended.answer == 'you said [["red"]]'
    assert ear.asked[0].is_question


@pytest.mark.parametrize("capabilities", [{}, FORMS], ids=["as a permission", "as a form"])
async def test_a_question_reaches_the_editor_through_the_bridge(
    capabilities: Raw, boxes: Boxes, tmp_path: Path
) -> None:
    async with bridged(boxes, tmp_path, capabilities=capabilities) as editor:
        if capabilities:
            editor.answers.put_nowait({"action": "accept", "content": {"answer0": "green"}})
        else:
            editor.choose("1")
        await editor.prompt("!question red;green")
        assert editor.said() == 'you said [["green"]]'


async def test_todos_reach_the_editor_as_a_plan(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await editor.prompt("!todo read;write")
        plans = [one["update"] for one in editor.told if one["update"]["sessionUpdate"] == "plan"]
        assert [one["content"] for one in plans[0]["entries"]] == ["read", "write"]
        assert len(plans) == 1


async def test_after_a_cancel_with_a_sub_agent_waiting_the_next_prompt_is_not_cancelled_too(
    boxes: Boxes, tmp_path: Path
) -> None:
    async with bridged(boxes, tmp_path) as editor:
        async with under_way(editor, "!child") as prompt:
            await until(lambda: editor.asked)
            await editor.cancel()
            assert (await prompt)["stopReason"] == "cancelled"
        assert (await editor.prompt("!say next"))["stopReason"] == "end_turn"


async def test_after_a_cancel_with_a_sub_agent_waiting_the_clients_next_prompt_runs(
    boxes: Boxes, tmp_path: Path
) -> None:
    ear, stop = Ear(), asyncio.Event()
    async with conversing(boxes, tmp_path) as conversation:
        prompt = asyncio.create_task(conversation.prompt("!child", ear, stop=stop))
        await until(lambda: ear.asked)
        stop.set()
        assert (await prompt).failure is Failure.ABORTED
        assert (await conversation.prompt("!say next", Ear())).answer == "next"


async def test_updates_that_come_late_do_not_belong_to_the_next_turn(boxes: Boxes, tmp_path: Path) -> None:
    first, second, stop = Ear(), Ear(), asyncio.Event()
    async with conversing(boxes, tmp_path) as conversation:
        prompt = asyncio.create_task(conversation.prompt("!permission uname", first, stop=stop))
        await until(lambda: first.asked)
        stop.set()
        await prompt
        call = next(one.call_id for one in first.heard if isinstance(one, ToolChanged))
        late = f'{{"sessionUpdate": "tool_call_update", "toolCallId": "{call}", "status": "failed"}}'
        ended = await conversation.prompt(f"!update {late}\n!say new", second)
    assert ended.failure is None
    assert [one.text for one in second.heard if isinstance(one, Text)] == ["new"]
    assert not [one for one in second.heard if isinstance(one, ToolChanged)]
