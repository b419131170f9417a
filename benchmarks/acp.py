"""What the bridge to an editor costs beside plain `ssh -T`: the same small agent behind a real sshd on the loopback.

The agent is a script that answers at once, so that what is measured is the way of a message and nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from benchmarks.measure import Figure
from tests.rig.scripted import install
from tests.rig.sshd import USER
from tests.rig.world import REPOSITORY, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUNDS = 5
MESSAGES = 40
"""Requests a round, each with its answer."""
UPDATES = 5000
LONG_BYTES = 5_000_000
LIMIT_MS = 2.0
"""More than this above plain `ssh -T` is too much."""
_GROUP = "a message of an editor and its answer"
_TAIL = "a tenth of a second where GNU `tail` does not trust the file system to tell of changes, as on an overlay"
_LINES = "what an agent says at once"


def figures(directory: Path) -> Iterator[Figure]:
    """Measure round trips, bursts and a long line; bridge and `ssh -T` take turns."""
    with World(directory) as world:
        install(world.host.bin)
        with (
            _talking(_ssh(world)) as plain,
            _talking(_bridge(world)) as bridge,
            _talking(_bridge(world, "--durable")) as durable,
        ):
            talks = {"plain": plain, "bridge": bridge, "durable": durable}
            for talk in talks.values():
                talk.open(str(world.host.project if talk is plain else world.laptop.project))
            yield from _round_trips(talks)
            for name, text in ((f"{UPDATES} updates", f"!burst {UPDATES}"), ("a line of 5 MB", f"!long {LONG_BYTES}")):
                times = {key: statistics.median(talk.prompted_s(text) for _ in range(3)) for key, talk in talks.items()}
                for key in ("bridge", "durable"):
                    yield Figure(_LINES, f"{name}, {key}", times[key] * 1000, "ms", times["plain"] * 1000)


class Talk:
    """A program that speaks the protocol on its stdin and stdout."""

    def __init__(self, to: IO[bytes], back: IO[bytes]) -> None:
        self._to = to
        self._back = back
        self._number = 0
        self._session = ""

    def open(self, directory: str) -> None:
        """Introduce ourselves, and make a session."""
        self.ask("initialize", protocolVersion=1, clientCapabilities={})
        self._session = self.ask("session/new", cwd=directory, mcpServers=[])["sessionId"]

    def ask(self, method: str, **params: Any) -> Any:
        """Ask, and return the result; updates before it are read over."""
        self._number += 1
        line = json.dumps({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params})
        self._to.write(f"{line}\n".encode())
        self._to.flush()
        while answer := self._back.readline():
            message = json.loads(answer)
            if message.get("id") == self._number and "method" not in message:
                return message["result"]
        raise EOFError("the agent ended")

    def round_trip_s(self) -> float:
        """Return how long a small request and its answer took."""
        began = time.perf_counter()
        self.ask("session/set_mode", sessionId=self._session, modeId="plan")
        return time.perf_counter() - began

    def prompted_s(self, text: str) -> float:
        """Return how long a prompt took."""
        began = time.perf_counter()
        self.ask("session/prompt", sessionId=self._session, prompt=[{"type": "text", "text": text}])
        return time.perf_counter() - began


def _round_trips(talks: dict[str, Talk]) -> Iterator[Figure]:
    times: dict[str, list[float]] = {name: [] for name in talks}
    for _ in range(ROUNDS):
        for name, talk in talks.items():
            times[name] += [talk.round_trip_s() * 1_000_000 for _ in range(MESSAGES)]
    plain = times["plain"]
    for name in ("bridge", "durable"):
        note = _TAIL if name == "durable" else ""
        yield Figure(
            _GROUP, f"{name}, median", statistics.median(times[name]), "µs", statistics.median(plain), note=note
        )
        yield Figure(_GROUP, f"{name}, 95th percentile", _p95(times[name]), "µs", _p95(plain))
    added_ms = (statistics.median(times["bridge"]) - statistics.median(plain)) / 1000
    if added_ms > LIMIT_MS:
        print(f"the bridge adds {added_ms:.1f} ms to a message: that is too much", file=sys.stderr)


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


@contextmanager
def _talking(process: subprocess.Popen[bytes]) -> Iterator[Talk]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Talk(process.stdin, process.stdout)
        process.stdin.close()
        process.wait(20)
    finally:
        process.kill()
        process.wait(20)
        process.stdout.close()


def _ssh(world: World) -> subprocess.Popen[bytes]:
    sshd = world.sshd
    options = (f"UserKnownHostsFile={sshd.known_hosts}", "IdentitiesOnly=yes", "BatchMode=yes", "Compression=no")
    flags = [word for option in options for word in ("-o", option)]
    argv = ["ssh", "-T", "-F", os.devnull, "-i", str(sshd.client_key), "-p", str(sshd.port), *flags]
    return _started([*argv, f"{USER}@{sshd.listen}", "exec opencode acp"], dict(os.environ))


def _bridge(world: World, *options: str) -> subprocess.Popen[bytes]:
    project = world.laptop.project
    environment = {**world.laptop.opencode.environment, "PYTHONPATH": str(REPOSITORY), "PWD": str(project)}
    return _started(
        [sys.executable, "-m", "remote_dispatch", "acp", "bridge", "pi", *options], environment, cwd=project
    )


def _started(argv: list[str], environment: dict[str, str], cwd: Path | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv, env=environment, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
