"""A plan for the editor, from the todos that OpenCode shows only inside a tool call. Pure.

OpenCode 1.18 never sends the protocol's `plan` update; a `todowrite` call carries the whole list, also in a replay.
"""

from __future__ import annotations

from typing import Any

from remote_dispatch.transcript.shape import mapping

Raw = dict[str, Any]

STATUSES = frozenset({"pending", "in_progress", "completed"})
PRIORITIES = frozenset({"high", "medium", "low"})
_CALLS = frozenset({"tool_call", "tool_call_update"})


class Plans:
    """The last plan of each session: what did not change is not told again."""

    def __init__(self) -> None:
        self._last: dict[str, Raw] = {}

    def of(self, params: Raw) -> Raw | None:
        """Return the params of the `plan` update that follows from those of a `session/update`, or None."""
        plan, session_id = plan_of(params), str(params.get("sessionId"))
        if plan is None or plan == self._last.get(session_id):
            return None
        self._last[session_id] = plan
        return plan


def plan_of(params: Raw) -> Raw | None:
    """Return the params of a `plan` update for those of a `session/update` that shows todos; None for any other."""
    update = mapping(params.get("update"))
    todos = _todos(update) if update.get("sessionUpdate") in _CALLS else None
    if todos is None:
        return None
    entries = [_entry(one) for one in todos if isinstance(one, dict)]
    return {"sessionId": params.get("sessionId"), "update": {"sessionUpdate": "plan", "entries": entries}}


def _todos(update: Raw) -> list[Any] | None:
    """Return the todos; what the tool gave back is newer than what it was given."""
    given = mapping(update.get("rawInput")).get("todos")
    stored = mapping(mapping(update.get("rawOutput")).get("metadata")).get("todos")
    return next((one for one in (stored, given) if isinstance(one, list)), None)


def _entry(todo: Raw) -> Raw:
    content, status, priority = (str(todo.get(key) or "") for key in ("content", "status", "priority"))
    if status == "cancelled":
        content, status = f"{content} (cancelled)", "completed"
    return {
        "content": content,
        "status": status if status in STATUSES else "pending",
        "priority": priority if priority in PRIORITIES else "medium",
    }
