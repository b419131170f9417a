r"""A stand-in for `opencode acp`: ACP on stdio and the HTTP API of the same process, as OpenCode 1.18.33 has them.

The standard library alone: `tests/rig/scripted_program.py` makes it a program, `tests/rig/scripted.py` has it in memory
and puts it into a PATH. It can play every failure that was measured. The text of a prompt may hold
instructions, one a line, done in order:

    !say TEXT              a piece of the answer
    !think TEXT            reasoning
    !tool NAME             a tool call that completes
    !edit PATH TEXT        ask permission, write the file, tell the client by `fs/write_text_file`
    !permission [COMMAND]  ask permission for `bash`; a rejection ends the turn
    !todo a;b;c            a `todowrite` call
    !child [COMMAND]       a sub-agent asks permission for `bash`: never forwarded, only the API shows it
    !question A;B;C        a question with these options: only the API shows it; `!questions` takes several answers
    !retry TIMES SECONDS   the provider is asked again: no updates, only the API shows it
    !update JSON           any update
    !raw TEXT              a line that is written as it is; `\n` and `\xNN` are understood
    !long N                a piece of N bytes
    !burst N               N pieces of a word
    !stderr N              N bytes on stderr
    !error CODE TEXT       the prompt fails with this JSON-RPC error
    !stop REASON           the turn ends with this reason
    !late TEXT             a piece of the answer that comes after the end of the turn
    !sleep SECONDS         nothing for so long
    !hang                  nothing, for ever
    !deaf                  nothing, for ever, and a cancel is not heard
    !request METHOD        asks the client for something else; its error is said
    !exit STATUS           the process exits
    !kill                  the process is killed
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.rig.scripted_words import (
    CAPABILITIES,
    CHOICES,
    COMMANDS,
    CONFIGURATION,
    OPTIONS,
    VERSION,
    Raw,
    RpcError,
    chunk,
    ended,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_STEP = re.compile(r"^!([a-z]+)(?:[ \t]+(.*?))?[ \t\r]*$", re.MULTILINE)
_ESCAPE = re.compile(r"\\(?:n|x([0-9a-f]{2}))")
_SETTLING_S = 0.25


class StopTurnError(Exception):
    """The turn ends with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Turn:
    """A prompt that runs."""

    session: str
    task: asyncio.Task[Any] | None = None
    late: list[str] = field(default_factory=list)
    reason_when_cancelled: str = "cancelled"
    settles_after_cancel: bool = False
    is_deaf: bool = False


@dataclass
class ScriptedAgent:
    """The agent. `send` gets whole lines; `end` ends the process, with a negative status for a signal."""

    send: Callable[[bytes], None]
    end: Callable[[int], None]
    complain: Callable[[bytes], None] = lambda _: None
    keep: Callable[[Raw], None] = lambda _: None
    """Called with all sessions after each change: what a later process starts with."""
    version: str = VERSION
    protocol: int = 1
    sessions: dict[str, Raw] = field(default_factory=dict)
    statuses: dict[str, Raw] = field(default_factory=dict)
    waiting: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    """What the API lists as open, by id."""
    listed: dict[str, Raw] = field(default_factory=dict)
    received: list[Raw] = field(default_factory=list)
    """Every message that arrived."""
    replies: list[tuple[str, Raw]] = field(default_factory=list)
    """Every POST to the API: path and body."""

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._request_ids = itertools.count(0)
        self._answers: dict[int, asyncio.Future[Raw]] = {}
        self._attached: set[str] = set()
        self._options: dict[str, list[Raw]] = {}
        self._turns: dict[str, Turn] = {}
        self._unsettled: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- messages

    def take_line(self, line: bytes) -> None:
        """Take a line as it arrived. One that cannot be read has no answer, and does no harm."""
        if not line.strip():
            return
        try:
            message = json.loads(line)
        except ValueError:
            self.complain(b"Failed to parse JSON message\n")
            return
        if isinstance(message, dict):
            self.take(message)
        else:
            self.complain(b"Invalid message\n")

    def take(self, message: Raw) -> None:
        """Take a message; what follows from it happens in a task."""
        self.received.append(message)
        if "method" not in message:
            future = self._answers.pop(message.get("id", -1), None)
            if future is not None and not future.done():
                future.set_result(message)
        elif message["method"] == "session/cancel":
            self.cancel(message["params"]["sessionId"])
        elif "id" in message:
            self._begin(self._respond(message))

    def close(self) -> None:
        """End of stdin: turns are aborted without an answer."""
        for task in self._tasks:
            task.cancel()

    async def _respond(self, message: Raw) -> None:
        try:
            result = await self._result(message["method"], message.get("params") or {})
        except RpcError as error:
            self._write({"id": message["id"], "error": error.error})
            return
        after = result.pop("_after", [])
        self._write({"id": message["id"], "result": result})
        for session, update in after:
            self._update(session, update)

    async def _result(self, method: str, params: Raw) -> Raw:
        known: dict[str, Callable[[Raw], Awaitable[Raw]]] = {
            "initialize": self._initialize,
            "session/new": self._new,
            "session/load": self._load,
            "session/resume": self._resume,
            "session/list": self._list,
            "session/close": self._close,
            "session/set_config_option": self._set,
            "session/set_mode": self._set_mode,
            "session/prompt": self._prompt,
        }
        if method not in known:
            raise RpcError(-32601, f'"Method not found": {method}')
        return await known[method](params)

    async def _initialize(self, params: Raw) -> Raw:
        return {
            "protocolVersion": self.protocol,
            "agentCapabilities": CAPABILITIES,
            "authMethods": [],
            "agentInfo": {"name": "OpenCode", "version": self.version},
        }

    async def _new(self, params: Raw) -> Raw:
        if "cwd" not in params or "mcpServers" not in params:
            raise RpcError(-32602, "Invalid params")
        number = max((int(one[4:16], 16) for one in self.sessions), default=0) + 1
        session = f"ses_{number:012x}{'S' * 14}"
        self.sessions[session] = {"cwd": params["cwd"], "title": f"Session {number}", "history": []}
        return self._attach(session) | {"sessionId": session}

    async def _load(self, params: Raw) -> Raw:
        session = self._stored(params)
        for update in self.sessions[session]["history"]:
            self._update(session, update, is_kept=False)
        return self._attach(session)

    async def _resume(self, params: Raw) -> Raw:
        return self._attach(self._stored(params))

    async def _list(self, params: Raw) -> Raw:
        rows = [
            {"sessionId": one, "cwd": raw["cwd"], "title": raw["title"], "updatedAt": "2026-01-01T00:00:00.000Z"}
            for one, raw in self.sessions.items()
            if params.get("cwd") in (None, raw["cwd"])
        ]
        return {"sessions": rows}

    async def _close(self, params: Raw) -> Raw:
        self.detach(params["sessionId"])
        return {}

    def detach(self, session: str) -> None:
        """Let go of a session."""
        self._attached.discard(session)

    async def _set(self, params: Raw) -> Raw:
        self._check_attached(params)
        option, value = params["configId"], params["value"]
        if value not in CHOICES[option]:
            raise RpcError(-32602, f"Invalid params: {option} not found: {value}")
        before = self._options.get(params["sessionId"], CONFIGURATION)
        options = [one | ({"currentValue": value} if one["id"] == option else {}) for one in before]
        self._options[params["sessionId"]] = options
        self._update(params["sessionId"], {"sessionUpdate": "config_option_update", "configOptions": options})
        return {"configOptions": options}

    async def _set_mode(self, params: Raw) -> Raw:
        self._check_attached(params)
        return {}

    def _stored(self, params: Raw) -> str:
        session = str(params["sessionId"])
        if session not in self.sessions:
            raise RpcError(-32603, "Internal error: OpenCode service failure", {"service": "session"})
        return session

    def _attach(self, session: str) -> Raw:
        self._attached.add(session)
        self.keep(self.sessions)
        commands = [{"name": one, "description": one} for one in COMMANDS]
        update = {"sessionUpdate": "available_commands_update", "availableCommands": commands}
        return {"configOptions": CONFIGURATION, "_after": [(session, update)]}

    def _check_attached(self, params: Raw) -> None:
        if params["sessionId"] not in self._attached:
            raise RpcError(-32602, f"Invalid params: session not found: {params['sessionId']}")

    # --- turns

    async def _prompt(self, params: Raw) -> Raw:
        self._check_attached(params)
        session = params["sessionId"]
        text = "".join(one.get("text", "") for one in params["prompt"] if one.get("type") == "text")
        if text.strip().startswith("/") and text.strip()[1:].split()[:1] not in [[one] for one in COMMANDS]:
            return {"stopReason": "end_turn", "_meta": {}}
        if not Path(self.sessions[session]["cwd"]).is_dir():
            raise RpcError(-32603, "Internal error")
        if session in self._unsettled:
            return ended("cancelled", 0)
        return await self._turn(session, text)

    async def _turn(self, session: str, text: str) -> Raw:
        turn = self._turns[session] = Turn(session)
        self.statuses[session] = {"type": "busy"}
        self.sessions[session]["history"].append(chunk("user_message_chunk", text))
        self.keep(self.sessions)
        turn.task = self._begin(self._play(turn, text))
        try:
            reason = await turn.task
            return ended(reason, 15) | {"_after": [(session, chunk("agent_message_chunk", one)) for one in turn.late]}
        except asyncio.CancelledError:
            if turn.settles_after_cancel:
                self._begin(self._settle(session))
            return ended(turn.reason_when_cancelled, 0)
        finally:
            del self._turns[session]
            self.statuses.pop(session, None)
            self.keep(self.sessions)

    async def _settle(self, session: str) -> None:
        """For a moment after a cancel with a sub-agent's request open, prompts come back as cancelled too."""
        self._unsettled.add(session)
        await asyncio.sleep(_SETTLING_S)
        self._unsettled.discard(session)

    async def _play(self, turn: Turn, text: str) -> str:
        try:
            for name, argument in _STEP.findall(text):
                await getattr(self, f"_do_{name}")(turn, argument)
        except StopTurnError as stop:
            return stop.reason
        self._update(turn.session, {"sessionUpdate": "usage_update", "used": 15, "size": 128000})
        return "end_turn"

    def cancel(self, session: str) -> None:
        turn = self._turns.get(session)
        if turn is not None and turn.task is not None and not turn.is_deaf:
            turn.task.cancel()

    # --- instructions

    async def _do_say(self, turn: Turn, text: str) -> None:
        self._update(turn.session, chunk("agent_message_chunk", text))

    async def _do_think(self, turn: Turn, text: str) -> None:
        self._update(turn.session, chunk("agent_thought_chunk", text))

    async def _do_tool(self, turn: Turn, name: str) -> None:
        call = self._new_call(turn, name or "bash", "execute", {"command": "pwd"})
        output = {"rawOutput": {"output": "/\n", "metadata": {"exit": 0}}}
        self._update(
            turn.session, {"sessionUpdate": "tool_call_update", "toolCallId": call, "status": "completed", **output}
        )

    async def _do_todo(self, turn: Turn, items: str) -> None:
        todos = [
            {"content": one, "status": "pending" if place else "in_progress", "priority": "high"}
            for place, one in enumerate(items.split(";"))
        ]
        call = self._new_call(turn, "todowrite", "other", {})
        fields = {
            "title": f"{len(todos)} todos",
            "rawInput": {"todos": todos},
            "rawOutput": {"metadata": {"todos": todos}},
        }
        update = {"sessionUpdate": "tool_call_update", "toolCallId": call, "status": "completed", **fields}
        self._update(turn.session, update)

    async def _do_permission(self, turn: Turn, command: str) -> None:
        call = self._new_call(turn, "bash", "execute", {"command": command or "pwd"})
        await self._permission(turn, {"toolCallId": call, "title": command or "pwd", "kind": "execute"})

    async def _do_edit(self, turn: Turn, words: str) -> None:
        name, _, text = words.partition(" ")
        path = Path(self.sessions[turn.session]["cwd"]) / name
        call = self._new_call(turn, "write", "edit", {"filePath": str(path)})
        diff = {"type": "diff", "path": str(path), "oldText": "", "newText": text}
        fields = {"title": str(path), "kind": "edit", "locations": [{"path": str(path)}], "content": [diff]}
        await self._permission(turn, {"toolCallId": call, **fields})
        path.write_text(text)
        arguments = {"sessionId": turn.session, "path": str(path), "content": text}
        self._write({"id": next(self._request_ids), "method": "fs/write_text_file", "params": arguments})
        self._update(turn.session, {"sessionUpdate": "tool_call_update", "toolCallId": call, "status": "completed"})

    async def _permission(self, turn: Turn, call: Raw) -> None:
        """Ask; whatever is no leave is a rejection, and an answer without an outcome hangs."""
        params = {"sessionId": turn.session, "toolCall": {"status": "pending", **call}, "options": OPTIONS}
        message = await self._ask("session/request_permission", params)
        if "error" not in message and "outcome" not in (message.get("result") or {}):
            await asyncio.Event().wait()
        chosen = (message.get("result") or {}).get("outcome", {}).get("optionId")
        if chosen not in ("once", "always"):
            update = {"sessionUpdate": "tool_call_update", "toolCallId": call["toolCallId"], "status": "failed"}
            words = "The user rejected permission to use this specific tool call."
            self._update(turn.session, update | {"rawOutput": {"error": words}})
            raise StopTurnError("end_turn")

    async def _ask(self, method: str, params: Raw) -> Raw:
        number = next(self._request_ids)
        answer: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._write({"id": number, "method": method, "params": params})
        return await answer

    async def _do_child(self, turn: Turn, command: str) -> None:
        turn.reason_when_cancelled, turn.settles_after_cancel = "end_turn", True
        child = f"ses_{next(self._numbers):012x}{'C' * 14}"
        cwd = self.sessions[turn.session]["cwd"]
        self.sessions[child] = {
            "cwd": cwd,
            "title": "A look",
            "history": [],
            "parent": turn.session,
            "agent": "explore",
        }
        self.statuses[child] = {"type": "busy"}
        raw = {"permission": "bash", "patterns": [command or "pwd"], "always": ["pwd *"], "metadata": {}}
        try:
            body = await self._listed("per", child, raw)
        finally:
            self.statuses.pop(child, None)
            del self.sessions[child]
        turn.reason_when_cancelled, turn.settles_after_cancel = "cancelled", False
        await self._do_say(turn, f"the sub-agent was told {body['reply']}")

    async def _do_question(self, turn: Turn, options: str, *, is_multiple: bool = False) -> None:
        labels = [{"label": one, "description": ""} for one in options.split(";") if one]
        question = {"question": "Which one?", "header": "Choice", "options": labels, "multiple": is_multiple}
        call = self._new_call(turn, "question", "other", {"questions": [question]})
        tool = {"messageID": "msg_1", "callID": call}
        body = await self._listed("que", turn.session, {"questions": [question], "tool": tool})
        self._update(turn.session, {"sessionUpdate": "tool_call_update", "toolCallId": call, "status": "completed"})
        await self._do_say(turn, f"you said {json.dumps(body.get('answers'))}")

    async def _do_questions(self, turn: Turn, options: str) -> None:
        await self._do_question(turn, options, is_multiple=True)

    async def _listed(self, prefix: str, session: str, raw: Raw) -> Raw:
        """List a request in the API until it is answered; a cancelled one stays in the list, as OpenCode leaves it."""
        request = f"{prefix}_{next(self._numbers):012x}{'R' * 14}"
        self.listed[request] = {"id": request, "sessionID": session, **raw}
        self.waiting[request] = asyncio.get_running_loop().create_future()
        body: Raw = await self.waiting[request]
        return body

    async def _do_retry(self, turn: Turn, words: str) -> None:
        times, seconds = words.split()
        turn.reason_when_cancelled = "end_turn"
        for attempt in range(1, int(times) + 1):
            retry = {"type": "retry", "attempt": attempt, "message": "Too many requests", "next": 1_700_000_000_000}
            self.statuses[turn.session] = retry
            await asyncio.sleep(float(seconds))
        self.statuses[turn.session] = {"type": "busy"}
        turn.reason_when_cancelled = "cancelled"

    async def _do_update(self, turn: Turn, text: str) -> None:
        self._update(turn.session, json.loads(text), is_kept=False)

    async def _do_raw(self, turn: Turn, text: str) -> None:
        self.send(_ESCAPE.sub(_unescaped, text).encode("latin-1") + b"\n")

    async def _do_long(self, turn: Turn, size: str) -> None:
        self._update(turn.session, chunk("agent_message_chunk", "x" * int(size)), is_kept=False)

    async def _do_burst(self, turn: Turn, count: str) -> None:
        for _ in range(int(count)):
            self._update(turn.session, chunk("agent_message_chunk", "word "), is_kept=False)

    async def _do_stderr(self, turn: Turn, size: str) -> None:
        self.complain((b"noise " * (int(size) // 6 + 1))[: int(size)] + b"\n")

    async def _do_error(self, turn: Turn, words: str) -> None:
        code, _, text = words.partition(" ")
        raise RpcError(int(code), f"Internal error: {text}", {"service": "session", "errorName": "APIError"})

    async def _do_stop(self, turn: Turn, reason: str) -> None:
        raise StopTurnError(reason)

    async def _do_late(self, turn: Turn, text: str) -> None:
        turn.late.append(text)

    async def _do_sleep(self, turn: Turn, seconds: str) -> None:
        await asyncio.sleep(float(seconds))

    async def _do_hang(self, turn: Turn, _: str) -> None:
        await asyncio.Event().wait()

    async def _do_deaf(self, turn: Turn, _: str) -> None:
        turn.is_deaf = True
        await asyncio.Event().wait()

    async def _do_request(self, turn: Turn, method: str) -> None:
        message = await self._ask(method, {"sessionId": turn.session})
        await self._do_say(turn, f"the client said {json.dumps(message.get('error', {}).get('code'))}")

    async def _do_exit(self, turn: Turn, status: str) -> None:
        self.end(int(status))

    async def _do_kill(self, turn: Turn, _: str) -> None:
        self.end(-signal.SIGKILL)

    def _new_call(self, turn: Turn, title: str, kind: str, arguments: Raw) -> str:
        call = f"call_{next(self._numbers)}"
        cwd = self.sessions[turn.session]["cwd"]
        fields = {
            "title": title,
            "kind": kind,
            "status": "pending",
            "locations": [{"path": cwd}],
            "rawInput": arguments,
        }
        self._update(turn.session, {"sessionUpdate": "tool_call", "toolCallId": call, **fields})
        return call

    # --- writing

    def _update(self, session: str, update: Raw, *, is_kept: bool = True) -> None:
        is_history = update["sessionUpdate"] in ("agent_message_chunk", "tool_call", "tool_call_update")
        if is_kept and is_history and session in self.sessions:
            self.sessions[session]["history"].append(update)
        self._write({"method": "session/update", "params": {"sessionId": session, "update": update}})

    def _write(self, message: Raw) -> None:
        self.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def _begin(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else "\n"
