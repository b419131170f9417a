"""The verdict on a turn that ran on a host, made from its transcript alone: exit statuses prove nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remote_dispatch.model import Model
from remote_dispatch.text import clean, mask_addresses
from remote_dispatch.transcript.merge import new_messages
from remote_dispatch.transcript.shape import (
    Message,
    Part,
    Transcript,
    mapping,
    parts_of,
    role_of,
    spoken_text,
    state_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

_DETAIL_LIMIT = 500
_TITLE_LIMIT = 200

# The texts of OpenCode 1.18's PermissionRejectedError and PermissionCorrectedError, PermissionDeniedError and
# QuestionRejectedError; anchored, because a tool's own error may quote them.
_REJECTED = re.compile(
    r"\A(?:Error: )?(?:The user rejected permission to use this specific tool call|The user dismissed this question)\b"
)
_DENIED = re.compile(
    r"\A(?:Error: )?The user has specified a rule which prevents you from using this specific tool call\b"
)
# A tool that is denied altogether is not offered; a call of it becomes the tool `invalid`.
_NOT_OFFERED = re.compile(r"\AModel tried to call unavailable tool '([^']{1,80})'")
_BUILT_IN = re.compile(
    r"bash|edit|write|read|(?:apply_)?patch|multiedit|glob|grep|list|webfetch|websearch|codesearch|task|todowrite|todoread"
    r"|question|skill|lsp|plan_enter|plan_exit"
)

_LIMITED = re.compile(r"rate.?limit|too many|quota|free usage|usage limit", re.IGNORECASE)
_TIMED_OUT = re.compile(r"timed? ?out", re.IGNORECASE)
_OVERFLOW = re.compile(r"context.?length|maximum context|prompt is too long", re.IGNORECASE)
_BY_NAME = {
    "MessageAbortedError": "aborted",
    "ProviderAuthError": "auth_failed",
    "ContextOverflowError": "context_overflow",
    "ContentFilterError": "content-filter",
    "MessageOutputLengthError": "length",
}
_BY_FINISH = {
    "length": ("length", "the answer reached the model's output limit"),
    "content-filter": ("content-filter", "the provider's content filter stopped the answer"),
    "unknown": ("provider_unavailable", "the provider's answer ended without a reason"),
    "error": ("task-failed", "the turn ended with an error"),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a turn."""

    is_answered: bool
    """Whether the model finished its answer."""
    kind: str | None = None
    """None when all is well, otherwise one word: no-answer, ignored, aborted, unfinished, rejected, length,
    content-filter, auth_failed, rate_limited, provider_unavailable, context_overflow, timeout or task-failed."""
    detail: str | None = None
    """The same for people; cleaned, without addresses."""
    answer: str | None = None
    """What the model said last."""
    refused: tuple[str, ...] = ()
    """`tool: title` of every tool call that was not permitted."""
    agent: str | None = None
    """The agent that answered."""
    model: str | None = None
    """The model that answered, `provider/id`."""
    message_count: int = 0
    """How many messages are new."""


def judge(back: Transcript, *, sent_ids: Collection[str], brief: str | None) -> Verdict:
    """Judge the turn by the messages that were not sent.

    `brief` is the text that opened the turn; None takes the first new message for it. The last assistant message
    counts, whatever its parent: a compaction on the way changes that.
    """
    fresh = new_messages(sent_ids, back)
    turn = _turn(fresh, brief)
    answers = [message for message in turn if role_of(message) == "assistant"]
    last = answers[-1] if answers else None
    kind, detail = _problem(fresh, turn, last, brief)
    return Verdict(
        is_answered=kind is None,
        kind=kind,
        detail=detail,
        answer=(spoken_text(last) or None) if last else None,
        refused=refused_calls(turn),
        agent=last["info"].get("agent") if last else None,
        model=_model_used(last) if last else None,
        message_count=len(fresh),
    )


def refused_calls(messages: Iterable[Message]) -> tuple[str, ...]:
    """Return `tool: title` of every tool call in these messages that was not permitted."""
    return tuple(_titled(part) for message in messages for part in parts_of(message) if _is_refused(part))


def failure_kind(error: dict[str, Any]) -> str:
    """Return one word for an error as OpenCode stores it in a message: `{"name", "data": {"message", ...}}`."""
    data = mapping(error.get("data"))
    name, text, status = str(error.get("name")), str(data.get("message", "")), data.get("statusCode")
    if name in _BY_NAME:
        return _BY_NAME[name]
    if status in (401, 403):
        return "auth_failed"
    if status in (402, 429) or _LIMITED.search(text):
        return "rate_limited"
    if status == 413 or _OVERFLOW.search(text):
        return "context_overflow"
    if _TIMED_OUT.search(text):
        return "timeout"
    return "provider_unavailable" if name == "APIError" else "task-failed"


def failure_detail(error: dict[str, Any]) -> str:
    """Return an error's text for people, cleaned: neither headers nor addresses."""
    data = mapping(error.get("data"))
    status = data.get("statusCode")
    text = str(data.get("message") or error.get("name") or "unknown error")
    shown = f"{text} (HTTP {status})" if isinstance(status, int) else text
    return clean(mask_addresses(clean(shown, _DETAIL_LIMIT * 2)), _DETAIL_LIMIT)


def _turn(fresh: list[Message], brief: str | None) -> list[Message]:
    """Return the new messages from the brief on; none when the brief is not among them."""
    if brief is None:
        return fresh
    wanted = brief.strip()
    start = next(
        (index for index, message in enumerate(fresh) if role_of(message) == "user" and wanted in spoken_text(message)),
        len(fresh),
    )
    return fresh[start:]


def _problem(
    fresh: list[Message], turn: list[Message], last: Message | None, brief: str | None
) -> tuple[str | None, str | None]:
    if brief is not None and not turn:
        detail = "nothing was added to the session" if not fresh else "the brief is not in the session"
        return "ignored", detail
    if last is None:
        return "no-answer", "the model never answered"
    error = last["info"].get("error")
    if isinstance(error, dict):
        return failure_kind(error), failure_detail(error)
    return _unfinished(turn, last)


def _unfinished(turn: list[Message], last: Message) -> tuple[str | None, str | None]:
    finish = last["info"].get("finish")
    if finish is None:
        is_completed = "completed" in last["info"]["time"]
        return ("aborted", "the turn was aborted") if is_completed else ("unfinished", "the run ended in mid-answer")
    if finish == "tool-calls":
        is_rejected = any(_is_rejected(part) for part in parts_of(last))
        text = (
            "a permission was refused, and the turn ended there" if is_rejected else "the run ended after a tool call"
        )
        return ("rejected" if is_rejected else "unfinished"), text
    if finish in _BY_FINISH:
        return _BY_FINISH[finish]
    if last["info"].get("summary") is True or turn[-1] is not last:
        return "unfinished", "the run ended before the last message was answered"
    return None, None


def _is_refused(part: Part) -> bool:
    return (
        _is_rejected(part) or _matches(part, _DENIED) or _BUILT_IN.fullmatch(_unavailable_tool(part) or "") is not None
    )


def _is_rejected(part: Part) -> bool:
    return _matches(part, _REJECTED)


def _matches(part: Part, pattern: re.Pattern[str]) -> bool:
    state = state_of(part)
    return state.get("status") == "error" and pattern.match(str(state.get("error"))) is not None


def _unavailable_tool(part: Part) -> str | None:
    if part.get("tool") != "invalid":
        return None
    match = _NOT_OFFERED.match(str(mapping(state_of(part).get("input")).get("error")))
    return match[1] if match else None


def _titled(part: Part) -> str:
    tool = _unavailable_tool(part) or str(part.get("tool"))
    title = next(_titles(part), "")
    return clean(f"{tool}: {title}" if title else tool, _TITLE_LIMIT).replace("\n", " ")


def _titles(part: Part) -> Iterator[str]:
    """A refused call has no title of its own: its input tells what was wanted."""
    asked = mapping(state_of(part).get("input"))
    wanted = (asked.get(name) for name in ("command", "filePath", "path", "pattern", "url", "query", "description"))
    return (value for value in wanted if isinstance(value, str) and value)


def _model_used(message: Message) -> str | None:
    provider, name = message["info"].get("providerID"), message["info"].get("modelID")
    return str(Model(provider, name)) if isinstance(provider, str) and isinstance(name, str) else None
