"""The figures as a page, and what they were measured with."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Figure, Omission
from benchmarks.opencode import OpencodeMissingError, find_opencode
from benchmarks.reasons import reason_for
from remote_dispatch import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HEAD = """# Performance

`make bench` measures all of this anew, in under twenty minutes, and writes this page; the JSON with every figure goes
to `.cache/bench.json`. It needs what `make test` needs, and npm's registry once, for the peer.

How to read it:

- Everything happens on one machine. What counts is the **ratio**: the same work was done in another way, **beside** it,
  in the same run, and the two took turns. The other way is named in the table's head: OpenCode's own commands alone;
  ssh and scp as typed by hand; the npm package `opencode-remote-login` 0.2.1, inside the real OpenCode; `scp`, `sftp`
  and `rsync -z`; bare Python or an empty Typer application.
- A value is the median of several runs; **from - to** are the quickest and the slowest of them. Where that is missing
  it is one run: of memory, bytes and the processor time of a process. Less is better, unless a target says "at least".
- "less the bare commands" is **overhead**: the time of a whole dispatch, less that of the OpenCode commands which it
  consists of (one way: export, import; round trip: export, import, run, export, import), run alone, without network,
  in the same rounds. The session has 1 MB; the model is a script that answers at once.
- **RTT** is the simulated round-trip time between the two sides. *Delay proxy*: a process that passes each connection's
  bytes on half a round trip late in each direction, and lets its handshake take one. *Real packets*: two network
  namespaces with a TUN device each, and a process that moves IP packets between them, at 100 Mbit/s, with cubic: TCP's
  slow start, Nagle and delayed acknowledgements are the kernel's own. This needs root on Linux.
- "by hand" is two scripts, `benchmarks/by_hand.py`: export, `scp`, `ssh` to import, `ssh` to start the run in the
  background; then `ssh test -f` every second, `scp`, import. It checks nothing. "Over one connection" is the same with
  ControlMaster, opened anew for each dispatch. Its steps come one after the other, so it is timed with the stand-in for
  OpenCode, whose own time is subtracted as everywhere.
- **Return latency** is the time from the outcome file on the host to the beginning of the merge at home.
- **Memory** is that of our own process at its peak, OpenCode's not. Interpreter and asyncssh alone take some 70 MB, so
  for small sessions the ratio says nothing. Python keeps a text with an emoji in it at four bytes a character: a
  session of 100 MB with one in every output took 472 MB, in a run by hand.
- Where a **target** is missed, the reason and what was tried stand below the table.
"""
_TARGETS = {"value": "", "ratio": "ratio ", "excess": "above it "}


def surroundings() -> dict[str, str]:
    """Return date, versions and machine."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "remote-dispatch": __version__,
        "Python": platform.python_version(),
        "OpenCode": _opencode_version(),
        "OpenSSH": _said("ssh", "-V").partition(",")[0].removeprefix("OpenSSH_"),
        "asyncssh": version("asyncssh"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
    }


def page(results: Sequence[Figure | Omission], about: Mapping[str, str]) -> str:
    """Return the page as Markdown."""
    words = " · ".join(f"{name} {value}" for name, value in about.items())
    return "\n".join([HEAD, words, "", summary(results), "", *tables(results)])


def summary(results: Sequence[Figure | Omission]) -> str:
    """Return how many targets there are, and which are missed."""
    judged = [one for one in results if isinstance(one, Figure) and one.is_met is not None]
    missed = [f"{one.group}: {one.name}" for one in judged if not one.is_met]
    words = f"Targets: {len(judged)}, met: {len(judged) - len(missed)}."
    return f"{words} Missed: {'; '.join(missed)}." if missed else words


def tables(results: Sequence[Figure | Omission]) -> Iterator[str]:
    """Return the lines of all tables."""
    for group, members in groupby(results, key=lambda one: one.group):
        rows = list(members)
        figures = [one for one in rows if isinstance(one, Figure)]
        if figures:
            yield from _table(group, figures)
        yield from (f"{group}: left out, because {one.reason}." for one in rows if isinstance(one, Omission))
        yield ""


def _table(group: str, figures: Sequence[Figure]) -> Iterator[str]:
    """Columns in which nothing would stand are left out."""
    columns = {
        "": [one.name for one in figures],
        "value": [_cell(one.value, one) for one in figures],
        "from - to": [_spread(one) for one in figures],
        "beside": ["" if one.baseline is None else _cell(one.baseline, one) for one in figures],
        "ratio": ["" if one.ratio is None else f"{one.ratio:.2f}" for one in figures],
        "target": [_target(one) for one in figures],
        "reached": [{None: "", True: "yes", False: "**no**"}[one.is_met] for one in figures],
    }
    kept = {head: cells for head, cells in columns.items() if any(cells)}
    yield f"**{group}**"
    yield ""
    yield f"| {' | '.join(kept)} |".replace("|  |", "| |")
    yield "|---|" + "---:|" * (len(kept) - 1)
    yield from (f"| {' | '.join(row)} |" for row in zip(*kept.values(), strict=True))
    yield from _remarks(figures)


def _remarks(figures: Sequence[Figure]) -> Iterator[str]:
    notes = [f"{one.name}: {one.note}." for one in figures if one.note]
    reasons = [f"{one.name}: {reason_for(one) or 'no reason is known yet'}." for one in figures if one.is_met is False]
    if notes or reasons:
        yield ""
        yield from (f"- {line}" for line in [*notes, *reasons])


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    limit = f"{figure.target.limit:.2f}" if figure.target.of == "ratio" else _cell(figure.target.limit, figure)
    return f"{_TARGETS[figure.target.of]}{'≥' if figure.target.is_least else '≤'} {limit}"


def _spread(figure: Figure) -> str:
    if figure.spread is None:
        return ""
    return " - ".join(_number(value, figure.unit) for value in figure.spread)


def _cell(value: float, figure: Figure) -> str:
    return f"{_number(value, figure.unit)} {figure.unit}".strip()


def _number(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == "s" or abs(value) < 10 else f"{value:,.0f}"


def _opencode_version() -> str:
    try:
        return _said(str(find_opencode()), "--version")
    except OpencodeMissingError:
        return "none"


def _processor() -> str:
    """Linux says it in one place, macOS in another; a machine may not say it at all."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.processor()
    except OSError:
        return _said("sysctl", "-n", "machdep.cpu.brand_string")


def _said(*argv: str) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout or done.stderr).strip()
