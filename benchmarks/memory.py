"""The most memory that our own process ever takes: a `send` and a `collect` of large sessions.

OpenCode on both sides is the stand-in: what the real one takes is not ours, and is not counted either way.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks import corpus
from benchmarks.measure import Figure, at_most, is_quick
from benchmarks.spending import peak_bytes
from tests.rig.world import REPOSITORY, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZES_MB = (1, 20, 100)
_TARGET_MB = 100
"""For a smaller session the interpreter with its libraries is most of it."""
_PATIENCE_S = 120


def figures(directory: Path) -> Iterator[Figure]:
    """Measure one whole dispatch of each size: the way there, and the way back with the merge."""
    with World(directory) as world:
        for size_mb in SIZES_MB[: 1 if is_quick() else None]:
            yield from _of_one(world, size_mb)


def _of_one(world: World, size_mb: int) -> Iterator[Figure]:
    transcript = corpus.a_session(size_mb * corpus.MEGABYTE, seed=size_mb)
    own = corpus.write_export(transcript, world.directory / "export.json") / corpus.MEGABYTE
    for message in transcript["messages"]:
        _name_model(message["info"])
    session = world.laptop.bring_in(transcript)
    name = f"size-{size_mb}"
    sending = ["send", "pi", "!say done", "--session", session, "--name", name]
    yield _figure(f"`send` of {size_mb} MB", _peak_mb(world, sending), own, size_mb)
    world.await_end(timeout_s=_PATIENCE_S)
    yield _figure(f"`collect` of {size_mb} MB", _peak_mb(world, ["collect", name]), own, size_mb)
    assert len(json.loads(world.laptop.run("export", session).stdout)["messages"]) > len(transcript["messages"])


def _name_model(info: dict[str, object]) -> None:
    model = {"providerID": "scripted", "modelID": "large"}
    info.update({"model": model} if info["role"] == "user" else model)


def _figure(name: str, peak_mb: float, own_mb: float, size_mb: int) -> Figure:
    target = at_most(3, "ratio") if size_mb == _TARGET_MB else None
    return Figure("peak memory of our process, beside the transcript", name, peak_mb, "MB", own_mb, target=target)


def _peak_mb(world: World, arguments: list[str]) -> float:
    project = world.laptop.project
    environment = {**world.laptop.opencode.environment, "PYTHONPATH": str(REPOSITORY), "PWD": str(project)}
    return peak_bytes(arguments, environment, project, world.directory / "peak") / corpus.MEGABYTE
