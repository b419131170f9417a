"""OpenCode's ids: make new ones, give a whole family of transcripts fresh ones, and take them back.

OpenCode 1.18: prefix, 12 hex digits, 14 characters of base62. The hex digits are the low 48 bits of
`milliseconds * 4096 + counter`; for sessions every bit is inverted, so that the newest sorts first.
"""

from __future__ import annotations

import json
import operator
import re
import secrets
import string
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from remote_dispatch.transcript.reading import dump
from remote_dispatch.transcript.shape import Transcript, id_of, messages_of, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_TAIL = 14
_STEM = len("ses_")
_MASK = (1 << 48) - 1
_USUAL = re.compile(r"(?:ses|msg|prt)_[0-9a-f]{12}[0-9A-Za-z]{14}")
_ID_LIKE = r"(?:ses|msg|prt)_[0-9A-Za-z]+"


def new_session_id(now_ms: int, counter: int = 1) -> str:
    """Return a session id of this time; `counter` (0 to 4095) orders the ids of one millisecond."""
    return f"ses_{~_clock(now_ms, counter) & _MASK:012x}{_tail()}"


def new_message_id(now_ms: int, counter: int = 1) -> str:
    """Return a message id of this time; `counter` (0 to 4095) orders the ids of one millisecond."""
    return f"msg_{_clock(now_ms, counter):012x}{_tail()}"


def new_part_id(now_ms: int, counter: int = 1) -> str:
    """Return a part id of this time; `counter` (0 to 4095) orders the ids of one millisecond."""
    return f"prt_{_clock(now_ms, counter):012x}{_tail()}"


def part_id_after(ids: Iterable[str], now_ms: int) -> str:
    """Return a new part id that sorts after all of these: OpenCode orders the parts of a message by id."""
    fresh, last = new_part_id(now_ms), max(ids, default="")
    if fresh > last or not _USUAL.fullmatch(last):
        return fresh
    return f"prt_{(int(last[4:16], 16) + 1) & _MASK:012x}{_tail()}"


def fresh_ids(transcripts: Sequence[Transcript], now_ms: int) -> dict[str, str]:
    """Return one mapping, old id to new id, for all sessions, messages and parts of a family of transcripts.

    The 12 hex digits stay, and so does every order by id. Ids of sessions outside the family are not in it.
    An id of an unusual form gets a new one of this time.
    """
    families: dict[str, list[str]] = defaultdict(list)
    for owned in {one for transcript in transcripts for one in _owned_ids(transcript)}:
        families[owned[:16] if _USUAL.fullmatch(owned) else owned[:4]].append(owned)
    return {old: new for stem, ids in families.items() for old, new in _renewed(stem, sorted(ids), now_ms)}


def rename(transcript: Transcript, mapping: Mapping[str, str]) -> Transcript:
    """Return a copy with every id of the mapping replaced, also inside texts, inputs and metadata.

    With the inverted mapping the first transcript comes back exactly. What holds no such id is shared with it.
    """
    if not mapping:
        return transcript
    renamed: Transcript
    try:
        renamed = _renamed_in(transcript, _renaming(mapping))
    except RecursionError:
        # The parser goes deeper than functions of ours.
        text = _pattern(mapping).sub(lambda match: mapping.get(match[0], match[0]), dump(transcript).decode("ascii"))
        renamed = json.loads(text)
    return renamed


def inverted(mapping: Mapping[str, str]) -> dict[str, str]:
    """Return the mapping from new to old."""
    return {new: old for old, new in mapping.items()}


def _renaming(mapping: Mapping[str, str]) -> Callable[[str], str]:
    """Most texts hold no id, and most of the others are one."""
    pattern, stems = _pattern(mapping), {one[:_STEM] for one in mapping}

    def renamed(text: str) -> str:
        if new := mapping.get(text):
            return new
        for stem in stems:
            if stem in text:
                return pattern.sub(lambda match: mapping.get(match[0], match[0]), text)
        return text

    return renamed


def _renamed_in(value: Any, renamed: Callable[[str], str]) -> Any:
    """Return the very same value where nothing in it has another name."""
    if isinstance(value, str):
        return renamed(value)
    if isinstance(value, dict):
        changed = {renamed(name): _renamed_in(one, renamed) for name, one in value.items()}
        is_same = list(changed) == list(value) and all(map(operator.is_, changed.values(), value.values()))
        return value if is_same else changed
    if isinstance(value, list):
        items = [_renamed_in(one, renamed) for one in value]
        return value if all(map(operator.is_, items, value)) else items
    return value


def _pattern(mapping: Mapping[str, str]) -> re.Pattern[str]:
    odd = sorted((one for one in mapping if not re.fullmatch(_ID_LIKE, one)), key=len, reverse=True)
    return re.compile("|".join([*(re.escape(one) + r"(?![0-9A-Za-z])" for one in odd), _ID_LIKE]))


def _owned_ids(transcript: Transcript) -> Iterator[str]:
    yield transcript["info"]["id"]
    for message in messages_of(transcript):
        yield id_of(message)
        yield from (part["id"] for part in parts_of(message))


def _renewed(stem: str, ids: list[str], now_ms: int) -> Iterator[tuple[str, str]]:
    if len(stem) == 4:
        makers = {"ses_": new_session_id, "msg_": new_message_id, "prt_": new_part_id}
        yield from ((old, makers[stem](now_ms, counter & 0xFFF)) for counter, old in enumerate(ids, start=1))
        return
    tails: set[str] = set()
    while len(tails) < len(ids):
        tails.add(_tail())
    yield from ((old, stem + tail) for old, tail in zip(ids, sorted(tails), strict=True))


def _clock(now_ms: int, counter: int) -> int:
    return (now_ms * 4096 + counter) & _MASK


def _tail() -> str:
    """One number for all characters: a random one for each is slow, and a large session has thousands of ids."""
    number, letters = secrets.randbelow(len(_BASE62) ** _TAIL), []
    for _ in range(_TAIL):
        number, place = divmod(number, len(_BASE62))
        letters.append(_BASE62[place])
    return "".join(letters)
