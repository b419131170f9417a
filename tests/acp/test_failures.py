"""What goes wrong between OpenCode and us: every failure that was measured, at the bridge and at the client."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.acp.bridge import Bridge
from remote_dispatch.acp.client import Client, Timeouts
from remote_dispatch.acp.happening import Retried
from remote_dispatch.acp.peer import METHOD_NOT_FOUND, RpcError, wires
from remote_dispatch.acp.rewrite import PathMap
from remote_dispatch.acp.turn import Manners
from remote_dispatch.errors import ConnectionLostError, DeadlinePassedError, HostNotReadyError
from remote_dispatch.failure import Failure
from tests.acp.ends import Ear, bridged, conversing, prompts, under_way, until
from tests.rig.scripted import Boxes, scripted

if TYPE_CHECKING:
    from pathlib import Path


Raw = dict[str, Any]

JUNK = ("{cut", "[]", '[{"jsonrpc":"2.0"}]', "null", "5", r"\xff\xfe")


# --- lines


async def test_a_line_that_opencode_cannot_read_has_no_answer_and_does_no_harm(tmp_path: Path) -> None:
    async with scripted() as box:
        for junk in JUNK:
            box.agent.take_line(junk.encode())
        await box.wire.send(
            {"jsonrpc": "2.0", "id": 1, "method": "session/new", "params": {"cwd": "/", "mcpServers": []}}
        )
        answer = await box.wire.receive()
        assert answer is not None
        assert answer["id"] == 1


async def test_a_request_that_is_never_answered_has_a_deadline() -> None:
    silent, _ = wires()
    async with Client(silent, "box", timeouts=Timeouts(initialize_s=0.01)) as client:
        with pytest.raises(DeadlinePassedError):
            await client.initialize()


@pytest.mark.parametrize("text", ["\ud800 alone", "line\u2028separator", "\x00\x1f", "\r\n", "ü" * 3])
async def test_any_text_arrives_as_it_was_written(text: str, boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await editor.prompt(text)
        assert boxes.box.agent.received[-1]["params"]["prompt"] == [{"type": "text", "text": text}]


@pytest.mark.parametrize("ident", ["a-string", 7, None])
async def test_an_answer_has_the_id_that_the_editor_gave(ident: object, boxes: Boxes, tmp_path: Path) -> None:
    ours, theirs = wires()
    bridging = asyncio.create_task(Bridge(theirs, "box", boxes.start, places=PathMap(())).run())
    await ours.send({"jsonrpc": "2.0", "id": ident, "method": "initialize", "params": {"protocolVersion": 1}})
    answer = await asyncio.wait_for(ours.receive(), 10)
    await ours.close()
    await bridging
    assert answer is not None
    assert answer["id"] == ident
    assert answer["result"]["protocolVersion"] == 1


async def test_the_bridge_skips_and_counts_what_is_no_message(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await editor.prompt("\n".join([*(f"!raw {junk}" for junk in JUNK), "!raw", "!say fine"]))
        assert editor.said() == "fine"
        assert boxes.box.skipped == len(JUNK)


async def test_the_client_skips_and_counts_what_is_no_message(boxes: Boxes, tmp_path: Path) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        ended = await conversation.prompt("\n".join([*(f"!raw {junk}" for junk in JUNK), "!say fine"]), Ear())
        assert (ended.failure, ended.answer) == (None, "fine")
        assert boxes.box.skipped == len(JUNK)


async def test_a_line_of_megabytes_arrives_whole(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await editor.prompt("!long 5000000")
        assert len(editor.said()) == 5_000_000


async def test_unknown_updates_and_unknown_fields_reach_the_editor(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await editor.prompt('!update {"sessionUpdate": "surprise", "more": {"path": 1}}')
        assert {"sessionUpdate": "surprise", "more": {"path": 1}} in [one["update"] for one in editor.told]


async def test_an_unknown_reason_for_the_end_is_told_and_is_no_failure(boxes: Boxes, tmp_path: Path) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        ended = await conversation.prompt("!say x\n!stop surprise", Ear())
        assert (ended.failure, ended.stop_reason) == (None, "surprise")
        assert "surprise" in ended.warnings[0]


async def test_what_comes_after_the_end_of_a_turn_still_reaches_the_editor(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await editor.prompt("!say one\n!late  two")
        await until(lambda: "two" in editor.said())


# --- the process


async def test_after_a_kill_the_bridge_starts_another_and_never_sends_the_prompt_again(
    boxes: Boxes, tmp_path: Path
) -> None:
    async with bridged(boxes, tmp_path) as editor:
        with pytest.raises(RpcError, match="send it again"):
            await editor.prompt("!say half\n!kill")
        await editor.prompt("!say whole")
        assert editor.said() == "halfwhole"
        assert len(boxes.started) == 2
        assert prompts(boxes) == 2
        assert "session/resume" in [one.get("method") for one in boxes.box.agent.received]


async def test_after_a_kill_the_client_starts_another_and_never_sends_the_prompt_again(
    boxes: Boxes, tmp_path: Path
) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        ended = await conversation.prompt("!say half\n!kill", Ear())
        assert ended.failure is Failure.INTERRUPTED
        assert (await conversation.prompt("!say whole", Ear())).answer == "whole"
        assert prompts(boxes) == 2


async def test_a_process_that_dies_again_and_again_ends_the_bridge(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        assert editor.bridging is not None
        for _ in range(8):
            with contextlib.suppress(Exception):
                await editor.prompt("!exit 3")
            if editor.bridging.done():
                break
        with pytest.raises(Exception, match="exit status 3"):
            await editor.bridging


async def test_a_process_that_dies_again_and_again_ends_the_conversation(boxes: Boxes, tmp_path: Path) -> None:
    async def die() -> None:
        for _ in range(8):
            await conversation.prompt("!exit 3", Ear())

    async with conversing(boxes, tmp_path) as conversation:
        with pytest.raises(HostNotReadyError, match="times in a row"):
            await die()


async def test_an_editor_that_closes_in_the_middle_of_a_prompt_ends_the_agent_well(
    boxes: Boxes, tmp_path: Path
) -> None:
    async with bridged(boxes, tmp_path) as editor:
        async with under_way(editor, "!say half\n!hang"):
            await until(editor.said)
        box = boxes.box
    assert box.exit_status == 0


async def test_noise_on_stderr_is_no_message(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await editor.prompt("!stderr 3000000\n!say fine")
        assert editor.said() == "fine"


async def test_a_lost_link_fails_the_prompt_that_ran_and_nothing_else(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        async with under_way(editor, "!say half\n!hang") as prompt:
            await until(editor.said)
            boxes.box.cut(ConnectionLostError("box", "the link broke"))
            with pytest.raises(RpcError, match="the link to box was lost"):
                await prompt
        await editor.prompt("!say whole")
        assert editor.said() == "halfwhole"
        assert prompts(boxes) == 2


async def test_an_idle_drop_is_not_noticed_by_the_editor(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        boxes.box.cut(ConnectionLostError("box", "the link broke"))
        assert (await editor.prompt("!say there"))["stopReason"] == "end_turn"
        assert (editor.said(), len(boxes.started)) == ("there", 2)


# --- the provider


async def test_a_provider_that_is_asked_again_is_shown_in_the_editor(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        await editor.prompt("!retry 1 0.2\n!say done")
        assert editor.calls("retry-")[0]["title"] == "waiting for the provider, attempt 1: Too many requests"
        assert editor.calls("retry-")[-1]["status"] == "completed"


async def test_a_provider_that_is_asked_again_is_told_by_the_client(boxes: Boxes, tmp_path: Path) -> None:
    ear = Ear()
    async with conversing(boxes, tmp_path) as conversation:
        await conversation.prompt("!retry 1 1.5\n!say done", ear)
    assert "Too many requests" in [one.message for one in ear.heard if isinstance(one, Retried)]


async def test_a_provider_that_is_waited_for_without_end_meets_our_own_limit(boxes: Boxes, tmp_path: Path) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        ended = await conversation.prompt("!retry 1 3600", Ear(), manners=Manners(inactivity_s=0.1))
        assert (ended.failure, ended.is_settled) == (Failure.TIMEOUT, True)


async def test_a_cancel_during_a_retry_is_cancelled_at_the_bridge(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor, under_way(editor, "!retry 1 3600") as prompt:
        await until(lambda: editor.calls("retry-"))
        await editor.cancel()
        assert (await prompt)["stopReason"] == "cancelled"


async def test_a_cancel_during_a_retry_is_no_success_of_the_client(boxes: Boxes, tmp_path: Path) -> None:
    stop = asyncio.Event()
    async with conversing(boxes, tmp_path) as conversation:
        prompt = asyncio.create_task(conversation.prompt("!retry 1 3600", Ear(), stop=stop))
        await until(lambda: [one for one in boxes.box.agent.statuses.values() if one["type"] == "retry"])
        stop.set()
        assert (await prompt).failure is Failure.ABORTED


@pytest.mark.parametrize(
    ("code", "failure"),
    [(-32603, Failure.PROVIDER_UNAVAILABLE), (-32000, Failure.AUTH_FAILED)],
    ids=["provider", "login"],
)
async def test_an_error_of_the_provider_keeps_the_session(
    code: int, failure: Failure, boxes: Boxes, tmp_path: Path
) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        ended = await conversation.prompt(f"!error {code} the model is on holiday", Ear())
        assert ended.failure is failure
        assert "the model is on holiday" in ended.detail
        assert (await conversation.prompt("!say back", Ear())).answer == "back"
        assert len(boxes.started) == 1


@pytest.mark.parametrize("code", [-32603, -32000])
async def test_an_error_of_the_provider_reaches_the_editor_as_it_is(code: int, boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        with pytest.raises(RpcError, match="on holiday") as caught:
            await editor.prompt(f"!error {code} the model is on holiday")
        assert (caught.value.code, caught.value.data) == (code, {"service": "session", "errorName": "APIError"})
        await editor.prompt("!say back")
        assert editor.said() == "back"


async def test_a_content_filter_is_a_failure(boxes: Boxes, tmp_path: Path) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        assert (await conversation.prompt("!say x\n!stop refusal", Ear())).failure is Failure.CONTENT_FILTER


# --- silence


async def test_silence_is_cancelled_and_any_update_breaks_it(boxes: Boxes, tmp_path: Path) -> None:
    steps = "\n".join(["!sleep 0.2", "!say on"] * 4)
    async with conversing(boxes, tmp_path) as conversation:
        lively = await conversation.prompt(steps, Ear(), manners=Manners(inactivity_s=0.6))
        silent = await conversation.prompt("!hang", Ear(), manners=Manners(inactivity_s=0.1))
    assert (lively.failure, silent.failure) == (None, Failure.TIMEOUT)


async def test_an_agent_that_hears_no_cancel_is_not_waited_for(boxes: Boxes, tmp_path: Path) -> None:
    async with conversing(boxes, tmp_path) as conversation:
        manners = Manners(inactivity_s=0.05, cancel_s=0.05)
        ended = await conversation.prompt("!deaf", Ear(), manners=manners)
        assert (ended.failure, ended.is_settled) == (Failure.TIMEOUT, False)


# --- permissions


async def test_an_open_permission_is_no_silence(boxes: Boxes, tmp_path: Path) -> None:
    ear = Ear()
    async with conversing(boxes, tmp_path) as conversation:
        manners = Manners(inactivity_s=0.1)
        prompt = asyncio.create_task(conversation.prompt("!permission uname\n!say done", ear, manners=manners))
        await until(lambda: ear.asked)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(prompt), 0.3)
        ear.answers.put_nowait("once")
        assert (await prompt).answer == "done"


async def test_a_cancel_answers_an_open_permission_as_cancelled(boxes: Boxes, tmp_path: Path) -> None:
    ear, stop = Ear(), asyncio.Event()
    async with conversing(boxes, tmp_path) as conversation:
        prompt = asyncio.create_task(conversation.prompt("!permission uname", ear, stop=stop))
        await until(lambda: ear.asked)
        stop.set()
        assert (await prompt).failure is Failure.ABORTED
        cancelled = {"outcome": {"outcome": "cancelled"}}
        await until(lambda: cancelled in [one.get("result") for one in boxes.box.agent.received])


async def test_an_answer_that_comes_after_the_cancel_is_harmless(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        async with under_way(editor, "!permission uname") as prompt:
            await until(lambda: editor.asked)
            await editor.cancel()
            assert (await prompt)["stopReason"] == "cancelled"
        editor.choose("once")
        assert (await editor.prompt("!say next"))["stopReason"] == "end_turn"
        assert editor.said() == "next"


@pytest.mark.parametrize(
    "answer",
    [
        RpcError(METHOD_NOT_FOUND, "no"),
        {"outcome": {"outcome": "cancelled"}},
        {"outcome": {"outcome": "selected", "optionId": "surely"}},
        {},
        None,
    ],
    ids=["error", "cancelled", "unknown option", "malformed", "nothing"],
)
async def test_no_answer_of_an_editor_hangs_a_turn(answer: object, boxes: Boxes, tmp_path: Path) -> None:
    """OpenCode would wait for ever after a result without an outcome."""
    async with bridged(boxes, tmp_path) as editor:
        editor.answers.put_nowait(answer)
        assert (await editor.prompt("!permission uname\n!say not reached"))["stopReason"] == "end_turn"
        assert editor.said() == ""


async def test_a_rejection_is_no_success_although_opencode_calls_it_end_turn(boxes: Boxes, tmp_path: Path) -> None:
    ear = Ear()
    ear.answers.put_nowait("reject")
    async with conversing(boxes, tmp_path) as conversation:
        ended = await conversation.prompt("!permission uname", ear)
    assert (ended.failure, ended.refused) == (Failure.REJECTED, ("uname",))


async def test_a_file_that_opencode_wrote_is_not_written_by_the_editor_too(boxes: Boxes, tmp_path: Path) -> None:
    async with bridged(boxes, tmp_path) as editor:
        editor.choose("once")
        await editor.prompt("!edit new.txt abc")
        assert [method for method, _ in editor.asked] == ["session/request_permission"]
        assert {"jsonrpc": "2.0", "id": 1, "result": {}} in boxes.box.agent.received
