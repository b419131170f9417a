"""The figures as a page, and what they were measured with."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from typing import TYPE_CHECKING

from benchmarks.dispatches import OpencodeMissingError, find_opencode
from remote_dispatch import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.measure import Figure

HEAD = """# Performance

Measured by `make bench`, on loopback: no network is in these figures. Times are medians of runs that take turns; those
of transcripts, and of the first dispatch ever to a host, are of one run.
"beside" is what the same work costs without this tool: bare Python for the start of a command, OpenCode's own export,
import and run for a dispatch, `scp` for files, plain `ssh -T` for an editor's messages. For processor time it is bare
Python that reads the hosts file, and for `--help` that of an empty Typer application; these two may take 60 ms more
than that.
"""


def surroundings() -> dict[str, str]:
    """Return date, versions and machine."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "remote-dispatch": __version__,
        "Python": platform.python_version(),
        "OpenCode": _opencode_version(),
        "OpenSSH": _said("ssh", "-V").partition(",")[0].removeprefix("OpenSSH_"),
        "asyncssh": version("asyncssh"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "load at the start": f"{os.getloadavg()[0]:.1f}",
    }


def page(figures: Sequence[Figure], about: Mapping[str, str]) -> str:
    """Return the page as Markdown."""
    words = " · ".join(f"{name} {value}" for name, value in about.items())
    return "\n".join([HEAD, words, "", *_tables(figures)])


def _tables(figures: Sequence[Figure]) -> Iterator[str]:
    for group, members in groupby(figures, key=lambda figure: figure.group):
        rows = list(members)
        if any(figure.ratio for figure in rows):
            yield from (f"| {group} | | beside | ratio |", "|---|---:|---:|---:|")
            yield from (f"| {one.name} | {_cell(one.value, one)} | {_beside(one)} |" for one in rows)
        else:
            yield from (f"| {group} | |", "|---|---:|")
            yield from (f"| {one.name} | {_cell(one.value, one)} |" for one in rows)
        yield ""


def _beside(figure: Figure) -> str:
    if figure.baseline is None or figure.ratio is None:
        return "| "
    return f"{_cell(figure.baseline, figure)} | {figure.ratio:.2f}"


def _cell(value: float, figure: Figure) -> str:
    return f"{value:.2f} {figure.unit}" if figure.unit == "s" else f"{value:,.0f} {figure.unit}"


def _opencode_version() -> str:
    try:
        return _said(str(find_opencode()), "--version")
    except OpencodeMissingError:
        return "none"


def _said(*argv: str) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout or done.stderr).strip()
