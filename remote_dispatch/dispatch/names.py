"""Short names people can say, and ids that sort by time."""

from __future__ import annotations

import secrets
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

_CONSONANTS = "bdfghjklmnprstvz"
_VOWELS = "aeiou"
_UNKIND = frozenset(("bile", "hate", "homo", "nude", "puke", "puta", "rape"))
"""Words that nobody wants to read as the name of a task."""
_ID_ALPHABET = string.ascii_lowercase + string.digits


def new_name(taken: Collection[str]) -> str:
    """Return four pronounceable letters that are not taken, like `kumo`; longer once those get scarce."""
    syllables = 2
    while True:
        for _ in range(200):
            name = "".join(secrets.choice(_CONSONANTS) + secrets.choice(_VOWELS) for _ in range(syllables))
            if name not in taken and name not in _UNKIND:
                return name
        syllables += 1


def new_id(now: datetime) -> str:
    """Return an id that sorts by its time (UTC) and meets no other."""
    return f"{now:%Y%m%d-%H%M%S}-" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(8))
