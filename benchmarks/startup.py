"""How long a command takes to start, beside Python itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Figure, medians_s
from remote_dispatch.dispatch.names import new_id
from remote_dispatch.model import Dispatch, DispatchRequest, Moment, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).resolve().parents[1]
RECORDS = 1000
ROUNDS = 9
_CLI = ("-m", "remote_dispatch")
_COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "--help": (*_CLI, "--help"),
    "hosts list --names": (*_CLI, "hosts", "list", "--names"),
    f"list, {RECORDS} records": (*_CLI, "list"),
}


def figures(directory: Path) -> Iterator[Figure]:
    """Measure in a home of its own below this directory."""
    home = directory / "home"
    (home / ".config/opencode").mkdir(parents=True)
    (home / ".config/opencode/hosts.json").write_text(json.dumps({"hosts": {"box": "me@box.example"}}))
    _write_records(home / "state/dispatches")
    medians = medians_s({name: _starting(home, argv) for name, argv in _COMMANDS.items()}, rounds=ROUNDS)
    bare, *others = medians.items()
    for name, value in others:
        yield Figure("start-up", name, value * 1000, "ms", bare[1] * 1000)


def _starting(home: Path, argv: tuple[str, ...]) -> Callable[[], object]:
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "REMOTE_DISPATCH_STATE": str(home / "state"),
    }

    def start() -> None:
        subprocess.run(
            [sys.executable, *argv],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )

    return start


def _write_records(root: Path) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(RECORDS):
        now = began + timedelta(minutes=number)
        request = DispatchRequest(host="box", local_directory=Path("/home/me/project"))
        history = tuple(Moment(state=state, at=now) for state in (State.NEW, State.STAGING, State.RUNNING, State.DONE))
        record = Dispatch(id=new_id(now), name=f"name-{number}", request=request, history=history)
        folder = root / record.id
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(record.model_dump_json(indent=1))
