"""`acp bridge` as an editor starts it, over a real sshd, with the scripted agent as OpenCode."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest
from acp.exceptions import RequestError

from remote_dispatch.demo.processes import processes_of
from tests.acp.sdk import bridged, command_line, until
from tests.rig.scripted import install
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.whole]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A host whose login shell says more than it should."""
    with World(tmp_path_factory.mktemp("world")) as world:
        install(world.host.bin)
        for name in (".bashrc", ".profile", ".zshenv"):
            (world.host.home / name).write_text('echo "{\\"jsonrpc\\":\\"2.0\\"}"; echo noise >&2\n')
        yield world


@pytest.fixture(autouse=True)
def usual_hosts(world: World) -> None:
    world.write_hosts(pi={})


async def test_a_lost_link_costs_the_editor_the_prompt_that_ran_and_nothing_else(world: World) -> None:
    async with bridged(world) as bridge:
        await bridge.hello()
        session = await bridge.new(world.laptop.project)
        assert await bridge.prompt(session, "!stderr 300000", "!long 3000000", "!say .") == "end_turn"
        assert len(bridge.editor.said()) == 3_000_001

        turn = asyncio.create_task(bridge.prompt(session, "!say begun", "!hang"))
        await until(lambda: "begun" in bridge.editor.said())
        world.sshd.drop_connections()
        with pytest.raises(RequestError, match="the link to pi was lost; what ran there was ended; send it again"):
            await turn

        assert await bridge.prompt(session, "!say again") == "end_turn"
        assert bridge.editor.said().endswith("again")
        assert await bridge.close() == 0
    assert b"noise noise" in bridge.stderr
    assert b"Traceback" not in bridge.stderr
    for secret in world.secrets:
        assert secret.encode() not in bridge.stderr


async def test_a_durable_turn_goes_on_while_the_link_is_down(world: World) -> None:
    async with bridged(world, "--durable") as bridge:
        editor = bridge.editor
        await bridge.hello()
        session = await bridge.new(world.laptop.project)
        editor.choice = None
        editor.may_answer.clear()
        turn = asyncio.create_task(bridge.prompt(session, "!permission rm", "!say never"))
        await until(lambda: editor.asked)
        world.sshd.drop_connections()
        await until(lambda: b"connecting again" in bridge.stderr)
        editor.may_answer.set()
        assert await turn == "end_turn"

        turn = asyncio.create_task(bridge.prompt(session, "!say one", "!sleep 0.5", "!say two"))
        await until(lambda: "one" in editor.said())
        world.sshd.drop_connections()
        assert await turn == "end_turn"
        assert editor.said() == "onetwo"

        with pytest.raises(RequestError, match="was killed; what it was at is lost; send it again"):
            await bridge.prompt(session, "!kill")
        assert await bridge.prompt(session, "!say three") == "end_turn"
        assert await bridge.close() == 0
    await until(lambda: not _agents(world))


async def test_a_host_that_is_down_is_told_in_the_editor_and_by_the_exit_code(world: World) -> None:
    world.write_hosts(pi={"host": "127.0.0.1", "port": 1})
    async with bridged(world) as bridge:
        with pytest.raises(RequestError, match="pi: "):
            await bridge.hello()
        assert await bridge.process.wait() == 5
    assert bridge.stderr.startswith(b"error: pi: ")


async def test_a_directory_that_is_missing_there_is_named(world: World) -> None:
    async with bridged(world, "--directory", "/missing") as bridge:
        with pytest.raises(RequestError, match="there is no directory `/missing` there"):
            await bridge.hello()
        assert await bridge.process.wait() == 9


def test_an_unknown_host_and_a_wrong_map_are_told_at_once(world: World) -> None:
    assert world.cli("acp", "bridge", "nobody").exit_code == 10
    ran = world.cli("acp", "bridge", "pi", "--map", "here=there")
    assert ran.exit_code == 2
    assert "--map LOCAL=REMOTE" in ran.stderr
    assert ran.stdout == ""


async def test_an_editor_that_goes_away_leaves_nothing_behind(world: World) -> None:
    async with bridged(world) as bridge:
        await bridge.hello()
        session = await bridge.new(world.laptop.project)
        turn = asyncio.create_task(bridge.prompt(session, "!say begun", "!hang"))
        await until(lambda: "begun" in bridge.editor.said())
        assert await bridge.close() == 0
        with pytest.raises((RequestError, ConnectionError)):
            await turn
    await until(lambda: not _agents(world))


async def test_an_editor_that_ends_the_bridge_by_a_signal_leaves_no_durable_agent(world: World) -> None:
    async with bridged(world, "--durable") as bridge:
        await bridge.hello()
        assert _agents(world)
        bridge.process.terminate()
        assert await bridge.process.wait() == 0
    assert not _agents(world)


async def test_an_editor_that_reads_no_more_is_the_end(world: World) -> None:
    source, target = os.pipe()
    process = await asyncio.create_subprocess_exec(
        "/bin/sh",
        *("-c", 'read -r line; printf "%s\\n" "$line" >&2; exit 0'),
        stdin=source,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(source)
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": 1}}
    async with bridged(world, stdout=target) as bridge:
        os.close(target)
        bridge.send(hello)
        _, said = await process.communicate()
        assert json.loads(said)["result"]["protocolVersion"] == 1
        bridge.send(hello | {"id": 1})
        assert await bridge.process.wait() == 0


async def test_an_editor_that_never_reads_the_log_is_served_all_the_same(world: World) -> None:
    reading, writing = os.pipe()
    try:
        async with bridged(world, stderr=writing) as bridge:
            os.close(writing)
            await bridge.hello()
            session = await bridge.new(world.laptop.project)
            assert await bridge.prompt(session, *["!stderr 50000"] * 8, "!say on") == "end_turn"
            assert await bridge.close() == 0
    finally:
        os.close(reading)


async def test_raw_changes_nothing(world: World) -> None:
    async with bridged(world, "--raw") as bridge:
        await bridge.hello()
        session = await bridge.new(world.host.project)
        await bridge.prompt(session, "!edit raw.txt abc")
        assert bridge.editor.written == [str(world.host.project / "raw.txt")]
        assert await bridge.close() == 0


def _agents(world: World) -> list[int]:
    return [pid for pid in processes_of(world.host.home) if b"scripted_program" in command_line(pid)]
