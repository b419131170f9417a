"""The sections of the benchmarks, and measuring one."""

from __future__ import annotations

import importlib
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.remote_login import PeerFailedError
from remote_dispatch.errors import RemoteDispatchError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from benchmarks.measure import Figure, Omission

    Results = list[Figure | Omission]

ALONE = ("dispatches", "peer", "transfers", "startup", "fanout", "transcripts", "acp")
"""Their figures are times, or depend on them."""
TOGETHER = ("memory", "idle", "watching")
"""Their figures are bytes and the processor time of single processes: they share the machine, one process each."""
SECTIONS = (*ALONE, *TOGETHER)
"""Each is a module here with `figures(directory)`, which yields Figures and Omissions; a directory of its own."""
_FAILURES = (
    AssertionError,
    LookupError,
    OSError,
    PeerFailedError,
    RemoteDispatchError,
    RuntimeError,
    ValueError,
    subprocess.SubprocessError,
)


def all_of(sections: Collection[str]) -> Iterator[tuple[str, Results | None]]:
    """Yield each with what it gives, or None where it failed: the others are measured all the same."""
    for name in ALONE:
        if name in sections:
            yield name, measured(name)
    if names := [name for name in TOGETHER if name in sections]:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(len(names), spawn, initializer=end_on_sigterm) as pool:
            try:
                yield from zip(names, pool.map(measured, names), strict=True)
            except BaseException:
                for process in multiprocessing.active_children():
                    process.terminate()
                raise


def end_on_sigterm() -> None:
    """Have SIGTERM end this process as Ctrl-C does, so that it ends what it has started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def measured(name: str) -> Results | None:
    """Return what a section gives; None when it failed, and why is on stderr then."""
    print(f"measuring {name}", file=sys.stderr, flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rd-bench-", ignore_cleanup_errors=True) as directory:
        try:
            results: Results = list(importlib.import_module(f"benchmarks.{name}").figures(Path(directory)))
        except _FAILURES:
            traceback.print_exc()
            return None
    print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return results
