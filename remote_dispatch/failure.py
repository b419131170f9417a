"""What keeps a turn from a good end: one enumeration for sessions, dispatches, reports, JSON and exit codes."""

from __future__ import annotations

from enum import StrEnum


class Policy(StrEnum):
    """What helps against a failure."""

    RETRY = "retry"
    """Ask the same again, after a growing delay."""
    FRESH = "fresh"
    """Abort, and ask in a fresh session: in this one it would happen again."""
    USER = "user"
    """Only a person can help: an answer, a login, a setting."""


class Failure(StrEnum):
    """One word for what keeps a turn from a good end. The measured signal of each is in docs/sessions.md."""

    PENDING_PERMISSION = "pending_permission"
    """A tool waits for leave. The turn goes on once it is answered."""
    PENDING_QUESTION = "pending_question"
    """The model asked something. The turn goes on once it is answered."""
    RATE_LIMITED = "rate_limited"
    """The provider refuses for now: 429, a quota, a free tier that is used up."""
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    """The provider fails, is not reached, or its stream breaks off."""
    AUTH_FAILED = "auth_failed"
    """The provider refuses the credentials of the host."""
    CONTEXT_OVERFLOW = "context_overflow"
    """The conversation is too long for the model, and compacting it did not help."""
    NOT_JSON = "assistant_output_not_json"
    """JSON was expected, and the answer is none."""
    NO_TEXT = "assistant_output_missing_text_part"
    """The turn ended well, and the model said nothing."""
    TIMEOUT = "timeout"
    """No sign of life for too long, or the provider's own time limit passed."""
    ABORTED = "aborted"
    """Somebody aborted the turn."""
    REJECTED = "rejected"
    """A permission or a question was rejected, and the turn ended there."""
    INTERRUPTED = "interrupted"
    """The server died in the middle of the turn; nothing resumes by itself."""
    CONFIG_ERROR = "config_error"
    """Agent, model or request are wrong: the turn never began."""
    CONTENT_FILTER = "content_filter"
    """The provider's content filter stopped the answer."""

    @property
    def is_waiting(self) -> bool:
        """Whether the turn goes on as soon as somebody answers."""
        return self in (Failure.PENDING_PERMISSION, Failure.PENDING_QUESTION)

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends with it."""
        if self.is_waiting:
            return 7
        return {Failure.TIMEOUT: 6, Failure.REJECTED: 3}.get(self, 1)

    @property
    def policy(self) -> Policy:
        """What helps."""
        return _POLICIES.get(self, Policy.USER)


_POLICIES = {
    Failure.RATE_LIMITED: Policy.RETRY,
    Failure.PROVIDER_UNAVAILABLE: Policy.RETRY,
    Failure.INTERRUPTED: Policy.RETRY,
    Failure.TIMEOUT: Policy.RETRY,
    Failure.NOT_JSON: Policy.RETRY,
    Failure.NO_TEXT: Policy.RETRY,
    Failure.CONTEXT_OVERFLOW: Policy.FRESH,
}
