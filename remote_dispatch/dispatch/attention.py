"""What of a dispatch needs a user's hand, and the next command. Pure: it says what the record says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.settle import is_code_due, is_code_there, is_collected, needs_begin
from remote_dispatch.model import State

if TYPE_CHECKING:
    from remote_dispatch.model import Dispatch

_BY_KIND = {
    "export-failed": "OpenCode on {host} could not export the result yet",
    "terminated": "what was done before the end is only on {host}",
}


@dataclass(frozen=True, slots=True)
class Attention:
    """Why a dispatch waits for its user, in a few words, and what to type."""

    reason: str
    command: str


def attention(record: Dispatch) -> Attention | None:
    """Return what is to be done; None for a dispatch that runs, is home, or has ended with nothing left anywhere.

    A host that does not answer is no reason by itself.
    """
    if needs_begin(record):
        return Attention(f"its brief was not said on {record.host} yet", f"remote-dispatch resume {record.name}")
    if record.state is State.RUNNING:
        return None
    if record.state.rank <= State.STAGING.rank:
        return Attention(f"it has not begun on {record.host}", f"remote-dispatch resume {record.name}")
    reason = _left_there(record)
    is_asked = record.code is not None and record.code.left_there > 0 and not is_code_due(record)
    command = "remove" if is_asked else "collect"
    return Attention(reason, f"remote-dispatch {command} {record.name}") if reason else None


def _left_there(record: Dispatch) -> str | None:
    """What an ended dispatch still has on its host."""
    if record.is_cleaned_up:
        return None
    if is_code_there(record) and is_collected(record):
        return f"the conversation is home, and code of it is only on {record.host}"
    if is_collected(record):
        return f"it is home, and its run directory on {record.host} is still there"
    if record.state is State.FINISHED:
        return f"the result is only on {record.host}"
    if record.state is State.LOST:
        return f"its runner was killed, and what OpenCode on {record.host} stored is not home"
    return _BY_KIND.get(record.kind or "", "its run directory on {host} is still there").format(host=record.host)
