"""The stand-in for OpenCode, and transcripts to feed it and the real one."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

from remote_dispatch.runner.job import Payload, SessionFile

OPENCODE_STUB = Path(__file__).resolve().parents[1] / "stub" / "opencode"

_numbers = itertools.count(1)


def new_id(prefix: str) -> str:
    """Return an id of OpenCode's shape that no other call in this process returned."""
    return f"{prefix}_{next(_numbers):012x}{'T' * 14}"


def a_transcript(*texts: str, session_id: str | None = None, parent_id: str | None = None) -> dict[str, Any]:
    """Return a transcript with these texts as the user's and the model's messages in turn."""
    session = session_id or new_id("ses")
    messages: list[dict[str, Any]] = []
    for position, text in enumerate(texts):
        messages.append(_message(session, position, text, messages[-1]["info"]["id"] if messages else ""))
    info: dict[str, Any] = {
        "id": session,
        "slug": "kind-moon",
        "projectID": "global",
        "directory": "/somewhere/else",
        "path": "somewhere/else",
        "title": "A conversation",
        "version": "1.18.33",
        "time": {"created": 1_700_000_000_000, "updated": 1_700_000_000_000 + len(texts)},
    }
    return {"info": info | ({"parentID": parent_id} if parent_id else {}), "messages": messages}


def _message(session: str, position: int, text: str, parent: str) -> dict[str, Any]:
    message, created = new_id("msg"), 1_700_000_000_000 + position
    user = {
        "role": "user",
        "time": {"created": created},
        "summary": {"diffs": []},
        "agent": "build",
        "model": {"providerID": "test", "modelID": "model"},
    }
    assistant = {
        "parentID": parent,
        "role": "assistant",
        "mode": "build",
        "agent": "build",
        "path": {"cwd": "/somewhere/else", "root": "/"},
        "cost": 0,
        "tokens": {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}},
        "modelID": "model",
        "providerID": "test",
        "time": {"created": created, "completed": created},
        "finish": "stop",
    }
    info = (assistant if position % 2 else user) | {"id": message, "sessionID": session}
    part = {"type": "text", "text": text, "id": new_id("prt"), "sessionID": session, "messageID": message}
    return {"info": info, "parts": [part]}


def packed(transcript: dict[str, Any]) -> SessionFile:
    """Return a transcript as it travels."""
    messages = transcript["messages"]
    data = gzip.compress(json.dumps(transcript).encode(), compresslevel=1, mtime=0)
    return SessionFile(
        id=transcript["info"]["id"],
        packed=Payload.of(data),
        messages=len(messages),
        parts=sum(len(message["parts"]) for message in messages),
    )
