"""Fifty hosts at once, ten of them dead, beside the slowest one of them alone: `doctor`, and `list --refresh`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from benchmarks.fleet import Fleet, kinds
from benchmarks.measure import Figure, Sample, at_most, rounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.spending import Spent

ROUNDS = 2
_TARGET = at_most(1.5, "ratio")
_DOCTOR, _REFRESH = "`doctor`, 50 hosts", "`list --refresh`, 50 hosts"


def figures(directory: Path) -> Iterator[Figure]:
    """Measure one of each kind alone, then all together, and those that answer together.

    The dead ones alone do nothing but wait, so they wait at the same time.
    """
    with Fleet(directory) as fleet:
        yield from _figures(_DOCTOR, fleet.names, lambda *names: fleet.run("doctor", *names))
        yield from _figures(_REFRESH, fleet.names, _refresh(fleet))


def _refresh(fleet: Fleet) -> Callable[..., Spent]:
    """Every call has records of its own: a dispatch at work on each of the hosts."""
    numbers = iter(range(1000))

    def run(*names: str) -> Spent:
        state = fleet.directory / f"state-{next(numbers)}"
        fleet.write_records(state, names)
        return fleet.run("list", "--refresh", state=state)

    return run


def _figures(group: str, names: list[str], run: Callable[..., Spent]) -> Iterator[Figure]:
    alone = _alone(run, list(kinds(names)))
    slowest = max(alone, key=lambda name: alone[name].wall_s)
    living = [name for name in names if name.startswith("alive")]
    together = [run(*names) for _ in range(rounds(ROUNDS))]
    answering = [run(*living) for _ in range(rounds(ROUNDS))]
    walls, wall_of_living = (Sample(tuple(one.wall_s for one in some)) for some in (together, answering))
    yield Figure.of(
        group, "all, beside the slowest alone", walls, "s", alone[slowest].wall_s, target=_TARGET, note=slowest
    )
    yield Figure.of(group, f"the {len(living)} that answer, beside one", wall_of_living, "s", alone[living[0]].wall_s)
    processor = Sample(tuple(one.processor_s for one in together))
    yield Figure.of(group, "processor here, beside one host", processor, "s", alone[living[0]].processor_s)


def _alone(run: Callable[..., Spent], names: list[str]) -> dict[str, Spent]:
    taken: dict[str, Spent] = {}

    def measure(name: str) -> None:
        taken[name] = run(name)

    threads = [threading.Thread(target=measure, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
        if thread is threads[0]:
            thread.join()
    for thread in threads:
        thread.join()
    return taken
