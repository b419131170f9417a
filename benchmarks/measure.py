"""What is measured: figures with a unit, and times that are compared fairly, in turns."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Figure:
    """One result. `baseline` is what it is compared with, in the same unit; None where there is nothing."""

    group: str
    name: str
    value: float
    unit: str
    baseline: float | None = None

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of the baseline."""
        return None if not self.baseline else self.value / self.baseline


def elapsed_s(work: Callable[[], object]) -> float:
    """Return how long this took, in seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def medians_s(works: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Return the median time of each, in seconds; they take turns, so that a busy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(elapsed_s(work))
    return {name: statistics.median(values) for name, values in times.items()}
