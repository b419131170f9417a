"""Connections that are cut after a count of bytes, refused for a while, or fall silent. All go through the proxy."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from typing import TYPE_CHECKING

from tests.faults.kills import reach_following
from tests.faults.kinds import kind
from tests.faults.trial import HangError, VoidError
from tests.rig.sshd import descendants, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.faults.scenario import Scenario
    from tests.faults.trial import Trial
    from tests.rig.proxy import Direction

LEAST_BYTES = 100
EXCHANGES: dict[str, dict[Direction, int]] = {
    "start": {"up": 105_000, "down": 19_000},
    "moving": {"up": 88_000, "down": 13_500},
    "large": {"up": 540_000, "down": 460_000},
}
"""How many bytes pass at least: in all, from the record on, and from the record on with a session of 800 kB."""
NOTICED_S = 30.0
"""How soon a silent link has to be noticed."""
SILENCE_S = 2.0


def behind_proxy(_: Scenario) -> Mapping[str, bool]:
    """The world of these faults."""
    return {"has_proxy": True}


@kind("cut-up", "connection reset after n bytes to the host", behind_proxy)
def cut_up(trial: Trial) -> None:
    """`start` counts from the first connection on, `moving` and `large` from the record on."""
    _cut(trial, "up")


@kind("cut-down", "connection reset after n bytes from the host", behind_proxy)
def cut_down(trial: Trial) -> None:
    """As `cut-up`."""
    _cut(trial, "down")


@kind("cut-again", "connection reset several times", behind_proxy)
def cut_again(trial: Trial) -> None:
    """`point` is how often, the direction behind it: `3-up`, `large-3-down`."""
    *size, times, direction = trial.scenario.point.split("-")
    count, way = int(times), _direction(direction)
    most = EXCHANGES["large" if size else "moving"][way] // count
    # A command may give up at a cut in its first question; `resume` would not fetch a one-way dispatch.
    trial.further = [("collect", "kumo")] * count
    trial.until_paused("record.after")
    for number in range(count):
        _cut_after(trial, _some_bytes(trial, most), way, number)
    _leave(trial)


def _direction(word: str) -> Direction:
    return "up" if word == "up" else "down"


def _cut(trial: Trial, direction: Direction) -> None:
    if trial.scenario.point != "start":
        trial.until_paused("record.after")
    _cut_after(trial, _some_bytes(trial, EXCHANGES[trial.scenario.point][direction]), direction, 0)
    if not any((folder / "record.json").exists() for folder in trial.world.dispatch_folders()):
        trial.expected |= {"none"}
    _leave(trial)


def _some_bytes(trial: Trial, most: int) -> int:
    """Small and large counts alike: what matters in an exchange is not spread evenly over its bytes."""
    return int(math.exp(trial.random.uniform(math.log(LEAST_BYTES), math.log(most))))


def _cut_after(trial: Trial, n_bytes: int, direction: Direction, earlier: int) -> None:
    trial.proxy.cut_after(n_bytes, direction)
    trial.release("record.after")
    trial.drive_until(lambda: trial.proxy.cuts > earlier, f"cut {earlier + 1}, after {n_bytes} bytes {direction}")


def _leave(trial: Trial) -> None:
    """The user waits for the reconnecting command only where `resume` follows; otherwise it gets a Ctrl-C."""
    if trial.scenario.ending == "cancel":
        trial.expected |= {"cancelled"}
    if trial.scenario.ending != "resume" and trial.current is not None:
        trial.current.interrupt()


@kind("drop", "connections reset, new ones refused for 1 to 3 s", behind_proxy)
def drop(trial: Trial) -> None:
    """At a point of either journal."""
    point = trial.scenario.point
    if point == "plan.before":
        trial.expected = frozenset({"none"})
    _pause(trial, point)
    if point != "plan.before":
        trial.drive_until(lambda: trial.proxy.live > 0, "a connection")
    seconds = trial.random.uniform(1, 3)
    trial.proxy.drop_for(seconds)
    trial.on_heal(lambda: trial.proxy.drop_for(0))
    trial.release(point)
    _let_pass(trial, seconds)


@kind("stall", "the link silent for 2 s", behind_proxy)
def stall(trial: Trial) -> None:
    """At a point of either journal after which the command still needs the link."""
    point = trial.scenario.point
    _pause(trial, point)
    trial.proxy.stall()
    trial.on_heal(trial.proxy.flow)
    trial.release(point)
    _let_pass(trial, SILENCE_S)
    if trial.current is None or trial.current.process.poll() is not None:
        raise VoidError("the command ended without the link")


@kind("strand", "the connection silent for ever, new ones work", behind_proxy)
def strand(trial: Trial) -> None:
    """At a point of either journal. The fault is over once it was noticed."""
    point = trial.scenario.point
    _pause(trial, point)
    silent = connections_of(trial)
    began, count = time.monotonic(), trial.proxy.connections
    trial.proxy.strand()
    # The host's sshd notices nothing by itself; the keepalive of its TCP ends it after hours.
    trial.on_heal(lambda: kill_all(silent))
    trial.release(point)
    trial.drive_until(lambda: trial.proxy.connections > count, "a new connection")
    if (took_s := time.monotonic() - began) > NOTICED_S:
        raise HangError(f"a silent link was noticed after {took_s:.0f} s")


def connections_of(trial: Trial) -> list[int]:
    """Return the host's sshd processes of all open connections."""
    server = int((trial.world.sshd.directory / "sshd.pid").read_text())
    return [pid for pid, name in descendants(server).items() if name.startswith("sshd")]


def kill_all(pids: Iterable[int]) -> None:
    """Kill processes of the host, as far as they live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _pause(trial: Trial, point: str) -> None:
    reach_following(trial, point)
    trial.until_paused(point)


def _let_pass(trial: Trial, seconds: float) -> None:
    """The user goes on while the link is bad."""
    end = time.monotonic() + seconds
    with contextlib.suppress(VoidError):
        trial.drive_until(lambda: time.monotonic() > end, "the time")
    wait_until(lambda: time.monotonic() > end, "the time", timeout_s=2 * seconds)
