"""Tell, message by message, whether two copies of one conversation hold the same, although one of them travelled."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from remote_dispatch.transcript.fields import KNOWN, STRUCTURED, WRITTEN_AT_THE_END, WRITTEN_BY_OPENCODE
from remote_dispatch.transcript.open_call import is_unfinished, was_closed_for_a_journey
from remote_dispatch.transcript.reading import canonical
from remote_dispatch.transcript.shape import Message, Part, Transcript, id_of, messages_of, parts_of, role_of

if TYPE_CHECKING:
    from collections.abc import Collection

_OWN_SESSION = frozenset({"sessionID", "messageID"})
_RESTORED = frozenset({"agent", "model", "variant", "tools"})
_TAIL = re.compile(r"((?:ses|msg|prt)_[0-9a-f]{12})[0-9A-Za-z]{14}")


class Standing(StrEnum):
    """What became of one message in two copies."""

    EQUAL = "equal"
    DIFFERENT = "different"
    MISSING_HERE = "missing here"
    MISSING_THERE = "missing there"


@dataclass(frozen=True, slots=True)
class Compared:
    """One message of two copies."""

    id: str
    role: str
    """`user` or `assistant`."""
    standing: Standing


def compare(here: Transcript, there: Transcript) -> list[Compared]:
    """Compare the messages of two copies: those of `here` in their order, then those that only `there` has.

    Messages are paired by id: a copy under other ids is renamed first (`rename`). What counts as content is said at
    `content_digest`. The message whose open call asked for a dispatch ends differently on both sides, by the tool
    here and by `close_open_calls` there: of it count the parts that were finished when it left. Titles and other
    fields of the session are not compared, and neither is the order.
    """
    pairs = {id_of(message): message for message in messages_of(there)}
    held = {id_of(message) for message in messages_of(here)}
    first = [_compared(message, pairs.get(id_of(message))) for message in messages_of(here)]
    only_there = (message for message in messages_of(there) if id_of(message) not in held)
    return first + [Compared(id_of(one), role_of(one), Standing.MISSING_HERE) for one in only_there]


def content_digest(message: Message) -> str:
    """Return the SHA-256 (hex) of what a message says, the same wherever its conversation travelled.

    Left out are, because they change on the way and say nothing about the content:
    all times of message, parts and calls (two clocks, `shift`, `fit`; OpenCode marks old outputs as compacted there);
    the last 14 characters of ids (fresh ids keep the others), and the session's id; a user message's agent, model,
    variant and tools (`restore`) and its diffs; an assistant message's cost and tokens, which OpenCode sums up again;
    fields that OpenCode 1.18 does not know, which its import drops. Counted are all other fields of the message and
    every part in its order: texts, reasoning, calls with input, output, metadata and error, files, snapshots.
    """
    return hashlib.sha256(_TAIL.sub(r"\1", _content(message)).encode("ascii")).hexdigest()


def _compared(here: Message, there: Message | None) -> Compared:
    return Compared(id_of(here), role_of(here), Standing.MISSING_THERE if there is None else _standing(here, there))


def _standing(here: Message, there: Message) -> Standing:
    is_equal = here is there or _content(here) == _content(there) or content_digest(here) == content_digest(there)
    is_handed_over = _left_open(here) or _left_open(there)
    return Standing.EQUAL if is_equal or (is_handed_over and _is_same_start(here, there)) else Standing.DIFFERENT


def _content(message: Message) -> str:
    return canonical({"info": _info(message), "parts": [_known(part) for part in parts_of(message)]})


def _info(message: Message, left_out: Collection[str] = ()) -> dict[str, Any]:
    """`summary` is a user message's diffs; in an assistant message it marks a compaction, and counts."""
    skipped = {*WRITTEN_BY_OPENCODE, *_OWN_SESSION, *left_out}
    skipped = skipped | _RESTORED if role_of(message) == "user" else skipped - {"summary"}
    return _known({name: value for name, value in message["info"].items() if name not in skipped})


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _known(value) if name in STRUCTURED and isinstance(value, dict) else value
        for name, value in fields.items()
        if name in KNOWN and name != "time" and name not in _OWN_SESSION
    }


def _left_open(message: Message) -> bool:
    """Whether this is the message of the dispatching turn, as it was when it left."""
    if role_of(message) != "assistant":
        return False
    return "completed" not in message["info"]["time"] or any(map(was_closed_for_a_journey, parts_of(message)))


def _is_same_start(here: Message, there: Message) -> bool:
    """Whether what was finished when it left is in both; each side may have gone on from there."""
    if _stripped(_info(here, WRITTEN_AT_THE_END)) != _stripped(_info(there, WRITTEN_AT_THE_END)):
        return False
    ours, theirs = _parts(here), _parts(there)
    return (
        (not _left_open(here) or ours.keys() <= theirs.keys())
        and (not _left_open(there) or theirs.keys() <= ours.keys())
        and all(_is_same_part(ours[one], theirs[one]) for one in ours.keys() & theirs.keys())
    )


def _parts(message: Message) -> dict[str, Part]:
    """Without the end of the step: `close_open_calls` writes one of its own."""
    return {part["id"]: part for part in parts_of(message) if part["type"] != "step-finish"}


def _is_same_part(here: Part, there: Part) -> bool:
    if any(is_unfinished(part) or was_closed_for_a_journey(part) for part in (here, there)):
        return all(here.get(field) == there.get(field) for field in ("type", "tool", "callID"))
    return _stripped(_known(here)) == _stripped(_known(there))


def _stripped(value: Any) -> str:
    return _TAIL.sub(r"\1", canonical(value))
