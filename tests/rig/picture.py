"""A picture of one machine: both OpenCode's database, read-only, the files, and the history of a git repository.

It shares no code with the product.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DATABASE = ".local/share/opencode/opencode.db"
GIT_S = 30.0

_ID = re.compile(r"\b(ses|msg|prt|call|evt|tool)_[0-9A-Za-z]+")
_NOT_CONTENT = frozenset(
    {"id", "sessionID", "messageID", "parentID", "time", "agent", "mode", "model", "modelID", "providerID", "variant"}
    | {"path", "summary", "snapshot", "cost", "tokens"}
)
"""What a copy may change: its ids, its times, and who is to answer next."""

Row = dict[str, Any]
Files = dict[str, str]


@dataclass(frozen=True, slots=True)
class Message:
    """One message with its parts, as the database has it."""

    id: str
    session: str
    info: Row
    parts: tuple[Row, ...]

    @property
    def text(self) -> str:
        """What its text parts say."""
        return "".join(str(part.get("text", "")) for part in self.parts if part.get("type") == "text")

    @property
    def is_finished(self) -> bool:
        """Whether an answer is whole: it ended, and not with an error."""
        return "completed" in self.info.get("time", {}) and "error" not in self.info

    @property
    def content(self) -> str:
        """What it says and did, whatever its ids and times are."""
        info = {key: self.info[key] for key in ("role", "finish", "error") if key in self.info}
        return json.dumps([_content(info), [_content(part) for part in self.parts]], sort_keys=True)


def _content(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _content(one) for key, one in value.items() if key not in _NOT_CONTENT}
    if isinstance(value, list):
        return [_content(one) for one in value]
    return _ID.sub(r"\1", value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit with all of its files: path to mode and object id."""

    id: str
    parents: tuple[str, ...]
    subject: str
    files: Files


@dataclass(frozen=True, slots=True)
class History:
    """What git says of a repository."""

    working: Files = field(default_factory=dict)
    """The working tree without what is ignored, as a commit of it would be."""
    commits: tuple[Commit, ...] = ()
    """Of HEAD, the oldest first."""
    branches: dict[str, tuple[Commit, ...]] = field(default_factory=dict)
    """The same of each branch that is named for dispatches."""
    damage: str = ""
    """What `git fsck` complains of."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One machine at one moment: its sessions with all their rows, and the files that nobody may touch."""

    home: Path
    sessions: dict[str, Row] = field(default_factory=dict)
    messages: dict[str, tuple[Message, ...]] = field(default_factory=dict)
    """By session, in the order in which OpenCode shows them."""
    todos: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    project: dict[str, str] = field(default_factory=dict)
    """Path below the project directory, `.git` included, to what it holds and may do."""
    files: frozenset[str] = frozenset()
    """Every file below the home."""
    runs: tuple[str, ...] = ()
    """The session of each `opencode run` that began here."""
    history: History = field(default_factory=History)
    """Of the project, where it was asked for."""

    @property
    def rows(self) -> tuple[object, ...]:
        """Everything that the database says of sessions."""
        return (self.sessions, self.messages, self.todos)


def look(home: Path, project: Path, *, has_history: bool = False) -> Picture:
    """Take a picture of a machine; `has_history` asks git about the project too."""
    sessions, messages, todos = _read_database(home / DATABASE)
    files = frozenset(str(path.relative_to(home)) for path in below(home))
    tree = {str(path.relative_to(project)): _fingerprint(path) for path in below(project)}
    history = _history(project) if has_history else History()
    return Picture(home, sessions, messages, todos, tree, files, tuple(_runs(home)), history)


def _read_database(path: Path) -> tuple[dict[str, Row], dict[str, tuple[Message, ...]], dict[str, tuple[Row, ...]]]:
    if not path.exists():
        return {}, {}, {}
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row

        def rows(table: str, order: str) -> list[Row]:
            return [dict(row) for row in connection.execute(f"select * from {table} order by {order}")]

        tables = {row["name"] for row in rows("sqlite_master", "name")}
        if "message" not in tables:
            return {}, {}, {}
        sessions = {row["id"]: row for row in rows("session", "id")}
        parts = _grouped(rows("part", "id"), "message_id")
        messages = _grouped(rows("message", "time_created, id"), "session_id")
        todos = _grouped(rows("todo", "position"), "session_id")
    read = {
        session: tuple(
            Message(one["id"], session, json.loads(one["data"]), tuple(_part(row) for row in parts.get(one["id"], ())))
            for one in found
        )
        for session, found in messages.items()
    }
    return sessions, read, {session: tuple(found) for session, found in todos.items()}


def _part(row: Row) -> Row:
    data: Row = json.loads(row["data"])
    return data | {"id": row["id"]}


def _grouped(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups


def below(place: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(place):
        for name in names:
            yield Path(directory, name)


def _fingerprint(path: Path) -> str:
    state = path.lstat()
    held = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
    return f"{state.st_mode:o} {hashlib.sha256(held).hexdigest()}"


def blob(content: bytes) -> str:
    """Return the id that git gives to a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _history(project: Path) -> History:
    named = _git(project, "for-each-ref", "--format=%(refname:short)", "refs/heads").decode().split()
    branches = {name: _commits(project, name) for name in named if name.startswith("dispatch")}
    checked = _ran_git(project, "fsck", "--full", "--strict", "--no-dangling", "--no-progress")
    damage = (checked.stdout + checked.stderr).decode() if checked.returncode else ""
    return History(_working(project), _commits(project, "HEAD"), branches, damage)


def _working(project: Path) -> Files:
    names = _git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard").decode().split("\0")
    files = {}
    for name in names:
        path = project / name
        if name and (path.is_symlink() or path.is_file()):
            held = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
            files[name] = f"{_mode(path)} {blob(held)}"
    return files


def _mode(path: Path) -> str:
    if path.is_symlink():
        return "120000"
    return "100755" if path.lstat().st_mode & stat.S_IXUSR else "100644"


def _commits(project: Path, tip: str) -> tuple[Commit, ...]:
    lines = _git(project, "log", "--reverse", "--topo-order", "--format=%H%x00%P%x00%s", tip).decode().splitlines()
    found = (line.split("\0") for line in lines)
    return tuple(
        Commit(name, tuple(parents.split()), subject, _files(project, name)) for name, parents, subject in found
    )


def _files(project: Path, commit: str) -> Files:
    entries = _git(project, "ls-tree", "-r", "-z", commit).decode().split("\0")
    parted = (entry.partition("\t") for entry in entries if entry)
    return {name: " ".join(head.split()[::2]) for head, _, name in parted}


def _git(project: Path, *arguments: str) -> bytes:
    ran = _ran_git(project, *arguments)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout


def _ran_git(project: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nowhere", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    argv = ["git", "-C", str(project), *arguments]
    return subprocess.run(
        argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_S, check=False
    )


def _runs(home: Path) -> Iterator[str]:
    """The rig's `opencode` notes each call, before it does anything, in a file of the home."""
    log = home / "calls"
    for line in log.read_text().splitlines() if log.exists() else ():
        words = line.split()
        if words[:2] == ["run", "--session"]:
            yield words[2]


def living(home: Path) -> dict[int, str]:
    """Return every process whose HOME is this one, with its arguments; those that only wait to be reaped are dead."""
    found = {}
    mark = b"\0HOME=" + os.fsencode(home) + b"\0"
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                if mark in b"\0" + (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    return found
