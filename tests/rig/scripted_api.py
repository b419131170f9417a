"""The HTTP API of the scripted agent: as much of it as is asked. The standard library alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from tests.rig.scripted_agent import ScriptedAgent
    from tests.rig.scripted_words import Raw

GONE = 404, {"name": "NotFoundError", "data": {"message": "not found"}}


def answer(agent: ScriptedAgent, method: str, path: str, body: Raw, directory: str) -> tuple[int, Any]:
    """Answer a request: status and JSON. `directory` is the header that names it, as it was sent."""
    match [one for one in path.split("/") if one]:
        case ["global", "health"]:
            return 200, {"healthy": True, "version": agent.version}
        case ["file"]:
            return (200, []) if Path(unquote(directory)).is_dir() else (500, {"name": "UnknownError"})
        case ["session", "status"]:
            return 200, agent.statuses
        case ["experimental", "session"]:
            return 200, [_shown(agent, one) for one in agent.sessions]
        case [("permission" | "question") as kind]:
            return 200, [one for name, one in agent.listed.items() if name.startswith(kind[:3])]
        case ["permission" | "question", request, ("reply" | "reject") as word]:
            return _replied(agent, path, request, body if word == "reply" else {"answers": None})
        case ["session", session, *rest] if session in agent.sessions:
            return _of_session(agent, session, method, rest)
    return GONE


def _of_session(agent: ScriptedAgent, session: str, method: str, rest: list[str]) -> tuple[int, Any]:
    match rest:
        case [] if method == "DELETE":
            del agent.sessions[session]
            agent.keep(agent.sessions)
            return 200, True
        case []:
            return 200, _shown(agent, session)
        case ["children"]:
            return 200, [_shown(agent, one) for one, raw in agent.sessions.items() if raw.get("parent") == session]
        case ["message"]:
            return 200, []
        case ["message", message]:
            return 200, {"info": {"id": message}, "parts": _parts(agent, session)}
        case ["abort"]:
            agent.cancel(session)
            return 200, True
    return GONE


def _replied(agent: ScriptedAgent, path: str, request: str, body: Raw) -> tuple[int, Any]:
    agent.replies.append((path, body))
    future = agent.waiting.pop(request, None)
    agent.listed.pop(request, None)
    if future is None or future.done():
        return 404, {"name": "PermissionNotFoundError"}
    future.set_result(body)
    return 200, True


def _shown(agent: ScriptedAgent, session: str) -> Raw:
    raw = agent.sessions[session]
    shown = {"id": session, "directory": raw["cwd"], "title": raw["title"], "agent": raw.get("agent", "build")}
    return shown | ({"parentID": raw["parent"]} if "parent" in raw else {})


def _parts(agent: ScriptedAgent, session: str) -> list[Raw]:
    """Return the tool calls as OpenCode stores them."""
    states = {
        one["toolCallId"]: one["status"]
        for one in agent.sessions[session]["history"]
        if one["sessionUpdate"] in ("tool_call", "tool_call_update")
    }
    return [{"type": "tool", "callID": call, "state": {"status": status}} for call, status in states.items()]
