"""The text of answers while it streams: pieces from the event stream, completed by what was stored. Pure.

OpenCode 1.18: pieces are complete and in order as long as one connection lasts; while a part streams, what is stored of
it is empty; at its end it is stored whole, without white space at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remote_dispatch.sessions.happening import TextDelta, TextMissed
from remote_dispatch.transcript.shape import is_said, mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

Told = TextDelta | TextMissed


@dataclass(slots=True)
class _Part:
    told: str = ""
    is_sure: bool = True
    """Whether every piece since its beginning was seen."""
    is_missed: bool = False
    """Whether it was said that pieces are missing."""
    is_done: bool = False


class Texts:
    """The text parts of one session. No piece is told twice, and none that might not be the next one."""

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}

    def piece(self, part_id: str, text: str) -> Iterator[Told]:
        """Take a piece from the event stream. One of a part whose beginning was not seen is kept back."""
        part = self._parts.get(part_id)
        if part is None or part.is_done or not text:
            return
        if part.is_sure:
            part.told += text
            yield TextDelta(text, part_id)
        elif not part.is_missed:
            part.is_missed = True
            yield TextMissed(part_id)

    def began(self, raw: dict[str, Any]) -> Iterator[Told]:
        """Take a part as the event stream tells it: at its beginning, and once more at its end."""
        if _is_complete(raw):
            yield from self.completed(raw)
        elif _is_text(raw):
            part = self._parts.setdefault(str(raw.get("id")), _Part())
            if not part.told and not part.is_missed:
                part.is_sure = True

    def stored(self, raw: dict[str, Any], *, is_final: bool) -> Iterator[Told]:
        """Take a part as it is stored; `is_final` when its message is complete."""
        if is_final or _is_complete(raw):
            yield from self.completed(raw)
        elif _is_text(raw):
            self._parts.setdefault(str(raw.get("id")), _Part(is_sure=False))

    def completed(self, raw: dict[str, Any]) -> Iterator[Told]:
        """Take the whole text of a part, and tell what of it was not told yet."""
        part_id, text = str(raw.get("id")), str(raw.get("text") or "")
        part = self._parts.setdefault(part_id, _Part())
        if part.is_done or not _is_text(raw):
            return
        told, part.told, part.is_done = part.told, "", True
        if text.startswith(told):
            if rest := text[len(told) :]:
                yield TextDelta(rest, part_id)
        elif told.rstrip() != text.rstrip() and not part.is_missed:
            yield TextMissed(part_id)

    def known(self, raw: dict[str, Any]) -> None:
        """Take a part that is of no interest: it was complete before anybody looked."""
        self._parts[str(raw.get("id"))] = _Part(is_done=True)

    def lost(self) -> None:
        """The event stream broke: of parts that were streaming no further piece can be trusted to be the next one."""
        for part in self._parts.values():
            part.is_sure = False


def _is_text(raw: dict[str, Any]) -> bool:
    return raw.get("type") == "text" and is_said(raw)


def _is_complete(raw: dict[str, Any]) -> bool:
    return _is_text(raw) and "end" in mapping(raw.get("time"))
