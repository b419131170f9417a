"""Which failure it is: errors of messages and events, the words of a retry, open requests. Pure.

Stored errors are read by the same code that judges what a dispatch brought home.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch.failure import Failure
from remote_dispatch.opencode.served import PermissionRequest
from remote_dispatch.transcript.verdict import failure_detail, failure_kind, kind_of_words, plain_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remote_dispatch.opencode.served import Raw, Request, Status


def of_error(error: Raw) -> Failure:
    """Return the failure of `{"name", "data": {"message", "statusCode"?}}`, from a message or a `session.error`."""
    return failure_kind(error)


def words(error: Raw) -> str:
    """Return such an error for people: cleaned, neither headers nor addresses."""
    return failure_detail(error)


def of_retry(status: Status) -> Failure:
    """Return why OpenCode tries again.

    OpenCode 1.18 shows the provider's words only, the HTTP status not before the last try has failed: a 429 in unusual
    words is `provider_unavailable` until then.
    """
    if status.reason and "limit" in status.reason:
        return Failure.RATE_LIMITED
    return kind_of_words(status.message)


def retry_words(status: Status) -> str:
    """Return the provider's words in a retry, cleaned, and which try failed."""
    return f"{plain_words(status.message) or 'no reason told'} (attempt {status.attempt})"


def of_requests(requests: Iterable[Request]) -> Failure | None:
    """Return what the turn waits for; a permission comes first."""
    kinds = {isinstance(one, PermissionRequest) for one in requests}
    if not kinds:
        return None
    return Failure.PENDING_PERMISSION if True in kinds else Failure.PENDING_QUESTION
