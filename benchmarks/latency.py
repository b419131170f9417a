"""From the moment in which the runner's outcome file exists on the host to the moment in which the merge begins here.

Both are on one machine, so one clock is enough: the file's own time, and the journal in the dispatch's record.
"""

from __future__ import annotations

import contextlib
import json
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.world import World

LOOK_S = 0.01
_NANOSECONDS = 1e9


class OutcomeWatch:
    """Notes when outcome files were written: the run directory is gone at the end. A context manager."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_over = threading.Event()
        self._written_s: dict[str, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def latency_s(self, folder: Path) -> float:
        """Return the seconds of the dispatch in this folder. Raises LookupError when one of the two was not seen."""
        record = json.loads((folder / "record.json").read_text())
        began = [entry["began"] for entry in record["journal"] if entry["step"] == "merge"]
        if not began:
            raise LookupError("nothing was merged")
        return datetime.fromisoformat(began[0]).timestamp() - self._written_s[record["id"]]

    def _watch(self) -> None:
        while not self._is_over.wait(LOOK_S):
            for directory in self._world.run_directories():
                if directory.name not in self._written_s:
                    with contextlib.suppress(FileNotFoundError):
                        written_ns = (directory / "outcome.json").stat().st_mtime_ns
                        self._written_s[directory.name] = written_ns / _NANOSECONDS
