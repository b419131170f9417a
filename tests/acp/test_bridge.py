"""The bridge with an editor in memory and scripted agents that come, die and are lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.acp.agent import AgentEndedError
from remote_dispatch.acp.peer import RpcError
from remote_dispatch.acp.rewrite import SLASH_PREFIX
from remote_dispatch.errors import HostUnreachableError, RemoteDispatchError
from tests.acp.room import HERE, LOST, Room, ask, deaf, hello, never, new, prompt, until

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.acp.lines import Message


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


# --- an ordinary conversation


async def test_an_editor_talks_to_the_agent_of_another_directory(room: Room) -> None:
    async with room.opened() as (peer, session):
        ended = await prompt(peer, session, "!say one", "!tool ls", "!say two")
        listed = await ask(peer, "session/list", cwd=HERE)
    assert ended["stopReason"] == "end_turn"
    assert room.editor.text() == "onetwo"
    assert room.heard("session/new") == [{"cwd": str(room.project), "mcpServers": []}]
    assert [one["cwd"] for one in listed["sessions"]] == [HERE]
    (call,) = [one["update"] for one in room.editor.updates if one["update"]["sessionUpdate"] == "tool_call"]
    assert call["locations"] == [{"path": HERE}]


async def test_everything_that_belongs_to_a_turn_comes_before_its_end(room: Room) -> None:
    seen: list[int] = []
    async with room.opened() as (peer, session):
        for count in (1, 2, 3):
            await prompt(peer, session, *[f"!say {number}" for number in range(50)])
            seen.append(room.editor.kinds().count("agent_message_chunk") - 50 * count)
    assert seen == [0, 0, 0]


async def test_an_approved_edit_is_written_there_and_not_here(room: Room) -> None:
    async with room.opened() as (peer, session):
        await prompt(peer, session, "!edit new.txt hello")
    assert (room.project / "new.txt").read_text() == "hello"
    ((method, asked),) = room.editor.asked
    assert method == "session/request_permission"
    assert asked["toolCall"]["content"][0]["path"] == f"{HERE}/new.txt"
    (reply,) = [one for one in room.boxes[0].agent.received if one.get("id") == 1 and "result" in one]
    assert reply["result"] == {}, "the agent's fs/write_text_file was not answered"


async def test_an_unmapped_directory_is_refused_before_the_agent_hears_of_it(room: Room) -> None:
    async with room.open() as peer:
        await hello(peer)
        with pytest.raises(RpcError, match="--map /laptop/other=") as caught:
            await new(peer, "/laptop/other")
    assert caught.value.code == -32602
    assert not room.heard("session/new")


async def test_what_the_editor_can_do_with_files_is_not_told(room: Room) -> None:
    async with room.open() as peer:
        answer = await hello(peer, fs={"readTextFile": True, "writeTextFile": True}, terminal=True)
    assert room.heard("initialize")[0]["clientCapabilities"] == {}
    assert answer["agentCapabilities"]["sessionCapabilities"]["delete"] == {}


async def test_a_local_mcp_server_stays_behind_and_the_user_is_told(room: Room) -> None:
    server = {"name": "files", "command": "npx", "args": [], "env": []}
    async with room.open() as peer:
        await hello(peer)
        await ask(peer, "session/new", cwd=HERE, mcpServers=[server])
    assert room.heard("session/new")[0]["mcpServers"] == []
    assert "`files`" in room.notes[0]


async def test_a_local_mcp_server_travels_when_it_is_asked_for(room: Room) -> None:
    server = {"name": "files", "command": "npx", "args": [], "env": []}
    async with room.open(keeps_mcp=True) as peer:
        await hello(peer)
        await ask(peer, "session/new", cwd=HERE, mcpServers=[server])
    assert room.heard("session/new")[0]["mcpServers"] == [server]


async def test_a_prompt_that_begins_with_a_slash_is_not_swallowed(room: Room) -> None:
    async with room.opened() as (peer, session):
        ended = await prompt(peer, session, "/etc/hosts is wrong", "!say seen")
        await ask(peer, "session/load", sessionId=session, cwd=HERE, mcpServers=[])
    assert "usage" in ended
    assert room.heard("session/prompt")[0]["prompt"][0]["text"] == SLASH_PREFIX
    (replayed,) = [
        one["update"] for one in room.editor.updates if one["update"]["sessionUpdate"] == "user_message_chunk"
    ]
    assert replayed["content"]["text"].startswith("/etc/hosts is wrong")


async def test_a_command_goes_through_as_it_is(room: Room) -> None:
    async with room.opened() as (peer, session):
        await prompt(peer, session, "/init", "!say done")
    assert room.heard("session/prompt")[0]["prompt"] == [{"type": "text", "text": "/init\n!say done"}]


async def test_lines_that_are_no_messages_do_no_harm(room: Room) -> None:
    async with room.opened() as (peer, session):
        await prompt(peer, session, "!raw [1]", "!raw oops", r'!raw {"jsonrpc":"2.0","id":77,"result":{}}', "!say on")
    assert room.editor.text() == "on"


async def test_a_deleted_session_is_gone(room: Room) -> None:
    async with room.opened() as (peer, session):
        assert await ask(peer, "session/delete", sessionId=session) == {}
    assert not room.heard("session/delete"), "the agent does not know this method"


async def test_a_request_that_is_never_answered_ends_with_an_error(room: Room) -> None:
    async with room.opened(answer_s=1) as (peer, _):
        room.boxes[0].agent.take_line = deaf  # type: ignore[method-assign]  # from now on
        with pytest.raises(RpcError, match="did not answer `session/list` within 1 s"):
            await ask(peer, "session/list")


# --- the entry of the host


async def test_a_new_session_has_the_agent_and_the_model_of_the_hosts_entry(room: Room) -> None:
    async with room.open(agent="plan", model="scripted/small") as peer:
        await hello(peer)
        opened = await ask(peer, "session/new", cwd=HERE, mcpServers=[])
        await until(lambda: room.editor.updates)
        room.boxes[0].cut(LOST)
        await prompt(peer, opened["sessionId"], "!say there")
    assert {one["id"]: one["currentValue"] for one in opened["configOptions"]} == {
        "model": "scripted/small",
        "mode": "plan",
    }
    # Told before the answer that names its session it would be lost on the editor.
    assert room.editor.kinds()[0] == "available_commands_update"
    assert "config_option_update" not in room.editor.kinds()
    for box in (0, 1):
        assert [one["value"] for one in room.heard("session/set_config_option", box)] == ["scripted/small", "plan"]


async def test_an_agent_that_is_not_there_costs_no_session(room: Room) -> None:
    async with room.opened(agent="dreamer") as (peer, session):
        await prompt(peer, session, "!say all the same")
    assert room.editor.text() == "all the same"
    assert "`dreamer` of the entry of pi could not be chosen" in room.notes[0]


async def test_a_session_that_is_there_keeps_its_agent(room: Room) -> None:
    async with room.opened(agent="plan") as (peer, session):
        before = len(room.heard("session/set_config_option"))
        await ask(peer, "session/load", sessionId=session, cwd=HERE, mcpServers=[])
        assert len(room.heard("session/set_config_option")) == before


# --- sessions of another process


async def test_a_prompt_to_a_session_of_an_earlier_process_opens_it_first(room: Room) -> None:
    async with room.opened() as (peer, session):
        await prompt(peer, session, "!say once")
    async with room.open() as peer:
        await hello(peer)
        await prompt(peer, session, "!say again")
    assert room.editor.text() == "onceagain"
    assert [one["cwd"] for one in room.heard("session/resume")] == [str(room.project)]


async def test_a_session_is_opened_in_its_own_directory_whatever_the_editor_says(room: Room) -> None:
    (room.project / "sub").mkdir()
    async with room.open() as peer:
        await hello(peer)
        session = await new(peer, f"{HERE}/sub")
        await ask(peer, "session/load", sessionId=session, cwd=HERE, mcpServers=[])
    assert room.heard("session/load")[0]["cwd"] == f"{room.project}/sub"


@pytest.mark.parametrize("method", ["session/delete", "session/load", "session/prompt"])
async def test_what_is_no_id_of_a_session_becomes_no_path_of_the_side_channel(room: Room, method: str) -> None:
    async with room.opened() as (peer, _):
        with pytest.raises(RpcError, match=r"there is no session \.\./permission on pi"):
            await ask(peer, method, sessionId="../permission", cwd=HERE)


# --- cancelling


async def test_a_cancel_ends_the_turn(room: Room) -> None:
    async with room.opened() as (peer, session):
        turn = asyncio.create_task(prompt(peer, session, "!say on", "!hang"))
        await until(room.editor.text)
        await peer.notify("session/cancel", {"sessionId": session})
        assert (await turn)["stopReason"] == "cancelled"


async def test_a_cancel_ends_prompts_that_still_wait_too(room: Room) -> None:
    async with room.opened() as (peer, session):
        turns = [asyncio.create_task(prompt(peer, session, "!say a", "!hang")) for _ in range(2)]
        await until(room.editor.text)
        await peer.notify("session/cancel", {"sessionId": session})
        assert [one["stopReason"] for one in await asyncio.gather(*turns)] == ["cancelled", "cancelled"]
    assert len(room.heard("session/prompt")) == 1


async def test_a_prompt_is_cancelled_by_the_number_of_its_request_too(room: Room) -> None:
    async with room.opened() as (peer, session):  # requests 0 and 1
        first = asyncio.create_task(prompt(peer, session, "!say a", "!hang"))
        await until(room.editor.text)
        second = asyncio.create_task(prompt(peer, session, "!say b"))
        await asyncio.sleep(0)
        await peer.notify("$/cancel_request", {"requestId": 3})
        assert (await second)["stopReason"] == "cancelled"
        assert not room.heard("session/cancel")
        await peer.notify("$/cancel_request", {"requestId": 2})
        assert (await first)["stopReason"] == "cancelled"
        await prompt(peer, session, "!say c")
    assert room.editor.text() == "ac"
    assert room.heard("session/cancel") == [{"sessionId": session}]


async def test_any_other_request_that_is_cancelled_is_answered_as_that(room: Room) -> None:
    async with room.opened() as (peer, _):
        box = room.boxes[0]
        hears, box.agent.take_line = box.agent.take_line, deaf  # type: ignore[method-assign]  # for a while
        listing = asyncio.create_task(ask(peer, "session/list"))
        await asyncio.sleep(0)
        await peer.notify("$/cancel_request", {"requestId": 2})
        with pytest.raises(RpcError) as caught:
            await listing
        box.agent.take_line = hears  # type: ignore[method-assign]
        await new(peer)
    assert caught.value.code == -32800


# --- what only the side channel knows


async def test_what_nobody_waits_for_any_more_does_not_stay_open_in_the_editor(room: Room) -> None:
    room.editor.answer = lambda _, __: never()
    async with room.opened() as (peer, session):
        turn = asyncio.create_task(prompt(peer, session, "!child pwd"))
        await until(lambda: room.editor.asked)
        await peer.notify("session/cancel", {"sessionId": session})
        await turn
        assert room.editor.withdrawn == [1]


async def test_an_editor_with_forms_gets_questions_as_forms(room: Room) -> None:
    room.editor.answer = lambda method, _: {"action": "decline"}
    async with room.open() as peer:
        await hello(peer, elicitation={"form": {}})
        session = await new(peer)
        turn = asyncio.create_task(prompt(peer, session, "!question red;green"))
        await until(lambda: room.editor.asked)
        await peer.notify("session/cancel", {"sessionId": session})
        await turn
    assert room.editor.asked[0][0] == "elicitation/create"


# --- lost links and dead processes


async def test_an_idle_loss_goes_unnoticed(room: Room) -> None:
    async with room.opened() as (peer, session):
        await ask(peer, "session/set_config_option", sessionId=session, configId="model", value="scripted/small")
        before = len(room.editor.updates)
        room.boxes[0].cut(LOST)
        await prompt(peer, session, "!say still here")
    assert room.editor.text() == "still here"
    assert [one["cwd"] for one in room.heard("session/resume")] == [str(room.project)]
    assert room.heard("session/set_config_option") == [
        {"sessionId": session, "configId": "model", "value": "scripted/small"}
    ]
    assert "config_option_update" not in room.editor.kinds()[before:]
    assert room.heard("initialize", 1) == room.heard("initialize", 0)


async def test_a_loss_in_a_prompt_fails_that_prompt_alone(room: Room) -> None:
    async with room.opened() as (peer, session):
        turn = asyncio.create_task(prompt(peer, session, "!say on", "!hang"))
        await until(room.editor.text)
        room.boxes[0].cut(LOST)
        with pytest.raises(
            RpcError, match="the link to pi was lost; what ran there was ended; send it again"
        ) as caught:
            await turn
        await prompt(peer, session, "!say again")
    assert caught.value.code == -32603
    assert room.editor.text() == "onagain"
    assert len(room.heard("session/prompt")) == 1, "the lost prompt was sent again"


async def test_a_request_that_changes_nothing_is_asked_again(room: Room) -> None:
    async with room.opened() as (peer, _):
        room.boxes[0].cut(LOST)
        listed = await ask(peer, "session/list")
    assert len(listed["sessions"]) == 1


async def test_the_answer_to_a_question_of_the_lost_process_reaches_no_other(room: Room) -> None:
    is_answered = asyncio.Event()

    async def hesitate() -> Message:
        await is_answered.wait()
        return {"outcome": {"outcome": "selected", "optionId": "always"}}

    room.editor.answer = lambda _, __: hesitate()
    async with room.opened() as (peer, session):
        turn = asyncio.create_task(prompt(peer, session, "!permission rm"))
        await until(lambda: room.editor.asked)
        room.boxes[0].cut(LOST)
        with pytest.raises(RpcError, match="send it again"):
            await turn
        again = asyncio.create_task(prompt(peer, session, "!permission ls"))
        await until(lambda: len(room.editor.asked) == 2)
        room.editor.answer = lambda _, __: None
        is_answered.set()
        assert (await again)["stopReason"] == "end_turn"
    answers = [one for one in room.boxes[1].agent.received if "method" not in one]
    assert len(answers) == 1
    assert room.editor.withdrawn == [1]


async def test_an_answer_that_comes_while_the_link_is_down_is_dropped(room: Room) -> None:
    room.obstacles = []
    async with room.opened() as (peer, session):
        turn = asyncio.create_task(prompt(peer, session, "!say on", "!hang"))
        await until(room.editor.text)
        room.obstacles.append(HostUnreachableError("pi", "no route"))
        room.boxes[0].cut(LOST)
        with pytest.raises(RpcError):
            await turn
        await until(lambda: any("tried again with the next message" in one for one in room.notes))
        await peer.notify("session/cancel", {"sessionId": session})
        await prompt(peer, session, "!say back")
    assert room.editor.text() == "onback"
    assert room.patience[0] == 0
    assert room.patience[1] > 0


async def test_a_killed_process_is_started_again_and_the_user_told_to_send_again(room: Room) -> None:
    async with room.opened() as (peer, session):
        with pytest.raises(RpcError, match="was killed: its last words; what it was at is lost; send it again"):
            await prompt(peer, session, "!say on", "!kill")
        await prompt(peer, session, "!say again")
    assert room.editor.text() == "onagain"
    assert len(room.heard("session/resume")) == 1


async def test_a_process_that_dies_again_and_again_is_given_up(room: Room) -> None:
    async with room.opened(end=AgentEndedError) as (peer, session):
        for _ in range(4):
            with pytest.raises(RpcError):
                await prompt(peer, session, "!exit 3")
        with pytest.raises(RemoteDispatchError):
            await prompt(peer, session, "!say never")
    assert len(room.boxes) == 4


async def test_a_host_that_cannot_be_reached_is_an_answer_and_an_error(room: Room) -> None:
    room.obstacles = [HostUnreachableError("pi", "no route", hint="is it on?")]
    async with room.open(end=HostUnreachableError) as peer:
        with pytest.raises(RpcError, match="pi: no route; is it on\\?"):
            await hello(peer)


async def test_an_agent_that_ends_before_it_said_anything_is_the_end(room: Room) -> None:
    async with room.open(end=AgentEndedError) as peer:
        await until(lambda: room.boxes)
        room.boxes[0].end(1)
        with pytest.raises(RpcError, match="ended with exit status 1"):
            await hello(peer)
