"""The values of named sessions: the record, what one look at a session shows, and how its turn stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

from remote_dispatch.failure import Failure
from remote_dispatch.model import DISPATCH_NAME, SESSION_ID

if TYPE_CHECKING:
    from remote_dispatch.model import Todo
    from remote_dispatch.opencode.served import Raw, Request, Served, Status, Usage


class Trouble(BaseModel):
    """A failure of an earlier turn: the same one twice in the same place is not tried a third time."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    failure: Failure
    place: str
    """What the turn was at: a digest of the prompt."""
    at: datetime


class NamedSession(BaseModel):
    """The record of one named session. Old records load for ever."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = 1
    name: Annotated[str, StringConstraints(pattern=rf"^{DISPATCH_NAME.pattern}$")]
    host: str
    session_id: Annotated[str, StringConstraints(pattern=rf"^{SESSION_ID.pattern}$")]
    directory: str
    """Where it works on the host, absolute: the session's own directory."""
    title: str = ""
    works_on: str = ""
    """What it is about, in the user's words; without any, and without a title, the beginning of the first prompt."""
    created: datetime
    message_id: str | None = None
    """The user message that our last prompt became."""
    expects_json: bool = False
    """Whether the answer to that prompt is to be JSON."""
    troubles: tuple[Trouble, ...] = ()
    """The failures of the last turns, the newest last; forgotten after a turn that ended well."""
    dispatch: str | None = None
    """The id of the dispatch that brought it there."""

    def but(self, **changes: Any) -> NamedSession:
        """Return a copy with these fields changed."""
        return self.model_validate({**dict(self), **changes})


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at a session shows, with all its sub-agents'. Nothing in it is older than `at_s`."""

    session: Served
    status: Status | None
    """None: no turn runs."""
    messages: tuple[Raw, ...]
    """The newest messages, `{info, parts}` each, oldest first."""
    requests: tuple[Request, ...]
    """Open permissions and questions of the session and its sub-agents; stale ones are left out."""
    todos: tuple[Todo, ...]
    descendants: tuple[Served, ...]
    """The sessions of sub-agents, theirs included."""
    at_s: float
    """When it was begun, on our monotonic clock."""
    server_offset_ms: int = 0
    """The server's clock minus ours, as far as it is known."""
    now_ms: int = 0
    """When it was begun, in milliseconds since 1970 on our clock; 0 where that is not known."""


class Phase(StrEnum):
    """How a turn stands."""

    IDLE = "idle"
    """There was no turn yet."""
    STARTING = "starting"
    """The prompt was sent and its turn is not seen yet."""
    BUSY = "busy"
    RETRYING = "retrying"
    """The provider failed, and OpenCode tries again by itself."""
    WAITING = "waiting"
    """Somebody has to answer: see `requests`."""
    ENDING = "ending"
    """It seems to have ended, and is looked at once more."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class End:
    """How a turn ended: well when `failure` is None."""

    failure: Failure | None = None
    detail: str | None = None
    """Why it failed, for people; cleaned, without addresses."""
    answer: str = ""
    """The whole last answer: the text parts of the last assistant message, those that OpenCode made up left out."""
    message_id: str | None = None
    """The last assistant message."""
    finish: str | None = None
    agent: str | None = None
    model: str | None = None
    refused: tuple[str, ...] = ()
    """`tool: title` of every tool call that was not permitted."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How the last turn of a session stands: what the gate makes of readings."""

    phase: Phase
    failure: Failure | None = None
    """While it waits or retries: what kind that is. At the end: why it is not a good one."""
    detail: str | None = None
    requests: tuple[Request, ...] = ()
    status: Status | None = None
    end: End | None = None
    """There once the phase is ENDED."""
    must_abort: bool = False
    """It will never end by itself (an endless stream of answers without end): the caller aborts it."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.phase in (Phase.IDLE, Phase.ENDED)


@dataclass(frozen=True, slots=True)
class TodoCount:
    """How far the todos are."""

    done: int
    total: int
    active: str | None = None
    """The one in progress."""

    @classmethod
    def of(cls, todos: tuple[Todo, ...]) -> TodoCount:
        """Count; cancelled ones are neither done nor pending, and not counted."""
        counted = [todo for todo in todos if todo.status != "cancelled"]
        done = sum(todo.status == "completed" for todo in counted)
        active = next((todo.content for todo in counted if todo.status == "in_progress"), None)
        return cls(done, len(counted), active)


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that a list or a report says of one session at one moment."""

    named: NamedSession
    reading: Reading
    standing: Standing

    @property
    def todo(self) -> TodoCount:
        """How far its todos are."""
        return TodoCount.of(self.reading.todos)

    @property
    def usage(self) -> Usage:
        """Tokens and cost, its sub-agents' included."""
        total = self.reading.session.usage
        for one in self.reading.descendants:
            total += one.usage
        return total
