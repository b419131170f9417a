"""Large conversations as coding makes them: prompts, answers, files that were read and written, and tools' output.

The text is this repository's own, cut anew for every part and sprinkled with numbers that do not come again, as log
lines, hashes and times do: compressed it shrinks as real conversations do, neither like noise nor like one line again
and again.
"""

from __future__ import annotations

import gzip
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from tests.rig.stub import a_transcript, new_id

REPOSITORY = Path(__file__).resolve().parents[1]
MEGABYTE = 1_000_000
_SOURCES = ("remote_dispatch/**/*.py", "remote_dispatch/**/*.sh", "tests/**/*.py", "docs/*.md")
_LINES = 120
_EVERY = 12
"""So many lines to a number that does not come again."""
_TOOLS = ("read", "bash", "edit", "grep")
_SAMPLE_BYTES = 4 * MEGABYTE


def a_session(size_bytes: int, *, seed: int = 1) -> dict[str, Any]:
    """Return a transcript that takes about so many bytes as OpenCode exports it; the same one for the same seed."""
    chance = random.Random(seed)
    transcript = a_transcript("hello", "hi there")
    session, messages = transcript["info"]["id"], transcript["messages"]
    left = size_bytes
    while left > 0:
        prompt, answer = a_transcript("x", "y", session_id=session)["messages"]
        answer["info"]["parentID"] = prompt["info"]["id"]
        for place, message in enumerate((prompt, answer), start=len(messages)):
            message["info"]["time"] = dict.fromkeys(message["info"]["time"], 1700000000000 + place)
        prompt["parts"][0]["text"] = _text(chance, 3)
        answer["parts"] = [
            _part(message=answer, text=_text(chance, 10)),
            *(_call(chance, message=answer) for _ in range(chance.randint(1, 4))),
        ]
        messages += (prompt, answer)
        left -= (
            sum(len(part.get("text", "")) + len(str(part.get("state", ""))) + 600 for part in answer["parts"]) + 1500
        )
    return transcript


def write_export(transcript: dict[str, Any], path: Path) -> int:
    """Write it as `opencode export` does, and return its size."""
    text = json.dumps(transcript, indent=2, ensure_ascii=False) + "\n"
    return path.write_bytes(text.encode())


def shrinks(path: Path) -> float:
    """Return how many times smaller `gzip -1` makes the beginning of a file."""
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    return len(sample) / len(gzip.compress(sample, compresslevel=1))


def _part(*, message: dict[str, Any], text: str) -> dict[str, Any]:
    ids = {"sessionID": message["info"]["sessionID"], "messageID": message["info"]["id"]}
    return {"type": "text", "text": text, "id": new_id("prt"), **ids}


def _call(chance: random.Random, *, message: dict[str, Any]) -> dict[str, Any]:
    tool, output = chance.choice(_TOOLS), _text(chance, chance.randint(20, _LINES))
    began = 1_700_000_000_000 + chance.randrange(10**9)
    state = {
        "status": "completed",
        "input": {"filePath": f"/home/ada/project/{chance.getrandbits(32):x}.py", "limit": chance.randrange(2000)},
        "output": output,
        "title": tool,
        "metadata": {"preview": output[:500], "truncated": False},
        "time": {"start": began, "end": began + chance.randrange(9000)},
    }
    part = {"type": "tool", "tool": tool, "callID": f"call_{chance.getrandbits(96):024x}", "state": state}
    ids = {"sessionID": message["info"]["sessionID"], "messageID": message["info"]["id"]}
    return {**part, "id": new_id("prt"), **ids}


def _text(chance: random.Random, count: int) -> str:
    lines = _lines()
    start = chance.randrange(len(lines) - count)
    taken = lines[start : start + count]
    for place in range(0, count, _EVERY):
        taken[place] += f" # {chance.getrandbits(64):016x}"
    return "\n".join(taken)


@cache
def _lines() -> list[str]:
    files = sorted(path for pattern in _SOURCES for path in REPOSITORY.glob(pattern))
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
