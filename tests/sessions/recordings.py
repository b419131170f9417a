"""Readings of real sessions as files: what OpenCode 1.18.33 showed of each row of the taxonomy, look by look.

Recorded by `play`, equal looks in between left out; addresses, headers and paths replaced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_dispatch.opencode.served import (
    PermissionRequest,
    QuestionRequest,
    Served,
    Status,
    read_permission,
    read_question,
    read_status,
)
from remote_dispatch.sessions.values import Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from remote_dispatch.opencode.served import Raw, Request

DATA = Path(__file__).parent / "samples"
SESSION = Served("ses_e04459f12ffedVRTXXQ8b9xFYV", "/home/me/project", "a sample")
LEFT_OUT = ("responseHeaders", "metadata", "snapshot", "path", "cost", "tokens")


def names() -> list[str]:
    return sorted(path.stem for path in DATA.glob("*.json"))


def sample(name: str) -> tuple[Raw, list[Reading]]:
    """Return what was expected of a recorded turn, and its readings."""
    raw = json.loads((DATA / f"{name}.json").read_text())
    pool = raw["messages"]
    looks = ({**one, "messages": [pool[place] for place in one["messages"]]} for one in raw["readings"])
    return raw, [_reading(one) for one in looks]


def reading(at_s: float, messages: Iterable[Raw], status: Status | None = None, **fields: Any) -> Reading:
    return Reading(
        **{
            "session": SESSION,
            "status": status,
            "messages": tuple(messages),
            "requests": (),
            "todos": (),
            "descendants": (),
            "at_s": at_s,
            **fields,
        }
    )


def recorded(readings: Sequence[Reading]) -> Raw:
    """Return readings as JSON: every message that was seen, and which of them each look showed.

    Looks that show the same as the one before and the one after them are left out.
    """
    shown = [_shown(one, readings[0].at_s) for one in readings]
    pictures = [{**one, "at_s": None} for one in shown]
    last = len(shown) - 1
    kept = [
        one
        for place, one in enumerate(shown)
        if place in (0, last) or not pictures[place - 1] == pictures[place] == pictures[place + 1]
    ]
    return pooled(kept)


def pooled(looks: Sequence[Raw]) -> Raw:
    """Return `{messages, readings}`: each message once, named by its place."""
    pool = list({json.dumps(message): message for look in looks for message in look["messages"]}.values())
    return {
        "messages": pool,
        "readings": [{**look, "messages": [pool.index(message) for message in look["messages"]]} for look in looks],
    }


def _shown(reading: Reading, began_s: float) -> Raw:
    status = reading.status
    return {
        "at_s": round(reading.at_s - began_s, 3),
        "status": status and {"type": status.type, "attempt": status.attempt, "message": status.message},
        "requests": [_asked(one) for one in reading.requests],
        "messages": [_plain(one) for one in reading.messages],
    }


def _asked(request: Request) -> Raw:
    kind: Raw = {"permission": request.permission} if isinstance(request, PermissionRequest) else {"questions": []}
    return {"id": request.id, "sessionID": request.session_id, **kind}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if key not in LEFT_OUT}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _reading(raw: Raw) -> Reading:
    requests = (_request(one) for one in raw["requests"])
    return reading(raw["at_s"], raw["messages"], read_status(raw["status"] or {}), requests=tuple(requests))


def _request(raw: Raw) -> PermissionRequest | QuestionRequest:
    return read_permission(raw) if "permission" in raw else read_question(raw)
