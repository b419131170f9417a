"""What a program costs: time, processor and memory, of its own and, where that is wanted, of what it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEADLINE_S = 180
_MEASURED_CLI = """
import runpy, sys
file, sys.argv = sys.argv[1], ["remote-dispatch", *sys.argv[2:]]
try:
    runpy.run_module("remote_dispatch", run_name="__main__")
finally:
    try:
        peak = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))
    except OSError:
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    open(file, "w").write(str(peak))
"""
"""The peak of the process alone: `ru_maxrss` begins with what the parent had, and `wait4` adds the children's."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a command took by the clock, and of the processor with all that it started and waited for."""

    wall_s: float
    processor_s: float
    exit_code: int


def spent(argv: list[str], environment: Mapping[str, str], *, directory: Path | None = None) -> Spent:
    """Run a program to its end, its output thrown away; after DEADLINE_S it is killed."""
    began = time.perf_counter()
    process = subprocess.Popen(
        argv,
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ending = threading.Timer(DEADLINE_S, process.kill)
    ending.start()
    _, status, usage = os.wait4(process.pid, 0)
    ending.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return Spent(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, process.returncode)


def peak_bytes(arguments: list[str], environment: Mapping[str, str], directory: Path, scratch: Path) -> int:
    """Run the command line, which must succeed, and return the most memory that its own process ever had."""
    argv = [sys.executable, "-c", _MEASURED_CLI, str(scratch), *arguments]
    done = spent(argv, environment, directory=directory)
    if done.exit_code:
        raise RuntimeError(f"`{' '.join(arguments)}` ended with exit code {done.exit_code}")
    return int(scratch.read_text())
