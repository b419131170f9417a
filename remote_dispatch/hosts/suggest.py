"""What may have been meant by a name or word that is not known. Suggestions are only ever told, never used."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_SUGGESTIONS = 3
_LONGEST = 64
_SHORTEST_BEGINNING = 2


def nearest(word: str, known: Iterable[str], most: int = MOST_SUGGESTIONS) -> tuple[str, ...]:
    """Return the known words that are most like this one, the nearest first; case does not count."""
    lowered = word.lower()[:_LONGEST]
    same = {one.lower(): one for one in known}
    close = difflib.get_close_matches(lowered, same, n=most)
    longer = sorted(one for one in same if len(lowered) >= _SHORTEST_BEGINNING and one.startswith(lowered))
    return tuple(same[one] for one in dict.fromkeys((*close, *longer)))[:most]


def guess(word: str, known: Iterable[str]) -> str | None:
    """Return the question "did you mean `a`, `b` or `c`?", or None when nothing is near."""
    found = [f"`{one}`" for one in nearest(word, known)]
    if not found:
        return None
    *first, last = found
    return f"did you mean {', '.join(first)} or {last}?" if first else f"did you mean {last}?"
