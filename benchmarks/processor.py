"""The processor time of what a script or a shell asks again and again, beside the least that such an answer costs.

Processor time, not the clock: it says nearly the same on a busy machine.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REPOSITORY = Path(__file__).resolve().parents[1]
ROUNDS = 15
DEADLINE_S = 60
LIMIT_MS = 60
"""How much more than what stands beside them `hosts list --names` and `--help` may take."""
_LIMITED = ("hosts list --names", "--help")
_CLI = ("-m", "remote_dispatch")
_READS_THE_FILE = "open({!r}).read()"
_EMPTY_APPLICATION = "import typer\napp = typer.Typer()\n@app.command()\ndef main(): pass\napp()"
_COMPLETION = {
    "_REMOTE_DISPATCH_COMPLETE": "complete_bash",
    "COMP_WORDS": "remote-dispatch send ",
    "COMP_CWORD": "2",
}


def figures(directory: Path) -> Iterator[Figure]:
    """Measure in a home of its own below this directory."""
    file = directory / "home/.config/opencode/hosts.json"
    file.parent.mkdir(parents=True)
    file.write_text(
        json.dumps({"hosts": {f"box-{number}": {"host": f"me@box-{number}.example"} for number in range(20)}})
    )
    environment = {"HOME": str(directory / "home"), "PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    # As it is once installed: compiled, and nothing is written into the repository.
    environment["PYTHONPYCACHEPREFIX"] = str(directory / "compiled")
    pairs = {
        "hosts list --names": ((*_CLI, "hosts", "list", "--names"), ("-c", _READS_THE_FILE.format(str(file))), {}),
        "--help": ((*_CLI, "--help"), ("-c", _EMPTY_APPLICATION, "--help"), {}),
        "completion of a host": (_CLI, ("-c", _READS_THE_FILE.format(str(file))), _COMPLETION),
    }
    for name, (argv, beside, more) in pairs.items():
        ours, bare = _medians_ms(argv, beside, environment, more)
        yield Figure("processor time", name, ours, "ms", bare)
        if name in _LIMITED and ours - bare > LIMIT_MS:
            print(f"{name} takes {ours - bare:.0f} ms more than what it is measured beside: too much", file=sys.stderr)


def _medians_ms(
    ours: tuple[str, ...], bare: tuple[str, ...], environment: Mapping[str, str], more: Mapping[str, str]
) -> tuple[float, float]:
    """The two take turns, so that a busy moment hits both; a first run of each compiles and does not count."""
    times = [(_spent_ms(ours, {**environment, **more}), _spent_ms(bare, environment)) for _ in range(ROUNDS + 1)]
    return statistics.median(one for one, _ in times[1:]), statistics.median(one for _, one in times[1:])


def _spent_ms(argv: tuple[str, ...], environment: Mapping[str, str]) -> float:
    before = _children_s()
    subprocess.run(
        [sys.executable, *argv],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=DEADLINE_S,
        check=True,
    )
    return (_children_s() - before) * 1000


def _children_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime
