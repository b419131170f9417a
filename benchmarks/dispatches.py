"""Whole dispatches with the real OpenCode over a real sshd, beside the bare OpenCode commands that they consist of."""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Figure, elapsed_s
from remote_dispatch.demo.provider import ScriptedModel
from tests.rig.stub import a_transcript
from tests.rig.world import REPOSITORY, World

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "REMOTE_DISPATCH_TEST_OPENCODE"
INSTALLED = REPOSITORY / ".cache/opencode/node_modules/.bin/opencode"
ROUNDS = 3
PROMPT = "!say done"
_MODEL = {"providerID": "scripted", "modelID": "large"}


class OpencodeMissingError(Exception):
    """There is no OpenCode to measure with."""


def find_opencode() -> Path:
    """Return the binary. Raises OpencodeMissingError with what to do."""
    found = Path(os.environ.get(VARIABLE) or INSTALLED).expanduser()
    if not os.access(found, os.X_OK):
        raise OpencodeMissingError(
            f"OpenCode is missing: run `sh tools/ensure-opencode.sh .cache/opencode`, or set {VARIABLE}"
        )
    return found.resolve()


def figures(directory: Path) -> Iterator[Figure]:
    """Measure in turns; every dispatch has a session of its own, with four messages."""
    with ScriptedModel() as model, World(directory, find_opencode(), model.url) as world:
        first = _one_way(world)
        times: dict[str, list[float]] = {"hand": [], "whole": [], "one way": [], "round trip": []}
        for _ in range(ROUNDS):
            hand, whole = _bare(world)
            for name, value in zip(times, (hand, whole, _one_way(world), _round_trip(world)), strict=True):
                times[name].append(value)
    hand, whole, one_way, round_trip = (statistics.median(values) for values in times.values())
    group = "dispatch, beside the bare OpenCode commands"
    yield Figure(group, "one way, first ever to this host", first, "s", hand)
    yield Figure(group, "one way", one_way, "s", hand)
    yield Figure(group, "round trip", round_trip, "s", whole)


def _bare(world: World) -> tuple[float, float]:
    """Return the seconds of export and import, and of export, import, run, export and import, without any network."""
    session = _session(world)
    file = world.directory / "bare.json"

    def hand() -> None:
        file.write_text(world.laptop.run("export", session).stdout)
        world.host.run("import", str(file))

    def rest() -> None:
        world.host.run("run", "--session", session, "--format", "json", "--model", "scripted/large", "--", PROMPT)
        file.write_text(world.host.run("export", session).stdout)
        world.laptop.run("import", str(file))

    handed = elapsed_s(hand)
    return handed, handed + elapsed_s(rest)


def _one_way(world: World) -> float:
    session = _session(world)
    taken = elapsed_s(lambda: _expect_0(world.send(PROMPT, "--session", session).exit_code))
    world.await_end(timeout_s=60)
    return taken


def _round_trip(world: World) -> float:
    session = _session(world)
    return elapsed_s(lambda: _expect_0(world.round_trip(PROMPT, "--session", session, timeout_s=120).exit_code))


def _session(world: World) -> str:
    transcript = a_transcript("hello", "hi there", "and now?", "at your service")
    for message in transcript["messages"]:
        info = message["info"]
        info.update({"model": _MODEL} if info["role"] == "user" else _MODEL)
    return world.laptop.bring_in(transcript)


def _expect_0(exit_code: int) -> None:
    if exit_code != 0:
        raise RuntimeError(f"the dispatch ended with exit code {exit_code}")
