"""The completion gate: whether a turn ended, from readings alone. Pure; it never says "ended" of a turn that goes on.

A turn ended when the session is idle and its last message is a completed answer, in two looks that show the same.
Neither of the two is enough alone: OpenCode 1.18 is idle before a turn begins and before its error is stored, and the
answer of every step is completed. docs/sessions.md tells what was measured.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from remote_dispatch.failure import Failure
from remote_dispatch.sessions import classify
from remote_dispatch.sessions.picture import Picture, described, end_of, picture_of
from remote_dispatch.sessions.values import End, Phase, Standing

if TYPE_CHECKING:
    from remote_dispatch.opencode.served import Raw, Status
    from remote_dispatch.sessions.values import Reading

QUIET_S = 0.25
"""Look again after so long while the phase is ENDING."""
STARTING_S = 5.0
"""A prompt that nothing came of for so long never began."""
STARTING_COLD_S = 10.0
"""The same for the first prompt of a session: its directory may be new to the server."""
STALE_S = 5.0
"""An answer of an idle session that stays without an end for so long was interrupted."""

_QUIET_ENOUGH_S = 0.2
_HEARD_S = 2.0
_ALSO_BEFORE = frozenset({Failure.AUTH_FAILED, Failure.ABORTED})
"""What else than a wrong agent or model may keep a prompt from beginning."""
_MISSING = "OpenCode did not take the prompt: its agent is unknown there, or the request was lost"
_NOT_BEGUN = "nothing came of the prompt: its model is unknown there, or the server was restarted"
_INTERRUPTED = "the server stopped in the middle of the turn"


class Gate:
    """Judges the readings of one turn, in the order in which they were made.

    `message_id` is our user message; None takes the last prompt of each reading. `began_s` is when the prompt was
    sent, on the monotonic clock of `Reading.at_s`.
    """

    def __init__(self, message_id: str | None = None, *, began_s: float = 0) -> None:
        self._message_id = message_id
        self._began_s = began_s
        self._was_there = False
        self._same: tuple[str, float] | None = None
        self._heard: Raw | None = None
        self._blame: tuple[Failure, str] | None = None

    def judge(self, reading: Reading) -> Standing:
        """Return how the turn stands."""
        picture = picture_of(reading.messages, self._message_id, was_there=self._was_there)
        if picture is None:
            return Standing(Phase.STARTING if reading.status else Phase.IDLE, status=reading.status)
        self._was_there = self._was_there or (self._message_id is not None and picture.is_there)
        if reading.status and not picture.is_passed:
            self._same = None
            return _running(reading, reading.status, picture)
        return self._blamed(_resting(picture, self._unchanged_s(picture, reading.at_s), self._heard))

    def heard(self, error: Raw) -> None:
        """Take note of the error of a `session.error` event of this session.

        It is never final by itself. Of a prompt that never began it is all there is: nothing is stored.
        """
        self._heard = error

    def blame(self, failure: Failure, detail: str) -> None:
        """Tell why we abort the turn: instead of `aborted` it will be this."""
        self._blame = (failure, detail)

    def _unchanged_s(self, picture: Picture, at_s: float) -> float:
        """Return for how long idle looks have shown the same, in seconds."""
        fingerprint = picture.fingerprint
        if self._same is None or self._same[0] != fingerprint:
            self._same = (fingerprint, max(at_s, self._began_s))
        return at_s - self._same[1]

    def _blamed(self, standing: Standing) -> Standing:
        if standing.end is None or standing.failure is not Failure.ABORTED or self._blame is None:
            return standing
        failure, detail = self._blame
        return _ended(replace(standing.end, failure=failure, detail=detail))


def settled(reading: Reading, message_id: str | None = None) -> Standing:
    """Judge one reading alone, for `list` and `show`: by the server's clock instead of a second look."""
    picture = picture_of(reading.messages, message_id)
    if picture is None:
        return Standing(Phase.STARTING if reading.status else Phase.IDLE, status=reading.status)
    if reading.status and not picture.is_passed:
        return _running(reading, reading.status, picture)
    if end_of(picture) and picture.has_last_word:
        return _resting(picture, STALE_S, None)
    return _resting(picture, _age_s(reading, picture), None)


def _age_s(reading: Reading, picture: Picture) -> float:
    """Return how long ago the turn showed a sign of life, in seconds, as far as the clocks agree."""
    changed_ms = picture.changed_ms or reading.session.updated_ms
    if not reading.now_ms or not changed_ms:
        return float("inf")
    return (reading.now_ms + reading.server_offset_ms - changed_ms) / 1000


def _running(reading: Reading, status: Status, picture: Picture) -> Standing:
    if waits_for := classify.of_requests(reading.requests):
        return Standing(Phase.WAITING, waits_for, requests=reading.requests, status=status)
    if status.type == "retry":
        return Standing(Phase.RETRYING, classify.of_retry(status), classify.retry_words(status), status=status)
    if picture.is_endless:
        detail = "the provider's answers never come to an end"
        return Standing(Phase.BUSY, Failure.PROVIDER_UNAVAILABLE, detail, status=status, must_abort=True)
    return Standing(Phase.BUSY if picture.is_there else Phase.STARTING, status=status)


def _resting(picture: Picture, unchanged_s: float, heard: Raw | None) -> Standing:
    """Judge an idle session that has shown the same for so long."""
    if not picture.answers:
        return _not_begun(picture, unchanged_s, heard)
    end = end_of(picture)
    enough_s = _QUIET_ENOUGH_S if end and picture.has_last_word else STALE_S
    if unchanged_s < enough_s:
        return Standing(Phase.ENDING)
    return _ended(end or described(picture, Failure.INTERRUPTED, _INTERRUPTED))


def _not_begun(picture: Picture, unchanged_s: float, heard: Raw | None) -> Standing:
    patience_s = STARTING_COLD_S if picture.is_cold else STARTING_S
    if unchanged_s < (_HEARD_S if heard else patience_s):
        return Standing(Phase.STARTING)
    failure, detail = Failure.CONFIG_ERROR, _NOT_BEGUN if picture.is_there else _MISSING
    if heard:
        detail = classify.words(heard)
        kind = classify.of_error(heard)
        failure = kind if kind in _ALSO_BEFORE else failure
    return _ended(End(failure, detail))


def _ended(end: End) -> Standing:
    return Standing(Phase.ENDED, end.failure, end.detail, end=end)
