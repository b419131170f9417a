"""`python -m tests.faults`: plays the matrix, prints a summary, and writes it into the docs.

Exit status: 0 when every scenario passed, 1 otherwise, 2 when the real OpenCode is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import report
from tests.faults.crowd import play_all
from tests.faults.matrix import DEFAULT_SEED, is_long, matrix, smoke
from tests.faults.real import is_real
from tests.faults.scenario import Scenario
from tests.rig.real import MissingError, find_opencode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.faults.play import Result

PAGE = Path(__file__).resolve().parents[2] / "docs/reliability.md"
PROGRESS_EVERY = 25


def main(argv: Sequence[str] | None = None) -> int:
    """Play what was asked for."""
    options = _options(argv)
    scenarios = _chosen(options)
    if any(map(is_real, scenarios)):
        try:
            find_opencode()
        except MissingError as error:
            print(error, file=sys.stderr)
            return 2
    root = Path(tempfile.mkdtemp(prefix="faults-", dir=options.directory))
    print(f"{len(scenarios)} scenarios, seed {options.seed}, {options.jobs} at once, below {root}", flush=True)
    began = time.monotonic()
    results = []
    for number, result in enumerate(play_all(scenarios, options.jobs, root), 1):
        results.append(result)
        _tell(result, number, len(scenarios), time.monotonic() - began)
    text = report.page(
        results,
        seed=options.seed,
        day=datetime.now(UTC).date(),
        duration_s=time.monotonic() - began,
        jobs=options.jobs,
    )
    print(f"\n{text}")
    if options.is_written:
        report.write_page(PAGE, text)
    return 1 if any(result.broken for result in results) else 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED, help="what is left to chance follows from it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="scenarios at the same time")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a scenario's name, or its beginning"
    )
    parser.add_argument("--quick", action="store_true", help="without the scenarios that take minutes")
    parser.add_argument("--smoke", action="store_true", help="the part that `make test` plays")
    parser.add_argument("--list", action="store_true", dest="is_list", help="print the names and end")
    parser.add_argument("--write", action="store_true", dest="is_written", help="put the table into the docs")
    parser.add_argument("--directory", help="where the worlds are made; the temporary directory otherwise")
    options = parser.parse_args(argv)
    if options.is_list:
        print("\n".join(one.name for one in _chosen(options)))
        parser.exit()
    return options


def _chosen(options: argparse.Namespace) -> list[Scenario]:
    scenarios = smoke(options.seed) if options.smoke else matrix(options.seed)
    if options.only:
        found = [one for one in scenarios if one.name.startswith(tuple(options.only))]
        # A full name of another seed is a scenario too.
        return found or [Scenario.parse(name) for name in options.only]
    return [one for one in scenarios if not (options.quick and is_long(one))]


def _tell(result: Result, number: int, total: int, elapsed_s: float) -> None:
    if result.broken:
        words = "\n".join(f"    {one}" for one in result.broken)
        print(f"FAILED {result.scenario.name}\n{words}\n    again: --only {result.scenario.name}", flush=True)
    elif number % PROGRESS_EVERY == 0 or number == total:
        print(f"{number}/{total} after {elapsed_s:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
