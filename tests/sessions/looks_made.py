"""Looks at sessions as tests need them, made of small values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from remote_dispatch.opencode.served import PermissionRequest, Served, Status, Usage
from remote_dispatch.sessions.values import End, Look, NamedSession, Phase, Reading, Standing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.failure import Failure
    from remote_dispatch.model import Todo
    from remote_dispatch.opencode.served import Request

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def a_named(name: str = "kumo", host: str = "pi") -> NamedSession:
    """A record; its session's id follows from the name."""
    return NamedSession(name=name, host=host, session_id=f"ses_{name:0<20}", directory="/work", created=NOW)


def a_reading(
    named: NamedSession,
    *,
    messages: Sequence[dict[str, Any]] = (),
    todos: Sequence[Todo] = (),
    requests: Sequence[Request] = (),
    status: Status | None = None,
    descendants: Sequence[Served] = (),
    updated_ms: int = NOW_MS - 4000,
    offset_ms: int = 0,
) -> Reading:
    """A reading, four seconds after the last change."""
    session = Served(named.session_id, "/work", "A title", updated_ms=updated_ms, usage=Usage(1000, 200, cost=0.5))
    return Reading(session, status, tuple(messages), tuple(requests), tuple(todos), tuple(descendants), 1.0, offset_ms)


def a_look(
    named: NamedSession | None = None,
    phase: Phase = Phase.BUSY,
    *,
    failure: Failure | None = None,
    detail: str | None = None,
    answer: str | None = None,
    must_abort: bool = False,
    **reading: Any,
) -> Look:
    """A look; ended when it has an answer."""
    named = named or a_named()
    end = None if answer is None else End(failure, detail, answer, refused=("bash: rm -r x",) if failure else ())
    phase = phase if end is None else Phase.ENDED
    seen = a_reading(named, **reading)
    standing = Standing(phase, failure, detail, seen.requests, seen.status, end, must_abort)
    return Look(named, seen, standing)


def said(*parts: dict[str, Any]) -> dict[str, Any]:
    """A message of the model."""
    return {"info": {"role": "assistant"}, "parts": list(parts)}


def a_permission(number: int = 1, named: NamedSession | None = None) -> PermissionRequest:
    """A request for `touch x`."""
    session_id = (named or a_named()).session_id
    return PermissionRequest(f"per_{number:08}", session_id, "bash", ("touch *",), metadata={"command": "touch x"})
