"""The matrix: every scenario of `make faults`, in an order that does not change. A seed decides what chance would."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

from remote_dispatch.dispatch import journal
from remote_dispatch.runner import points as runner_points
from tests.faults import code, damage, disks, meanwhile
from tests.faults.real import BEGINNING, is_real
from tests.faults.scenario import CODE_TASKS, ENDINGS, MODES, TASKS, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DEFAULT_SEED = 1

OF_CODE = ("pack.", "code.", "runner.code.", "runner.pack.")
"""How the points begin at which nothing happens where no code travels."""
SMOKE_COUNT = 110
SEEDS_APART = 10_000
"""Between the numbers that two seeds of the matrix give to its scenarios."""

POINTS, RUNNER_POINTS, RECOVERY_POINTS = (
    tuple(point for point in found if not point.startswith(OF_CODE))
    for found in (journal.POINTS, runner_points.RUNNER_POINTS, runner_points.RECOVERY_POINTS)
)

LONG: frozenset[str] = frozenset({"strand", "crowd-32"})
RICH = frozenset({"damage-back", "damage-here", "meanwhile", "real-damage-back", "real-meanwhile"})
"""Kinds that need sub-agents, todos and tool outputs."""
KILLED_AT = ("launch.after", "follow.begun", "fetch.begun", "merge.imported")
HOWS = ("kill", "drop")
SIGNALS = ("SIGKILL", "SIGSEGV", "SIGTERM")
SMOKE_ON_REAL = {("real-kill-runner", "runner.run.running")}
"""Kind and point of the scenario on the real OpenCode in the smoke set, for `make slow`: it costs half a minute."""


def matrix(seed: int = DEFAULT_SEED) -> list[Scenario]:
    """Return all scenarios."""
    numbers = iter(range(seed * SEEDS_APART, (seed + 1) * SEEDS_APART))
    tasks = cycle(TASKS)
    groups = (_kills(), _hosts(), _network(), _doors(), _damage(), _disks(), _crowds(), _meanwhile(), _real())
    return [
        *(
            Scenario(kind, point, mode, "rich" if kind in RICH else next(tasks), ending, next(numbers))
            for group in groups
            for kind, point, mode, ending in group
        ),
        *(
            Scenario(kind, point, mode, task, ending, next(numbers))
            for task in CODE_TASKS
            for kind, point, mode, ending in _code(task)
        ),
    ]


def smoke(seed: int = DEFAULT_SEED) -> list[Scenario]:
    """Return the part for every `make test`: some of every kind, evenly taken from all of it, none of the long ones.

    Of those on the real OpenCode only one, which `make slow` plays, and few of those with code.
    """
    scenarios = matrix(seed)
    quick = [one for one in scenarios if not (is_long(one) or is_real(one) or one.has_code)]
    kinds = {one.kind: [other for other in quick if other.kind == one.kind] for one in quick}
    shares = {kind: max(1, len(found) * SMOKE_COUNT // len(quick)) for kind, found in kinds.items()}
    some = [found[place * len(found) // shares[kind]] for kind, found in kinds.items() for place in range(shares[kind])]
    few = [one for one in scenarios if (one.kind, one.point) in SMOKE_ON_REAL]
    return [*some, *few, *(one for one in scenarios if (one.kind, one.point, one.task) in code.SMOKE)]


def is_long(scenario: Scenario) -> bool:
    """Whether it takes more than some seconds."""
    return scenario.kind in LONG


Line = tuple[str, str, str, str]
"""Kind, point, mode and ending."""


def _lines(kind: str, points: Iterable[str], modes: Iterable[str], endings: Iterable[str]) -> Iterator[Line]:
    for point in points:
        for mode in modes:
            for ending in endings:
                yield kind, point, mode, ending


def _kills() -> Iterator[Line]:
    yield from _lines("kill-local", POINTS, MODES, ("resume",))
    yield from _lines("kill-local", POINTS, ("round-trip",), ("wait", "collect", "cancel"))
    yield from _lines("kill-local-anytime", ("1500", "2500"), MODES, ("resume", "collect") * 6)
    yield from _lines("kill-runner", RUNNER_POINTS, ("round-trip", "one-way"), ("resume",))
    yield from _lines("kill-runner", RUNNER_POINTS, ("detached",), ("collect",))
    yield from _lines("kill-runner", (f"recovery:{point}" for point in RECOVERY_POINTS), ("round-trip",), ("resume",))
    yield from _lines("kill-opencode", SIGNALS, MODES, ("resume", "wait", "collect") * 2)


def _hosts() -> Iterator[Line]:
    connected = [point for point in POINTS if not point.startswith("recover.")]
    yield from _lines("kill-sshd", connected, ("round-trip", "one-way"), ("resume",))
    yield from _lines("kill-sshd", RUNNER_POINTS, ("round-trip",), ("resume",))
    yield from _lines("reboot", RUNNER_POINTS, ("round-trip", "one-way"), ("resume",))


def _damage() -> Iterator[Line]:
    yield from _lines("damage-outgoing", _harmed(damage.OUTGOING), ("round-trip",), ("resume",))
    yield from _lines("damage-kept", _harmed(damage.OUTGOING[:8]), ("one-way",), ("resume",))
    yield from _lines("damage-back", _harmed(damage.BACK), MODES, ("collect",))
    yield from _lines("damage-back", _harmed(("events.jsonl",)), ("detached",), ("wait",))
    yield from _lines("damage-here", _harmed(damage.HERE), ("round-trip",), ("resume",))
    yield from _lines("damage-here", ("session.json:flip",), ("round-trip",), ("resume", "collect") * 3)


def _harmed(files: Iterable[str]) -> list[str]:
    return [f"{file}:{harm}" for file in files for harm in damage.DAMAGES]


def _disks() -> Iterator[Line]:
    for kind, places in (("disk-full", disks.FULL_AT), ("disk-read-only", disks.READ_ONLY_AT)):
        points = [f"{place}:{at}" for place, found in places.items() for at in found]
        yield from _lines(kind, points, ("round-trip",), ("resume",))
    points = [f"{seconds}:{at}" for seconds in disks.OFFSETS_S for at in KILLED_AT]
    yield from _lines("clock", points, ("round-trip",), ("resume",))


def _crowds() -> Iterator[Line]:
    yield from _lines("crowd", ("2", "8"), MODES, ("resume",) * 2)
    yield from _lines("crowd-32", ("32",), ("round-trip", "one-way"), ("resume",) * 2)
    yield from _lines("same-session", ("at-once",), ("round-trip",), ("resume", "collect") * 2)


def _meanwhile() -> Iterator[Line]:
    changes = [f"{change}:{at}" for change in meanwhile.CHANGES for at in ("launch.after", "fetch.begun")]
    yield from _lines("meanwhile", changes, MODES, ("resume",))
    yield from _lines("together", meanwhile.PAIRS, ("detached", "one-way"), ("resume", "collect") * 2)
    points = [f"{what}:{at}" for what in meanwhile.REFUSALS for at in KILLED_AT]
    yield from _lines("refused", points, ("round-trip",), ("resume",))


def _network() -> Iterator[Line]:
    connected = [point for point in POINTS if not point.startswith("recover.")]
    needy = ("stage.begun", "launch.begun", "follow.begun", "runner.run.running", "runner.outcome.after", "fetch.begun")
    for kind in ("cut-up", "cut-down"):
        yield from _lines(kind, ("start",), MODES, ENDINGS)
        yield from _lines(kind, ("moving", "large"), MODES, ENDINGS * 2)
    repeated = ("2-up", "3-down", "5-up", "large-3-up", "large-4-down")
    yield from _lines("cut-again", repeated, MODES, ("resume", "wait", "cancel"))
    yield from _lines("drop", connected, ("round-trip",), ("resume",))
    yield from _lines("drop", RUNNER_POINTS, ("detached",), ("resume",))
    yield from _lines("stall", (*needy, "merge.after"), ("round-trip", "one-way"), ("resume",))
    yield from _lines("strand", needy, ("round-trip",), ("resume",))
    yield from _lines("strand", ("fetch.before", "launch.done"), ("one-way",), ("collect",))


def _doors() -> Iterator[Line]:
    broken = [f"{how}:{point}" for point in ("stage.begun", "runner.run.running", "fetch.begun") for how in HOWS]
    for kind in ("no-sftp", "max-sessions", "noisy-rc", "max-startups"):
        yield from _lines(kind, broken, ("round-trip",), ("resume",))
        yield from _lines(kind, ("kill:launch.begun", "drop:fetch.before"), ("one-way",), ("collect",))
    shells = [f"{shell}:{point}" for shell in ("zsh", "fish", "tcsh", "bash") for point in broken[1:5]]
    yield from _lines("login-shell", shells, ("round-trip",), ("resume",))
    away = [f"{how}:{point}" for point in ("launch.begun", "runner.run.running", "fetch.begun") for how in HOWS]
    for kind in ("host-key-changed", "key-refused", "unreachable"):
        yield from _lines(kind, away, ("round-trip",), ("resume",))
        yield from _lines(kind, ("kill:stage.begun", "drop:runner.export.written"), ("detached",), ("wait", "collect"))


def _real() -> Iterator[Line]:
    """On the real OpenCode."""
    for kind, points, mode in (
        ("kill-local", ("stage.done", "launch.after", "follow.begun"), "round-trip"),
        ("kill-local", ("fetch.begun", "merge.imported", "judge.begun"), "detached"),
        ("kill-runner", ("runner.import.after", "runner.run.running"), "round-trip"),
        ("kill-runner", ("runner.export.written", "runner.outcome.written"), "one-way"),
        ("kill-opencode", ("SIGKILL", "SIGTERM"), "round-trip"),
        ("kill-sshd", ("launch.begun", "runner.run.running", "fetch.begun"), "round-trip"),
        ("reboot", ("runner.import.before", "runner.run.running"), "round-trip"),
        ("kill-local-anytime", ("20000",), "round-trip"),
        ("cut-up", ("moving",), "round-trip"),
        ("cut-down", ("moving",), "round-trip"),
        ("meanwhile", ("message:fetch.begun", "deleted:launch.after"), "round-trip"),
        ("damage-back", ("back.json.gz:flip", "back-children+:cut"), "detached"),
    ):
        yield from _lines(BEGINNING + kind, points, (mode,), ("resume",))


def _code(task: str) -> Iterator[Line]:
    """Where code travels: one accident each."""
    for kind, found, mode, ending in code.LINES[task]:
        yield from _lines(code.BEGINNING + kind, found, (mode,), (ending,))
