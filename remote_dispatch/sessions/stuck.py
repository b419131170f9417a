"""The same failure twice in the same place is not tried a third time by itself. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from remote_dispatch.errors import TurnFailedError
from remote_dispatch.failure import Failure, Policy
from remote_dispatch.sessions.values import Trouble

if TYPE_CHECKING:
    from datetime import datetime

    from remote_dispatch.sessions.prompt import Prompt
    from remote_dispatch.sessions.values import NamedSession

LIMIT = 2
KEPT = 10
_NO_FAULT = frozenset({Failure.ABORTED, Failure.REJECTED})
"""Ends that somebody wanted."""
_ADVICE = {
    Policy.RETRY: "send it again with `--force` once that is mended",
    Policy.FRESH: "ask in a fresh session (`remote-dispatch session new {host}`), or send it again with `--force`",
    Policy.USER: "mend that on the host, then send it again with `--force`",
}


def place_of(prompt: Prompt) -> str:
    """Return where a turn is, as far as failures are compared: a digest of what was asked."""
    return hashlib.sha256(prompt.text.strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def learned(named: NamedSession, place: str, failure: Failure | None, at: datetime) -> NamedSession:
    """Return the record after a turn: a good end forgets all troubles, a failure is one more."""
    if failure is None:
        return named.but(troubles=())
    if failure.is_waiting or failure in _NO_FAULT:
        return named
    return named.but(troubles=(*named.troubles, Trouble(failure=failure, place=place, at=at))[-KEPT:])


def check_progress(named: NamedSession, place: str) -> None:
    """Raise TurnFailedError when the same failure met this very prompt twice already. Nothing was sent."""
    last = named.troubles[-LIMIT:]
    if len(last) < LIMIT or any((one.failure, one.place) != (last[0].failure, place) for one in last):
        return
    failure = last[0].failure
    raise TurnFailedError(
        failure,
        f"this prompt ended twice with `{failure}` in `{named.name}` on {named.host}; nothing was sent",
        hint=_ADVICE[failure.policy].format(host=named.host),
    )
