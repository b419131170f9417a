"""OpenCode's JSON events as they come from the host: bytes in, events out, and what a person wants to see of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from remote_dispatch.text import clean as clean_text
from remote_dispatch.text import mask_addresses
from remote_dispatch.transcript.shape import TODO_TOOL, mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_LIMIT_BYTES = 64 * 1024 * 1024
TEXT_LIMIT = 2000

Kind = Literal["text", "tool", "todo", "tokens", "error"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One thing that happened. `text` is cleaned of control characters and bounded.

    `tool` names the tool, `is_error` says that it failed; `done` and `total` count todos; `tokens` is what a step used.
    """

    kind: Kind
    text: str
    tool: str | None = None
    is_error: bool = False
    done: int | None = None
    total: int | None = None
    tokens: int | None = None


@dataclass(slots=True)
class EventReader:
    """Cuts a stream of bytes into events; lines may arrive in any pieces.

    `offset` is where the first incomplete line begins: reading can go on there later, with `EventReader(offset=...)`.
    Lines that are no JSON objects, or longer than the limit, are counted in `malformed` and skipped.
    """

    offset: int = 0
    malformed: int = 0
    limit_bytes: int = LINE_LIMIT_BYTES
    _pieces: list[bytes] = field(default_factory=list)
    _pending: int = 0

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        """Yield the events that this chunk completes."""
        *complete, rest = chunk.split(b"\n")
        for end in complete:
            line = self._finish(end)
            event = None if line is None else _event(line)
            if event is not None:
                yield event
            elif line != b"":
                self.malformed += 1
        self._keep(rest)

    def _finish(self, end: bytes) -> bytes | None:
        """Return the line that ends here, None when it is too long."""
        self._keep(end)
        is_too_long = self._pending > self.limit_bytes
        line = None if is_too_long else b"".join(self._pieces)
        self.offset += self._pending + 1
        self._pieces, self._pending = [], 0
        return line

    def _keep(self, piece: bytes) -> None:
        self._pending += len(piece)
        if self._pending > self.limit_bytes:
            self._pieces = []
        elif piece:
            self._pieces.append(piece)


def describe(event: dict[str, Any]) -> Progress | None:
    """Return what is worth showing of an event; None for the rest, and for events of unexpected shape."""
    part = mapping(event.get("part"))
    match event.get("type"):
        case "text":
            text = clean(part.get("text"))
            return Progress("text", text) if text else None
        case "tool_use":
            return _tool(part)
        case "step_finish":
            return _tokens(part)
        case "error":
            return Progress("error", _error_text(mapping(event.get("error"))), is_error=True)
        case _:
            return None


def clean(text: object) -> str:
    """Return text that is safe on a terminal, and not too long; empty for anything but a string."""
    if not isinstance(text, str):
        return ""
    return clean_text(text, TEXT_LIMIT).strip()


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _tool(part: dict[str, Any]) -> Progress:
    state = mapping(part.get("state"))
    tool = clean(part.get("tool"))
    todos = mapping(state.get("input")).get("todos")
    if tool == TODO_TOOL and isinstance(todos, list):
        return _todo(todos)
    is_error = state.get("status") == "error"
    text = clean(state.get("error")) if is_error else clean(state.get("title"))
    return Progress("tool", text, tool=tool, is_error=is_error)


def _todo(todos: list[Any]) -> Progress:
    lines = [mapping(todo) for todo in todos]
    done = sum(line.get("status") == "completed" for line in lines)
    current = next((clean(line.get("content")) for line in lines if line.get("status") == "in_progress"), "")
    return Progress("todo", current, tool=TODO_TOOL, done=done, total=len(lines))


def _tokens(part: dict[str, Any]) -> Progress | None:
    tokens = mapping(part.get("tokens"))
    counts = [tokens.get(name) for name in ("input", "output", "reasoning")]
    total = tokens.get("total", sum(count for count in counts if isinstance(count, int)))
    return Progress("tokens", clean(part.get("reason")), tokens=total) if isinstance(total, int) else None


def _error_text(error: dict[str, Any]) -> str:
    name, message = clean(error.get("name")), clean(mapping(error.get("data")).get("message"))
    return mask_addresses(": ".join(text for text in (name, message) if text))
