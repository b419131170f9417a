"""The OpenCode program on this machine: export, import, list and query, each read back instead of believed.

Facts: OpenCode 1.18. Exit status 0 proves nothing; an export through a pipe is cut; an import binds to the current
directory and adds rows only.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_dispatch import transcript as transcripts
from remote_dispatch.errors import CommandError, ConfigurationError, HostNotReadyError, UnknownNameError
from remote_dispatch.model import SESSION_ID, Todo
from remote_dispatch.opencode.catalogue import parse_defaults
from remote_dispatch.reader import DONE, reader_script
from remote_dispatch.remote.files import chunks_of
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from remote_dispatch.remote.connection import Completed, Connection
    from remote_dispatch.transcript import Message, Transcript

THIS_MACHINE = "this machine"
COMMAND_TIMEOUT_S = 300.0
STATEMENT_LIMIT_BYTES = 100_000
"""Linux takes no single argument of 128 KiB."""

# Stdin is /dev/null for every call: an open one is read for ever. PWD must be the current directory.
_IN_DIRECTORY = 'cd -- "$2" && PWD=$(pwd -P) && export PWD && '
# Behind `reader_script()`.
_READ = 'umask 077; binary=$1; shift; become_reader && exec "$binary" -e "$READER" "$@" </dev/null'
_EXPORT = 'umask 077 && "$1" --pure export "$2" >"$3" </dev/null'
_IMPORT = _IN_DIRECTORY + '"$1" --pure import "$3" </dev/null'
_QUERY = '"$1" --pure db --format json "$2" </dev/null'
_TODO_COLUMNS = "session_id, content, status, priority, position, time_created, time_updated"
_SUMMARY = (
    "select s.id, s.title, s.directory, s.time_updated as updated, "
    "(select count(*) from message m where m.session_id = s.id) as messages from session s "
)
_CONFIGURATION = '"$1" --pure debug config </dev/null'
_LATEST_PROMPT = (
    "select json_extract(m.data, '$.agent') as agent, json_extract(m.data, '$.model.providerID') as provider, "
    "json_extract(m.data, '$.model.modelID') as model from message m join session s on s.id = m.session_id "
    "where s.parent_id is null and json_extract(m.data, '$.role') = 'user' order by m.time_created desc limit 1"
)


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session of this machine in one line."""

    id: str
    title: str
    directory: Path
    updated: datetime
    messages: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What belongs to a session and is in no export."""

    children: tuple[str, ...]
    """Ids of the sub-agents' sessions, parents before children."""
    todos: tuple[Todo, ...]
    data_directory: Path
    changed_ms: int
    """When the session, a message or a part of it was last written."""
    database_identity: str | None
    """Machine, device and inode of the database: see identity.sh."""


@dataclass(frozen=True, slots=True)
class Program:
    """One OpenCode binary, on the machine of a connection that shares our file system."""

    connection: Connection
    binary: Path

    async def export(
        self, session_id: str, target: Path, *, each: Callable[[Message], Message] = transcripts.as_it_is
    ) -> Transcript:
        """Export a session into a file and return it parsed, `each` as in `transcripts.read`.

        Raises UnknownNameError, IntegrityError.
        """
        checked_id(session_id)
        await asyncio.to_thread(target.unlink, missing_ok=True)
        read = await self._read("export", session_id, _absolute(target), "")
        # What shuts OpenCode in may have let the reader write to a file system of its own.
        if read is None or not await asyncio.to_thread(target.exists):
            await self._export(session_id, target)
        return await asyncio.to_thread(
            transcripts.read, lambda: chunks_of(target, size=transcripts.PIECE_BYTES), each=each
        )

    async def _export(self, session_id: str, target: Path) -> None:
        completed = await self._call(_EXPORT, session_id, str(target))
        if completed.exit_status != 0 and b"Session not found" in completed.stderr:
            # Said of every failure, also of one to read a session that is there (OpenCode 1.18): ask the database.
            await self.session(session_id)
        self._expect_success("opencode export", completed)

    async def import_(self, source: Path, session_id: str, directory: Path) -> None:
        """Import a transcript file in this directory. Says nothing about what arrived: export and compare."""
        completed = await self._call(_IMPORT, str(directory), str(source))
        if completed.exit_status != 0 or f"Imported session: {session_id}".encode() not in completed.stdout:
            # What OpenCode prints on stderr may be the conversation itself: not shown.
            raise CommandError(THIS_MACHINE, "opencode import", completed.exit_status, "")

    async def sessions(self, directory: Path, *, limit: int = 1) -> list[SessionSummary]:
        """Describe the newest sessions of this directory (resolved); sub-agents' and archived ones are left out."""
        where = f"s.directory = {literal(str(directory))} and s.parent_id is null and s.time_archived is null"
        rows = await self.query(_SUMMARY + f"where {where} order by s.time_updated desc limit {limit}")
        with _understood():
            return [_summary(row) for row in rows]

    async def session(self, session_id: str) -> SessionSummary:
        """Describe one session. Raises UnknownNameError."""
        rows = await self.query(_SUMMARY + f"where s.id = '{checked_id(session_id)}'")
        if not rows:
            raise UnknownNameError(
                f"no session `{session_id}` on this machine", hint="list them with `opencode session list`"
            )
        with _understood():
            return _summary(rows[0])

    async def usual_choice(self) -> tuple[str | None, str | None]:
        """Return agent and model (`provider/id`) of the newest prompt on this machine, else the configured ones."""
        latest = next(iter(await self.query(_LATEST_PROMPT)), {})
        if not (latest.get("provider") and latest.get("model")):
            completed = await self._call(_CONFIGURATION)
            defaults = parse_defaults(completed.stdout.decode(errors="replace"))
            return defaults.get("default_agent"), defaults.get("model")
        return latest.get("agent"), f"{latest['provider']}/{latest['model']}"

    async def surroundings(self, session_id: str) -> Surroundings:
        """Ask, in one query, for what an export leaves out: children, todos, and where the data lies."""
        one = f"'{checked_id(session_id)}'"
        rows = await self.query(
            f"with recursive family(id, depth) as (select id, 1 from session where parent_id = {one} union "
            "select s.id, depth + 1 from session s join family f on s.parent_id = f.id where depth < 100) "
            "select 'child' as kind, id as a, null as b, null as c, depth as place from family union all "
            f"select 'todo', content, status, priority, position from todo where session_id = {one} union all "
            "select 'data', file, null, null, 0 from pragma_database_list where name = 'main' union all "
            "select 'changed', max(latest), null, null, 0 from ("
            f"select time_updated as latest from session where id = {one} union all "
            f"select max(time_updated) from message where session_id = {one} union all "
            f"select max(time_updated) from part where session_id = {one}) order by kind, place, a"
        )
        with _understood():
            todos = tuple(Todo(str(row["a"]), str(row["b"]), str(row["c"])) for row in rows if row["kind"] == "todo")
            children = dict.fromkeys(str(row["a"]) for row in rows if row["kind"] == "child")
            database = next(str(row["a"]) for row in rows if row["kind"] == "data")
            changed = int(next((row["a"] for row in rows if row["kind"] == "changed"), None) or 0)
        identity = await self._identity(database)
        return Surroundings(tuple(children), todos, Path(database).parent, changed, identity)

    async def _identity(self, database: str) -> str | None:
        completed = await self.connection.run(identity_script(), database, timeout_s=COMMAND_TIMEOUT_S)
        return completed.stdout.decode(errors="replace").strip() or None

    async def query(self, statement: str) -> list[dict[str, Any]]:
        """Ask OpenCode's database by one statement. Values in it must have been checked against a grammar."""
        read = await self._read("rows", "json", statement)
        return await self._command(statement) if read is None else _rows_of(read)

    async def _command(self, statement: str) -> list[dict[str, Any]]:
        """Have OpenCode itself run a statement, which may write."""
        completed = await self._call(_QUERY, statement)
        self._expect_success("opencode db", completed)
        return _rows_of(completed.stdout)

    async def put_todos(self, session_id: str, todos: Sequence[Todo], now_ms: int) -> None:
        """Replace the session's todos. Rows are overwritten before surplus ones go: none is missing meanwhile."""
        one = literal(checked_id(session_id))
        rows = [
            f"({one}, {', '.join(map(literal, astuple(todo)))}, {place}, {now_ms}, {now_ms})"
            for place, todo in enumerate(todos)
        ]
        for batch in _batches(rows, STATEMENT_LIMIT_BYTES):
            await self._command(f"insert or replace into todo ({_TODO_COLUMNS}) values {', '.join(batch)}")
        await self._command(f"delete from todo where session_id = {one} and position >= {len(todos)}")

    async def _read(self, *words: str) -> bytes | None:
        """Return what the reader prints; None where it refuses, or is none, and OpenCode's command is to be asked."""
        completed = await self._call(f"{reader_script()}\n{_READ}", *words)
        return completed.stdout if completed.exit_status == DONE else None

    async def _call(self, script: str, *values: str) -> Completed:
        return await self.connection.run(script, str(self.binary), *values, timeout_s=COMMAND_TIMEOUT_S)

    def _expect_success(self, command: str, completed: Completed) -> None:
        if completed.exit_status != 0:
            output = clean(completed.stderr.decode(errors="replace").strip()[-300:], 300)
            raise CommandError(THIS_MACHINE, command, completed.exit_status, output)


@contextmanager
def _understood() -> Iterator[None]:
    """Turn an answer of another shape into words: of another OpenCode, or of what stands in for it."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        OSError,
        RecursionError,
        StopIteration,
        TypeError,
        ValueError,
    ) as error:
        raise HostNotReadyError(
            THIS_MACHINE,
            "OpenCode's database answered with something else than rows",
            hint="is it OpenCode 1.18? See `opencode --version` and `opencode db path`",
        ) from error


def identity_script() -> str:
    """Return the script that prints which database a path names: see identity.sh."""
    return files("remote_dispatch.opencode").joinpath("identity.sh").read_text(encoding="utf-8")


def checked_id(session_id: str) -> str:
    """Return the id. An empty or odd one would open a picker, or change a query."""
    if not SESSION_ID.fullmatch(session_id):
        raise UnknownNameError(
            f"`{clean(session_id, 60)}` is not a session id", hint="list them with `opencode session list`"
        )
    return session_id


def _absolute(path: Path) -> str:
    return str(path.absolute())


def literal(text: str) -> str:
    """Write a text as an SQL string literal."""
    if "\0" in text:
        raise ValueError("a NUL byte cannot stand in a query")
    return "'" + text.replace("'", "''") + "'"


def _rows_of(answer: bytes) -> list[dict[str, Any]]:
    with _understood():
        return _rows(json.loads(answer.strip() or b"[]"))


def _rows(answer: Any) -> list[dict[str, Any]]:
    if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
        raise TypeError("these are no rows")
    return answer


def _batches(rows: Sequence[str], limit_bytes: int) -> list[list[str]]:
    batches: list[list[str]] = []
    size = limit_bytes
    for row in rows:
        length = len(row.encode("utf-8", "surrogateescape")) + 2
        if size + length > limit_bytes:
            batches.append([])
            size = 0
        batches[-1].append(row)
        size += length
    return batches


def find_binary(environment: Mapping[str, str]) -> Path:
    """Find OpenCode on this machine: REMOTE_DISPATCH_OPENCODE, PATH, or where its installers put it."""
    if asked := environment.get("REMOTE_DISPATCH_OPENCODE"):
        if not (Path(asked).is_file() and os.access(asked, os.X_OK)):
            raise ConfigurationError("`REMOTE_DISPATCH_OPENCODE` does not name a program that can be run")
        return Path(asked)
    home = Path(environment.get("HOME", "/"))
    usual = [
        home / ".opencode/bin",
        home / ".local/bin",
        home / ".bun/bin",
        home / ".npm-global/bin",
        Path("/usr/local/bin"),
    ]
    places: Sequence[str] = [environment.get("PATH", os.defpath), *map(str, usual)]
    found = shutil.which("opencode", path=os.pathsep.join(places))
    if found is None:
        raise HostNotReadyError(
            THIS_MACHINE,
            "OpenCode was not found",
            hint="install it (`npm install -g opencode-ai`), or set `REMOTE_DISPATCH_OPENCODE`",
        )
    return Path(found)


def _summary(row: dict[str, Any]) -> SessionSummary:
    return SessionSummary(
        id=row["id"],
        title=clean(str(row.get("title", "")), 200),
        directory=Path(row["directory"]),
        updated=datetime.fromtimestamp(row["updated"] / 1000, tz=UTC),
        messages=int(row["messages"]),
    )
