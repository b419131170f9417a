"""The public SDK at the other end: as the editor of our bridge, and as the agent of our client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from acp import RequestError, connect_to_agent, run_agent, text_block, update_agent_message_text
from acp.schema import (
    AgentCapabilities,
    AgentMessageChunk,
    Implementation,
    InitializeResponse,
    ListSessionsResponse,
    LoadSessionResponse,
    NewSessionResponse,
    PermissionOption,
    PromptResponse,
    SessionCapabilities,
    SessionInfo,
    SessionListCapabilities,
    SessionResumeCapabilities,
    ToolCallUpdate,
)

from remote_dispatch.acp.attached import Manners
from remote_dispatch.acp.bridge import Bridge
from remote_dispatch.acp.client import Client
from remote_dispatch.acp.peer import wires
from remote_dispatch.acp.rewrite import Pair, PathMap
from remote_dispatch.acp.turn import take_turn
from remote_dispatch.demo.processes import processes_of
from remote_dispatch.demo.provider import ScriptedModel
from tests.acp.ends import Ear
from tests.acp.sdk import CAPABILITIES, SdkEditor, bridged, command_line, until
from tests.rig.scripted import Boxes
from tests.rig.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acp.sdk import Bridged

DEADLINE_S = 120
SUB_AGENT = "!task !bash uname -s\n!say the sub-agent is back"


# --- the SDK's client at our bridge


async def test_the_sdks_client_edits_through_the_bridge(tmp_path: Path) -> None:
    here, there = "/laptop/project", tmp_path
    boxes, editor = Boxes(), SdkEditor(content={"answer0": "green"})
    ours, theirs = wires()
    places = PathMap((Pair(here, str(there)),))
    bridging = asyncio.create_task(
        Bridge(theirs, "box", boxes.start, places=places, manners=Manners(look_every_s=0.01)).run()
    )
    connection = connect_to_agent(editor.as_client(), ours, use_unstable_protocol=True)
    hello = await connection.initialize(protocol_version=1, client_capabilities=CAPABILITIES)
    assert hello.agent_info is not None
    session = (await connection.new_session(cwd=here, mcp_servers=[])).session_id
    ended = await connection.prompt(
        session_id=session, prompt=[text_block("!think hm\n!todo a;b\n!edit new.txt abc\n!child\n!question red;green")]
    )
    assert ended.stop_reason == "end_turn"
    assert (there / "new.txt").read_text().strip() == "abc"
    assert [one.path for one in editor.asked[0].locations] == [f"{here}/new.txt"]
    assert [one.content for one in editor.of("plan")[0].entries] == ["a", "b"]
    assert editor.said() == 'the sub-agent was told onceyou said [["green"]]'
    assert [one.cwd for one in (await connection.list_sessions()).sessions] == [here]
    editor.updates.clear()
    await connection.load_session(cwd=here, session_id=session, mcp_servers=[])
    assert editor.said() == 'the sub-agent was told onceyou said [["green"]]'
    await connection.close()
    await ours.close()
    await asyncio.wait_for(bridging, DEADLINE_S)


# --- the SDK's agent at our client


class SdkAgent:
    """An agent by the SDK: it asks for permission, streams two pieces, and is cancelled."""

    def __init__(self) -> None:
        self.client: Any = None
        self.prompts: list[list[Any]] = []
        self.cancelled = asyncio.Event()

    def on_connect(self, conn: Any) -> None:
        self.client = conn

    async def initialize(self, protocol_version: int, **kwargs: Any) -> InitializeResponse:
        sessions = SessionCapabilities(list=SessionListCapabilities(), resume=SessionResumeCapabilities())
        return InitializeResponse(
            protocol_version=protocol_version,
            agent_capabilities=AgentCapabilities(load_session=True, session_capabilities=sessions),
            agent_info=Implementation(name="By the SDK", version="1"),
        )

    async def new_session(self, cwd: str, **kwargs: Any) -> NewSessionResponse:
        return NewSessionResponse(session_id="ses_1")

    async def list_sessions(self, cwd: str | None = None, **kwargs: Any) -> ListSessionsResponse:
        return ListSessionsResponse(sessions=[SessionInfo(session_id="ses_1", cwd="/there", title="One")])

    async def load_session(self, cwd: str, session_id: str, **kwargs: Any) -> LoadSessionResponse:
        await self.client.session_update(session_id, update_agent_message_text("as it was"))
        return LoadSessionResponse()

    async def prompt(self, session_id: str, prompt: list[Any], **kwargs: Any) -> PromptResponse:
        self.prompts.append(prompt)
        match prompt[0].text:
            case "wait":
                await self.cancelled.wait()
                return PromptResponse(stop_reason="cancelled")
            case "fail":
                raise RequestError(-32603, "the model is on holiday")
        answer = await self._permission(session_id)
        for piece in ("it was ", answer.outcome.option_id):
            await self.client.session_update(session_id, update_agent_message_text(piece))
        return PromptResponse(stop_reason="end_turn")

    async def cancel(self, session_id: str, **kwargs: Any) -> None:
        self.cancelled.set()

    async def _permission(self, session_id: str) -> Any:
        option = PermissionOption(option_id="yes", name="Yes", kind="allow_once")
        call = ToolCallUpdate(tool_call_id="call_1", title="rm", status="pending")
        return await self.client.request_permission(session_id=session_id, tool_call=call, options=[option])


async def test_our_client_speaks_with_the_sdks_agent() -> None:
    ours, theirs = wires()
    agent, ear, stop = SdkAgent(), Ear(), asyncio.Event()
    serving = asyncio.create_task(run_agent(cast("Any", agent), theirs))
    async with Client(ours, "box") as client:
        hello = await client.initialize()
        assert (hello.name, hello.can("list"), hello.can("close")) == ("By the SDK", True, False)
        session = await client.new("/there")
        ear.answers.put_nowait("yes")
        ended = await take_turn(client, session.id, "remove it", ear)
        assert (ended.failure, ended.answer) == (None, "it was yes")
        assert [one.title for one in ear.asked] == ["rm"]
        failed = await take_turn(client, session.id, "fail", ear)
        assert failed.detail == "the model is on holiday"
        [listed] = await client.sessions()
        assert (listed.id, listed.directory) == ("ses_1", "/there")
        history = Ear()
        await client.load(listed, history)
        assert [getattr(one, "text", None) for one in history.heard] == ["as it was"]
        waiting = asyncio.create_task(take_turn(client, session.id, "wait", ear, stop=stop))
        while len(agent.prompts) < 3:
            await asyncio.sleep(0.005)
        stop.set()
        assert (await waiting).stop_reason == "cancelled"
    await asyncio.wait_for(serving, DEADLINE_S)


# --- everything real


@pytest.mark.real
@pytest.mark.parametrize("options", [(), ("--durable",)], ids=["rewriting", "durable"])
async def test_an_editor_drives_the_real_opencode_of_a_host(
    options: tuple[str, ...], tmp_path: Path, real_opencode: Path
) -> None:
    """Everything that an editor does, and a cut of the link in the middle, with nothing but real programs."""
    with ScriptedModel() as model, World(tmp_path, real_opencode, model.url) as world:
        rules = {"OPENCODE_PERMISSION": '{"bash":"ask","edit":"ask"}'}
        world.write_hosts(pi={"env": rules, "model": "scripted/small"})
        async with bridged(world, *options, patience_s=DEADLINE_S) as bridge:
            hello = await bridge.hello(has_forms=True)
            assert hello.agent_info.version.startswith("1.18.")
            opened = await bridge.agent.new_session(cwd=str(world.laptop.project), mcp_servers=[])
            assert {one.id: one.current_value for one in opened.config_options}["model"] == "scripted/small"
            session = opened.session_id
            await _does_things(world, bridge, session)
            await _is_cancelled(bridge, session, "!bash true\n!say no")
            if not options:
                await _is_asked(bridge, session)
                await _is_cancelled(bridge, session, SUB_AGENT)
            await _is_cut(world, bridge, session, is_durable=bool(options))
            await _is_listed_and_loaded(world, bridge, session)
            assert await bridge.close() == 0
        await until(lambda: not [one for one in processes_of(world.host.home) if b"opencode" in command_line(one)])


async def _does_things(world: World, bridge: Bridged, session: str) -> None:
    """With permission, there and not here."""
    editor, here, there = bridge.editor, world.laptop.project, world.host.project
    assert await bridge.prompt(session, "!bash pwd", "!say ran") == "end_turn"
    assert [one.title for one in editor.asked] == ["pwd"]
    assert str(there) in str(editor.of("tool_call_update")[-1].raw_output)
    assert await bridge.prompt(session, "!write new.txt abc", "!say wrote") == "end_turn"
    assert (there / "new.txt").read_text() == "abc\n"
    assert not (here / "new.txt").exists()
    assert not editor.written
    assert [one.path for one in editor.asked[1].locations] == [str(here / "new.txt")]
    with pytest.raises(RequestError, match="there is no directory"):
        await bridge.new(here / "missing")


async def _is_asked(bridge: Bridged, session: str) -> None:
    """What OpenCode does not tell an editor by itself: sub-agents' permissions, questions, retries."""
    editor, asked = bridge.editor, len(bridge.editor.asked)
    editor.content = {"answer0": "yes"}
    assert await bridge.prompt(session, SUB_AGENT) == "end_turn"
    assert editor.asked[asked].title == "general (sub-agent): bash `uname -s`"
    assert "the sub-agent is back" in editor.said()
    assert await bridge.prompt(session, "!question Go on?", "!say asked") == "end_turn"
    assert editor.asked[asked + 1].session_id == session
    assert await bridge.prompt(session, "!fail 429 1", "!say after all") == "end_turn"
    assert any(one.startswith("waiting for the provider, attempt 1") for one in editor.titles())


async def _is_cancelled(bridge: Bridged, session: str, asking: str) -> None:
    """While it asks for permission."""
    editor = bridge.editor
    editor.may_answer.clear()
    editor.permission_asked.clear()
    running = asyncio.create_task(bridge.prompt(session, asking))
    await editor.permission_asked.wait()
    await bridge.agent.cancel(session_id=session)
    assert await running == "cancelled"
    editor.may_answer.set()
    assert await bridge.prompt(session, "!say at once") == "end_turn"


async def _is_cut(world: World, bridge: Bridged, session: str, *, is_durable: bool) -> None:
    """While a prompt runs: it fails with a clear error, or, in durable mode, ends as if nothing was."""
    seen, editor = len(bridge.editor.updates), bridge.editor
    said, asked = editor.said(), len(editor.asked)
    editor.may_answer.clear()
    running = asyncio.create_task(bridge.prompt(session, "!sleep 2", "!bash echo far", "!say slept"))
    await until(lambda: [one for one in editor.updates[seen:] if isinstance(one, AgentMessageChunk)])
    assert world.sshd.drop_connections()
    if is_durable:
        await until(lambda: len(editor.asked) > asked)
        assert world.sshd.drop_connections()
        await until(lambda: bridge.stderr.count(b"was lost; connecting again") == 2)
        editor.may_answer.set()
        assert await running == "end_turn"
        assert editor.said().endswith("slept")
    else:
        with pytest.raises(RequestError, match="the link to pi was lost"):
            await running
        editor.may_answer.set()
        await until(lambda: b"was lost; connecting again" in bridge.stderr)
    assert await bridge.prompt(session, "!say as if nothing had happened") == "end_turn"
    assert editor.said().startswith(said)


async def _is_listed_and_loaded(world: World, bridge: Bridged, session: str) -> None:
    here, editor = str(world.laptop.project), bridge.editor
    listed = (await bridge.agent.list_sessions(cwd=here)).sessions
    assert (session, here) in [(one.session_id, one.cwd) for one in listed]
    editor.updates.clear()
    await bridge.agent.load_session(cwd=here, session_id=session, mcp_servers=[])
    assert "as if nothing had happened" in editor.said()
    assert "!bash pwd" in "".join(one.content.text for one in editor.of("user_message_chunk"))
