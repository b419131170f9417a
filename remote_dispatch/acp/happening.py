"""What an agent tells of its sessions, as values: read tolerantly from protocol messages, unknown kinds kept whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from remote_dispatch.model import Todo
from remote_dispatch.transcript.shape import mapping, mappings

Raw = dict[str, Any]

FINISHED = ("completed", "failed")
"""Statuses of a tool call that nothing changes any more."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    text: str
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of reasoning; notes of ours on retries of the provider come as such, too."""

    text: str
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class UserText:
    """A piece of an earlier prompt: only while a session is loaded."""

    text: str
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolChanged:
    """A tool call, as much of it as this message tells. An empty field tells nothing."""

    call_id: str
    status: str = ""
    """`pending`, `in_progress`, `completed`, `failed`."""
    title: str = ""
    kind: str = ""
    """The protocol's kind: `execute`, `edit`, `read` ..."""
    output: str = ""
    """All of its output so far: it replaces what was shown before."""
    error: str = ""
    exit_status: int | None = None
    """Of a command."""
    raw: Raw = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether nothing comes of it any more."""
        return self.status in FINISHED


@dataclass(frozen=True, slots=True)
class Retried:
    """The provider failed, and OpenCode tries again by itself. Our side channel tells it: see `side.py`."""

    attempt: int
    message: str
    next_ms: int | None = None
    """When, in milliseconds since 1970 on the host's clock."""
    is_over: bool = False


@dataclass(frozen=True, slots=True)
class TodosChanged:
    """The whole list of todos."""

    todos: tuple[Todo, ...]


@dataclass(frozen=True, slots=True)
class UsageChanged:
    """How full the model's context is, in tokens, and what the session has cost so far in US dollars."""

    used: int
    size: int
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class CommandsKnown:
    """The commands that a prompt may begin with, without their slash."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class OptionsChanged:
    """The options of the session (model, effort, mode) and their values."""

    options: tuple[Raw, ...]


@dataclass(frozen=True, slots=True)
class Other:
    """An update of a kind that is not known here, whole."""

    kind: str
    raw: Raw = field(repr=False)


Happening = (
    Text
    | Thought
    | UserText
    | ToolChanged
    | Retried
    | TodosChanged
    | UsageChanged
    | CommandsKnown
    | OptionsChanged
    | Other
)


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer that may be given. `kind` is `allow_once`, `allow_always`, `reject_once`, `reject_always`."""

    id: str
    name: str
    kind: str

    @property
    def is_leave(self) -> bool:
        """Whether it lets the tool do its work."""
        return self.kind.startswith("allow")


@dataclass(frozen=True, slots=True)
class Asked:
    """The agent asks for leave, or puts a question, and waits."""

    session_id: str
    title: str
    choices: tuple[Choice, ...]
    kind: str = ""
    command: str = ""
    """The command that wants to run, whole; empty for anything else."""
    paths: tuple[str, ...] = ()
    diff: str = ""
    """What an edit would change, unified."""
    is_question: bool = False
    """The model wants an answer, not leave: no policy has one."""
    sub_agent: str = ""
    """The name of the sub-agent that asks."""
    raw: Raw = field(default_factory=dict, compare=False, repr=False)

    def choice(self, kind: str) -> Choice | None:
        """Return the first choice of this kind."""
        return next((one for one in self.choices if one.kind == kind), None)


def read_update(update: Raw) -> tuple[Happening, ...]:
    """Return what one `update` of `session/update` tells; todos come beside the tool call that wrote them."""
    kind = _text(update.get("sessionUpdate"))
    match kind:
        case "agent_message_chunk":
            return (Text(_content(update), _text(update.get("messageId"))),)
        case "agent_thought_chunk":
            return (Thought(_content(update), _text(update.get("messageId"))),)
        case "user_message_chunk":
            return (UserText(_content(update), _text(update.get("messageId"))),)
        case "tool_call" | "tool_call_update":
            return (_retried(update) or _tool(update), *_todos_of(update))
        case "plan":
            return (TodosChanged(_todos(update.get("entries"))),)
        case _:
            return (_rest(kind, update),)


def read_asked(params: Raw) -> Asked:
    """Return what a `session/request_permission` asks. Questions are told from permissions by what they offer."""
    call = mapping(params.get("toolCall"))
    raw, meta = mapping(call.get("rawInput")), mapping(params.get("_meta"))
    choices = tuple(_choice(one) for one in mappings(params.get("options")))
    return Asked(
        session_id=_text(params.get("sessionId")),
        title=_text(call.get("title")),
        choices=tuple(one for one in choices if one.id),
        kind=_text(call.get("kind")),
        command=_text(raw.get("command")),
        paths=tuple(path for one in mappings(call.get("locations")) if (path := _text(one.get("path")))),
        diff=_text(raw.get("diff")),
        is_question=meta.get("kind") == "question",
        sub_agent=_text(meta.get("subAgent")),
        raw=params,
    )


def _rest(kind: str, update: Raw) -> Happening:
    match kind:
        case "usage_update":
            cost = mapping(update.get("cost")).get("amount")
            return UsageChanged(_number(update.get("used")), _number(update.get("size")), _amount(cost))
        case "available_commands_update":
            named = mappings(update.get("availableCommands"))
            return CommandsKnown(frozenset(_text(one.get("name")).lstrip("/") for one in named))
        case "config_option_update":
            return OptionsChanged(tuple(mappings(update.get("configOptions"))))
        case _:
            return Other(kind, update)


def _retried(update: Raw) -> Retried | None:
    retry = mapping(mapping(update.get("_meta")).get("retry"))
    if not retry:
        return None
    next_ms = retry.get("nextMs")
    return Retried(
        attempt=_number(retry.get("attempt")),
        message=_text(retry.get("message")),
        next_ms=next_ms if isinstance(next_ms, int) else None,
        is_over=update.get("status") in FINISHED,
    )


def _tool(update: Raw) -> ToolChanged:
    output, meta = mapping(update.get("rawOutput")), mapping(mapping(update.get("rawOutput")).get("metadata"))
    exit_status = meta.get("exit")
    texts = (_content(one) for one in mappings(update.get("content")) if one.get("type") == "content")
    return ToolChanged(
        call_id=_text(update.get("toolCallId")),
        status=_text(update.get("status")),
        title=_text(update.get("title")),
        kind=_text(update.get("kind")),
        output=_text(output.get("output")) or "".join(texts),
        error=_text(output.get("error")),
        exit_status=exit_status if isinstance(exit_status, int) else None,
        raw=update,
    )


def _todos_of(update: Raw) -> tuple[TodosChanged, ...]:
    """OpenCode 1.18 announces todos nowhere but in the call of the tool that writes them."""
    metadata = mapping(mapping(update.get("rawOutput")).get("metadata"))
    found = metadata.get("todos", mapping(update.get("rawInput")).get("todos"))
    return (TodosChanged(_todos(found)),) if isinstance(found, list) else ()


def _todos(raw: object) -> tuple[Todo, ...]:
    return tuple(
        Todo(content, _text(one.get("status")) or "pending", _text(one.get("priority")) or "medium")
        for one in mappings(raw)
        if (content := _text(one.get("content")))
    )


def _choice(raw: Raw) -> Choice:
    ident = _text(raw.get("optionId"))
    return Choice(ident, _text(raw.get("name")) or ident, _text(raw.get("kind")))


def _content(update: Raw) -> str:
    return _text(mapping(update.get("content")).get("text"))


def _text(raw: object) -> str:
    return raw if isinstance(raw, str) else ""


def _number(raw: object) -> int:
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else 0


def _amount(raw: object) -> float:
    return float(raw) if isinstance(raw, int | float) else 0.0
