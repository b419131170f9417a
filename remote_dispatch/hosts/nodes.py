"""What JSON with comments is read into: nodes that know their lines and offsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_NESTING = 64
MAX_TOKENS = 100_000

Content = str | int | float | bool | None

WORDS: dict[str, Content] = {"true": True, "false": False, "null": None}


class JsoncError(ValueError):
    """The text is not JSON with comments. `line` counts from 1; the message repeats nothing of the text."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text, number, truth value or null. `start` and `end` are offsets in the text, `line` counts from 1."""

    line: int
    start: int
    end: int
    content: Content


@dataclass(frozen=True, slots=True)
class Array:
    """A list of nodes. `comma_end` is the offset after a trailing comma."""

    line: int
    start: int
    end: int
    items: tuple[Node, ...]
    comma_end: int | None


@dataclass(frozen=True, slots=True)
class Member:
    """One `"key": value` of an object; `line` and `start` are those of the key."""

    line: int
    start: int
    key: str
    value: Node


@dataclass(frozen=True, slots=True)
class Object:
    """The members in the order of the file, duplicates included. `comma_end` is the offset after a trailing comma."""

    line: int
    start: int
    end: int
    members: tuple[Member, ...]
    comma_end: int | None

    def get(self, key: str) -> Member | None:
        """Return the first member of this key, or None."""
        return next((member for member in self.members if member.key == key), None)

    def duplicate(self) -> Member | None:
        """Return the first member whose key was there before, or None."""
        seen: set[str] = set()
        for member in self.members:
            if member.key in seen:
                return member
            seen.add(member.key)
        return None


Node = Scalar | Array | Object


def plain(node: Node) -> Any:
    """Return the value as dicts, lists and scalars; of duplicate keys the last stays."""
    if isinstance(node, Object):
        return {member.key: plain(member.value) for member in node.members}
    if isinstance(node, Array):
        return [plain(item) for item in node.items]
    return node.content


def first_duplicate(node: Node) -> Member | None:
    """Return the first member, at any depth, whose key stood before in the same object, or None."""
    if isinstance(node, Scalar):
        return None
    if isinstance(node, Object) and (found := node.duplicate()):
        return found
    values = node.items if isinstance(node, Array) else tuple(member.value for member in node.members)
    return next((found for value in values if (found := first_duplicate(value))), None)
