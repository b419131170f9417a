"""Whether a turn is under way in a session, as far as its transcript tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch.transcript.open_call import asks_for_a_dispatch
from remote_dispatch.transcript.shape import (
    Message,
    Transcript,
    is_aside,
    is_open_call,
    messages_of,
    parts_of,
    role_of,
)
from remote_dispatch.transcript.travel import has_pending_revert

if TYPE_CHECKING:
    from typing import Final

INTERRUPTED_AFTER_MS: Final = 120_000
"""A turn that has written nothing for so long was interrupted: OpenCode never ends it, and never goes on with it."""


def is_busy(transcript: Transcript, *, changed_ms: int, now_ms: int) -> bool:
    """Whether a turn that is not ours is under way: an answer without an end, or a prompt without an answer.

    Ours is the one with an open call that asks for a dispatch. `changed_ms` is the newest `time_updated` of the
    session, its messages and parts in OpenCode's database (milliseconds since 1970). Two minutes away from it,
    backwards too, an open turn counts as interrupted. Taken-back messages exist only where nothing runs: OpenCode
    1.18 refuses a revert in a busy session.
    """
    if abs(now_ms - changed_ms) >= INTERRUPTED_AFTER_MS or has_pending_revert(transcript):
        return False
    messages = [message for message in messages_of(transcript) if not is_aside(message)]
    return bool(messages) and _is_under_way(messages[-1]) and not _is_ours(messages[-1])


def _is_under_way(last: Message) -> bool:
    if role_of(last) == "user":
        return True
    info = last["info"]
    return "completed" not in info["time"] and not info.get("error")


def _is_ours(message: Message) -> bool:
    return any(is_open_call(part) and asks_for_a_dispatch(part) for part in parts_of(message))
