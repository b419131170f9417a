"""Run the benchmarks: JSON to stdout or a file, and a page for people."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import acp, dispatches, processor, startup, transcripts, transfers, watching
from benchmarks.page import page, surroundings

if TYPE_CHECKING:
    from benchmarks.measure import Figure

PAGE = Path(__file__).resolve().parents[1] / "docs/performance.md"
SECTIONS = {
    "startup": startup.figures,
    "processor": processor.figures,
    "transcripts": transcripts.figures,
    "dispatches": dispatches.figures,
    "transfers": transfers.figures,
    "watching": watching.figures,
    "acp": acp.figures,
}


def main() -> int:
    """Measure all sections, or those that are named; the page is written only when all were measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all without")
    parser.add_argument("--output", type=Path, help="write the JSON here instead of stdout")
    options = parser.parse_args()
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"no section is called {', '.join(sorted(unknown))}")
    chosen = options.sections or list(SECTIONS)
    try:
        if {"dispatches", "watching"} & set(chosen):
            dispatches.find_opencode()
    except dispatches.OpencodeMissingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    about = surroundings()
    figures = [figure for name in chosen for figure in _measured(name)]
    if not options.sections:
        PAGE.write_text(page(figures, about), encoding="utf-8")
    _put(json.dumps({"about": about, "figures": [asdict(figure) for figure in figures]}, indent=1), options.output)
    return 0


def _measured(name: str) -> list[Figure]:
    print(f"measuring {name}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="rd-bench-", ignore_cleanup_errors=True) as directory:
        return list(SECTIONS[name](Path(directory)))


def _put(text: str, output: Path | None) -> None:
    if output is None:
        print(text)
    else:
        output.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
