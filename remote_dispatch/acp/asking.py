"""What a sub-agent or a question asks, as messages of the protocol, and what the editor's answers mean. Pure.

OpenCode 1.18 forwards only the permissions of the session itself; these messages say the rest in the words that every
editor understands. Paths in them are the host's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from remote_dispatch.text import clean
from remote_dispatch.transcript.shape import mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.opencode.served import PermissionRequest, Question, QuestionRequest, Request, Status

Raw = dict[str, Any]
Decided = Literal["once", "always", "reject"]

PERMISSION = "session/request_permission"
FORM = "elicitation/create"
REJECT = "reject"
DONE = "done"
"""The option that ends a question which takes several answers."""
LATER = "later"
LATER_WORDS = "The user answers this in the next message."
"""An editor without forms has no place for free text."""
_TITLE = 200
_KINDS = {
    "bash": "execute",
    "edit": "edit",
    "write": "edit",
    "read": "read",
    "glob": "search",
    "grep": "search",
    "list": "search",
    "webfetch": "fetch",
    "websearch": "fetch",
}


# --- permissions


def permission_call(request: PermissionRequest, agent: str) -> Raw:
    """Return the tool call that stands for a sub-agent's request in the editor, pending."""
    path, diff = request.metadata.get("filepath"), request.metadata.get("diff")
    has_path = isinstance(path, str) and path.startswith("/")
    what = " ".join([request.permission, *(f"`{one}`" for one in ([path] if has_path else request.patterns))])
    call: Raw = {
        "toolCallId": request.id,
        "title": clean(f"{agent} (sub-agent): {what}", _TITLE),
        "kind": _KINDS.get(request.permission, "other"),
        "status": "pending",
        "locations": [{"path": path}] if has_path else [],
        "rawInput": {"permission": request.permission, "patterns": list(request.patterns), **request.metadata},
    }
    return call | ({"content": [_text(f"```diff\n{diff}\n```")]} if isinstance(diff, str) else {})


def permission_params(session_id: str, call: Raw, request: PermissionRequest, agent: str) -> Raw:
    """Return the params of a `session/request_permission` for a sub-agent's request."""
    rules = ", ".join(request.always)
    options = [
        _option("once", "allow_once", "Allow once"),
        _option("always", "allow_always", f"Always allow {rules}" if rules else "Always allow"),
        _option(REJECT, "reject_once", "Reject"),
    ]
    return {"sessionId": session_id, "toolCall": call, "options": options, "_meta": {"subAgent": agent}}


def decision_of(result: Raw) -> Decided:
    """Return what was decided; whatever is no clear leave is a rejection."""
    match chosen_of(result):
        case "once":
            return "once"
        case "always":
            return "always"
    return "reject"


def chosen_of(result: Raw) -> str | None:
    """Return the id of the option that was selected; None for a cancelled or malformed answer."""
    outcome = mapping(result.get("outcome"))
    chosen = outcome.get("optionId")
    return chosen if outcome.get("outcome") == "selected" and isinstance(chosen, str) else None


# --- questions


def question_call(request: QuestionRequest, place: int, agent: str | None) -> Raw:
    """Return the tool call that stands for one question in the editor: the session's own, or one for a sub-agent's."""
    question = request.questions[place]
    own_id = request.call_id if agent is None else None
    title = question.question or question.header or "a question"
    return {
        "toolCallId": own_id or (request.id if place == 0 else f"{request.id}-{place}"),
        "title": clean(f"{agent} (sub-agent): {title}" if agent else title, _TITLE),
        "kind": "other",
        "status": "pending",
        "locations": [],
        "rawInput": {
            "question": question.question,
            "header": question.header,
            "options": [{"label": one.label, "description": one.description} for one in question.options],
            "multiple": question.is_multiple,
        },
        "content": [_text(_in_full(question))],
    }


def question_params(session_id: str, call: Raw, question: Question, chosen: Sequence[str], agent: str | None) -> Raw:
    """Return the params of a `session/request_permission` for one question; what is `chosen` is offered no more."""
    options = [
        _option(str(place), "allow_once", f"{one.label}: {one.description}" if one.description else one.label)
        for place, one in enumerate(question.options)
        if one.label not in chosen
    ]
    if chosen:
        options.append(_option(DONE, "allow_once", "That is all"))
    if not question.options:
        options.append(_option(LATER, "allow_once", "I say it in my next message"))
    options.append(_option(REJECT, "reject_once", "Do not answer"))
    return {"sessionId": session_id, "toolCall": call, "options": options, "_meta": _question_meta(agent)}


def label_of(question: Question, option_id: str | None) -> str | None:
    """Return the answer that an option stands for; None for `done`, `reject` and what was not offered."""
    if option_id == LATER and not question.options:
        return LATER_WORDS
    labels = {str(place): one.label for place, one in enumerate(question.options)}
    return labels.get(option_id or "")


def form_params(session_id: str, request: QuestionRequest, agent: str | None) -> Raw:
    """Return the params of an `elicitation/create` that puts all questions of a request in one form."""
    properties: Raw = {}
    for place, question in enumerate(request.questions):
        properties |= _fields(f"answer{place}", question)
    asker = f"{agent} (sub-agent) asks" if agent else "OpenCode asks"
    return {
        "sessionId": session_id,
        "mode": "form",
        "message": clean("\n\n".join([f"{asker}:", *(one.question for one in request.questions)]), 4000),
        "requestedSchema": {"type": "object", "properties": properties},
        "_meta": _question_meta(agent),
    }


def answers_of(request: QuestionRequest, result: Raw) -> tuple[tuple[str, ...], ...] | None:
    """Return what a form says to each question; None when it was declined, or leaves one open."""
    content = mapping(result.get("content"))
    answers = tuple(_answer(content, f"answer{place}") for place in range(len(request.questions)))
    return answers if result.get("action") == "accept" and answers and all(answers) else None


def _fields(name: str, question: Question) -> Raw:
    """Return the fields of one question: a choice, and words of one's own."""
    title = clean(question.header or question.question, _TITLE)
    if not question.options:
        return {name: {"type": "string", "title": title, "description": question.question}}
    choices = [
        {"const": one.label, "title": one.label} | ({"description": one.description} if one.description else {})
        for one in question.options
    ]
    choice = (
        {"type": "array", "items": {"anyOf": choices}} if question.is_multiple else {"type": "string", "oneOf": choices}
    )
    return {
        name: {**choice, "title": title, "description": question.question},
        f"{name}_own": {"type": "string", "title": f"{title}: in your own words"},
    }


def _answer(content: Raw, name: str) -> tuple[str, ...]:
    """Return the answer to one question; words of one's own replace a single choice."""
    chosen, own = content.get(name), content.get(f"{name}_own")
    said = (own.strip(),) if isinstance(own, str) and own.strip() else ()
    if isinstance(chosen, list):
        return (*(one for one in chosen if isinstance(one, str)), *said)
    return said or ((chosen,) if isinstance(chosen, str) and chosen.strip() else ())


# --- both, and what else is shown


def asker_of(request: Request, root_id: str, agent: str | None) -> str | None:
    """Return the name of the sub-agent that asks; None for the session itself."""
    return None if request.session_id == root_id else agent or "agent"


def started(session_id: str, call: Raw) -> Raw:
    """Return the params of the `session/update` that shows a tool call first."""
    return {"sessionId": session_id, "update": {"sessionUpdate": "tool_call", **call}}


def changed(session_id: str, call_id: str, **fields: object) -> Raw:
    """Return the params of a `session/update` that changes a tool call."""
    return {"sessionId": session_id, "update": {"sessionUpdate": "tool_call_update", "toolCallId": call_id, **fields}}


def retry_fields(status: Status, agent: str | None) -> Raw:
    """Return title and facts of a provider that is asked again; `nextMs` is on the host's clock."""
    asker = f"{agent} (sub-agent): " if agent else ""
    title = f"{asker}waiting for the provider, attempt {status.attempt}: {status.message or 'it refused'}"
    retry = {"attempt": status.attempt, "message": clean(status.message, 1000), "nextMs": status.next_ms}
    return {"title": clean(title, _TITLE), "status": "in_progress", "_meta": {"retry": retry}}


def _question_meta(agent: str | None) -> Raw:
    return {"kind": "question"} | ({"subAgent": agent} if agent else {})


def _in_full(question: Question) -> str:
    lines = [f"- {one.label}: {one.description}" if one.description else f"- {one.label}" for one in question.options]
    return "\n".join([question.question, *lines])


def _option(option_id: str, kind: str, name: str) -> Raw:
    return {"optionId": option_id, "kind": kind, "name": clean(name, _TITLE)}


def _text(text: str) -> Raw:
    return {"type": "content", "content": {"type": "text", "text": text}}
