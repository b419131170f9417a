"""Decide how a result comes home: appended, whole, or as a copy; never interleaved. For a whole family of sessions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from remote_dispatch.transcript.merge import (
    ends_answered,
    is_under_way,
    lacking,
    left_there,
    message_ids,
    moved_on,
    new_messages,
    was_taken_back,
    without,
)
from remote_dispatch.transcript.shape import Message, Transcript, messages_of, with_messages
from remote_dispatch.transcript.travel import without_reverted

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOVED_ON = "the local session moved on meanwhile: the result is in a session of its own"
_CHILD_MOVED_ON = "a sub-agent's session moved on here meanwhile: the result is in a session of its own"
_TAKEN_BACK = "messages were taken back on the host: the result is in a session of its own, without them"
_UNANSWERED = (
    "the result has no finished answer, and the turn that asked for it would go on with its prompt here: "
    "the result is in a session of its own"
)
_WHOLE_WITHOUT = "messages were taken back on the host: the session is here without them"
_NOTHING_NEW = "messages were taken back on the host, and nothing new came back"


class Way(StrEnum):
    """How a result comes home."""

    NOTHING = "nothing"
    """All of it is here already."""
    APPEND = "append"
    """The new messages go behind those that are here."""
    WHOLE = "whole"
    """The session is not here: it is imported under its own id."""
    COPY = "copy"
    """The whole family gets fresh ids; what is here is not touched."""


@dataclass(frozen=True, slots=True)
class Journey:
    """One session of a dispatch, three times; ids are those it has here."""

    sent: Transcript | None
    """As it was here when it left, without what was taken back, open calls still open; None: made on the host."""
    back: Transcript
    """As it came back."""
    current: Transcript | None
    """As it is here now; None: not here."""

    @property
    def left(self) -> Transcript:
        """What the host still has of the session as it left; without messages when it was made there."""
        return with_messages(self.back, ()) if self.sent is None else left_there(self.sent, self.back)

    @property
    def fresh(self) -> list[Message]:
        """What is new, in order, without what was taken back on the host."""
        return new_messages(() if self.sent is None else message_ids(self.sent), without_reverted(self.back))

    @property
    def missing(self) -> list[Message]:
        """What is new and not here whole."""
        return self.fresh if self.current is None else lacking(self.current, self.fresh)

    @property
    def has_moved_on(self) -> bool:
        """Whether it went on here by itself; what an earlier, broken merge brought does not count."""
        if self.current is None:
            return False
        here = without(self.current, self.fresh)
        return bool(messages_of(here)) if self.sent is None else moved_on(self.sent, here)

    @property
    def was_taken_back(self) -> bool:
        """Whether messages that were sent, or new ones, were taken back on the host."""
        return was_taken_back(self.back, self.back if self.sent is None else self.sent)


@dataclass(frozen=True, slots=True)
class Arrival:
    """The decision, and what to tell the user about it."""

    way: Way
    warnings: tuple[str, ...] = ()


def decide(parent: Journey, children: Sequence[Journey] = (), *, wants_copy: bool = False) -> Arrival:
    """Decide for a session and its sub-agents' sessions together: they point to each other.

    A child for which nothing new came back is not touched, so it may have moved on. Once everything is here the
    answer is NOTHING, whatever happened here or on the host since. A COPY is made of `left` and `fresh` of each;
    `wants_copy` asks for one where the result would be appended.
    """
    touched = [child for child in children if child.missing]
    if parent.current is not None and not parent.missing and not touched:
        return Arrival(Way.NOTHING, (_NOTHING_NEW,) if not parent.fresh and parent.was_taken_back else ())
    warnings = _reasons_for_a_copy(parent, touched)
    if warnings:
        return Arrival(Way.COPY, warnings)
    if parent.current is None:
        return Arrival(Way.WHOLE, (_WHOLE_WITHOUT,) if parent.was_taken_back else ())
    return Arrival(Way.COPY if wants_copy else Way.APPEND)


def _reasons_for_a_copy(parent: Journey, children: Sequence[Journey]) -> tuple[str, ...]:
    """A session that is not here cannot be damaged: what was taken back on the host is no reason there."""
    here = [one for one in (parent, *children) if one.current is not None]
    reasons = {
        _MOVED_ON: parent.has_moved_on,
        _CHILD_MOVED_ON: any(child.has_moved_on for child in children),
        _UNANSWERED: _would_be_answered_here(parent),
        _TAKEN_BACK: any(one.was_taken_back for one in here),
    }
    return tuple(reason for reason, is_so in reasons.items() if is_so)


def _would_be_answered_here(parent: Journey) -> bool:
    if parent.current is None or ends_answered(parent.fresh):
        return False
    return is_under_way(without(parent.current, parent.fresh))
