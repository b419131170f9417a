"""How a turn looks while it is waited for: prompt, text and tools on stderr, or JSON lines. stdout is the answer's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from remote_dispatch.cli.output import note, say, stream
from remote_dispatch.cli.screen import marks_for
from remote_dispatch.sessions.ask import Talk
from remote_dispatch.sessions.happening import (
    Answered,
    Asked,
    Changed,
    Child,
    Gone,
    Happened,
    LinkBack,
    LinkLost,
    Retried,
    TextDelta,
    TextMissed,
    TodosChanged,
    ToolChanged,
)
from remote_dispatch.sessions.values import TodoCount
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_dispatch.failure import Failure
    from remote_dispatch.sessions.happening import Happening, Update
    from remote_dispatch.sessions.prompt import Sent
    from remote_dispatch.sessions.values import NamedSession

_LINE = 300


class View(Talk):
    """Shows what happens. `keep` gets every change of the record, `named` and `prompt` are the last ones."""

    def __init__(self, keep: Callable[[NamedSession], object], *, is_json: bool) -> None:
        self.named: NamedSession | None = None
        self.prompt: dict[str, Any] | None = None
        self._keep = keep
        self._is_json = is_json
        self._is_terminal = sys.stderr.isatty() and not is_json
        self._marks = marks_for(sys.stderr)
        self._line = ""
        self._shown = ""
        self._part_id = ""
        self._phase = ""

    def keep(self, named: NamedSession) -> None:
        """Keep the record."""
        self.named = named
        self._keep(named)

    def sent(self, named: NamedSession, sent: Sent) -> None:
        """Show the complete prompt as it was sent."""
        self.named, self.prompt = named, sent.data()
        if self._is_json:
            return stream({"type": "prompt", "name": named.name, "prompt": self.prompt})
        for line in prompt_lines(named, self.prompt):
            say(line, limit=len(line) + 1)
        return None

    def again(self, failure: Failure, delay_s: float) -> None:
        """Say that the turn is tried again."""
        if self._is_json:
            return stream({"type": "retry", "failure": failure.value, "delay_s": delay_s})
        self._break()
        when = f"in {delay_s:.0f} s" if delay_s else "at once"
        return note(f"the turn ended with `{failure}`; it is tried again {when}")

    def update(self, update: Update) -> None:
        """Show what happened."""
        match update:
            case Changed():
                self._changed(update)
            case Happened():
                self._happened(update)
            case LinkLost():
                self._remark("link", update.message, is_up=False)
            case LinkBack():
                self._remark("link", "the server answers again", is_up=True)
            case Gone():
                self._remark("gone", "the session was deleted")

    def has_shown(self, answer: str) -> bool:
        """Whether the whole answer is the last thing on a screen that is also where the answer would be printed."""
        is_one_screen = self._is_terminal and sys.stdout.isatty()
        return is_one_screen and bool(answer) and self._shown.strip() == _plain(answer).strip()

    def end(self) -> None:
        """End the line that is being written."""
        if not self._is_json:
            self._break()

    def _changed(self, changed: Changed) -> None:
        standing = changed.standing
        if self._is_json and standing.phase != self._phase:
            failure = standing.failure.value if standing.failure else None
            stream({"type": "state", "state": standing.phase.value, "failure": failure, "detail": standing.detail})
        self._phase = standing.phase

    def _happened(self, happened: Happened) -> None:
        is_own = happened.source_id == happened.session_id
        if self._is_json:
            stream({**_data(happened.what), "session_id": happened.source_id, "is_sub_agent": not is_own})
        elif isinstance(happened.what, TextDelta):
            if is_own:
                self._text(happened.what)
        elif words := _words(happened.what, self._marks):
            self._break()
            self._shown = ""
            say(words if is_own else f"  {words}")

    def _text(self, delta: TextDelta) -> None:
        """On a terminal as it comes, elsewhere in whole lines; what a new part says begins on a line of its own."""
        if delta.part_id != self._part_id:
            self._break()
            self._part_id, self._shown = delta.part_id, ""
        plain = _plain(delta.text)
        self._shown += plain
        if self._is_terminal:
            typer.echo(plain, err=True, nl=False)
            self._line = (self._line + plain).rpartition("\n")[2]
            return
        *lines, self._line = (self._line + plain).split("\n")
        for line in lines:
            self._say_text(line)

    def _break(self) -> None:
        if self._line:
            self._say_text(self._line)
        self._line = ""

    def _say_text(self, line: str) -> None:
        """Say a line of the answer, however long it is; on a terminal it is there already."""
        text = "" if self._is_terminal else f"  {self._marks['text']} {line}"
        say(text, limit=len(text) + 1)

    def _remark(self, kind: str, text: str, **data: object) -> None:
        if self._is_json:
            return stream({"type": kind, "message": text, **data})
        self._break()
        return note(text)


def prompt_lines(named: NamedSession, prompt: dict[str, Any]) -> list[str]:
    """Return the whole prompt as lines for people."""
    choices = ", ".join(f"{name} {prompt[name]}" for name in ("agent", "model", "variant") if prompt[name])
    lines = [f"to {named.name} on {named.host}{f' ({choices})' if choices else ''}:"]
    lines += [f"> {line}" for line in _plain(prompt["text"]).split("\n")]
    if prompt["system"]:
        lines += ["system text:", *(f"> {line}" for line in _plain(prompt["system"]).split("\n"))]
    for file in prompt["files"]:
        size = "on the server" if file["bytes"] is None else f"{file['bytes']} bytes, {file['mime']}"
        lines.append(f"attached: {file['name']} ({size})")
    return lines


def _words(what: Happening, marks: dict[str, str]) -> str:
    """One happening as a line; empty for what is not worth one."""
    words = ""
    match what:
        case ToolChanged(status="running") if what.title:
            words = f"  {marks['tool']} {what.tool}: {what.title}"
        case ToolChanged(status="error"):
            words = f"  {marks['error']} {what.tool}: {_one_line(what.error or what.title)}"
        case TodosChanged():
            count = TodoCount.of(what.todos)
            words = f"  {marks['todo']} todo {count.done}/{count.total}: {_one_line(count.active or '')}".rstrip(": ")
        case Retried():
            return (
                f"  {marks['error']} the provider failed, try {what.status.attempt}: {_one_line(what.status.message)}"
            )
        case Child():
            words = f"  {marks['tool']} sub-agent: {what.title}"
        case TextMissed():
            words = f"  {marks['error']} some text was missed; it is shown when it is complete"
    return words


def _data(what: Happening) -> dict[str, Any]:
    """One happening as a JSON line, without its session."""
    data: dict[str, Any]
    match what:
        case TextDelta():
            data = {"type": "text", "text": what.text, "part_id": what.part_id}
        case TextMissed():
            data = {"type": "text_missed", "part_id": what.part_id}
        case ToolChanged():
            data = {"type": "tool", "tool": what.tool, "call_id": what.call_id, "status": what.status}
            data |= {"title": what.title, "error": what.error}
        case TodosChanged():
            todos = [{"content": one.content, "status": one.status, "priority": one.priority} for one in what.todos]
            data = {"type": "todos", "todos": todos}
        case Asked():
            data = {"type": "asked", "id": what.request.id}
        case Answered():
            data = {"type": "answered", "id": what.request_id}
        case Retried():
            data = {"type": "provider_retry", "attempt": what.status.attempt, "message": _one_line(what.status.message)}
        case Child():
            data = {"type": "sub_agent", "title": what.title}
    return data


def _plain(text: str) -> str:
    return clean(text, len(text) + 1)


def _one_line(text: str) -> str:
    return " ".join(mask_addresses(clean(text, _LINE)).split())
