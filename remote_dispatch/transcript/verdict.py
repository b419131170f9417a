"""The verdict on a turn that ran on a host, made from its transcript alone: exit statuses prove nothing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from remote_dispatch.failure import Failure
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
_BODY_LIMIT = 2000

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

_OVERFLOW = re.compile(
    r"context.?length|context.?window|context_length_exceeded|maximum context|prompt is too long", re.IGNORECASE
)
_LIMITED = re.compile(
    r"rate.?limit|too many (?!tokens\b)|too_many_requests|quota|free usage|usage limit|credit balance"
    r"|resource.?exhausted",
    re.IGNORECASE,
)
# A reverse proxy's "Gateway Timeout" is a provider that fails; OpenCode's own limits and the model's silence say "timed
# out". A connection that was never made says so before.
_UNREACHED = re.compile(r"\ACannot connect to API\b", re.IGNORECASE)
_TIMED_OUT = re.compile(r"timed out\b", re.IGNORECASE)
_MISCONFIGURED = re.compile(r"\b(?:Model not found|Agent not found|ProviderModelNotFoundError|ProviderInitError)\b")
_NO_LOGIN = re.compile(r"\bAPI key is missing\b|\bLoadAPIKeyError\b", re.IGNORECASE)
_BY_NAME = {
    "MessageAbortedError": Failure.ABORTED,
    "ProviderAuthError": Failure.AUTH_FAILED,
    "ContextOverflowError": Failure.CONTEXT_OVERFLOW,
    "ContentFilterError": Failure.CONTENT_FILTER,
    "StructuredOutputError": Failure.NOT_JSON,
    "ProviderModelNotFoundError": Failure.CONFIG_ERROR,
    "ProviderInitError": Failure.CONFIG_ERROR,
}
_BY_STATUS = {
    401: Failure.AUTH_FAILED,
    402: Failure.RATE_LIMITED,
    403: Failure.AUTH_FAILED,
    413: Failure.CONTEXT_OVERFLOW,
    429: Failure.RATE_LIMITED,
}
_BY_TEXT = (
    (_NO_LOGIN, Failure.AUTH_FAILED),
    (_MISCONFIGURED, Failure.CONFIG_ERROR),
    (_OVERFLOW, Failure.CONTEXT_OVERFLOW),
    (_LIMITED, Failure.RATE_LIMITED),
    (_UNREACHED, Failure.PROVIDER_UNAVAILABLE),
)
_BY_FINISH = {
    "content-filter": (Failure.CONTENT_FILTER, "the provider's content filter stopped the answer"),
    "unknown": (Failure.PROVIDER_UNAVAILABLE, "the provider's answer ended without a reason"),
    "error": (Failure.PROVIDER_UNAVAILABLE, "the turn ended with an error"),
}
CUT = "the answer reached the model's output limit and is cut"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a turn."""

    is_answered: bool
    """Whether the model finished its answer."""
    kind: str | None = None
    """None when all is well, otherwise one word: a `Failure`, or what only dispatches know: `ignored` (the brief is not
    in the session) and `no-answer` (it is, and nothing came after it)."""
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
    warnings: tuple[str, ...] = ()
    """What is to be known of an answer though the turn ended well."""


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
        model=model_used(last) if last else None,
        message_count=len(fresh),
        warnings=(CUT,) if last and kind is None and ends_at_limit(last) else (),
    )


def ends_at_limit(answer: Message) -> bool:
    """Whether the answer was cut at the model's output limit (OpenCode 1.18: no error, finish `length`)."""
    error = mapping(answer["info"].get("error"))
    return answer["info"].get("finish") == "length" or error.get("name") == "MessageOutputLengthError"


def refused_calls(messages: Iterable[Message]) -> tuple[str, ...]:
    """Return `tool: title` of every tool call in these messages that was not permitted."""
    return tuple(_titled(part) for message in messages for part in parts_of(message) if _is_refused(part))


def failure_kind(error: dict[str, Any]) -> Failure:
    """Return the kind of an error as OpenCode stores it in a message: `{"name", "data": {"message", ...}}`.

    The most telling comes first: the error's name, HTTP's status, the provider's own words. What nothing is known of
    is the provider's.
    """
    data = mapping(error.get("data"))
    name, status = str(error.get("name")), data.get("statusCode")
    known = _BY_NAME.get(name) or (_BY_STATUS.get(status) if isinstance(status, int) else None)
    if known:
        return known
    text = f"{data.get('message', '')}\n{str(data.get('responseBody') or '')[:_BODY_LIMIT]}"
    if name == "UnknownError" or not isinstance(status, int):
        return kind_of_words(text)
    return _kind_by_text(text) or Failure.PROVIDER_UNAVAILABLE


def kind_of_words(text: str) -> Failure:
    """Return the kind of an error of which nothing is known but its words: those of a provider, or OpenCode's own."""
    by_text = _kind_by_text(text)
    if by_text is None and _TIMED_OUT.search(text):
        return Failure.TIMEOUT
    return by_text or Failure.PROVIDER_UNAVAILABLE


def _kind_by_text(text: str) -> Failure | None:
    return next((kind for pattern, kind in _BY_TEXT if pattern.search(text)), None)


def failure_detail(error: dict[str, Any]) -> str:
    """Return an error's text for people, cleaned: neither headers nor addresses."""
    data = mapping(error.get("data"))
    status = data.get("statusCode")
    text = plain_words(str(data.get("message") or error.get("name") or "unknown error"))
    return f"{text} (HTTP {status})" if isinstance(status, int) else text


def plain_words(text: str) -> str:
    """Return a provider's words for people: cleaned, without addresses; of a JSON error object its message."""
    return clean(mask_addresses(clean(_message_in(text), _DETAIL_LIMIT * 2)), _DETAIL_LIMIT)


def _message_in(text: str) -> str:
    """OpenCode 1.18 shows an error object in a provider's stream as the JSON that came."""
    try:
        found = mapping(json.loads(text)) if text.startswith("{") else {}
    except (ValueError, RecursionError):
        return text
    message = found.get("message") or mapping(found.get("error")).get("message")
    return message if isinstance(message, str) and message else text


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
    if isinstance(error, dict) and not ends_at_limit(last):
        return failure_kind(error), failure_detail(error)
    return _unfinished(turn, last)


def _unfinished(turn: list[Message], last: Message) -> tuple[str | None, str | None]:
    finish = last["info"].get("finish")
    if "completed" not in last["info"]["time"] and finish is None:
        return Failure.INTERRUPTED, "the run ended in mid-answer"
    if finish == "tool-calls" and not ends_with_a_rejection(last):
        return Failure.INTERRUPTED, "the run ended after a tool call"
    if problem := problem_of_finish(last):
        return problem
    if last["info"].get("summary") is True or turn[-1] is not last:
        return Failure.INTERRUPTED, "the run ended before the last message was answered"
    return None, None


def problem_of_finish(answer: Message) -> tuple[Failure, str] | None:
    """Return what its finish reason says against a completed answer that holds no error; None when it ended well.

    `length` is a good end with the warning CUT. Without any reason the turn was aborted while OpenCode waited to ask
    the provider again (OpenCode 1.18).
    """
    finish = answer["info"].get("finish")
    if ends_at_limit(answer):
        return None
    if finish is None:
        return Failure.ABORTED, "the turn was aborted"
    if finish == "tool-calls" and ends_with_a_rejection(answer):
        return Failure.REJECTED, "a permission was refused, and the turn ended there"
    return _BY_FINISH.get(str(finish))


def ends_with_a_rejection(answer: Message) -> bool:
    """Whether a permission or a question of its tool calls was refused: OpenCode ends the turn there."""
    return any(_is_rejected(part) for part in parts_of(answer))


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


def model_used(message: Message) -> str | None:
    """Return the model that gave an answer, `provider/id`."""
    provider, name = message["info"].get("providerID"), message["info"].get("modelID")
    return str(Model(provider, name)) if isinstance(provider, str) and isinstance(name, str) else None
