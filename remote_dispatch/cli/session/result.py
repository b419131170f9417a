"""What came of a turn that was waited for: its JSON, and the error with the next command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remote_dispatch.cli.session.asking import commands_for, print_foreign, request_lines
from remote_dispatch.errors import TurnFailedError
from remote_dispatch.failure import Failure, Policy
from remote_dispatch.sessions.report import end_data, report_of
from remote_dispatch.sessions.requests import short_ids, waiting_in
from remote_dispatch.sessions.values import Look
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from remote_dispatch.sessions.ask import Taken
    from remote_dispatch.sessions.requests import Waiting
    from remote_dispatch.sessions.values import NamedSession

_WORDS = {
    Failure.RATE_LIMITED: "its provider refuses for now",
    Failure.PROVIDER_UNAVAILABLE: "its provider failed",
    Failure.AUTH_FAILED: "its provider refuses the credentials there",
    Failure.CONTEXT_OVERFLOW: "the conversation is too long for its model",
    Failure.NOT_JSON: "its answer is not JSON",
    Failure.NO_TEXT: "it ended without an answer",
    Failure.TIMEOUT: "it took too long",
    Failure.ABORTED: "its turn was aborted",
    Failure.REJECTED: "a request was rejected, and the turn ended there",
    Failure.INTERRUPTED: "its server died in the middle of the turn",
    Failure.CONFIG_ERROR: "the turn never began",
    Failure.CONTENT_FILTER: "the provider's content filter stopped the answer",
}
_DETAIL = 500


def data_taken(taken: Taken) -> dict[str, Any]:
    """Return the JSON of a turn: as of a session that has ended, and what was asked of it."""
    data = end_data(report_of(Look(taken.named, taken.reading, taken.standing)))
    return {**data, "attempts": taken.attempts, "message_id": taken.sent.message_id, "value": taken.value}


def error_of(taken: Taken, *, is_gone: bool) -> TurnFailedError | None:
    """Return why the turn has not ended well; None when it has. A request that waits is shown in full on stderr."""
    failure, named = taken.failure, taken.named
    if failure is None:
        return None
    if failure.is_waiting:
        return _waiting(failure, taken, is_gone=is_gone)
    detail = (taken.standing.end.detail if taken.standing.end else None) or taken.standing.detail
    said = f" ({clean(detail, _DETAIL)})" if detail else ""
    again = f" after {taken.attempts} tries" if taken.attempts > 1 else ""
    words = f"{named.name} on {named.host}: {_WORDS.get(failure, failure.value)}{again}{said}"
    return TurnFailedError(failure, words, hint=_hint(failure, named, is_gone=is_gone))


def _waiting(failure: Failure, taken: Taken, *, is_gone: bool) -> TurnFailedError:
    named, waiting = taken.named, waiting_in(taken.reading)
    short = short_ids(one.id for one in waiting)
    for one in waiting:
        print_foreign((f"  {line}" for line in request_lines(one)), is_talk=True)
    what = "asks for a permission" if failure is Failure.PENDING_PERMISSION else "asks a question"
    if is_gone:
        words = "deny|auto" if failure is Failure.PENDING_PERMISSION else "deny"
        return TurnFailedError(
            failure,
            f"{named.host}: the session {what}, and there is no terminal; it was aborted and deleted",
            hint=f"decide beforehand with `--permissions {words}`, or keep it and answer with `--keep`",
        )
    return TurnFailedError(
        failure,
        f"{named.name} on {named.host} {what}, and goes on as soon as it is answered",
        hint=_reply(named, waiting, short),
    )


def _reply(named: NamedSession, waiting: tuple[Waiting, ...], short: dict[str, str]) -> str:
    if not waiting:
        return f"see it with `remote-dispatch session requests {named.name}`"
    return commands_for(named.name, short[waiting[0].id], waiting[0])[-1]


def _hint(failure: Failure, named: NamedSession, *, is_gone: bool) -> str:
    if failure is Failure.AUTH_FAILED:
        return f"log in there (`opencode auth login` on {named.host}), then send it again"
    if failure is Failure.CONFIG_ERROR:
        return f"see what there is with `remote-dispatch session models {named.host}` and `agents {named.host}`"
    if is_gone:
        return "the session was deleted; `--keep` keeps it"
    if failure.policy is Policy.FRESH:
        return f"ask in a fresh session: `remote-dispatch session new {named.host}`"
    return f"see what it did with `remote-dispatch session messages {named.name}`"
