"""Finds and ends the processes of a home by their environment: what detached itself has no other mark."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
GRACE_S = 1.0
POLL_S = 0.05
PS_TIMEOUT_S = 10


def processes_of(home: Path) -> frozenset[int]:
    """Return the ids of all processes whose HOME is this directory."""
    found = _from_proc(home) if (PROC / "self/environ").exists() else _from_ps(home)
    return frozenset(found) - {os.getpid()}


def end_processes_of(home: Path) -> None:
    """Ask all processes of a home to end, wait a little, kill what is left, and wait until it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not (found := processes_of(home)):
            return
        deadline = time.monotonic() + GRACE_S
        _signal(found, number)
        while processes_of(home) and time.monotonic() < deadline:
            time.sleep(POLL_S)


def _from_proc(home: Path) -> Iterator[int]:
    mark = b"\0HOME=" + os.fsencode(home) + b"\0"
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in b"\0" + (entry / "environ").read_bytes():
                    yield int(entry.name)


def _from_ps(home: Path) -> Iterator[int]:
    """Read the environments that BSD's `ps` shows (macOS: those of the own processes)."""
    argv = ["ps", "-axEww", "-o", "pid=,command="]
    listing = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PS_TIMEOUT_S, check=False)
    mark = b" HOME=" + os.fsencode(home) + b" "
    for line in listing.stdout.splitlines():
        if mark in line + b" ":
            yield int(line.split(maxsplit=1)[0])


def _signal(processes: frozenset[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)
