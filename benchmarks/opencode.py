"""The real OpenCode in the benchmarks: where it is, sessions for it, and what its own commands take."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.measure import await_exit
from tests.rig.stub import a_transcript
from tests.rig.world import REPOSITORY

if TYPE_CHECKING:
    from tests.rig.world import World

VARIABLE = "REMOTE_DISPATCH_TEST_OPENCODE"
INSTALLED = REPOSITORY / ".cache/opencode/node_modules/.bin/opencode"
PROMPT = "!say done"
SIZE_BYTES = 1_000_000
ANSWER_BYTES = 20_000
AT_ONCE = 3
"""So many OpenCodes at once make sessions."""
ATTEMPTS = 3
DEADLINE_S = 120
_MODEL = {"providerID": "scripted", "modelID": "large"}
_WORDS = 3000
"""So many different words: what they make up shrinks to about a third, as conversations do."""


class OpencodeMissingError(Exception):
    """There is no OpenCode to measure with."""


class Bare(NamedTuple):
    """When OpenCode's own commands have ended, in seconds from the first one's start, without any network."""

    handed_s: float
    """Export and import."""
    exported_s: float
    """And run, and export: as long as the peer's launch lasts."""
    whole_s: float
    """And import."""


def find_opencode() -> Path:
    """Return the binary. Raises OpencodeMissingError with what to do."""
    found = Path(os.environ.get(VARIABLE) or INSTALLED).expanduser()
    if not os.access(found, os.X_OK):
        raise OpencodeMissingError(
            f"OpenCode is missing: run `sh tools/ensure-opencode.sh .cache/opencode`, or set {VARIABLE}"
        )
    return found.resolve()


def a_session(world: World, size_bytes: int = SIZE_BYTES) -> str:
    """Make a session of about this size in the laptop's OpenCode, of questions and long answers; return its id."""
    return sessions(world, 1, size_bytes)[0]


def sessions(world: World, count: int, size_bytes: int = SIZE_BYTES) -> list[str]:
    """Make so many sessions, some at the same time, and return their ids."""
    transcripts = [_transcript(size_bytes) for _ in range(count)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda one: _bring_in(world, one), transcripts))
    return [str(one["info"]["id"]) for one in transcripts]


def _transcript(size_bytes: int) -> dict[str, Any]:
    answers = [prose(ANSWER_BYTES, seed) for seed in range(max(1, size_bytes // ANSWER_BYTES))]
    transcript = a_transcript(*(text for answer in answers for text in ("and now?", answer)))
    for message in transcript["messages"]:
        info = message["info"]
        info.update({"model": _MODEL} if info["role"] == "user" else _MODEL)
    return transcript


def _bring_in(world: World, transcript: dict[str, Any]) -> None:
    laptop = world.laptop
    file = laptop.home / "tmp" / f"{transcript['info']['id']}.json"
    file.write_text(json.dumps(transcript))
    # Of several at the same time OpenCode may turn one away, whose database another one holds.
    for attempt in range(1, ATTEMPTS + 1):
        done = subprocess.run(
            [laptop.bin / "opencode", "import", file],
            cwd=laptop.project,
            env={**laptop.opencode.environment, "PWD": str(laptop.project)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE_S,
            check=attempt == ATTEMPTS,
        )
        if done.returncode == 0:
            break
    file.unlink()


def prose(size_bytes: int, seed: int) -> str:
    """Return text that shrinks about as much as conversations do; the same for the same seed."""
    chance = random.Random(seed)
    words = [f"{number * 7919 % 100_003:x}" for number in range(_WORDS)]
    text = " ".join(chance.choices(words, k=size_bytes // 5))
    return text[:size_bytes]


def bare(world: World, session: str) -> Bare:
    """Do with OpenCode alone what a dispatch of this session consists of; both sides are this machine."""
    file = world.directory / "bare.json"
    began = time.perf_counter()
    file.write_text(world.laptop.run("export", session).stdout)
    world.host.run("import", str(file))
    handed = time.perf_counter()
    _run(world, session)
    file.write_text(world.host.run("export", session).stdout)
    exported = time.perf_counter()
    world.laptop.run("import", str(file))
    return Bare(handed - began, exported - began, time.perf_counter() - began)


def _run(world: World, session: str) -> None:
    machine = world.host
    subprocess.run(
        [machine.bin / "opencode", "run", "--session", session, "--format", "json", "--model", machine.opencode.model],
        cwd=machine.project,
        env={**machine.opencode.environment, "PWD": str(machine.project)},
        input=PROMPT,
        text=True,
        capture_output=True,
        timeout=DEADLINE_S,
        check=True,
    )


def sent_s(world: World, session: str, *options: str) -> float:
    """Send a session with our own command, and return how long that took; what the world checks of it not counted."""
    began = time.perf_counter()
    running = world.start("send", "pi", PROMPT, "--session", session, *options, "--json")
    exit_code = await_exit(running.process, DEADLINE_S)
    taken_s = time.perf_counter() - began
    ran = running.finish()
    if exit_code != 0:
        raise RuntimeError(f"the dispatch ended with exit code {exit_code}: {ran.stderr[-2000:]}")
    return taken_s
