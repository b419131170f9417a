"""How a turn over the protocol looks: text, tools and todos on stderr, or JSON lines; and who answers requests."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from remote_dispatch.acp.happening import (
    Asked,
    Choice,
    Other,
    Retried,
    Text,
    Thought,
    TodosChanged,
    ToolChanged,
    UsageChanged,
)
from remote_dispatch.cli.output import note, say, stream
from remote_dispatch.cli.screen import marks_for
from remote_dispatch.cli.session.asking import Ask, print_foreign, read_line
from remote_dispatch.text import clean, mask_addresses
from remote_dispatch.transcript.shape import TODO_TOOL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.acp.client import Attached
    from remote_dispatch.acp.happening import Happening

_LINE = 300
_TEXT = 100_000
_TELLING = ("command", "filePath", "path", "pattern", "url", "query", "description")
"""Of a tool's input, what tells best what it does."""


class Policy(StrEnum):
    """Who answers a permission request."""

    ASK = "ask"
    AUTO = "auto"
    DENY = "deny"


class View:
    """Shows one turn, and answers its requests: a `Listener`. stdout is the answer's, or that of the JSON lines."""

    def __init__(self, host: str, policy: Policy, *, is_json: bool, ask: Ask = read_line) -> None:
        """`ask` puts a prompt on the terminal and returns the line, None at the end of the input."""
        self._host = host
        self._policy = policy
        self._is_json = is_json
        self._ask = ask
        self._is_terminal = sys.stderr.isatty() and not is_json
        self._marks = marks_for(sys.stderr)
        self._line = self._shown = ""
        self._tools: dict[str, _Tool] = {}
        self._todos: tuple[object, ...] = ()
        self._streamed: dict[str, dict[str, Any]] = {}
        self._asking = asyncio.Lock()

    # --- what happens

    def session(self, session: Attached, *, is_new: bool, version: str) -> None:
        """Say which session it is."""
        if self._is_json:
            data = {"session_id": session.id, "directory": session.directory, "is_new": is_new, "opencode": version}
            return stream({"type": "session", "host": self._host, **data})
        what = "new session" if is_new else "session"
        return say(f"{what} {session.id} on {self._host}, in {_one_line(session.directory)}")

    def update(self, what: Happening) -> None:
        """Show what happened."""
        if self._is_json:
            self._stream(_data(what))
        elif isinstance(what, Text):
            self._text(what.text)
        elif isinstance(what, ToolChanged):
            self._tool(what)
        elif words := self._words(what):
            self._say(words)

    def _stream(self, data: dict[str, Any]) -> None:
        """One JSON line, unless it says what the last of its kind, or of its tool call, said."""
        of = str(data.get("call_id") or data.get("type"))
        is_piece = data.get("type") in ("text", "thought", "update")
        if data and (is_piece or self._streamed.get(of) != data):
            self._streamed[of] = data
            stream(data)

    def cancelling(self) -> None:
        """Say that the turn is being cancelled."""
        self.end()
        note("cancelling the turn; Ctrl-C once more leaves at once")

    def end(self) -> None:
        """End the line that is being written."""
        if self._line and not self._is_json:
            say("" if self._is_terminal else f"  {self._marks['text']} {self._line}")
        self._line = ""

    def has_shown(self, answer: str) -> bool:
        """Whether the whole answer is the last thing on a screen that is also where the answer would be printed."""
        is_one_screen = self._is_terminal and sys.stdout.isatty()
        return is_one_screen and bool(answer) and self._shown.strip() == _plain(answer).strip()

    # --- what is asked

    async def ask(self, asked: Asked) -> str | None:
        """Answer a request by the policy, or by the person at the terminal, one at a time."""
        async with self._asking:
            if self._is_json:
                stream({"type": "asked", **_asked_data(asked)})
            choice = await self._answer(asked)
            if self._is_json:
                stream({"type": "answered", "choice": choice.id if choice else None, "by": self._by})
            else:
                self._say(f"  {self._marks['tool']} {_answered(asked, choice)}")
            return choice.id if choice else None

    async def _answer(self, asked: Asked) -> Choice | None:
        refusal = asked.choice("reject_once") or asked.choice("reject_always")
        if self._policy is Policy.DENY or (self._policy is Policy.AUTO and asked.is_question):
            return refusal
        if self._policy is Policy.AUTO:
            return asked.choice("allow_once") or asked.choice("allow_always") or refusal
        self.end()
        say(f"{self._host} asks")
        print_foreign(_asked_lines(asked), is_talk=True)
        return await self._put(asked) or refusal

    async def _put(self, asked: Asked) -> Choice | None:
        """Ask until an answer fits; None at the end of the input."""
        while True:
            # Whatever is said before there is an answer begins on a line of its own.
            self._line = _prompt(asked) if self._is_terminal else ""
            typed = await self._ask(_prompt(asked))
            self._line = ""
            if typed is None:
                return None
            if choice := _understood(asked, typed.strip()):
                return choice
            say("that is none of the answers")

    @property
    def _by(self) -> str:
        return "user" if self._policy is Policy.ASK else "policy"

    # --- on the screen

    def _text(self, text: str) -> None:
        """On a terminal as it comes, elsewhere in whole lines."""
        plain = _plain(text)
        self._shown += plain
        if self._is_terminal:
            typer.echo(plain, err=True, nl=False)
            self._line = (self._line + plain).rpartition("\n")[2]
            return
        *lines, self._line = (self._line + plain).split("\n")
        for line in lines:
            say(f"  {self._marks['text']} {line}")

    def _tool(self, what: ToolChanged) -> None:
        tool = self._tools.setdefault(what.call_id, _Tool())
        tool.take(what)
        if tool.name == TODO_TOOL and what.status != "failed":
            return
        if what.status == "failed":
            self._say(f"  {self._marks['error']} {tool.title}: {_one_line(tool.error)}".rstrip(": "))
        elif not tool.is_shown and what.status in ("in_progress", "completed") and tool.name:
            tool.is_shown = True
            self._say(f"  {self._marks['tool']} {tool.title}")

    def _words(self, what: Happening) -> str:
        """One happening as a line; empty for what is not worth one."""
        match what:
            case TodosChanged() if what.todos != self._todos:
                self._todos = what.todos
                done = sum(one.status in ("completed", "cancelled") for one in what.todos)
                active = next((one.content for one in what.todos if one.status == "in_progress"), "")
                return f"  {self._marks['todo']} todo {done}/{len(what.todos)}: {_one_line(active)}".rstrip(": ")
            case Retried(is_over=False):
                return f"  {self._marks['error']} the provider failed, try {what.attempt}: {_one_line(what.message)}"
            case _:
                return ""

    def _say(self, words: str) -> None:
        self.end()
        self._shown = ""
        say(words)


class _Tool:
    """A tool call, as far as it was told."""

    def __init__(self) -> None:
        self.name = self.brief = self.error = ""
        self.is_shown = False

    @property
    def title(self) -> str:
        """Its name, and what it does."""
        is_told = not self.brief or self.brief in self.name
        return self.name if is_told else f"{self.name}: {self.brief}"

    def take(self, what: ToolChanged) -> None:
        # OpenCode 1.18: the first title is the tool's name, later ones are words of the model or of the tool.
        self.name = self.name or _one_line(what.title)
        self.brief = _brief(what.raw.get("rawInput")) or self.brief
        self.error = what.error or self.error


def _brief(raw: object) -> str:
    if not isinstance(raw, dict):
        return ""
    return next((_one_line(found) for key in _TELLING if isinstance(found := raw.get(key), str) and found), "")


# --- requests in words


def _asked_lines(asked: Asked) -> Iterator[str]:
    """The whole request, each foreign line marked."""
    by = f", asked by the sub-agent {_one_line(asked.sub_agent)}" if asked.sub_agent else ""
    yield f"{'question' if asked.is_question else 'permission'}{by}"
    yield from _foreign(asked.title)
    for text in (asked.command, "\n".join(asked.paths), asked.diff):
        if text and text != asked.title:
            yield from _foreign(text)
    if asked.is_question:
        yield from (f"  {place}  {_one_line(one.name)}" for place, one in enumerate(_offered(asked), 1))


def _prompt(asked: Asked) -> str:
    if asked.is_question:
        return f"1 to {len(_offered(asked))}, or [r]eject > "
    words = {"allow_once": "[o]nce", "allow_always": "[a]lways", "reject_once": "[r]eject"}
    return ", ".join(word for kind, word in words.items() if asked.choice(kind)) + " > "


def _understood(asked: Asked, typed: str) -> Choice | None:
    """Return the choice that was meant, or None."""
    offered = _offered(asked)
    if asked.is_question and typed.isdigit():
        return offered[int(typed) - 1] if 0 < int(typed) <= len(offered) else None
    if typed.lower() in ("r", "reject"):
        return asked.choice("reject_once")
    if asked.is_question:
        return next((one for one in offered if one.name == typed), None)
    kind = {"o": "allow_once", "once": "allow_once", "a": "allow_always", "always": "allow_always"}.get(typed.lower())
    return asked.choice(kind) if kind else None


def _offered(asked: Asked) -> list[Choice]:
    return [one for one in asked.choices if one.is_leave]


def _answered(asked: Asked, choice: Choice | None) -> str:
    what = _one_line(asked.command or asked.title)
    if asked.is_question:
        return f"answered: {_one_line(choice.name)}" if choice and choice.is_leave else f"not answered: {what}"
    return f"permitted: {what}" if choice and choice.is_leave else f"not permitted: {what}"


def _asked_data(asked: Asked) -> dict[str, Any]:
    return {
        "kind": "question" if asked.is_question else "permission",
        "title": clean(asked.title, _TEXT),
        "tool_kind": asked.kind,
        "command": clean(asked.command, _TEXT) or None,
        "paths": [clean(one, _TEXT) for one in asked.paths],
        "sub_agent": clean(asked.sub_agent, _LINE) or None,
        "choices": [{"id": one.id, "name": clean(one.name, _LINE), "kind": one.kind} for one in asked.choices],
    }


def _data(what: Happening) -> dict[str, Any]:
    """One happening as a JSON line; empty for what is none of the turn's."""
    data: dict[str, Any] = {}
    match what:
        case Text() | Thought():
            kind = "text" if isinstance(what, Text) else "thought"
            data = {"type": kind, "text": what.text, "message_id": what.message_id}
        case ToolChanged():
            data = {"type": "tool", "call_id": what.call_id, "exit_status": what.exit_status}
            data |= {key: getattr(what, key) or None for key in ("status", "title", "kind", "error")}
            data["output"] = what.output if what.is_over and what.output else None
        case TodosChanged():
            todos = [{"content": one.content, "status": one.status, "priority": one.priority} for one in what.todos]
            data = {"type": "todos", "todos": todos}
        case Retried():
            message = _one_line(what.message)
            data = {"type": "provider_retry", "attempt": what.attempt, "message": message, "is_over": what.is_over}
        case UsageChanged():
            data = {"type": "usage", "used": what.used, "size": what.size, "cost": what.cost}
        case Other():
            data = {"type": "update", "kind": what.kind, "update": what.raw}
    return data


def _foreign(text: str) -> list[str]:
    return [f"| {line}" for line in clean(text, _TEXT).split("\n")]


def _plain(text: str) -> str:
    return clean(text, len(text) + 1)


def _one_line(text: str) -> str:
    return " ".join(mask_addresses(clean(text, _LINE)).split())
