"""The grammar of JSON with comments. It knows what is wrong and where; for right files `reader` is quicker."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken
from lark.lark import PostLex

from remote_dispatch.hosts.nodes import (
    MAX_NESTING,
    MAX_TOKENS,
    WORDS,
    Array,
    Content,
    JsoncError,
    Member,
    Node,
    Object,
    Scalar,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRAMMAR = r"""
?start: value
?value: object | array | text | number | word
object: LBRACE [member (COMMA member)* COMMA?] RBRACE
member: STRING ":" value
array: LBRACKET [value (COMMA value)* COMMA?] RBRACKET
text: STRING
number: NUMBER
word: TRUE | FALSE | NULL

LBRACE: "{"
RBRACE: "}"
LBRACKET: "["
RBRACKET: "]"
COMMA: ","
TRUE: "true"
FALSE: "false"
NULL: "null"
STRING: /"(?:[^"\\\x00-\x1f]|\\(?:["\\\/bfnrt]|u[0-9a-fA-F]{4}))*"/
NUMBER: /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/
%ignore /\/\/[^\n]*/
%ignore /\/\*(?:.|\n)*?\*\//
%ignore /[ \t\r\n]+/
"""

_CHARACTERS = {
    '"': "this text is not closed, or holds a line break or an unknown escape",
    "'": "text is written in double quotes",
    "/": "this comment is not closed",
}


def parse(text: str) -> Node:
    """Read one value. Raises JsoncError, also for nesting over 64 and for more than 100,000 tokens."""
    try:
        return _parser().parse(text)  # type: ignore[return-value]  # the transformer turns lark's tree into nodes
    except UnexpectedInput as error:
        raise JsoncError(*_explained(error, text)) from None


class _Bounds(PostLex):
    """Stops deep or endless input at the lexer, where it costs nothing yet."""

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth = 0
        for count, token in enumerate(stream, start=1):
            depth += (token.type in ("LBRACE", "LBRACKET")) - (token.type in ("RBRACE", "RBRACKET"))
            if depth > MAX_NESTING:
                raise JsoncError(_line(token), f"this is nested more than {MAX_NESTING} levels deep")
            if count > MAX_TOKENS:
                raise JsoncError(_line(token), "the file holds too many values")
            yield token


class _Nodes(Transformer[Token, Node]):
    """Builds the nodes while lark parses."""

    def text(self, children: list[Token]) -> Scalar:
        return _scalar(children[0], json.loads(children[0]))

    def word(self, children: list[Token]) -> Scalar:
        return _scalar(children[0], WORDS[children[0]])

    def number(self, children: list[Token]) -> Scalar:
        try:
            return _scalar(children[0], json.loads(children[0]))
        except ValueError:
            raise JsoncError(_line(children[0]), "this number is too long") from None

    def member(self, children: list[Any]) -> Member:
        key, value = children
        return Member(_line(key), _start(key), json.loads(key), value)

    def array(self, children: list[Any]) -> Array:
        items = tuple(child for child in children if isinstance(child, Node))
        return Array(_line(children[0]), _start(children[0]), _end(children[-1]), items, _comma_end(children))

    def object(self, children: list[Any]) -> Object:
        members = tuple(child for child in children if isinstance(child, Member))
        return Object(_line(children[0]), _start(children[0]), _end(children[-1]), members, _comma_end(children))


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", transformer=_Nodes(), postlex=_Bounds(), maybe_placeholders=False)


def _scalar(token: Token, content: Content) -> Scalar:
    return Scalar(_line(token), _start(token), _end(token), content)


def _comma_end(children: list[Any]) -> int | None:
    before_last = children[-2]
    return _end(before_last) if isinstance(before_last, Token) and before_last.type == "COMMA" else None


def _line(token: Token) -> int:
    return token.line or 1


def _start(token: Token) -> int:
    return token.start_pos or 0


def _end(token: Token) -> int:
    return token.end_pos or 0


def _explained(error: UnexpectedInput, text: str) -> tuple[int, str]:
    if isinstance(error, UnexpectedCharacters):
        return error.line, _CHARACTERS.get(error.char, "this is not JSON")
    if isinstance(error, UnexpectedToken) and error.token.type != "$END":
        return error.line, _misplaced(error)
    return text.rstrip().count("\n") + 1, "the file ends too early" if text.strip() else "the file is empty"


def _misplaced(error: UnexpectedToken) -> str:
    if "COMMA" in error.accepts | error.expected and error.token.type not in ("RBRACE", "RBRACKET"):
        return "a comma is missing before this"
    if error.token.type in ("LBRACE", "RBRACE", "LBRACKET", "RBRACKET", "COMMA", "COLON"):
        return f"unexpected `{error.token}`"
    return "unexpected value"
