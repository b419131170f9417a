"""Processes that end as by SIGKILL: our command, the runner, OpenCode, sshd's child, and the whole host."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from remote_dispatch.runner.points import CODE_POINTS, RUNNER_POINTS
from tests.faults.kinds import kind
from tests.rig import picture
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.trial import Trial

BEFORE_THE_START = {
    *RUNNER_POINTS[: RUNNER_POINTS.index("runner.started.after")],
    *(point for point in CODE_POINTS if point.startswith("runner.code.")),
}
ENDED = RUNNER_POINTS.index("runner.outcome.after")
EVENTS_S = 20.0
NO_BOOT = "00000000-0000-0000-0000-000000000000"


def is_started_at(point: str) -> bool:
    """Whether the brief may have begun when the runner stands here."""
    return point not in BEFORE_THE_START


def end_states_of_the_runner(point: str) -> frozenset[str]:
    """Which states are right when the runner is killed here: what never began may be begun once more, or has failed."""
    if point == "runner.outcome.after":
        return frozenset({"done"})
    return frozenset({"lost"}) if is_started_at(point) else frozenset({"done", "failed"})


def is_planning(point: str) -> bool:
    """Whether nothing is recorded yet when our command stands here."""
    return point.startswith(("plan.", "pack."))


@kind("kill-local", "our command killed (-9)")
def kill_local(trial: Trial) -> None:
    """At a point of the journal."""
    point = trial.scenario.point
    if point.startswith("recover."):
        trial.order("runner.run.running", "kill")
        trial.further = [("collect", "kumo")]
        trial.expected = frozenset({"lost"})
    if is_planning(point):
        trial.expected = frozenset({"none"})
    reach_following(trial, point)
    order = trial.order(point, "kill")
    trial.drive_until(lambda: not order.exists() and trial.has_died(), point)
    if trial.scenario.ending == "cancel":
        trial.expected |= {"cancelled"}


def reach_following(trial: Trial, point: str) -> None:
    """Where the point is one of following a run, have the run wait until somebody follows it."""
    if point.startswith("follow."):
        trial.gate.unlink()
    if point in ("follow.done", "follow.after"):
        trial.until_paused("follow.begun")
        trial.gate.touch()
        trial.release("follow.begun")


@kind("kill-local-anytime", "our command killed at a random time")
def kill_local_anytime(trial: Trial) -> None:
    """After a random time; `point` is the upper limit in milliseconds."""
    trial.expected = frozenset({"done", "none"})
    end = time.monotonic() + trial.random.uniform(0, float(trial.scenario.point)) / 1000
    with contextlib.suppress(Exception):
        trial.drive_until(lambda: time.monotonic() > end, "the time")
    if trial.current is not None:
        trial.current.kill()


@kind("kill-runner", "the runner killed (-9)")
def kill_runner(trial: Trial) -> None:
    """At a point of the runner's journal; a recovery's runner where the point is one of its own."""
    point = trial.scenario.point
    trial.expected = end_states_of_the_runner(point)
    if point.startswith("recovery:"):
        trial.expected = frozenset({"lost"})
        point = point.removeprefix("recovery:")
        trial.until_obeyed("runner.run.running")
    trial.until_obeyed(point)


@kind("kill-opencode", "OpenCode on the host killed mid-turn")
def kill_opencode(trial: Trial) -> None:
    """While it waits within its turn; `point` is the signal."""
    trial.expected = frozenset({"failed"})
    trial.gate.unlink()
    trial.drive_until(lambda: _events(trial) > 0, "the turn")
    wait_until(lambda: _has_settled(trial), "the turn did not get to its gate", timeout_s=EVENTS_S * trial.pace)
    for pid in turns(trial):
        os.kill(pid, signal.Signals[trial.scenario.point])


def _events(trial: Trial) -> int:
    found = [one / "events.jsonl" for one in trial.world.run_directories()]
    return sum(one.stat().st_size for one in found if one.exists())


def _has_settled(trial: Trial) -> bool:
    wanted = {"say": 1, "tool": 2, "child": 2, "rich": 6, "bundle": 2, "archive": 2}[trial.scenario.task]
    events = (trial.run_directory / "events.jsonl").read_text()
    return events.count('"type":"text"') + events.count('"type":"tool_use"') >= wanted


def turns(trial: Trial) -> list[int]:
    """Return the processes on the host that work on a brief."""
    return [pid for pid, argv in picture.living(trial.world.host.home).items() if " run --session " in f" {argv}"]


@kind("kill-sshd", "the sshd process of the connection killed")
def kill_sshd(trial: Trial) -> None:
    """At a point of either journal."""
    trial.expected = frozenset({"done", "none"}) if is_planning(trial.scenario.point) else frozenset({"done"})
    reach_following(trial, trial.scenario.point)
    trial.until_paused(trial.scenario.point)
    trial.world.sshd.drop_connections()
    trial.release(trial.scenario.point)


@kind("reboot", "the host restarted")
def reboot(trial: Trial) -> None:
    """Every process of the host ends while the runner stands at a point, and sshd comes again in another boot."""
    trial.expected = end_states_of_the_runner(trial.scenario.point)
    if not is_started_at(trial.scenario.point):
        trial.expected = frozenset({"done"})
    trial.until_paused(trial.scenario.point)
    trial.world.sshd.stop()
    while living := picture.living(trial.world.host.home):
        for pid in living:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for owner in (*trial.run_directory.rglob("owner"), trial.run_directory / "opencode.pid"):
        _forget_boot(owner)
    trial.on_heal(trial.world.sshd.start)


def _forget_boot(owner: Path) -> None:
    """What was written before the restart names another boot."""
    with contextlib.suppress(FileNotFoundError):
        owner.write_text(" ".join([NO_BOOT, *owner.read_text().split()[1:]]) + "\n")
