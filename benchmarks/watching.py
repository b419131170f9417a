"""What it costs to watch twenty sessions at work on one real server: the processor time of the watching process.

Half of them stream text, a word a second, the others run a tool; the screen is a real terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from benchmarks.measure import Figure
from benchmarks.opencode import find_opencode
from remote_dispatch.demo.provider import ScriptedModel
from remote_dispatch.opencode.api import Api
from remote_dispatch.sessions.store import SessionStore
from tests.rig.served import Server
from tests.rig.world import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

SESSIONS = 20
MEASURED_S = 10
WARM_S = 5
WORK_S = 120
LIMIT_PERCENT = 10


def figures(directory: Path) -> Iterator[Figure]:
    """Measure the live screen and the JSON lines, one after the other, while the same sessions work."""
    with ScriptedModel() as model, Server(directory, find_opencode(), model.url) as server:
        home = directory / "laptop"
        asyncio.run(_begin(server, home))
        for name, more in (("live screen", ()), ("`--json`, a report a second", ("--json", "--every", "1s"))):
            percent = _percent(server, home, more)
            yield Figure("watching 20 sessions at work", name, percent, "% of a core")
            if percent > LIMIT_PERCENT:
                print(f"{name}: {percent:.1f} % of a core is too much", file=sys.stderr)


async def _begin(server: Server, home: Path) -> None:
    store = SessionStore(home / ".local/state/remote-dispatch/sessions")
    login = ("opencode", server.password)
    async with Api("server", httpx.AsyncClient(base_url=server.url, auth=login, trust_env=False, timeout=60)) as api:
        for number in range(SESSIONS):
            session = await api.create(str(server.project), title=f"Session {number}")
            store.create("server", session)
            work = f"!todo a;b;c\n!{'sleep' if number % 2 else 'bash sleep'} {WORK_S}\n!say done"
            await api.prompt(session.id, session.directory, {"parts": [{"type": "text", "text": work}]})


def _percent(server: Server, home: Path, more: tuple[str, ...]) -> float:
    """Return the processor time of a watch, as a part of the time that passed, once it has started."""
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "TERM": "xterm",
        "OPENCODE_API_URL": server.url,
        "OPENCODE_SERVER_PASSWORD": server.password,
    }
    argv = [sys.executable, "-m", "remote_dispatch", "session", "watch", *more]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        _drain(ours, WARM_S)
        before, began = _spent_s(process.pid), time.monotonic()
        _drain(ours, MEASURED_S)
        return 100 * (_spent_s(process.pid) - before) / (time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        os.close(ours)


def _spent_s(pid: int) -> float:
    """Processor time so far of a process that still runs."""
    if sys.platform != "linux":
        words = subprocess.check_output(["ps", "-o", "time=", "-p", str(pid)], text=True, timeout=10).strip()
        minutes, seconds = words.rsplit(":", 1)
        return 60 * int(minutes.rpartition(":")[2]) + float(seconds)
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _drain(terminal: int, seconds: float) -> None:
    """Read what is drawn, as a terminal does."""
    end = time.monotonic() + seconds
    os.set_blocking(terminal, False)
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 65536)
        time.sleep(0.02)
