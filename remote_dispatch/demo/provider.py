"""The scripted model: an OpenAI-compatible chat completions server on loopback, for the demo and for tests.

It serves from threads of its own, so that it fits synchronous tests and asyncio programs alike. What it answers is
decided in `script`; what it was asked is recorded. It must never listen on anything but 127.0.0.1.
"""

from __future__ import annotations

import argparse
import json
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from remote_dispatch.demo.script import (
    Accident,
    Act,
    Call,
    Conversation,
    Interruption,
    Pause,
    Refusal,
    Reply,
    Say,
    StreamError,
    Think,
    answer,
    read_conversation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LOOPBACK = "127.0.0.1"
CHUNK = "chat.completion.chunk"
POLL_S = 0.2
PAGE = b"<!doctype html><title>Sign in</title><p>Please sign in to this network."
FINISH_REASONS = {"tool-calls": "tool_calls"}
"""OpenCode's word to the wire's word, where they differ."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One request that the model received."""

    model: str
    is_title: bool
    session_id: str
    """OpenCode's session, from its `x-session-id` header; empty when it sent none."""
    system: str
    directory: str
    messages: tuple[dict[str, Any], ...]
    """Without the system prompt, as they came."""
    tools: tuple[str, ...]


class ScriptedModel:
    """The server, as a context manager: it listens inside the context and ends what hangs on leaving it.

    `log` gets every request as one JSON line as it comes.
    """

    def __init__(self, port: int = 0, *, log: Path | None = None) -> None:
        self._calls: list[ModelCall] = []
        self._attempts: Counter[tuple[str, int, str]] = Counter()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._log = log
        self._server = _Server((LOOPBACK, port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """The base URL for OpenCode's configuration, ending in `/v1`."""
        return f"http://{LOOPBACK}:{self._server.server_port}/v1"

    @property
    def is_closing(self) -> bool:
        """Whether the context is being left."""
        return self._closing.is_set()

    @property
    def calls(self) -> tuple[ModelCall, ...]:
        """What the model was asked so far, in order, without the requests for a title."""
        with self._changed:
            return tuple(call for call in self._calls if not call.is_title)

    @property
    def title_calls(self) -> tuple[ModelCall, ...]:
        """The requests for a title so far."""
        with self._changed:
            return tuple(call for call in self._calls if call.is_title)

    def wait_for_calls(self, count: int, *, timeout_s: float) -> tuple[ModelCall, ...]:
        """Block until there are this many calls and return them. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count() >= count, timeout_s):
                raise TimeoutError(f"the scripted model saw {self._count()} calls, not {count}")
        return self.calls

    def record(self, call: ModelCall) -> None:
        """Remember a call, in the log too."""
        with self._changed:
            self._calls.append(call)
            if self._log is not None:
                with self._log.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(asdict(call)) + "\n")
            self._changed.notify_all()

    def attempt(self, conversation: Conversation, session_id: str) -> int:
        """Count one more attempt at this place of this session, and return how many there were."""
        place = (session_id, len(conversation.messages), conversation.last_user_text)
        with self._changed:
            self._attempts[place] += 1
            return self._attempts[place]

    def pause(self, seconds: float, is_over: Callable[[], bool]) -> bool:
        """Wait, and return whether the answer may go on: not when the server closes or `is_over`."""
        deadline = time.monotonic() + seconds
        while not self.is_closing and not is_over():
            left = deadline - time.monotonic()
            if left <= 0:
                return True
            self._closing.wait(min(left, POLL_S))
        return False

    def _count(self) -> int:
        return sum(not call.is_title for call in self._calls)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], model: ScriptedModel) -> None:
        super().__init__(address, _RequestHandler)
        self.model = model

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent when a client goes away in the middle of an answer; anything else is a bug and shows."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's own name
        """Write nothing: the calls are recorded."""

    def do_GET(self) -> None:
        """Answer `/v1/models`."""
        self._send_json(
            200, {"object": "list", "data": [{"id": name, "object": "model"} for name in ("small", "large")]}
        )

    def do_POST(self) -> None:
        """Answer `/v1/chat/completions`."""
        size = int(self.headers.get("content-length") or 0)
        try:
            body = json.loads(self.rfile.read(size))
            conversation = read_conversation(body)
        except (ValueError, AttributeError):
            self._refuse(Refusal(400))
            return
        self._record(body, conversation)
        attempt = self.server.model.attempt(conversation, self._session_id)
        self._answer(answer(conversation, attempt), body)

    def _record(self, body: dict[str, Any], conversation: Conversation) -> None:
        tools = [tool.get("function", {}).get("name", "") for tool in body.get("tools") or []]
        call = ModelCall(
            model=str(body.get("model", "")),
            is_title=conversation.is_title_request,
            session_id=self._session_id,
            system=conversation.system,
            directory=conversation.directory,
            messages=conversation.messages,
            tools=tuple(tools),
        )
        self.server.model.record(call)

    def _answer(self, reply: Reply, body: dict[str, Any]) -> None:
        if reply.accident:
            self._have_accident(reply.accident)
        elif reply.refusal:
            self._refuse(reply.refusal)
        elif body.get("stream"):
            self._stream(reply, str(body.get("model", "")))
        elif self._perform(reply.acts, lambda _: None):
            self._send_json(200, _completion(reply, str(body.get("model", ""))))

    @property
    def _session_id(self) -> str:
        return self.headers.get("x-session-id") or ""

    def _stream(self, reply: Reply, model: str) -> None:
        """Send the reply as server-sent events, in HTTP chunks so that a cut differs from an end."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._send_event(_chunk(model, {"role": "assistant", "content": ""}))
        if self._perform(reply.acts, lambda delta: self._send_event(_chunk(model, delta))):
            if reply.finish != "none":
                self._send_event(_chunk(model, {}, _wire_finish(reply)))
            self._send_event({**_chunk(model, {}), "choices": [], "usage": _usage(reply)})
            self._send_piece(b"data: [DONE]\n\n")
            self._send_piece(b"")

    def _perform(self, acts: Sequence[Act], send: Callable[[dict[str, Any]], None]) -> bool:
        """Do what the reply says; return False when it ended without an end."""
        for act in acts:
            match act:
                case Pause(seconds):
                    is_going_on = self.server.model.pause(seconds, self._is_client_gone)
                case Interruption(kind):
                    is_going_on = self._interrupt(kind)
                case StreamError(text):
                    self._send_event({"error": {"message": text, "type": "server_error", "code": "scripted"}})
                    self._send_piece(b"")
                    is_going_on = False
                case Say() | Think() | Call():
                    send(_delta(act))
                    is_going_on = True
            if not is_going_on:
                self.close_connection = True
                return False
        return True

    def _have_accident(self, accident: Accident) -> None:
        match accident:
            case "html":
                self._send(200, "text/html; charset=utf-8", PAGE)
            case "silence":
                self._interrupt("hang")
            case "reset":
                self._break_connection()
        self.close_connection = True

    def _interrupt(self, kind: str) -> bool:
        if kind == "hang":
            self.server.model.pause(float("inf"), self._is_client_gone)
        else:
            self._break_connection()
        return False

    def _break_connection(self) -> None:
        """Close with a reset: without it a client cannot tell a cut from a slow answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _is_client_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _send_event(self, event: dict[str, Any]) -> None:
        self._send_piece(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _send_piece(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _refuse(self, refusal: Refusal) -> None:
        asked = {"retry-after": refusal.retry_after, "retry-after-ms": refusal.retry_after_ms}
        text = refusal.text or f"the script asked for status {refusal.status}"
        error = {"message": text, "type": "scripted", "code": refusal.code or str(refusal.status)}
        headers = {name: value for name, value in asked.items() if value is not None}
        self._send_json(refusal.status, {"error": error}, headers)

    def _send_json(self, status: int, value: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._send(status, "application/json", json.dumps(value).encode(), headers)

    def _send(self, status: int, kind: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, text in {"content-type": kind, "content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)


def _delta(act: Say | Think | Call) -> dict[str, Any]:
    match act:
        case Say(text):
            return {"content": text}
        case Think(text):
            return {"reasoning_content": text}
        case Call():
            return {"tool_calls": [{"index": 0, **_wire_call(act)}]}


def _wire_call(call: Call) -> dict[str, Any]:
    function = {"name": call.tool, "arguments": json.dumps(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _wire_finish(reply: Reply) -> str:
    return FINISH_REASONS.get(reply.finish, reply.finish)


def _chunk(model: str, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-scripted", "object": CHUNK, "created": 0, "model": model, "choices": [choice]}


def _completion(reply: Reply, model: str) -> dict[str, Any]:
    """The same reply as one JSON object, for a request that does not stream."""
    text = "".join(act.text for act in reply.acts if isinstance(act, Say))
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls := [_wire_call(act) for act in reply.acts if isinstance(act, Call)]:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": _wire_finish(reply)}
    head = _chunk(model, {})
    return {**head, "object": "chat.completion", "choices": [choice], "usage": _usage(reply)}


def _usage(reply: Reply) -> dict[str, int]:
    completion = sum(len(act.text) // 4 + 1 for act in reply.acts if isinstance(act, Say | Think)) + 1
    return {"prompt_tokens": 10, "completion_tokens": completion, "total_tokens": 10 + completion}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; the first line of stdout is the base URL."""
    parser = argparse.ArgumentParser(prog="remote_dispatch.demo.provider", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path, help="append every request to this file, one JSON object a line")
    options = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with ScriptedModel(options.port, log=options.log) as model:
        sys.stdout.write(model.url + "\n")
        sys.stdout.flush()
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
