"""What it costs to start a command: the clock and the processor, beside the least that such an answer costs.

Processor time says nearly the same on a busy machine; the clock is what a user feels.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Figure, Sample, at_most, rounds
from benchmarks.spending import Spent, spent
from remote_dispatch.dispatch.names import new_id
from remote_dispatch.model import Dispatch, DispatchRequest, Entry, Moment, State, Travel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REPOSITORY = Path(__file__).resolve().parents[1]
HOSTS = 20
RECORDS = 1000
ROUNDS = 15
ABOVE_FLOOR_MS = 60
LIST_ABOVE_HELP_MS = 250
_CLI = ("-m", "remote_dispatch")
_STEPS = ("stage", "launch", "follow", "collect", "merge", "verify", "clean")
_STATES = (State.NEW, State.STAGING, State.RUNNING, State.FINISHED, State.DONE)
_EMPTY_APPLICATION = "import typer\napp = typer.Typer()\n@app.command()\ndef main(): pass\napp()"
_COMPLETION = {
    "_REMOTE_DISPATCH_COMPLETE": "complete_bash",
    "COMP_WORDS": "remote-dispatch send ",
    "COMP_CWORD": "2",
}


@dataclass(frozen=True, slots=True)
class Start:
    """A program to start: Python's arguments, and variables besides."""

    argv: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


def figures(directory: Path) -> Iterator[Figure]:
    """Measure all in turns, so that a busy moment hits all of them, in a home of their own."""
    home = directory / "home"
    hosts_file = _write_hosts(home)
    _write_records(home / "state/dispatches")
    reads_the_file = Start(("-c", f"open({str(hosts_file)!r}).read()"))
    starts = {
        "empty": Start(("-c", _EMPTY_APPLICATION, "--help")),
        "reader": reads_the_file,
        "--help": Start((*_CLI, "--help")),
        "names": Start((*_CLI, "hosts", "list", "--names")),
        "completion": Start(_CLI, _COMPLETION),
        "list": Start((*_CLI, "list")),
    }
    runs = _runs(starts, home, directory / "compiled")
    near = at_most(ABOVE_FLOOR_MS, "excess")
    beside = {
        "`--help`, beside an empty Typer application": ("--help", "empty", near),
        "`hosts list --names`, beside Python that reads the file": ("names", "reader", near),
        "completion of a host, beside Python that reads the file": ("completion", "reader", None),
        f"`list` of {RECORDS:,} records, beside `--help`": ("list", "--help", at_most(LIST_ABOVE_HELP_MS, "excess")),
    }
    for group, of in (("start: processor time", _processor_ms), ("start: by the clock", _wall_ms)):
        for name, (ours, floor, target) in beside.items():
            is_meant = target if of is _processor_ms else None
            yield Figure.of(group, name, of(runs[ours]), "ms", of(runs[floor]), target=is_meant)


def _runs(starts: Mapping[str, Start], home: Path, compiled: Path) -> dict[str, list[Spent]]:
    """A first round compiles, as an installation does, and does not count."""
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONPYCACHEPREFIX": str(compiled),
        "REMOTE_DISPATCH_STATE": str(home / "state"),
    }
    runs: dict[str, list[Spent]] = {name: [] for name in starts}
    for _ in range(1 + rounds(ROUNDS)):
        for name, start in starts.items():
            done = spent([sys.executable, *start.argv], {**environment, **start.variables})
            if done.exit_code:
                raise RuntimeError(f"`{name}` ended with exit code {done.exit_code}")
            runs[name].append(done)
    return {name: done[1:] for name, done in runs.items()}


def _processor_ms(runs: list[Spent]) -> Sample:
    return Sample(tuple(one.processor_s * 1000 for one in runs))


def _wall_ms(runs: list[Spent]) -> Sample:
    return Sample(tuple(one.wall_s * 1000 for one in runs))


def _write_hosts(home: Path) -> Path:
    file = home / ".config/opencode/hosts.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"hosts": {f"box-{one}": {"host": f"me@box-{one}.example"} for one in range(HOSTS)}}))
    return file


def _write_records(root: Path) -> None:
    """As dispatches that came home leave them."""
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(RECORDS):
        now = began + timedelta(minutes=number)
        session = f"ses_{number:012x}AAAAAAAAAAAAAA"
        record = Dispatch(
            id=new_id(now),
            name=f"name-{number}",
            request=DispatchRequest(host="box-1", session_id=session, local_directory=Path("/home/me/project")),
            history=tuple(Moment(state=state, at=now) for state in _STATES),
            journal=tuple(Entry(step=step, began=now, ended=now) for step in _STEPS),
            travel=Travel(session_id=session, agent="build", model="provider/model"),
            run_directory=f"/home/me/.local/state/remote-dispatch/runs/{number}",
            session_id=session,
            answer="All tests pass now. " * 20,
            is_cleaned_up=True,
        )
        (folder := root / record.id).mkdir(parents=True)
        (folder / "record.json").write_text(record.model_dump_json(indent=1))
