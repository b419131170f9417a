"""What a monitor tells: how a turn stands, and what happens in a session and its sub-agents'. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from remote_dispatch.model import Todo
    from remote_dispatch.opencode.served import Request, Status
    from remote_dispatch.sessions.values import Reading, Standing


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of a text part: all pieces of a part, joined, are a beginning of its text."""

    text: str
    part_id: str


@dataclass(frozen=True, slots=True)
class TextMissed:
    """Pieces of a text part were missed: the rest of it is told as one piece when it is complete."""

    part_id: str


@dataclass(frozen=True, slots=True)
class ToolChanged:
    """A tool call got further: `pending`, `running`, then `completed` or `error`. Texts are cleaned, one line each."""

    tool: str
    call_id: str
    status: str
    title: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class TodosChanged:
    """The whole list of todos, as it is now."""

    todos: tuple[Todo, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody has to answer. Told once for each request."""

    request: Request


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was told is open no longer, whoever answered it."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Retried:
    """The provider failed, and OpenCode will try again by itself. Told once for each attempt."""

    status: Status


@dataclass(frozen=True, slots=True)
class Child:
    """A sub-agent got a session."""

    session_id: str
    title: str


Happening = TextDelta | TextMissed | ToolChanged | TodosChanged | Asked | Answered | Retried | Child


@dataclass(frozen=True, slots=True)
class Changed:
    """The session was read, and the picture is another one than before."""

    session_id: str
    standing: Standing
    reading: Reading


@dataclass(frozen=True, slots=True)
class Happened:
    """Something happened in a watched session or in one of its sub-agents'."""

    session_id: str
    """The watched session."""
    what: Happening
    source_id: str
    """Whose it is: the watched session's own, or a sub-agent's."""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The server does not answer: what happens there meanwhile is read later. `message` has no address."""

    since: datetime
    message: str


@dataclass(frozen=True, slots=True)
class LinkBack:
    """The server answers again; everything is read anew."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The session is no longer on the server; it is watched no longer."""

    session_id: str


Update = Changed | Happened | LinkLost | LinkBack | Gone
