"""Two machines made of directories, with the stub as OpenCode: this one, and a host behind a local connection."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch import Link, Store
from remote_dispatch.errors import HostUnreachableError
from remote_dispatch.model import Dispatch, State, Travel
from remote_dispatch.opencode.program import Program
from remote_dispatch.remote.local import LocalConnection
from tests.dispatch.values import NOON, a_host, a_request, stored
from tests.rig.stub import OPENCODE_STUB

if TYPE_CHECKING:
    from remote_dispatch.remote.connection import Connection


class _Way(AbstractAsyncContextManager["Connection"]):
    """A way in: to a machine, or to none."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    async def __aenter__(self) -> Connection:
        self._machine.connections += 1
        if self._machine.is_away:
            raise HostUnreachableError("box", "nothing is listening")
        return self._machine.connection

    async def __aexit__(self, *_: object) -> None:
        """Nothing stays open."""


@dataclass
class Machine:
    """A home with an OpenCode."""

    home: Path
    is_away: bool = False
    connections: int = 0
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def connection(self) -> LocalConnection:
        """A connection into it."""
        usual = {"HOME": str(self.home), "PATH": os.environ["PATH"], "PWD": str(self.home)}
        return LocalConnection(environment={**usual, **self.variables})

    @property
    def program(self) -> Program:
        """Its OpenCode."""
        return Program(self.connection, OPENCODE_STUB)

    def link(self) -> Link:
        """A link to it, as the host `box`."""
        return Link(a_host(), lambda host: _Way(self))

    async def bring_in(self, transcript: dict[str, Any]) -> str:
        """Import a transcript."""
        self.home.mkdir(exist_ok=True)
        file = self.home / "import.json"
        file.write_text(json.dumps(transcript))
        await self.program.import_(file, transcript["info"]["id"], self.home)
        return str(transcript["info"]["id"])

    async def change(self, statement: str) -> None:
        """Change OpenCode's database itself."""
        await self.program.query(statement)


@dataclass
class Pair:
    """This machine, a host, and the store; use through the fixture of a test."""

    directory: Path
    here: Machine = field(init=False)
    there: Machine = field(init=False)
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.here, self.there = Machine(self.directory / "here"), Machine(self.directory / "there")
        for machine in (self.here, self.there):
            machine.home.mkdir()
        self.store = Store(self.directory / "state" / "dispatches")

    @classmethod
    def at(cls, directory: Path) -> Self:
        """Make both in this directory."""
        return cls(directory)

    def run_directory(self, record: Dispatch) -> Path:
        """Where the host has its files."""
        return Path(str(record.run_directory))

    def record(self, *states: State, session_id: str | None = None, **fields: Any) -> Dispatch:
        """Record a dispatch that has been through these states."""
        name = fields.pop("name", None)
        travel = Travel(
            session_id=session_id or "ses_none", agent="build", model="test/model", opencode=str(OPENCODE_STUB)
        )
        request = a_request(session_id=session_id, name=name)
        usual = {"request": request, "travel": travel, "session_id": session_id}
        record = stored(self.store, NOON, **{**usual, **fields})
        for state in states:
            record = record.advance(state, NOON)
        runs = self.there.home / ".local/state/remote-dispatch/runs"
        return self.store.save(record.but(run_directory=str(runs / record.id)))

    def put_run(self, record: Dispatch, *, started: bool = True, outcome: bool = True, back: Any = None) -> Path:
        """Make its run directory on the host, as a runner that has ended leaves it."""
        run = self.run_directory(record)
        run.mkdir(parents=True)
        (run / "manifest").touch()
        if started:
            (run / "started").write_text("1\n")
        told: dict[str, Any] = {"schema": 1, "dispatch": record.id, "session": "ses_none", "started": started}
        if back is not None:
            data = transcripts.dump(back)
            told["back_sha256"] = hashlib.sha256(data).hexdigest()
            (run / "back.json.gz").write_bytes(gzip.compress(data))
        if outcome:
            (run / "outcome.json").write_text(json.dumps(told))
        return run


def packed(transcript: Any) -> bytes:
    """Return a transcript as a back-file."""
    return gzip.compress(transcripts.dump(transcript))
