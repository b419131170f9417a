"""A laptop and a host as two directories of this machine, and what a user, a crash or a power cut does to them.

Every example begins with the same two homes under the same paths, so that what the host's probe caches stays true.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.processes import processes_of
from remote_dispatch.dispatch import Link, Store
from remote_dispatch.failpoints import VARIABLE
from remote_dispatch.model import Host
from remote_dispatch.opencode.program import Program
from remote_dispatch.remote.local import LocalConnection
from tests.machine.child import Child, Ended
from tests.rig.sshd import wait_until
from tests.rig.stub import OPENCODE_STUB, a_transcript, new_id
from tests.rig.world import Machine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

HOST = "box"
_LAUNCHER = """#!/bin/sh
[ "$1 $2" != "run --session" ] || echo "${{REMOTE_DISPATCH_RUN##*/}}" >>{runs}
exec {python} -IS {stub} "$@"
"""


class Places:
    """Both machines. `begin` makes them as new, `end` kills all that runs there."""

    def __init__(self, directory: Path) -> None:
        self._template, root = directory / "template", directory / "world"
        self._root = root
        self.laptop = Machine(OpencodeHome(root / "laptop", OPENCODE_STUB))
        self.host = Machine(OpencodeHome(root / "host", OPENCODE_STUB, variables={VARIABLE: str(root / "points")}))
        self.points = root / "points"
        self.runs = root / "runs"
        """One line with the dispatch's id for each `opencode run` that was begun on the host."""
        self._numbers = count(1)
        root.mkdir(parents=True)
        for machine in (self.laptop, self.host):
            machine.make(None)
            text = _LAUNCHER.format(runs=self.runs, python=sys.executable, stub=OPENCODE_STUB)
            machine.put_program("opencode", text)
            machine.bring_in(a_transcript("a bystander", "is left alone"))
        self.points.mkdir()
        self.call(self._warm)
        shutil.copytree(root, self._template, symlinks=True)

    async def _warm(self) -> None:
        """Have the host's catalogue cached, as it is from the second dispatch on."""
        from remote_dispatch.opencode.probe import probe  # noqa: PLC0415 - in the child only

        await probe(self._over_there(), self.entry, directory=self.entry.directory, session_id=None, fresh=False)

    def begin(self) -> None:
        """Make both machines as they were."""
        shutil.rmtree(self._root)
        shutil.copytree(self._template, self._root, symlinks=True)

    def end(self) -> None:
        """Kill everything that runs on either machine."""
        for machine in (self.laptop, self.host):
            wait_until(lambda home=machine.home: not _killed(home), "a process cannot be killed")  # type: ignore[misc]

    # --- commands

    @property
    def entry(self) -> Host:
        """The host as the registry has it."""
        return Host(name=HOST, host="nowhere", directory=str(self.host.project))

    @property
    def store(self) -> Store:
        """The dispatches of the laptop."""
        return Store(self.laptop.home / ".local/state/remote-dispatch/dispatches")

    @property
    def program(self) -> Program:
        """OpenCode on the laptop."""
        connection = LocalConnection(environment=self.laptop.opencode.environment, directory=self.laptop.home)
        return Program(connection, self.laptop.bin / "opencode")

    def link(self, _: str = HOST) -> Link:
        """The way to the host."""
        return Link(self.entry, self._connect)

    @asynccontextmanager
    async def _connect(self, host: Host) -> AsyncIterator[LocalConnection]:
        yield self._over_there()

    def _over_there(self) -> LocalConnection:
        return LocalConnection(environment=self.host.opencode.environment, directory=self.host.home)

    def start(self, action: Callable[[], Awaitable[Any]]) -> Child:
        """Start a command on the laptop."""
        return Child(action, {**self.laptop.opencode.environment, VARIABLE: str(self.points)})

    def call(self, action: Callable[[], Awaitable[Any]], *, killed_at: str | None = None) -> Ended:
        """Run a command on the laptop to its end, or to the point at which it is killed."""
        with self.order(killed_at):
            return self.start(action).finish()

    @contextlib.contextmanager
    def order(self, point: str | None) -> Any:
        """Kill whoever of the laptop reaches this point; the order ends with the block."""
        if point is not None:
            (self.points / point).write_text("kill")
        try:
            yield
        finally:
            if point is not None:
                (self.points / point).unlink(missing_ok=True)

    # --- the user at the laptop

    def add_session(self, *, is_asking: bool = False) -> str:
        """Make a session with a question and its answer; one that is asking has the call open that asks to send it."""
        session, now = new_id("ses"), int(time.time() * 1000)
        with self._laptop_database() as database:
            database.execute(
                "insert into session (id, project_id, slug, directory, title, version, time_created, time_updated)"
                " values (?, 'global', 'slug', ?, 'A conversation', '1.18.33', ?, ?)",
                (session, str(self.laptop.project), now, now),
            )
        self.add_turn(session)
        if is_asking:
            self.add_turn(session, is_asking=True)
        return session

    def add_turn(self, session: str, *, is_asking: bool = False) -> None:
        """Ask something in a session, and get an answer, or the begin of one."""
        number = next(self._numbers)
        with self._laptop_database() as database:
            newest = database.execute(
                "select max(time_created) from message where session_id = ?", (session,)
            ).fetchone()[0]
            at = max(int(time.time() * 1000), (newest or 0) + 1)
            asked, answered = (message["info"] for message in a_transcript("", "")["messages"])
            asked |= {"id": new_id("msg"), "time": {"created": at}}
            answered |= {"parentID": asked["id"], "time": {"created": at + 1, "completed": at + 1}}
            if is_asking:
                answered["time"] = {"created": at + 1}
                del answered["finish"]
            _insert(database, session, asked, _text(f"question {number}"))
            _insert(database, session, answered, _call("running") if is_asking else _text(f"reply {number}"))

    def end_call(self, session: str) -> bool:
        """End the turn that asked to send the session; False where none is open."""
        with self._laptop_database() as database:
            found = database.execute(
                "select id, data from message where session_id = ? and data like '%\"parentID\"%' "
                "and data not like '%\"finish\"%' order by time_created limit 1",
                (session,),
            ).fetchone()
            if found is None:
                return False
            info = json.loads(found[1])
            info |= {"finish": "stop", "time": {**info["time"], "completed": info["time"]["created"] + 1}}
            database.execute("update message set data = ? where id = ?", (json.dumps(info), found[0]))
            call = json.dumps(_call("completed"))
            database.execute("update part set data = ? where message_id = ?", (call, found[0]))
            return True

    def delete(self, session: str) -> None:
        """Delete a session, as `opencode session delete` does."""
        with self._laptop_database() as database:
            database.execute("pragma foreign_keys = on")
            database.execute(
                "with recursive tree(id) as (values (?) union select s.id from session s join tree on s.parent_id = "
                "tree.id) delete from session where id in tree",
                (session,),
            )

    @contextlib.contextmanager
    def _laptop_database(self) -> Any:
        path = self.laptop.opencode.data / "opencode.db"
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as database, database:
            yield database

    # --- what happens to the host

    def run_directory(self, dispatch_id: str) -> Path:
        """The run directory of a dispatch; it need not exist."""
        return self.runs_root / dispatch_id

    @property
    def runs_root(self) -> Path:
        """Where the run directories are."""
        return self.host.home / ".local/state/remote-dispatch/runs"

    def kill_runner(self, dispatch_id: str) -> None:
        """Kill the runner, and whatever holds the lock in its place, as a lack of memory would."""
        for owner in self.run_directory(dispatch_id).glob("lock/**/owner"):
            self._kill(owner)

    def kill_opencode(self, dispatch_id: str) -> None:
        """Kill OpenCode alone."""
        self._kill(self.run_directory(dispatch_id) / "opencode.pid")

    def _kill(self, name: Path) -> None:
        with contextlib.suppress(FileNotFoundError, IndexError, ValueError, ProcessLookupError):
            pid = int(name.read_text().split()[1])
            if pid in processes_of(self.host.home):
                os.kill(pid, signal.SIGKILL)

    def reboot(self) -> None:
        """Cut the power: nothing of the host runs any more, and what names a process names one of an earlier boot."""
        wait_until(lambda: not _killed(self.host.home), "a process cannot be killed")
        for pattern in ("*/lock/**/owner", "*/opencode.pid"):
            for name in self.runs_root.glob(pattern):
                words = name.read_text().split()
                name.write_text(" ".join(["an-earlier-boot", *words[1:]]) + "\n")


def _killed(home: Path) -> frozenset[int]:
    """Kill the processes of a home and return those that there were."""
    found = processes_of(home)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def _insert(database: sqlite3.Connection, session: str, info: dict[str, Any], part: dict[str, Any]) -> None:
    at = info["time"]["created"]
    data = json.dumps({name: value for name, value in info.items() if name not in ("id", "sessionID")})
    database.execute("insert into message values (?, ?, ?, ?, ?)", (info["id"], session, at, at, data))
    values = (new_id("prt"), info["id"], session, at, at, json.dumps(part))
    database.execute("insert into part values (?, ?, ?, ?, ?, ?)", values)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _call(status: str) -> dict[str, Any]:
    """The call that asks to send the session."""
    state: dict[str, Any] = {"status": status, "input": {"command": f"remote-dispatch send {HOST}"}}
    if status == "completed":
        state |= {"output": "sent", "title": "send", "metadata": {}, "time": {"start": 1, "end": 2}}
    return {"type": "tool", "tool": "bash", "callID": "call_1", "state": {"time": {"start": 1}, **state}}


def damage(path: Path) -> bool:
    """Flip a byte in the middle of a file; False where there is none."""
    if not path.is_file() or not path.stat().st_size:
        return False
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return True
