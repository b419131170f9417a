"""What is measured: figures with a unit, a reference and a target, and times that are compared fairly, in turns."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    class Process(Protocol):
        """As much of `subprocess.Popen` as is needed to wait for it."""

        def wait(self, timeout: float | None = None) -> int: ...
        def send_signal(self, sig: int) -> None: ...


QUICK = "REMOTE_DISPATCH_BENCH_QUICK"
"""Set by `--quick`: one round, one round-trip time, small sessions. It shows that all of it works, no more."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should reach: at most this, or at least.

    It speaks of the value, of its ratio to the baseline, or of what it is above the baseline (`excess`).
    """

    limit: float
    of: Literal["value", "ratio", "excess"] = "value"
    is_least: bool = False


def at_most(limit: float, of: Literal["value", "ratio", "excess"] = "value") -> Target:
    """Return the target that less is better than this."""
    return Target(limit, of)


def at_least(limit: float, of: Literal["value", "ratio", "excess"] = "value") -> Target:
    """Return the target that more is better than this."""
    return Target(limit, of, is_least=True)


@dataclass(frozen=True, slots=True)
class Sample:
    """What several runs of the same thing gave, in the order in which they ran."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The value in the middle."""
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def most(self) -> float:
        """The largest value."""
        return max(self.values)

    def minus(self, amount: float) -> Sample:
        """Return what each is above this amount."""
        return Sample(tuple(value - amount for value in self.values))


@dataclass(frozen=True, slots=True)
class Figure:
    """One result. `baseline` is what it is compared with, in the same unit; None where there is nothing.

    `spread` is the least and the most of the runs whose median is the value; `note` is a remark that always stands.
    """

    group: str
    name: str
    value: float
    unit: str
    baseline: float | None = None
    target: Target | None = field(default=None, kw_only=True)
    spread: tuple[float, float] | None = field(default=None, kw_only=True)
    note: str = field(default="", kw_only=True)

    @classmethod
    def of(
        cls,
        group: str,
        name: str,
        sample: Sample,
        unit: str,
        baseline: Sample | float | None = None,
        *,
        target: Target | None = None,
        note: str = "",
    ) -> Self:
        """Return the figure of several runs: their median, with their spread."""
        beside = baseline.median if isinstance(baseline, Sample) else baseline
        spread = (sample.least, sample.most)
        return cls(group, name, sample.median, unit, beside, target=target, spread=spread, note=note)

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of the baseline; None without one, or where it is nothing."""
        return None if self.baseline is None or self.baseline <= 0 else self.value / self.baseline

    @property
    def excess(self) -> float | None:
        """What the value is above the baseline."""
        return None if self.baseline is None else self.value - self.baseline

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without one, or without the baseline that it needs."""
        if self.target is None:
            return None
        reached = {"value": self.value, "ratio": self.ratio, "excess": self.excess}[self.target.of]
        if reached is None:
            return None
        return reached >= self.target.limit if self.target.is_least else reached <= self.target.limit

    def as_json(self) -> dict[str, Any]:
        """Return the fields, and what follows from them."""
        return {**asdict(self), "ratio": self.ratio, "is_met": self.is_met}


@dataclass(frozen=True, slots=True)
class Omission:
    """What could not be measured on this machine, and why."""

    group: str
    reason: str


def is_quick() -> bool:
    """Whether this is a smoke run."""
    return bool(os.environ.get(QUICK))


def rounds(wanted: int) -> int:
    """Return how often to measure: once in a smoke run."""
    return 1 if is_quick() else wanted


def elapsed_s(work: Callable[[], object]) -> float:
    """Return how long this took, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def samples_s(works: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Sample]:
    """Return the times of each, in seconds; they take turns, so that a busy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(elapsed_s(work))
    return {name: Sample(tuple(values)) for name, values in times.items()}


def await_exit(process: Process, deadline_s: float) -> int:
    """Wait for a process and return its exit status; it is killed at the deadline.

    Python's own wait with a timeout looks every 50 ms only, which would be in every figure.
    """
    timer = threading.Timer(deadline_s, process.send_signal, (signal.SIGKILL,))
    timer.start()
    try:
        return process.wait()
    finally:
        timer.cancel()
