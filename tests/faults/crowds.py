"""Several dispatches at once: of different sessions, and of one."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from tests.faults.kinds import kind
from tests.faults.trial import FAILPOINTS, SETTLED_S, VoidError
from tests.rig.oracle import Sent
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from tests.faults.trial import Trial
    from tests.rig.world import Running

FIRST_KILL_S = 0.3
EACH_S = 0.5
"""How much longer all of it takes with each dispatch more."""
KILLED_S = 60.0
REFUSED_S = 30.0
HELD_ELSEWHERE = 8


@kind("crowd", "2 or 8 dispatches at once, all commands killed, then one `resume`")
def crowd(trial: Trial) -> None:
    """`point` is their number."""
    trial.expected = frozenset({"done", "none"})
    count = int(trial.scenario.point)
    trial.limit_s = SETTLED_S + count
    for number in range(count):
        session = trial.world.local_session(f"hello {number}", "hi there") if number else trial.session
        trial.sent.append(Sent(f"crowd-{number}", session, f"{trial.token}-{number}x"))
    trial.before = trial.pictures()
    began = time.monotonic()
    # The first one is killed while it works in any case.
    limits_s = [FIRST_KILL_S + EACH_S, *[EACH_S * (count + 2)] * (count - 1)]
    kills = [began + trial.random.uniform(FIRST_KILL_S, limit_s) for limit_s in limits_s]
    plan = [(moment, _send(trial, sent)) for moment, sent in zip(kills, trial.sent, strict=True)]
    for moment, running in sorted(plan, key=lambda one: one[0]):
        _kill_at(running, moment)
    ends = [trial.note(running).exit_code for _, running in plan]
    if -signal.SIGKILL not in ends:
        raise VoidError("no command was killed")
    _resume_all(trial, count)


kind("crowd-32", "32 dispatches at once, all commands killed, then one `resume`")(crowd)


def _send(trial: Trial, sent: Sent) -> Running:
    mode = "one-way" if trial.scenario.mode == "one-way" else "round-trip"
    words = ("--session", sent.session, "--name", sent.name, "--mode", mode, "--json")
    detach = ("--detach",) if trial.scenario.mode == "detached" else ()
    variables = {FAILPOINTS: str(trial.orders_here)}
    return trial.world.start("send", "pi", trial.prompt(sent.token), *words, *detach, variables=variables)


def _kill_at(running: Running, moment: float) -> None:
    wait_until(lambda: time.monotonic() >= moment, "the clock stands still", timeout_s=KILLED_S)
    running.kill()


def _resume_all(trial: Trial, count: int) -> None:
    """One command takes each of them to where its mode takes it."""
    trial.note(trial.world.start("resume", "--json"), timeout_s=60 + 5 * count)
    listed = trial.run("list").envelope["data"]["dispatches"]
    wanted = ("running", "finished", "done") if trial.scenario.mode == "one-way" else ("done",)
    left = {one["name"]: one["state"] for one in listed if one["state"] not in wanted}
    assert not left, f"one `resume` left {left}"


@kind("same-session", "two dispatches of one session at once")
def same_session(trial: Trial) -> None:
    """One is refused with the other's name, and the other one is done."""
    trial.expected = frozenset({"done", "none"})
    trial.gate.unlink()
    trial.sent += [Sent(name, trial.session, f"{trial.token}-{name}") for name in ("kumo", "sora")]
    pair = [_send(trial, sent) for sent in trial.sent]
    wait_until(lambda: _refused(pair) is not None, "neither was refused", timeout_s=REFUSED_S)
    refused = _refused(pair)
    trial.gate.touch()
    for sent, running in zip(trial.sent, pair, strict=True):
        said = trial.note(running)
        code = said.envelope.get("error") and said.exit_code
        assert code == (HELD_ELSEWHERE if running is refused else None), f"{sent.name} ended with {said.exit_code}"


def _refused(pair: list[Running]) -> Running | None:
    return next((one for one in pair if one.process.poll() == HELD_ELSEWHERE), None)
