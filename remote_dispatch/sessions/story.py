"""What happens in one session and its sub-agents', told once each, out of events and of readings. Pure.

An event may be lost with its connection, and a reading may be older than an event: what both show is told by whichever
comes first, and never again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch.opencode.served import read_status, read_todo
from remote_dispatch.sessions.happening import (
    Answered,
    Asked,
    Child,
    Happened,
    Retried,
    TodosChanged,
    ToolChanged,
)
from remote_dispatch.sessions.texts import Texts
from remote_dispatch.text import clean, mask_addresses
from remote_dispatch.transcript.shape import TODO_TOOL, mapping, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from remote_dispatch.model import Todo
    from remote_dispatch.opencode.served import Event, Raw, Status
    from remote_dispatch.sessions.happening import Happening
    from remote_dispatch.sessions.values import Reading

_DECISIVE = frozenset(
    {
        "session.status",
        "session.idle",
        "session.error",
        "session.compacted",
        "session.deleted",
        "permission.asked",
        "permission.replied",
        "question.asked",
        "question.replied",
        "question.rejected",
    }
)
_RANKS = {"pending": 0, "running": 1, "completed": 2, "error": 2}
_TITLE_LIMIT = 200
_ERROR_LIMIT = 500
_TELLING = ("command", "filePath", "pattern", "path", "url", "query", "description", "prompt")


class Story:
    """Tells one watched session. `message_id` is the prompt whose answer is of interest; None: what comes from now."""

    def __init__(self, session_id: str, message_id: str | None = None) -> None:
        self._session_id = session_id
        self._message_id = message_id
        self._members = {session_id}
        self._assistant: set[str] = set()
        self._texts: dict[str, Texts] = {}
        self._ranks: dict[tuple[str, str], int] = {}
        self._requests: set[str] = set()
        self._retries: dict[str, tuple[int, int | None]] = {}
        self._todos: dict[str, tuple[Todo, ...]] = {}
        self._todos_at_s = 0.0
        self._is_old_todo = False
        self._is_read = False
        self._on_event: dict[str, Callable[[str, Raw, float], Iterable[Happening]]] = {
            "message.updated": self._message_updated,
            "message.part.updated": self._part_updated,
            "message.part.delta": self._part_delta,
            "todo.updated": self._todo_updated,
            "session.status": self._status_changed,
        }

    def concerns(self, event: Event) -> bool:
        """Whether the event is of this session or of a sub-agent's; a new sub-agent's session belongs from now on."""
        session_id = event.session_id
        if session_id in self._members:
            return True
        info = mapping(event.properties.get("info"))
        return event.type.startswith("session.") and bool(session_id) and str(info.get("parentID")) in self._members

    def event(self, event: Event, now_s: float) -> Iterator[Happened]:
        """Take an event that concerns it, in the order of the stream; `now_s` is the clock of the readings."""
        source = event.session_id or self._session_id
        if source not in self._members:
            yield from self._child(source, str(mapping(event.properties.get("info")).get("title") or ""))
        take = self._on_event.get(event.type)
        if take is not None:
            yield from (Happened(self._session_id, what, source) for what in take(source, event.properties, now_s))

    def reading(self, reading: Reading) -> Iterator[Happened]:
        """Take a reading, and tell what the events have not told."""
        is_first, self._is_read = not self._is_read, True
        for one in reading.descendants:
            if one.id not in self._members:
                told = list(self._child(one.id, one.title))
                yield from () if is_first else told
        for what in (*self._messages(reading, is_first=is_first), *self._rest(reading, is_first=is_first)):
            yield Happened(self._session_id, what, self._session_id)
        yield from self._open_requests(reading)

    def lost(self) -> None:
        """The event stream broke."""
        for texts in self._texts.values():
            texts.lost()

    # --- events

    def _child(self, session_id: str, title: str) -> Iterator[Happened]:
        self._members.add(session_id)
        yield Happened(self._session_id, Child(session_id, _line(title, _TITLE_LIMIT)), session_id)

    def _message_updated(self, _source: str, properties: Raw, _now_s: float) -> Iterable[Happening]:
        info = mapping(properties.get("info"))
        if info.get("role") == "assistant":
            self._assistant.add(str(info.get("id")))
        return ()

    def _part_updated(self, source: str, properties: Raw, _now_s: float) -> Iterable[Happening]:
        part = mapping(properties.get("part"))
        if part.get("type") == "tool":
            return self._tool(source, part)
        if part.get("type") == "text" and str(part.get("messageID")) in self._assistant:
            return self._text(source).began(part)
        return ()

    def _part_delta(self, source: str, properties: Raw, _now_s: float) -> Iterable[Happening]:
        if properties.get("field") != "text":
            return ()
        return self._text(source).piece(str(properties.get("partID")), str(properties.get("delta") or ""))

    def _todo_updated(self, source: str, properties: Raw, now_s: float) -> Iterable[Happening]:
        found = properties.get("todos")
        todos = tuple(read_todo(mapping(one)) for one in found) if isinstance(found, list) else ()
        if source == self._session_id:
            self._todos_at_s = now_s
            self._doubt_todos()
        return self._todos_are(source, todos)

    def _status_changed(self, source: str, properties: Raw, _now_s: float) -> Iterable[Happening]:
        return self._retry(source, read_status(mapping(properties.get("status"))))

    # --- readings

    def _messages(self, reading: Reading, *, is_first: bool) -> Iterator[Happening]:
        is_old = is_first
        texts = self._text(self._session_id)
        for message in reading.messages:
            info = mapping(message.get("info"))
            is_final = "completed" in mapping(info.get("time"))
            for part in _parts(message) if info.get("role") == "assistant" else ():
                if part.get("type") == "tool":
                    told = list(self._tool(self._session_id, part))
                    yield from told if not is_old or state_of(part).get("status") in ("pending", "running") else ()
                elif is_old and is_final:
                    texts.known(part)
                elif part.get("type") == "text":
                    yield from texts.stored(part, is_final=is_final)
            is_old = is_old and info.get("id") != self._message_id

    def _rest(self, reading: Reading, *, is_first: bool) -> Iterator[Happening]:
        if self._has_written_todos(reading):
            self._doubt_todos()
        elif is_first and self._session_id not in self._todos:
            self._todos[self._session_id] = reading.todos
            self._is_old_todo = True
        if reading.at_s >= self._todos_at_s:
            yield from self._todos_are(self._session_id, reading.todos)
        yield from self._retry(self._session_id, reading.status)

    def _doubt_todos(self) -> None:
        """Todos that were taken for an older turn's may be this one's: a reading asks for them and messages apart."""
        if self._is_old_todo:
            self._is_old_todo = False
            self._todos.pop(self._session_id, None)

    def _has_written_todos(self, reading: Reading) -> bool:
        """Whether the todos are of the turn in question, begun before anybody looked; else they are an older one's."""
        ids = [mapping(one.get("info")).get("id") for one in reading.messages]
        if self._message_id not in ids:
            return False
        turn = reading.messages[ids.index(self._message_id) :]
        parts = (part for message in turn for part in _parts(message) if part.get("tool") == TODO_TOOL)
        return any(state_of(part).get("status") == "completed" for part in parts)

    def _open_requests(self, reading: Reading) -> Iterator[Happened]:
        now = {one.id: one for one in reading.requests}
        for request_id, request in now.items():
            if request_id not in self._requests:
                yield Happened(self._session_id, Asked(request), request.session_id)
        for request_id in sorted(self._requests - now.keys()):
            yield Happened(self._session_id, Answered(request_id), self._session_id)
        self._requests = set(now)

    # --- both

    def _text(self, source: str) -> Texts:
        return self._texts.setdefault(source, Texts())

    def _tool(self, source: str, part: Raw) -> Iterator[Happening]:
        state, call_id = state_of(part), str(part.get("callID"))
        status = str(state.get("status"))
        rank = _RANKS.get(status, -1)
        if rank <= self._ranks.get((source, call_id), -1):
            return
        self._ranks[source, call_id] = rank
        error = _line(mask_addresses(clean(str(state.get("error") or ""), _ERROR_LIMIT)), _ERROR_LIMIT)
        yield ToolChanged(_line(str(part.get("tool")), 80), call_id, status, _title(state), error)

    def _todos_are(self, source: str, todos: tuple[Todo, ...]) -> Iterator[Happening]:
        if self._todos.get(source, ()) != todos:
            self._todos[source] = todos
            yield TodosChanged(todos)

    def _retry(self, source: str, status: Status | None) -> Iterator[Happening]:
        if status is None or status.type != "retry":
            return
        attempt = (status.attempt, status.next_ms)
        if self._retries.get(source) != attempt:
            self._retries[source] = attempt
            yield Retried(status)


def is_decisive(event: Event) -> bool:
    """Whether a session is to be read at once: its turn may have ended, waits, or repeats an answer without an end."""
    is_endless = event.type == "message.updated" and mapping(event.properties.get("info")).get("finish") == "unknown"
    return is_endless or event.type in _DECISIVE


def _parts(message: Raw) -> Iterator[Raw]:
    parts = message.get("parts")
    return (part for part in (parts if isinstance(parts, list) else ()) if isinstance(part, dict))


def _title(state: Raw) -> str:
    asked = mapping(state.get("input"))
    wanted = (state.get("title"), *(asked.get(name) for name in _TELLING))
    return _line(next((one for one in wanted if isinstance(one, str) and one), ""), _TITLE_LIMIT)


def _line(text: str, limit: int) -> str:
    return " ".join(clean(text, limit).split())
