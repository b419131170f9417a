"""From what one look shows to what a report says: of one session, of several, and of one that has ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from remote_dispatch.opencode.served import PermissionRequest, amount
from remote_dispatch.sessions.requests import short_ids
from remote_dispatch.sessions.values import Phase
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from remote_dispatch.failure import Failure
    from remote_dispatch.model import Todo
    from remote_dispatch.opencode.served import Raw, Request, Usage
    from remote_dispatch.sessions.values import End, Look, Reading

DONE = "done"
BRIEF = 120
_TEXT_LIMIT = 4000
_ANSWER_LIMIT = 4 * 1024 * 1024
_FIRST_WORD = ("command", "filePath", "path", "pattern", "url", "query", "description", "prompt")
"""Where the arguments of OpenCode's own tools say in a word what they are at."""


@dataclass(frozen=True, slots=True)
class TodoTally:
    """How many todos are in which state; cancelled ones are not counted."""

    done: int = 0
    active: int = 0
    pending: int = 0
    task: str | None = None
    """The one in progress."""

    @property
    def total(self) -> int:
        """All that count."""
        return self.done + self.active + self.pending

    @classmethod
    def of(cls, todos: Iterable[Todo]) -> TodoTally:
        """Count; a status that is none of OpenCode's own counts as pending."""
        counted = [todo for todo in todos if todo.status != "cancelled"]
        done = sum(todo.status == "completed" for todo in counted)
        active = [todo.content for todo in counted if todo.status == "in_progress"]
        task = clean(active[0], BRIEF) if active else None
        return cls(done, len(active), len(counted) - done - len(active), task)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that waits, and the command that answers it."""

    id: str
    kind: str
    """`permission` or `question`."""
    text: str
    """What is asked, in one line."""
    command: str


@dataclass(frozen=True, slots=True)
class SessionReport:
    """What a report says of one session. Every text is cleaned; times are ours."""

    name: str
    host: str
    session_id: str
    title: str
    phase: Phase
    todo: TodoTally
    usage: Usage
    failure: Failure | None = None
    detail: str | None = None
    tool: str | None = None
    """The tool that runs: `bash: make test`."""
    last_message: str | None = None
    """The last words of the model, in brief."""
    last_sign: datetime | None = None
    """When it last gave a sign of life."""
    asked: tuple[Asked, ...] = ()
    end: End | None = None

    @property
    def state(self) -> str:
        """One word: the phase, and at the end the verdict."""
        if self.phase is Phase.ENDED:
            return self.failure.value if self.failure else DONE
        return self.phase.value


def report_of(look: Look) -> SessionReport:
    """Say of a look what is worth reporting."""
    named, reading, standing = look.named, look.reading, look.standing
    return SessionReport(
        name=named.name,
        host=named.host,
        session_id=named.session_id,
        title=_line(reading.session.title or named.title),
        phase=standing.phase,
        todo=TodoTally.of(reading.todos),
        usage=look.usage,
        failure=standing.failure,
        detail=_private(standing.detail),
        tool=None if standing.is_over else running_tool(reading.messages),
        last_message=last_words(reading.messages),
        last_sign=last_sign(reading),
        asked=tuple(asked_of(named.name, standing.requests or reading.requests)),
        end=standing.end,
    )


def asked_of(name: str, requests: Sequence[Request]) -> Iterator[Asked]:
    """Describe the requests that a session waits for, each with the command that answers it."""
    short = short_ids(one.id for one in requests)
    for request in requests:
        kind = "permission" if isinstance(request, PermissionRequest) else "question"
        word = "once|always|reject" if kind == "permission" else "ANSWER"
        command = f"remote-dispatch session reply {name} {short[request.id]} {word}"
        yield Asked(request.id, kind, _line(_wanted(request)), command)


def running_tool(messages: Sequence[Raw]) -> str | None:
    """Return the tool call that runs, in a few words. Calls of older steps that say so were interrupted."""
    for part in _parts(messages[-1:], newest_first=True):
        state = part.get("state")
        if part.get("type") == "tool" and isinstance(state, dict) and state.get("status") == "running":
            return tool_words(str(part.get("tool") or "tool"), state)
    return None


def tool_words(tool: str, state: Raw) -> str:
    """Say in a few words what a tool call does: its title, or the argument that tells most."""
    arguments = state.get("input")
    given = arguments if isinstance(arguments, dict) else {}
    about = state.get("title") or next((given[key] for key in _FIRST_WORD if given.get(key)), "")
    return _line(f"{tool}: {about}") if isinstance(about, str) and about else _line(tool)


def last_words(messages: Sequence[Raw]) -> str | None:
    """Return the beginning of the last text that the model wrote; None when it wrote none since the last prompt."""
    for message in reversed(messages):
        if _info(message).get("role") != "assistant":
            return None
        for part in _parts([message], newest_first=True):
            text = part.get("text")
            if part.get("type") == "text" and isinstance(text, str) and text.strip() and not part.get("synthetic"):
                return _line(text)
    return None


def last_sign(reading: Reading) -> datetime | None:
    """Return when the session, or a sub-agent of it, last changed, on our clock."""
    moments = [reading.session.updated_ms, *(one.updated_ms for one in reading.descendants)]
    for message in reading.messages:
        moments.extend(_times(_info(message)))
    for part in _parts(reading.messages):
        moments.extend(_times(part))
        moments.extend(_times(part.get("state")))
    newest = max(moments, default=0)
    if not newest:
        return None
    return datetime.fromtimestamp((newest - reading.server_offset_ms) / 1000, UTC)


def data_of(report: SessionReport) -> dict[str, Any]:
    """Return the JSON of one session in a report. Fields are only ever added; no address is among them."""
    return {
        "name": report.name,
        "host": report.host,
        "session_id": report.session_id,
        "title": report.title,
        "state": report.phase.value,
        "failure": report.failure.value if report.failure else None,
        "detail": report.detail,
        "todo": {
            "done": report.todo.done,
            "active": report.todo.active,
            "pending": report.todo.pending,
            "total": report.todo.total,
            "task": report.todo.task,
        },
        "tool": report.tool,
        "last_message": report.last_message,
        "last_activity": report.last_sign,
        "tokens": report.usage.total,
        "cost": report.usage.cost,
        "requests": [
            {"id": one.id, "kind": one.kind, "text": one.text, "command": one.command} for one in report.asked
        ],
    }


def end_data(report: SessionReport) -> dict[str, Any]:
    """Return the JSON of a session that has ended: as in a report, and its whole answer."""
    end = report.end
    return {
        **data_of(report),
        "verdict": report.state,
        "answer": end.answer if end else "",
        "finish": end.finish if end else None,
        "agent": end.agent if end else None,
        "model": end.model if end else None,
        "refused": [_line(one) for one in end.refused] if end else [],
        "warnings": [_line(one) for one in end.warnings] if end else [],
        "next": next_command(report),
    }


def combined_lines(reports: Sequence[SessionReport], now: datetime, unreachable: Sequence[str] = ()) -> list[str]:
    """Return a report on several sessions: each in a few lines, those that are over in one.

    `unreachable` are remarks on hosts that do not answer; what is said of their sessions is older.
    """
    at_work = [one for one in reports if one.phase not in (Phase.IDLE, Phase.ENDED)]
    waiting = sum(bool(one.asked) for one in at_work)
    over = f", {len(reports) - len(at_work)} over" if len(reports) > len(at_work) else ""
    asks = f", {waiting} waiting for an answer" if waiting else ""
    lines = [f"{now.astimezone():%Y-%m-%d %H:%M:%S}  {_count(len(at_work), 'session')} at work{asks}{over}"]
    for report in sorted(reports, key=lambda one: one not in at_work):
        lines.extend(lines_of(report, now))
    return [*lines, *(f"! {remark}" for remark in unreachable)]


def lines_of(report: SessionReport, now: datetime) -> list[str]:
    """Return what a combined report says of one session."""
    lines = [f"{report.name} on {report.host}: {state_words(report)}{_since(report, now)}"]
    if report.phase in (Phase.IDLE, Phase.ENDED):
        return lines
    if report.todo.total:
        task = f": {report.todo.task}" if report.todo.task else ""
        lines.append(f"  todo    {todo_words(report.todo)}{task}")
    if report.tool:
        lines.append(f"  tool    {report.tool}")
    if report.last_message:
        lines.append(f"  said    {report.last_message}")
    lines.append(f"  used    {usage_words(report.usage)}")
    for asked in report.asked:
        lines += [f"  asks    {asked.kind}: {asked.text}", f"          {asked.command}"]
    return lines


def end_lines(report: SessionReport) -> list[str]:
    """Return what is said when a session ends: verdict, todos, use, the whole answer, and the next command."""
    end = report.end
    if report.phase is Phase.IDLE:
        return [
            f"{report.name} on {report.host} is idle: nothing was asked of it yet",
            f"  next    {next_command(report)}",
        ]
    lines = [f"{report.name} on {report.host} has ended: {state_words(report)}"]
    if report.todo.total:
        lines.append(f"  todo    {todo_words(report.todo)}")
    lines.append(f"  used    {usage_words(report.usage)}")
    lines.extend(f"  refused {_line(one)}" for one in (end.refused if end else ()))
    lines.extend(f"  warning {_line(one)}" for one in (end.warnings if end else ()))
    if end and end.answer.strip():
        lines += ["", *clean(end.answer, _ANSWER_LIMIT).strip("\n").split("\n"), ""]
    return [*lines, f"  next    {next_command(report)}"]


def next_command(report: SessionReport) -> str:
    """Return the command to type now: to answer what is asked, to look on, or after the end."""
    if report.asked:
        return f"remote-dispatch session requests {report.name}"
    if report.phase not in (Phase.IDLE, Phase.ENDED):
        return f"remote-dispatch session watch {report.name}"
    if report.failure:
        return f"remote-dispatch session messages {report.name} -n 5"
    return f'remote-dispatch session send {report.name} "..."'


def state_words(report: SessionReport) -> str:
    """Return the state as people read it: `retrying (rate_limited): Too Many Requests`."""
    kind = f" ({report.failure.value})" if report.failure and report.phase is not Phase.ENDED else ""
    is_told = bool(report.asked) or (report.detail or "").lower() in ("", report.state)
    return f"{report.state}{kind}{'' if is_told else f': {report.detail}'}"


def todo_words(todo: TodoTally) -> str:
    """Return the counts: `2 done, 1 active, 3 pending`."""
    return f"{todo.done} done, {todo.active} active, {todo.pending} pending"


def usage_words(usage: Usage) -> str:
    """Return tokens and cost: `12345 tokens, $0.0420`."""
    return f"{usage.total} tokens, ${usage.cost:.4f}"


def span_words(seconds: float) -> str:
    """Return a span in one rough word: `4 min`."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= length:
            return f"{whole // length} {unit}"
    return f"{whole} s"


def _since(report: SessionReport, now: datetime) -> str:
    if report.last_sign is None:
        return ""
    return f", last sign of life {span_words((now - report.last_sign).total_seconds())} ago"


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _wanted(request: Request) -> str:
    if not isinstance(request, PermissionRequest):
        return " / ".join(one.question for one in request.questions)
    about = request.metadata.get("command") or request.metadata.get("filepath") or ", ".join(request.patterns)
    return f"{request.permission}: {about}" if about else request.permission


def _parts(messages: Sequence[Raw], *, newest_first: bool = False) -> Iterator[Raw]:
    for message in reversed(messages) if newest_first else messages:
        parts = message.get("parts")
        found = [one for one in parts if isinstance(one, dict)] if isinstance(parts, list) else []
        yield from reversed(found) if newest_first else found


def _info(message: Raw) -> Raw:
    info = message.get("info")
    return info if isinstance(info, dict) else {}


def _times(holder: object) -> Iterator[int]:
    time = holder.get("time") if isinstance(holder, dict) else None
    for moment in time.values() if isinstance(time, dict) else ():
        yield int(amount(moment))


def _line(text: str) -> str:
    """One line, cleaned, in brief."""
    words = " ".join(clean(text, _TEXT_LIMIT).split())
    return words if len(words) <= BRIEF else f"{words[: BRIEF - 1]}…"


def _private(text: str | None) -> str | None:
    return mask_addresses(clean(text, _TEXT_LIMIT)) if text else None
