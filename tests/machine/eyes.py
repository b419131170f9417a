"""An independent judge: reads both databases, the records and the run directories with nothing of the product."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine.places import Places

RANKS = {"new": 0, "staging": 1, "running": 2, "finished": 3, "done": 4, "failed": 4, "cancelled": 4, "lost": 4}
GROWTH = {"none": {"none", "partial", "whole", "copy"}, "partial": {"partial", "whole", "copy"}}
_TASK = re.compile(r"^!say answer <(\d+)>$", re.MULTILINE)
_SETTLED = "id, parent_id, slug, directory, title, agent, model, permission, revert, time_created"


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it stands in a database."""

    id: str
    session: str
    at: int
    data: str
    parts: dict[str, str] = field(default_factory=dict)
    """Its parts' data by their ids, in order."""

    @property
    def info(self) -> dict[str, Any]:
        """What OpenCode keeps of it."""
        info: dict[str, Any] = json.loads(self.data)
        return info

    @property
    def text(self) -> str:
        """Its words."""
        return "\n".join(part["text"] for part in map(json.loads, self.parts.values()) if part["type"] == "text")

    @property
    def task(self) -> int | None:
        """The number of the task that it hands over, if it is a brief."""
        found = _TASK.search(self.text) if self.info["role"] == "user" else None
        return int(found[1]) if found else None


def messages_in(database: Path) -> dict[str, list[Message]]:
    """Return every message by its session, in OpenCode's order."""
    with contextlib.closing(sqlite3.connect(database, timeout=10, isolation_level=None)) as connection:
        connection.execute("begin")  # One moment for both tables.
        found = {
            row[0]: Message(*row)
            for row in connection.execute(
                "select id, session_id, time_created, data from message order by session_id, time_created, id"
            )
        }
        for identity, message, data in connection.execute("select id, message_id, data from part order by id"):
            found[message].parts[identity] = data
    sessions: dict[str, list[Message]] = {}
    for one in found.values():
        sessions.setdefault(one.session, []).append(one)
    return sessions


def sessions_in(database: Path) -> dict[str, tuple[Any, ...]]:
    """Return what must not change of each session, by its id."""
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        return {row[0]: row for row in connection.execute(f"select {_SETTLED} from session")}


def rows_of(database: Path, session: str) -> list[tuple[Any, ...]]:
    """Return every row that belongs to one session, byte for byte."""
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        return [
            row
            for table, column in (("session", "id"), ("message", "session_id"), ("part", "session_id"))
            for row in connection.execute(f"select * from {table} where {column} = ? order by id", (session,))
        ]


class Eyes:
    """What was seen so far; each look compares."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.databases = {
            name: machine.opencode.data / "opencode.db"
            for name, machine in (("laptop", places.laptop), ("host", places.host))
        }
        self._messages: dict[str, Message] = {}
        self._sessions: dict[str, tuple[Any, ...]] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._bystanders = {name: self._bystander(name) for name in self.databases}
        self.look()

    def _bystander(self, name: str) -> list[tuple[Any, ...]]:
        [session] = [one for one in sessions_in(self.databases[name]) if one not in self._sessions][:1]
        self._names = {**getattr(self, "_names", {}), name: session}
        return rows_of(self.databases[name], session)

    # --- what there is

    def local(self) -> dict[str, list[Message]]:
        """The conversations on the laptop."""
        return messages_in(self.databases["laptop"])

    def remote(self) -> dict[str, list[Message]]:
        """The conversations on the host."""
        return messages_in(self.databases["host"])

    def records(self) -> dict[str, dict[str, Any]]:
        """The records by the names of their dispatches."""
        found = [json.loads(path.read_bytes()) for path in self.places.store.root.glob("*/record.json")]
        return {one["name"]: one for one in found}

    def snapshot(self) -> tuple[Any, ...]:
        """Everything that a second command of the same kind must not change."""
        records = {name: {**one, "journal": None} for name, one in self.records().items()}
        return self.local(), sessions_in(self.databases["laptop"]), self.remote(), records

    def forget(self, session: str) -> None:
        """The user deleted this session: what was in it need not be anywhere."""
        gone = {session}
        while more := {one for one, row in self._sessions.items() if row[1] in gone} - gone:
            gone |= more
        self._sessions = {one: row for one, row in self._sessions.items() if one not in gone}
        self._messages = {one: message for one, message in self._messages.items() if message.session not in gone}

    def forget_contents(self, session: str) -> None:
        """The user's own turn changed messages of this session."""
        self._messages = {one: message for one, message in self._messages.items() if message.session != session}

    def forget_dispatch(self, name: str) -> None:
        """The user removed this dispatch."""
        self._records.pop(name, None)

    # --- what holds at any moment

    def look(self) -> None:
        """Check all of it."""
        local = self.local()
        self._nothing_is_lost(local)
        self._nothing_stands_between(local)
        self._nothing_runs_twice()
        self._records_go_forward(local)
        for name, rows in self._bystanders.items():
            assert rows_of(self.databases[name], self._names[name]) == rows, f"a bystander on the {name} changed"

    def _nothing_is_lost(self, local: dict[str, list[Message]]) -> None:
        here = {one.id: one for messages in local.values() for one in messages}
        for identity, before in self._messages.items():
            assert identity in here, f"message {identity} is gone: {before.text[-60:]}"
            now = here[identity]
            assert (now.session, now.at, now.data) == (before.session, before.at, before.data), f"{identity} changed"
            assert before.parts.items() <= now.parts.items(), f"parts of {identity} are gone or changed"
        self._messages = here
        sessions = sessions_in(self.databases["laptop"])
        for identity, row in self._sessions.items():
            assert sessions.get(identity) == row, f"session {identity} changed: {row} -> {sessions.get(identity)}"
        self._sessions = sessions

    @staticmethod
    def _nothing_stands_between(local: dict[str, list[Message]]) -> None:
        """Each answer stands directly behind its question, and each brief stands once in a conversation."""
        for session, messages in local.items():
            for before, one in zip([None, *messages], messages, strict=False):
                if (parent := one.info.get("parentID")) is not None:
                    assert before is not None, f"{session} begins with an answer"
                    assert before.id == parent, f"in {session} {before.text[-60:]!r} stands before {one.text!r}"
            _once(messages, session)

    def _nothing_runs_twice(self) -> None:
        log = self.places.runs
        runs = Counter(log.read_text().split() if log.exists() else [])
        assert all(number == 1 for number in runs.values()), f"a brief ran more than once: {runs}"
        for session, messages in self.remote().items():
            _once(messages, session)

    def _records_go_forward(self, local: dict[str, list[Message]]) -> None:
        records = self.records()
        for name, before in self._records.items():
            assert name in records, f"the record of {name} is gone"
            _went_forward(before, records[name])
        for name, now in records.items():
            self._is_true(name, now, local)
        self._records = records

    def _is_true(self, name: str, record: dict[str, Any], local: dict[str, list[Message]]) -> None:
        """What a record says for the first time is so at that moment."""
        before = self._records.get(name, {"history": [{"state": "new"}], "collected": "none"})
        state, was = record["history"][-1]["state"], before["history"][-1]["state"]
        if state == "done" and was != "done":
            assert record["collected"] in ("whole", "copy"), f"{name} is done, and nothing of it is home"
            assert has_answer(record, local), f"{name} is done without its answer at home"
        if record["collected"] in ("whole", "copy") and before["collected"] == "none" and record["new_messages"]:
            assert task_of(record) in tasks(at_home(record, local)), f"{name} is collected, and its brief is not here"


def _once(messages: list[Message], session: str) -> None:
    numbers = Counter(one.task for one in messages if one.task is not None)
    assert all(number == 1 for number in numbers.values()), f"a brief stands twice in {session}: {numbers}"


def _went_forward(before: dict[str, Any], now: dict[str, Any]) -> None:
    name, old, new = now["name"], before["history"], now["history"]
    assert new[: len(old)] == old, f"the history of {name} was rewritten: {old} -> {new}"
    ranks = [RANKS[moment["state"]] for moment in new]
    assert ranks == sorted(set(ranks)), f"{name} went backwards, or on from its end: {new}"
    assert now["collected"] in GROWTH.get(before["collected"], {before["collected"]}), f"{name} has less at home"
    assert now["is_cleaned_up"] or not before["is_cleaned_up"], f"{name} is not cleaned up any more"


def task_of(record: dict[str, Any]) -> int:
    """The number of the task that a dispatch hands over."""
    found = _TASK.search(record["request"]["prompt"])
    assert found
    return int(found[1])


def tasks(messages: list[Message]) -> set[int]:
    """The numbers of the tasks whose briefs stand in these messages."""
    return {one.task for one in messages if one.task is not None}


def at_home(record: dict[str, Any], local: dict[str, list[Message]]) -> list[Message]:
    """The conversation that a record names as the place of its result."""
    return local.get(record["copy_session_id"] or record["session_id"] or "", [])


def has_answer(record: dict[str, Any], conversations: dict[str, list[Message]], session: str | None = None) -> bool:
    """Whether the whole answer of a dispatch stands where its record says, or in another session."""
    messages = conversations.get(session, []) if session else at_home(record, conversations)
    answer = f"answer <{task_of(record)}>"
    return any(one.info["role"] == "assistant" and "finish" in one.info and one.text == answer for one in messages)
