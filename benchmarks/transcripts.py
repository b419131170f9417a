"""How long the pure functions take on large transcripts. Run as a program it measures one file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Figure, elapsed_s
from remote_dispatch import transcript as transcripts
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES_MB = (1, 20, 100)
PART_BYTES = 20_000
MEGABYTE = 1_000_000


def figures(directory: Path) -> Iterator[Figure]:
    """Measure each size in a process of its own."""
    for size in SIZES_MB:
        file = directory / f"{size}.json"
        _write(file, size * MEGABYTE)
        argv = [sys.executable, "-m", "benchmarks.transcripts", str(file)]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=120, check=True)
        file.unlink()
        for name, value in json.loads(done.stdout).items():
            yield Figure(f"transcript of {size} MB", name, value, "ms")


def measure(file: Path) -> dict[str, float]:
    """Return how many milliseconds each function takes."""
    data = file.read_bytes()
    one = transcripts.parse(data)
    back = transcripts.parse(data)
    id_map = transcripts.fresh_ids([one], int(time.time() * 1000))
    works = {
        "parse": lambda: transcripts.parse(data),
        "dump": lambda: transcripts.dump(one),
        "digest": lambda: transcripts.digest(one),
        "shift": lambda: transcripts.shift(one, 5),
        "rename": lambda: transcripts.rename(one, id_map),
        "read-back": lambda: transcripts.read_back_problems(one, back),
    }
    return {name: elapsed_s(work) * 1000 for name, work in works.items()}


def _write(file: Path, size: int) -> None:
    line = 'a line of a tool\'s output, some ninety characters long, with a number and "quotes" in it: '
    text = "".join(f"{line}{number}\n" for number in range(PART_BYTES // len(line)))
    file.write_bytes(transcripts.dump(a_transcript(*([text] * max(2, size // len(text.encode()))))))


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
