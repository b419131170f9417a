"""Run the benchmarks: JSON into a file, tables for people."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import QUICK, Figure, Omission
from benchmarks.opencode import OpencodeMissingError, find_opencode
from benchmarks.page import page, surroundings, tables
from benchmarks.sections import SECTIONS, all_of, end_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs/performance.md"
OUTPUT = REPOSITORY / ".cache/bench.json"


def main() -> int:
    """Measure all sections, or those that are named. `docs/performance.md` is written when all were measured."""
    options = _options()
    end_on_sigterm()
    if options.quick:
        os.environ[QUICK] = "1"
    try:
        find_opencode()
    except OpencodeMissingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    about = surroundings()
    began = time.monotonic()
    parts = dict(all_of(options.sections or SECTIONS))
    results = [one for name in SECTIONS for one in parts.get(name) or ()]
    about["minutes"] = f"{(time.monotonic() - began) / 60:.0f}"
    _write(options.output, results, about)
    if options.sections or options.quick:
        print("\n".join(tables(results)))
    elif None not in parts.values():
        PAGE.write_text(page(results, about), encoding="utf-8")
    return 1 if None in parts.values() else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all without")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the JSON (.cache/bench.json)")
    parser.add_argument("--quick", action="store_true", help="show that it works: one round, near only; no page")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section is called {', '.join(sorted(unknown))}")
    return options


def _write(output: Path, results: Sequence[Figure | Omission], about: Mapping[str, str]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    figures = [one.as_json() for one in results if isinstance(one, Figure)]
    omitted = {one.group: one.reason for one in results if isinstance(one, Omission)}
    text = json.dumps({"about": dict(about), "figures": figures, "omitted": omitted}, indent=1)
    output.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
