"""The shape of a transcript and the small steps by which it is read and copied. Nothing here changes its argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Transcript = dict[str, Any]
"""A decoded session export: `{"info": {...}, "messages": [{"info": {...}, "parts": [...]}, ...]}`."""

Message = dict[str, Any]
Part = dict[str, Any]

OPEN_STATUSES = frozenset({"pending", "running"})
TODO_TOOL = "todowrite"
"""OpenCode's tool that carries a session's whole list of todos."""


def messages_of(transcript: Transcript) -> list[Message]:
    """Return the messages, oldest first; the list is the transcript's own."""
    messages: list[Message] = transcript["messages"]
    return messages


def parts_of(message: Message) -> list[Part]:
    """Return the parts in their order; the list is the message's own."""
    parts: list[Part] = message["parts"]
    return parts


def role_of(message: Message) -> str:
    """Return `user` or `assistant`."""
    return str(message["info"].get("role"))


def id_of(message: Message) -> str:
    """Return the id of a message."""
    return str(message["info"]["id"])


def state_of(part: Part) -> dict[str, Any]:
    """Return the state of a tool part; an empty one for any other part."""
    return mapping(part.get("state")) if part.get("type") == "tool" else {}


def mapping(value: Any) -> dict[str, Any]:
    """Return the value when it is an object, otherwise an empty one."""
    return value if isinstance(value, dict) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return what of a list are objects; nothing of anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def is_open_call(part: Part) -> bool:
    """Whether the part is a tool call that has not ended."""
    return state_of(part).get("status") in OPEN_STATUSES


def is_aside(message: Message) -> bool:
    """Whether a message is for the user's eyes only: OpenCode 1.18 shows ignored text, and sends it to no model."""
    parts = parts_of(message)
    return role_of(message) == "user" and bool(parts) and all(part.get("ignored") for part in parts)


def last_with_role(messages: list[Message], role: str) -> Message | None:
    """Return the last message of this role, or None."""
    return next((message for message in reversed(messages) if role_of(message) == role), None)


def with_info(holder: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a copy of a transcript or message with these fields of its `info` replaced."""
    return {**holder, "info": {**holder["info"], **changes}}


def without_info(holder: dict[str, Any], *fields: str) -> dict[str, Any]:
    """Return a copy of a transcript or message without these fields of its `info`."""
    return {**holder, "info": {name: value for name, value in holder["info"].items() if name not in fields}}


def with_messages(transcript: Transcript, messages: Iterable[Message]) -> Transcript:
    """Return a copy that holds these messages."""
    return {**transcript, "messages": list(messages)}


def map_parts(message: Message, change: Callable[[Part], Part]) -> Message:
    """Return a copy of the message with every part changed."""
    return {**message, "parts": [change(part) for part in parts_of(message)]}


def spoken_text(message: Message) -> str:
    """Return the joined text that was said: no synthetic and no ignored parts."""
    said = (part for part in parts_of(message) if part.get("type") == "text" and is_said(part))
    return "".join(str(part.get("text", "")) for part in said)


def is_said(part: Part) -> bool:
    """Whether a text part was written by the user or the model, not by OpenCode."""
    return not part.get("synthetic") and not part.get("ignored")


def texts_in(value: Any) -> Iterator[str]:
    """Yield every string of a JSON value, names of fields too, in no particular order and to any depth."""
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            rest.extend(one)
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)
