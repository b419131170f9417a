"""What an OpenCode server says of its sessions, as values. Untrusted: read with care, unknown fields are left alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from remote_dispatch.model import SESSION_ID, Model, Todo
from remote_dispatch.transcript.shape import mapping

Raw = dict[str, Any]
_MOST = 6e13
"""No clock shows more milliseconds before the year 3871, and no session has more tokens."""


@dataclass(frozen=True, slots=True)
class Health:
    """A server that answers and accepts the password."""

    version: str


@dataclass(frozen=True, slots=True)
class ServedPaths:
    """Where a server works: is it the one we mean?"""

    home: str
    directory: str
    state: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and cost of a session, its sub-agents' not included. Cost in US dollars, as OpenCode counts it."""

    input: int = 0
    output: int = 0
    reasoning: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cost: float = 0.0

    @property
    def total(self) -> int:
        """All tokens together."""
        return self.input + self.output + self.reasoning + self.cache_read + self.cache_write

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.reasoning + other.reasoning,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.cost + other.cost,
        )


@dataclass(frozen=True, slots=True)
class Served:
    """One session as the server shows it. Times in milliseconds since 1970, on the server's clock."""

    id: str
    directory: str
    title: str
    parent_id: str | None = None
    agent: str | None = None
    model: Model | None = None
    created_ms: int = 0
    updated_ms: int = 0
    usage: Usage = Usage()
    permission: tuple[Raw, ...] = ()
    project_id: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A session that is not idle. For `retry`: which attempt, why in the provider's words, when next."""

    type: Literal["busy", "retry"]
    attempt: int = 0
    message: str = ""
    next_ms: int | None = None
    """On the server's clock."""
    reason: str | None = None
    """OpenCode's own word for it, where it has one (`free_tier_limit`)."""


@dataclass(frozen=True, slots=True)
class PermissionRequest:
    """A tool waits for leave. `session_id` may be a sub-agent's."""

    id: str
    session_id: str
    permission: str
    patterns: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    """The rules that `always` would add."""
    metadata: Raw = field(default_factory=dict)
    message_id: str | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """One answer that a question offers."""

    label: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a request."""

    question: str
    header: str = ""
    options: tuple[Option, ...] = ()
    is_multiple: bool = False


@dataclass(frozen=True, slots=True)
class QuestionRequest:
    """The model asked something; answered all at once. `session_id` may be a sub-agent's."""

    id: str
    session_id: str
    questions: tuple[Question, ...]
    message_id: str | None = None
    call_id: str | None = None


Request = PermissionRequest | QuestionRequest


@dataclass(frozen=True, slots=True)
class ServedAgent:
    """An agent that the server offers."""

    name: str
    mode: str
    description: str = ""
    is_hidden: bool = False
    model: Model | None = None
    permission: tuple[Raw, ...] = ()
    """Its rules, `{permission, pattern, action}` each: the last one that matches wins."""

    @property
    def is_primary(self) -> bool:
        """Whether a session can be led by it."""
        return self.mode != "subagent" and not self.is_hidden


@dataclass(frozen=True, slots=True)
class Offer:
    """The models of the providers that are configured, `provider/id` each, and their variants."""

    models: tuple[str, ...]
    variants: dict[str, tuple[str, ...]] = field(default_factory=dict)
    context: dict[str, int] = field(default_factory=dict)
    """The context window of each model, in tokens, where it is known."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the server's bus. `directory` is None for what concerns the whole server."""

    type: str
    properties: Raw
    directory: str | None = None

    @property
    def session_id(self) -> str | None:
        """The session that it is about."""
        found = self.properties.get("sessionID") or _deep(self.properties, "info", "sessionID")
        found = found or _deep(self.properties, "part", "sessionID")
        if found is None and self.type.startswith("session."):
            found = _deep(self.properties, "info", "id")
        return found if isinstance(found, str) else None


def read_session(raw: Raw) -> Served:
    """Read a Session. Raises ValueError where it has no usable id."""
    session_id = raw.get("id")
    if not isinstance(session_id, str) or not SESSION_ID.fullmatch(session_id):
        raise ValueError("a session without an id")
    time = mapping(raw.get("time"))
    parent = raw.get("parentID")
    return Served(
        id=session_id,
        directory=_text(raw.get("directory")),
        title=_text(raw.get("title")),
        parent_id=parent if isinstance(parent, str) else None,
        agent=_text(raw.get("agent")) or None,
        model=_model(raw.get("model"), "id"),
        created_ms=_number(time.get("created")),
        updated_ms=_number(time.get("updated")),
        usage=read_usage(raw),
        permission=tuple(rule for rule in _list(raw.get("permission")) if isinstance(rule, dict)),
        project_id=_text(raw.get("projectID")) or None,
        version=_text(raw.get("version")) or None,
    )


def read_usage(raw: Raw) -> Usage:
    """Read `tokens` and `cost` of a session or of an assistant message."""
    tokens = mapping(raw.get("tokens"))
    cache = mapping(tokens.get("cache"))
    return Usage(
        _number(tokens.get("input")),
        _number(tokens.get("output")),
        _number(tokens.get("reasoning")),
        _number(cache.get("read")),
        _number(cache.get("write")),
        amount(raw.get("cost")),
    )


def read_status(raw: Raw) -> Status | None:
    """Read a status; None for idle. A word that is not known is some kind of work: idle would be taken for an end."""
    kind = raw.get("type")
    if kind == "idle" or not isinstance(kind, str):
        return None
    if kind != "retry":
        return Status("busy")
    reason = mapping(raw.get("action")).get("reason")
    return Status(
        "retry",
        _number(raw.get("attempt")),
        _text(raw.get("message")),
        _number(raw.get("next")) or None,
        reason if isinstance(reason, str) else None,
    )


def read_permission(raw: Raw) -> PermissionRequest:
    """Read a permission request. Raises ValueError where it has no id."""
    tool = mapping(raw.get("tool"))
    return PermissionRequest(
        _id(raw, "id", "per"),
        _id(raw, "sessionID", "ses"),
        _text(raw.get("permission")),
        _texts(raw.get("patterns")),
        _texts(raw.get("always")),
        mapping(raw.get("metadata")),
        _text(tool.get("messageID")) or None,
        _text(tool.get("callID")) or None,
    )


def read_question(raw: Raw) -> QuestionRequest:
    """Read a question request. Raises ValueError where it has no id."""
    tool = mapping(raw.get("tool"))
    questions = (_question(one) for one in _list(raw.get("questions")) if isinstance(one, dict))
    return QuestionRequest(
        _id(raw, "id", "que"),
        _id(raw, "sessionID", "ses"),
        tuple(questions),
        _text(tool.get("messageID")) or None,
        _text(tool.get("callID")) or None,
    )


def read_todo(raw: Raw) -> Todo:
    """Read a todo; its words are free text."""
    return Todo(_text(raw.get("content")), _text(raw.get("status")), _text(raw.get("priority")))


def read_agent(raw: Raw) -> ServedAgent:
    """Read an agent."""
    return ServedAgent(
        _text(raw.get("name")),
        _text(raw.get("mode")),
        _text(raw.get("description")),
        raw.get("hidden") is True,
        _model(raw.get("model"), "modelID"),
        tuple(rule for rule in _list(raw.get("permission")) if isinstance(rule, dict)),
    )


def read_offer(raw: Raw) -> Offer:
    """Read the answer of `/config/providers`."""
    models: list[str] = []
    variants: dict[str, tuple[str, ...]] = {}
    context: dict[str, int] = {}
    for provider in map(mapping, _list(raw.get("providers"))):
        for name, model in mapping(provider.get("models")).items():
            key = f"{_text(provider.get('id'))}/{name}"
            if not _is_model(key):
                continue
            models.append(key)
            variants[key] = tuple(mapping(mapping(model).get("variants")))
            context[key] = _number(mapping(mapping(model).get("limit")).get("context"))
    return Offer(tuple(models), variants, context)


def read_event(raw: Raw) -> Event | None:
    """Read one event of `/global/event`; None for what repeats another one, or cannot be read."""
    payload = mapping(raw.get("payload"))
    kind = payload.get("type")
    if not isinstance(kind, str) or kind == "sync":
        return None
    directory = raw.get("directory")
    is_known = isinstance(directory, str) and directory != "global"
    return Event(kind, mapping(payload.get("properties")), directory if is_known else None)


def _is_model(text: str) -> bool:
    try:
        Model.parse(text)
    except ValueError:
        return False
    return True


def amount(value: object) -> float:
    """Return a number, 0 for what is none: JSON as Python reads it has infinite ones, and such as no clock shows."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST:
        return float(value)
    return 0.0


def _question(raw: Raw) -> Question:
    options = (mapping(one) for one in _list(raw.get("options")))
    return Question(
        _text(raw.get("question")),
        _text(raw.get("header")),
        tuple(Option(_text(one.get("label")), _text(one.get("description"))) for one in options),
        raw.get("multiple") is True,
    )


def _id(raw: Raw, field_name: str, prefix: str) -> str:
    value = raw.get(field_name)
    if not isinstance(value, str) or not value.startswith(prefix) or len(value) > 200 or not value.isprintable():
        raise ValueError(f"a request without `{field_name}`")
    return value


def _model(raw: object, key: str) -> Model | None:
    found = mapping(raw)
    provider, name = found.get("providerID"), found.get(key) or found.get("modelID") or found.get("id")
    return Model(provider, name) if isinstance(provider, str) and isinstance(name, str) and provider and name else None


def _deep(raw: Raw, *path: str) -> object:
    value: object = raw
    for key in path:
        value = mapping(value).get(key)
    return value


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    """Half a pair of surrogates, which JSON may hold, can be neither written nor sent."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in _list(value) if isinstance(one, str))


def _number(value: object) -> int:
    return int(amount(value))
