"""Plays many scenarios at once: one process per core, each with a zygote of its own."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.play import Result, play
from tests.rig.guard import guard_the_real_home
from tests.rig.zygote import IS_POSSIBLE, Zygote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.faults.scenario import Scenario

PREFIXES = ("XDG_", "OPENCODE_", "REMOTE_DISPATCH_", "SSH_AUTH_SOCK")
KEPT = "REMOTE_DISPATCH_TEST_"


class _Worker:
    """What one process keeps between scenarios."""

    zygote: Zygote | None = None
    root = Path()


def play_all(scenarios: Sequence[Scenario], jobs: int, root: Path) -> Iterator[Result]:
    """Yield each result as it comes; the directories of the broken ones stay below `root`."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, initializer=_begin, initargs=(root,)) as pool:
        yield from pool.imap_unordered(_play, scenarios)


def _begin(root: Path) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIXES) and not name.startswith(KEPT)]:
        del os.environ[name]
    guard_the_real_home()
    os.environ["HOME"] = tempfile.mkdtemp(prefix="home-", dir=root)
    _Worker.root = root
    if IS_POSSIBLE:
        _Worker.zygote = Zygote().__enter__()


def _play(scenario: Scenario) -> Result:
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=_Worker.root))
    return play(scenario, directory, _Worker.zygote)
