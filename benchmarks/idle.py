"""What it costs to watch dispatches at which nothing happens, for an hour: processor here and there, and bytes.

The model hangs (the stand-in's). One dispatch is watched on a terminal, as after `send --mode round-trip`; ten others
by one `wait`. Each watch goes through a link that counts.
"""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.links import HOST_ADDRESS, DelayProxy, LinkUnavailableError, PacketLink, reach_through
from benchmarks.measure import Figure, at_most, is_quick
from tests.rig.sshd import descendants
from tests.rig.world import REPOSITORY, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

TEN = 10
AT_ONCE = 3
"""So many dispatches are sent at the same time."""
WARM_S = 12
MEASURED_S = 30
PERCENT, KILOBYTES = 0.1, 100
_HOUR_S = 3600
_GROUP = "an idle watch"


@dataclass(frozen=True, slots=True)
class Reading:
    """Processor seconds of a watching process and of the host so far, and bytes on the line."""

    at_s: float
    client_s: float
    host_s: float
    carried: int


def figures(directory: Path) -> Iterator[Figure]:
    """Measure one watch and then ten; on packets with their headers where that is possible."""
    with ExitStack() as stack:
        try:
            link = stack.enter_context(PacketLink())
            with link.host():
                world = stack.enter_context(World(directory, listen=HOST_ADDRESS))
            line = _Line(world, link.laptop, lambda: link.bytes_up + link.bytes_down, "with all headers")
        except LinkUnavailableError:
            world = stack.enter_context(World(directory))
            proxy = stack.enter_context(DelayProxy(world.sshd.port))
            reach_through(world, proxy.port)
            line = _Line(world, nullcontext, lambda: proxy.bytes_up + proxy.bytes_down, "without TCP's headers")
        names = [f"idle-{number}" for number in range(1 + TEN)]
        sessions = [world.local_session() for _ in names]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(line.send, names, sessions))
        one, ten = line.measured(names[:1]), line.measured(names[1:])
    yield from _of(f"one, {line.note}", one, 1)
    yield from _of(f"each of ten, {line.note}", ten, TEN)


def _of(name: str, spent: Reading, count: int) -> Iterator[Figure]:
    name, _, note = name.partition(", ")
    client, host = (100 * seconds / spent.at_s / count for seconds in (spent.client_s, spent.host_s))
    traffic = spent.carried / spent.at_s / count * _HOUR_S / 1000
    yield Figure(_GROUP, f"{name}: processor here", client, "% of a core", target=at_most(PERCENT))
    yield Figure(_GROUP, f"{name}: processor on the host", host, "% of a core")
    yield Figure(_GROUP, f"{name}: traffic in an hour", traffic, "KB", target=at_most(KILOBYTES), note=note)


@dataclass(frozen=True, slots=True)
class _Line:
    """The world, and the line between its two sides."""

    world: World
    here: Callable[[], AbstractContextManager[None]]
    carried: Callable[[], int]
    note: str

    def send(self, name: str, session: str) -> None:
        """Send it with a turn that never ends."""
        with self.here():
            ran = self.world.send("!hang", "--session", session, "--name", name)
        if ran.exit_code:
            raise RuntimeError(f"a dispatch could not be sent: exit code {ran.exit_code}")

    def measured(self, names: list[str]) -> Reading:
        """Watch these dispatches for a while, once the watch has settled; return what that took."""
        laptop = self.world.laptop
        environment = {**laptop.opencode.environment, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"}
        argv = [sys.executable, "-m", "remote_dispatch", "wait", *names]
        with self.here(), _on_terminal(argv, environment, laptop.project) as process:
            time.sleep(WARM_S)
            before = self._read(process)
            time.sleep(MEASURED_S / 6 if is_quick() else MEASURED_S)
            after = self._read(process)
        return Reading(
            after.at_s - before.at_s,
            after.client_s - before.client_s,
            after.host_s - before.host_s,
            after.carried - before.carried,
        )

    def _read(self, process: subprocess.Popen[bytes]) -> Reading:
        if process.poll() is not None:
            raise RuntimeError(f"the watch ended with exit code {process.returncode}")
        server = int((self.world.sshd.directory / "sshd.pid").read_text())
        host_s = sum(map(processor_s, [server, *descendants(server)]))
        return Reading(time.monotonic(), processor_s(process.pid), host_s, self.carried())


def processor_s(pid: int) -> float:
    """Return the processor time so far of a process that still runs, with its children that have ended; Linux only."""
    try:
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _on_terminal(argv: list[str], environment: dict[str, str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run it on a terminal whose output is read, and press Ctrl-C at the end."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        argv, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    reader = threading.Thread(target=_drain, args=(ours,), daemon=True)
    reader.start()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)
        reader.join(20)
        os.close(ours)


def _drain(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass
