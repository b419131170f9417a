"""The summary of a matrix: one line per kind of fault, for people and for the docs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from tests.faults.kinds import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date
    from pathlib import Path

    from tests.faults.play import Result

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
COLUMNS = ("fault", "runs", "passed", "invariant broken", "hang", "skipped", "median s", "maximum s")


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of some runs. Times: from the end of the fault to the last state, in seconds."""

    title: str
    runs: int
    passed: int
    broken: int
    hangs: int
    skipped: int
    median_s: float
    maximum_s: float

    @classmethod
    def of(cls, title: str, results: Sequence[Result]) -> Summary:
        """Count."""
        times = [result.settled_s for result in results if result.is_passed] or [0.0]
        return cls(
            title,
            len(results),
            sum(result.is_passed for result in results),
            sum(bool(result.broken) and not result.is_hang for result in results),
            sum(result.is_hang for result in results),
            sum(result.skipped is not None for result in results),
            median(times),
            max(times),
        )

    def cells(self) -> tuple[str, ...]:
        """The line of a table."""
        numbers = (self.runs, self.passed, self.broken, self.hangs, self.skipped)
        return (self.title, *map(str, numbers), f"{self.median_s:.1f}", f"{self.maximum_s:.1f}")


def summaries(results: Sequence[Result]) -> list[Summary]:
    """One for each kind, in the order of the matrix, and the sum."""
    by_kind = {name: [one for one in results if one.scenario.kind == name] for name in KINDS}
    lines = [Summary.of(KINDS[name].title, found) for name, found in by_kind.items() if found]
    return [*lines, Summary.of("**all**", results)]


def table(lines: Iterable[Summary]) -> str:
    """A table in Markdown."""
    rows = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *(line.cells() for line in lines)]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def page(results: Sequence[Result], *, seed: int, day: date, duration_s: float, jobs: int) -> str:
    """The part of the docs between the markers."""
    skipped = sorted({result.skipped for result in results if result.skipped})
    notes = "".join(f"\nSkipped: {why}.\n" for why in skipped)
    return (
        f"{table(summaries(results))}\nSeed {seed}, {day.isoformat()}, {duration_s / 60:.0f} minutes on {jobs} cores. "
        f"Times: from the end of the fault until the dispatch has its last state.\n{notes}"
    )


def write_page(path: Path, text: str) -> None:
    """Put a text between the markers of a page."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path.name} has no place for the table")
    path.write_text(f"{before}{begin}\n{text}{end}{after}")
