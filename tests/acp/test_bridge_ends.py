"""The two ends of the bridge: which directories stand for which, and the editor's pipes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.acp.editor import EditorGoneError, stdio_wire
from remote_dispatch.acp.rewrite import Pair
from remote_dispatch.acp.way import places_of
from remote_dispatch.errors import UsageError

if TYPE_CHECKING:
    from remote_dispatch.acp.editor import StdioWire
    from remote_dispatch.acp.rewrite import PathMap

HOME = Path("/home/me")
HERE = [HOME / "app"]
PATIENCE_S = 10


def places(*maps: str, directory: str | None = None, here: list[Path] | None = None) -> tuple[PathMap, Pair]:
    return places_of(maps, directory, here=here or HERE, home=HOME)


async def flood(wire: StdioWire) -> None:
    while True:
        await wire.send({"text": "x" * 100_000})


# --- directories


def test_the_project_stands_for_the_directory_of_the_host(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "src").mkdir()
    found, start = places(directory="~/app", here=[tmp_path / "src"])
    assert found.pairs == (Pair(str(tmp_path), "~/app"),)
    assert start == found.pairs[0]


def test_without_a_directory_the_homes_stand_for_each_other() -> None:
    found, start = places()
    assert found.at("/root").to_remote("/home/me/app/x") == "/root/app/x"
    assert start.remote == "~"


def test_a_project_with_two_names_is_known_by_both_and_comes_back_under_the_first() -> None:
    found, _ = places(directory="/srv", here=[Path("/link/app"), Path("/real/app")])
    assert found.to_remote("/real/app/x") == "/srv/x"
    assert found.to_local("/srv/x") == "/link/app/x"


def test_maps_replace_what_is_usual_and_the_agent_starts_where_we_are() -> None:
    found, start = places("~/lib=/srv/lib", "~/app=/srv/app", directory=None)
    assert found.pairs == (Pair("/home/me/lib", "/srv/lib"), Pair("/home/me/app", "/srv/app"))
    assert start == found.pairs[1]


def test_a_map_may_be_relative_here_and_the_directory_says_where_to_start() -> None:
    found, start = places("sub=/srv/sub", directory="/srv")
    assert found.pairs == (Pair("/home/me/app/sub", "/srv/sub"),)
    assert start.remote == "/srv"


@pytest.mark.parametrize("text", ["a", "a=", "=/b", "a=b", "a=~other/b"])
def test_a_map_that_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no pair of directories"):
        places(text)


# --- the editor's pipes


async def test_messages_of_any_length_pass_a_pipe() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as source, open(writing, "wb", buffering=0) as target:  # noqa: PTH123 - by descriptor
        wire = await stdio_wire(source, target, on_noise=lambda _: None)
        message = {"text": "x" * 3_000_000}
        async with asyncio.timeout(PATIENCE_S):
            sending = asyncio.create_task(wire.send(message))
            assert await wire.receive() == message
            await sending
            await wire.close()
            assert await wire.receive() is None


async def test_files_do_as_well_as_pipes(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'noise\n{"a":1}\n\n{"b":2}\n')
    noise: list[bytes] = []
    with (tmp_path / "in").open("rb", buffering=0) as source, (tmp_path / "out").open("wb", buffering=0) as target:
        wire = await stdio_wire(source, target, on_noise=noise.append)
        while (message := await wire.receive()) is not None:
            await wire.send(message)
        await wire.close()
    assert (tmp_path / "out").read_bytes() == b'{"a":1}\n{"b":2}\n'
    assert noise == [b"noise"]


async def test_an_editor_that_closed_its_pipe_is_gone(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    (tmp_path / "in").touch()
    with (tmp_path / "in").open("rb", buffering=0) as source, open(writing, "wb", buffering=0) as target:  # noqa: PTH123 - by descriptor
        wire = await stdio_wire(source, target, on_noise=lambda _: None)
        with pytest.raises(EditorGoneError):
            await asyncio.wait_for(flood(wire), PATIENCE_S)
        await wire.close()
