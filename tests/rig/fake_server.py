"""An OpenCode server in memory, as a transport of the client: for faults that a real one cannot be made to show.

It knows what the client asks and no more; `tests/sessions/test_turn.py` holds it to the real one.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx

from remote_dispatch.opencode.api import Api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

DIRECTORY = "/home/me/project"
SESSION = "ses_0000000000000000000000root"
Raw = dict[str, Any]


class _Stream(httpx.AsyncByteStream):
    """One event stream; what is put in comes out, an exception breaks it."""

    def __init__(self, server: FakeServer) -> None:
        self.queue: asyncio.Queue[Raw | Exception] = asyncio.Queue()
        self._server = server
        self.queue.put_nowait({"payload": {"type": "server.connected", "properties": {}}})
        server.streams.append(self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            event = await self.queue.get()
            if isinstance(event, Exception):
                raise event
            yield f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()

    async def aclose(self) -> None:
        if self in self._server.streams:
            self._server.streams.remove(self)


@dataclass
class FakeServer(httpx.AsyncBaseTransport):
    """The server. Change its state as a turn would; `emit` sends events, `cut` breaks the streams."""

    sessions: dict[str, Raw] = field(default_factory=dict)
    messages: dict[str, list[Raw]] = field(default_factory=dict)
    statuses: dict[str, Raw] = field(default_factory=dict)
    todos: dict[str, list[Raw]] = field(default_factory=dict)
    permissions: list[Raw] = field(default_factory=list)
    posts: list[Raw] = field(default_factory=list)
    """The bodies of all prompts that arrived."""
    streams: list[_Stream] = field(default_factory=list)
    is_down: bool = False
    lost_answers: int = 0
    """So many prompts are taken, and their answer is lost."""
    lost_posts: int = 0
    """So many prompts are lost on their way."""
    on_prompt: Callable[[str], None] = lambda _: None
    """Called with the session once a prompt is stored for the first time."""

    def __post_init__(self) -> None:
        self.make(SESSION)

    def api(self) -> Api:
        """A client of it."""
        return Api("box", httpx.AsyncClient(base_url="http://fake", transport=self))

    # --- what happens on it

    def make(self, session_id: str, parent: str | None = None) -> None:
        """Make a session."""
        info = {"id": session_id, "directory": DIRECTORY, "title": "a title", "time": {"created": 1, "updated": 1}}
        self.sessions[session_id] = info | ({"parentID": parent} if parent else {})
        self.messages[session_id] = []

    def emit(self, kind: str, **properties: Any) -> None:
        """Send an event to whoever listens; it is lost to all others."""
        for stream in self.streams:
            stream.queue.put_nowait({"directory": DIRECTORY, "payload": {"type": kind, "properties": properties}})

    def cut(self, error: Exception | None = None) -> None:
        """Break every event stream."""
        for stream in self.streams:
            stream.queue.put_nowait(error or httpx.RemoteProtocolError("incomplete chunked read"))

    def busy(self, session_id: str = SESSION) -> Self:
        """A turn begins."""
        self.statuses[session_id] = {"type": "busy"}
        self.emit("session.status", sessionID=session_id, status={"type": "busy"})
        return self

    def idle(self, session_id: str = SESSION) -> Self:
        """A turn ends."""
        self.statuses.pop(session_id, None)
        self.emit("session.status", sessionID=session_id, status={"type": "idle"})
        self.emit("session.idle", sessionID=session_id)
        return self

    def prompted(self, text: str, session_id: str = SESSION, message_id: str = "msg_user") -> None:
        """Store a user message."""
        part = {
            "id": f"prt_{message_id}",
            "type": "text",
            "text": text,
            "messageID": message_id,
            "sessionID": session_id,
        }
        info = {"id": message_id, "role": "user", "sessionID": session_id, "time": {"created": _now()}}
        self.messages[session_id].append({"info": info, "parts": [part]})

    def answering(self, session_id: str = SESSION, message_id: str = "msg_answer") -> Self:
        """Begin an answer of one text part."""
        info = {"id": message_id, "role": "assistant", "sessionID": session_id, "time": {"created": _now()}}
        part = {"id": f"prt_{message_id}", "type": "text", "text": "", "messageID": message_id, "sessionID": session_id}
        self.messages[session_id].append({"info": info, "parts": [part]})
        self.emit("message.updated", info=info)
        self.emit("message.part.updated", part=part)
        return self

    def piece(self, text: str, message_id: str = "msg_answer", session_id: str = SESSION) -> Self:
        """Stream a piece of the answer's text; nothing of it is stored yet."""
        ids = {"sessionID": session_id, "messageID": message_id, "partID": f"prt_{message_id}"}
        self.emit("message.part.delta", **ids, field="text", delta=text)
        return self

    def answered(self, text: str, session_id: str = SESSION, **info: Any) -> Self:
        """Store the whole answer, and complete its message."""
        message = self.messages[session_id][-1]
        message["parts"] = [{**message["parts"][0], "text": text, "time": {"start": 1, "end": 2}}]
        times = {**message["info"]["time"], "completed": _now()}
        message["info"] = {**message["info"], "finish": "stop", "time": times, **info}
        self.emit("message.part.updated", part=message["parts"][0])
        self.emit("message.updated", info=message["info"])
        return self

    # --- what it answers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer a request."""
        if self.is_down:
            raise httpx.ConnectError("refused")
        if request.url.path == "/global/event":
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Stream(self))
        body = json.loads(await request.aread() or b"null")
        return self._answer(request.method, request.url.path.strip("/").split("/"), request.url.params, body)

    def _answer(self, method: str, path: list[str], query: httpx.QueryParams, body: Any) -> httpx.Response:
        lists = {"status": self.statuses, "permission": self.permissions, "question": [], "agent": []}
        if path[-1] in lists:
            return _json(lists[path[-1]])
        session_id = path[1]
        if session_id not in self.sessions:
            return _json({"name": "NotFoundError", "data": {"message": "Session not found"}}, 404)
        if method == "POST":
            return self._prompt(session_id, body) if path[2] == "prompt_async" else self._abort(session_id)
        return self._show(session_id, path[2:], int(query.get("limit", "1000")))

    def _show(self, session_id: str, path: list[str], limit: int) -> httpx.Response:
        match path:
            case []:
                return _json(self.sessions[session_id])
            case ["children"]:
                return _json([one for one in self.sessions.values() if one.get("parentID") == session_id])
            case ["todo"]:
                return _json(self.todos.get(session_id, []))
            case ["message"]:
                return _json(self.messages[session_id][-limit:])
        found = [one for one in self.messages[session_id] if one["info"]["id"] == path[1]]
        return _json(found[0]) if found else _json({"name": "NotFoundError"}, 404)

    def _prompt(self, session_id: str, body: Raw) -> httpx.Response:
        self.posts.append(body)
        if self.lost_posts:
            self.lost_posts -= 1
            raise httpx.ReadError("connection reset")
        if body["messageID"] not in [one["info"]["id"] for one in self.messages[session_id]]:
            self.prompted(body["parts"][0]["text"], session_id, body["messageID"])
            self.on_prompt(session_id)
        if self.lost_answers:
            self.lost_answers -= 1
            raise httpx.ReadError("connection reset")
        return httpx.Response(204)

    def _abort(self, session_id: str) -> httpx.Response:
        last = self.messages[session_id][-1]["info"] if self.messages[session_id] else {}
        if last.get("role") == "assistant" and "completed" not in last["time"]:
            last["error"] = {"name": "MessageAbortedError", "data": {"message": "Aborted"}}
            last["time"] = {**last["time"], "completed": _now()}
        self.idle(session_id)
        return _json(True)


def _json(value: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=value)


def _now() -> int:
    return int(time.time() * 1000)
