"""A quick reader of JSON with comments. What it takes the grammar reads in the same way; the rest it leaves to that."""

from __future__ import annotations

import json
import re
from bisect import bisect_left

from remote_dispatch.hosts.nodes import MAX_NESTING, MAX_TOKENS, WORDS, Array, JsoncError, Member, Node, Object, Scalar

# Possessive, so that a long file without an end costs one pass.
_SKIPPED = r"(?:[ \t\r\n]++|//[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/)*+"
_TEXT = r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_TOKEN = re.compile(
    rf"{_SKIPPED}(?:(?P<mark>[{{}}\[\],:])|(?P<json>{_TEXT}|{_NUMBER})|(?P<word>true|false|null)|(?P<end>\Z))"
)


def read(text: str) -> Node | None:
    """Return the value, or None when it is not plainly right. Raises JsoncError for more than 100,000 tokens."""
    try:
        return _Reader(text).whole()
    except _DoubtError:
        return None


class _DoubtError(Exception):
    """The text is not plainly right."""


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._end = 0
        self._count = 0
        self._advance()

    def whole(self) -> Node:
        node = self._value(0)
        if self._lexeme:
            raise _DoubtError
        return node

    def _value(self, depth: int) -> Node:
        if self._lexeme == "{":
            return self._object(depth + 1)
        if self._lexeme == "[":
            return self._array(depth + 1)
        return self._scalar()

    def _object(self, depth: int) -> Object:
        start = self._opened(depth)
        members: list[Member] = []
        comma_end = None
        while self._lexeme != "}":
            members.append(self._member(depth))
            comma_end = self._separator("}")
        self._advance()
        return Object(self._line(start), start, self._last_end, tuple(members), comma_end)

    def _array(self, depth: int) -> Array:
        start = self._opened(depth)
        items: list[Node] = []
        comma_end = None
        while self._lexeme != "]":
            items.append(self._value(depth))
            comma_end = self._separator("]")
        self._advance()
        return Array(self._line(start), start, self._last_end, tuple(items), comma_end)

    def _opened(self, depth: int) -> int:
        if depth > MAX_NESTING:
            raise _DoubtError
        start = self._start
        self._advance()
        return start

    def _member(self, depth: int) -> Member:
        start = self._start
        key = self._scalar().content
        if not isinstance(key, str) or self._lexeme != ":":
            raise _DoubtError
        self._advance()
        return Member(self._line(start), start, key, self._value(depth))

    def _separator(self, closing: str) -> int | None:
        """Pass a comma; return its end when nothing but the closing mark comes behind it."""
        if self._lexeme == ",":
            self._advance()
            return self._last_end if self._lexeme == closing else None
        if self._lexeme != closing:
            raise _DoubtError
        return None

    def _scalar(self) -> Scalar:
        if self._kind not in ("json", "word"):
            raise _DoubtError
        start, token, kind = self._start, self._lexeme, self._kind
        self._advance()
        try:
            content = WORDS[token] if kind == "word" else json.loads(token)
        except ValueError:  # a number of thousands of digits
            raise _DoubtError from None
        return Scalar(self._line(start), start, self._last_end, content)

    def _advance(self) -> None:
        self._last_end = self._end
        match = _TOKEN.match(self._text, self._end)
        if not match or not match.lastgroup:
            raise _DoubtError
        self._count += 1
        if self._count > MAX_TOKENS and match.lastgroup != "end":
            raise JsoncError(self._line(match.start(match.lastgroup)), "the file holds too many values")
        self._kind = match.lastgroup
        self._lexeme = match[self._kind]
        self._start, self._end = match.span(self._kind)

    def _line(self, offset: int) -> int:
        return bisect_left(self._newlines, offset) + 1
