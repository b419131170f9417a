"""Find the messages of an export in its bytes, so that each is parsed by itself and the text is never held whole.

Only two layouts are known: the one of OpenCode's export (indented by two) and the one of `dump`. In both a line
break ends every message, and no JSON string holds a line break. Whatever is guessed wrongly is no JSON any more.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

_HEAD_LIMIT_BYTES = 16_000_000
_ENCODING = "utf-8"


class OtherLayoutError(ValueError):
    """The bytes are broken, or in another layout: only parsing them as a whole can tell."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How it looks where the list begins, between two messages, and where it ends."""

    begin: bytes
    between: bytes
    end: bytes

    @property
    def after_brace(self) -> int:
        """How many bytes of `between` and `end` belong to the message before."""
        return self.between.index(b"}") + 1

    @property
    def overlap(self) -> int:
        """How much of what was searched may be the beginning of what is searched for."""
        return max(len(self.between), len(self.end)) - 1


_LAYOUTS = (
    _Layout(b'\n  "messages": [\n    {', b"\n    },\n    {", b"\n    }\n  ]"),
    _Layout(b'"messages":[\n{', b"},\n{", b"}\n]"),
)
_MARK = object()


def messages_in(pieces: Iterable[bytes]) -> Generator[Any, None, dict[str, Any]]:
    """Yield the elements of `messages`, in order, and return the object around them, whose list is empty.

    All together is exactly what parsing everything as a whole yields. Raises ValueError, RecursionError.
    """
    rest = iter(pieces)
    layout, head, beginning = _begun(rest)
    tail = yield from _elements(layout, beginning, rest)
    return _frame(head + b"NaN]" + tail)


def strict_json(text: str) -> Any:
    """Parse JSON. Raises ValueError also for numbers that are none, RecursionError."""
    return json.loads(text, parse_constant=_refused, parse_float=_finite)


def _begun(pieces: Iterator[bytes]) -> tuple[_Layout, bytes, bytes]:
    """Read up to the first message: what stands before it, and its beginning."""
    seen = bytearray()
    for piece in pieces:
        seen += piece
        for layout in _LAYOUTS:
            if (at := seen.find(layout.begin)) >= 0 and seen.startswith((b'{"', b"{\n")):
                start = at + len(layout.begin) - 1
                return layout, bytes(seen[:start]), bytes(seen[start:])
        if len(seen) > _HEAD_LIMIT_BYTES:
            break
    raise OtherLayoutError


def _elements(layout: _Layout, beginning: bytes, pieces: Iterator[bytes]) -> Generator[Any, None, bytes]:
    """Yield the messages and return what stands behind the bracket that ends the list."""
    rest, searched = bytearray(), 0
    for piece in itertools.chain((beginning,), pieces):
        rest += piece
        if (end := rest.find(layout.end, searched)) >= 0:
            yield from _run(rest[: end + layout.after_brace])
            return bytes(rest[end + len(layout.end) :]) + b"".join(pieces)
        if (cut := rest.rfind(layout.between, searched)) >= 0:
            yield from _run(rest[: cut + layout.after_brace])
            del rest[: cut + len(layout.between) - 1]
        searched = max(0, len(rest) - layout.overlap)
    raise OtherLayoutError


def _run(messages: bytearray) -> Iterator[Any]:
    """Some messages at once: their keys become one object each. As deep as they stand in the whole."""
    outer = strict_json(f"[[{messages.decode(_ENCODING, 'surrogatepass')}]]")
    if len(outer) != 1:
        raise OtherLayoutError
    return iter(outer[0])


def _frame(data: bytes) -> dict[str, Any]:
    """Parse what stands around the messages. NaN, which JSON does not know, marks their place."""
    marks: list[str] = []

    def marked(constant: str) -> object:
        marks.append(constant)
        return _MARK

    frame = json.loads(data.decode(_ENCODING, "surrogatepass"), parse_constant=marked, parse_float=_finite)
    if len(marks) != 1 or not isinstance(frame, dict) or frame.get("messages") != [_MARK]:
        raise OtherLayoutError
    return {**frame, "messages": []}


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refused(text)


def _refused(text: str) -> NoReturn:
    raise ValueError(text)
