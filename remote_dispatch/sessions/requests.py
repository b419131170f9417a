"""What sessions and their sub-agents ask: found without the stale ones, and answered exactly once.

OpenCode keeps a request in its lists after an abort, a deletion, or the end of a turn: one is real only while the
session that asks is busy and the tool call that asked still runs (OpenCode 1.18).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from remote_dispatch.errors import ConnectionLostError, DivergedError, HostNotReadyError, UsageError
from remote_dispatch.opencode.served import PermissionRequest
from remote_dispatch.sessions.reading import descendants, still_running

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Question, QuestionRequest, Request, Served
    from remote_dispatch.sessions.values import Reading

DECISIONS: tuple[Decided, ...] = ("once", "always", "reject")
SHORTEST_ID = 4
_DIGITS = 6
_SETTLING_S = (0.02, 0.05, 0.1, 0.2, 0.4)
"""The next request of the same tool call comes within some 50 ms, the end of a rejected turn within 150 ms."""

Decided = Literal["once", "always", "reject"]


@dataclass(frozen=True, slots=True)
class Waiting:
    """An open request, and the session that asks: the named one, or one of its sub-agents'."""

    request: Request
    session: Served
    is_sub_agent: bool

    @property
    def id(self) -> str:
        """OpenCode's id of the request."""
        return self.request.id

    @property
    def title(self) -> str:
        """The title of the session that asks."""
        return self.session.title

    @property
    def directory(self) -> str:
        """Where the session that asks works: its requests are listed and answered there."""
        return self.session.directory

    @property
    def kind(self) -> Literal["permission", "question"]:
        """What is asked for."""
        return "permission" if isinstance(self.request, PermissionRequest) else "question"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is said to a permission; `reject` is said to a question too. A message goes with `reject`, to the model."""

    word: Decided
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What is said to a question request: labels or words of one's own, one tuple for each of its questions."""

    answers: tuple[tuple[str, ...], ...]


Reply = Decision | Answers


@dataclass(frozen=True, slots=True)
class Replied:
    """A request that was answered by us, and what the session does since."""

    waiting: Waiting
    answer: Reply
    remaining: tuple[Waiting, ...]
    """What it and its sub-agents ask now."""
    is_busy: bool
    """Whether its turn goes on."""
    is_certain: bool = True
    """False when the connection broke meanwhile: the request is answered, by us or by somebody else."""


def ends_turn(answer: Reply) -> bool:
    """Whether this answer ends the turn of the session that asks: a rejection without words."""
    return isinstance(answer, Decision) and answer.word == "reject" and not answer.message


# --- what waits


def waiting_in(reading: Reading) -> tuple[Waiting, ...]:
    """Return what a reading shows as open."""
    sessions = {one.id: one for one in (reading.session, *reading.descendants)}
    return tuple(
        Waiting(request, sessions[request.session_id], request.session_id != reading.session.id)
        for request in reading.requests
        if request.session_id in sessions
    )


async def open_requests(api: Api, session_id: str, directory: str) -> tuple[Waiting, ...]:
    """Return what a session and its sub-agents ask, the oldest first.

    Three requests when nothing waits. Raises what Api raises, NoSuchSessionError for a session that is gone.
    """
    root, permissions, questions = await asyncio.gather(
        api.session(session_id), api.permissions(directory), api.questions(directory)
    )
    listed: list[Request] = [*permissions, *questions]
    if not listed:
        return ()
    tree = {session_id: root}
    if any(one.session_id != session_id for one in listed):
        tree |= {one.id: one for one in await descendants(api, session_id, await api.children(session_id))}
    busy = await api.statuses(directory)
    asked = [one for one in listed if one.session_id in tree and one.session_id in busy]
    still = await still_running(api, asked)
    return tuple(
        Waiting(one, tree[one.session_id], one.session_id != session_id)
        for one in sorted(asked, key=lambda one: one.id[4:])
        if one.id in still
    )


# --- ids as they are typed


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return for each id its shortest ending that no other of them has: the beginnings are times, and look alike."""
    known = tuple(dict.fromkeys(ids))
    return {one: _shortest_ending(one, known) for one in known}


def _shortest_ending(one: str, known: Sequence[str]) -> str:
    lengths = range(SHORTEST_ID, len(one))
    return next((one[-size:] for size in lengths if sum(other.endswith(one[-size:]) for other in known) == 1), one)


def matching(waiting: Iterable[Waiting], typed: str) -> list[Waiting]:
    """Return those whose id is, begins with, or ends with what was typed; a word that short is rather an answer."""
    if len(typed) < SHORTEST_ID:
        return []
    found = [one for one in waiting if one.id.endswith(typed) or one.id.startswith(typed)]
    return [one for one in found if one.id == typed] or found


def pick(waiting: Sequence[Waiting], typed: str) -> Waiting:
    """Return the one that was meant.

    Raises DivergedError when none has such an id (any more), UsageError when several have.
    """
    found = matching(waiting, typed)
    if not found:
        raise _gone(typed, waiting)
    if len(found) > 1:
        raise UsageError(
            f"several requests are called `{typed}`", hint=f"say which: {_listed(short_ids(one.id for one in found))}"
        )
    return found[0]


def _gone(typed: str, others: Iterable[Waiting] = ()) -> DivergedError:
    shown = _listed(short_ids(one.id for one in others))
    return DivergedError(
        f"nobody waits for an answer to `{typed}` (any more): it was answered already, or its turn was aborted; "
        "nothing was changed",
        hint=f"what waits there now: {shown}" if shown else "see what waits with `remote-dispatch session requests`",
    )


def _listed(short: dict[str, str]) -> str:
    return ", ".join(f"`{one}`" for one in short.values())


# --- answers as they are typed


def understand(request: Request, words: Sequence[str], message: str | None = None) -> Reply:
    """Read an answer: a decision for a permission; numbers, labels or free text for questions, or `reject`.

    With several questions each word answers one of them; a question that takes several answers takes them with commas
    between, or, when it is the only one, as words. Raises UsageError, which lists what fits.
    """
    if any(not _is_text(word) for word in (*words, message or "")):
        raise UsageError("the answer is not valid UTF-8")
    if isinstance(request, PermissionRequest):
        return _decision(words, message)
    if _is_refusal(request, words):
        return _refusal(message)
    if message is not None:
        raise UsageError("`--message` goes with `reject`, and only to a permission")
    return Answers(_answers(request, words))


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decision(words: Sequence[str], message: str | None) -> Decision:
    word = words[0].lower() if len(words) == 1 else ""
    found = next((one for one in DECISIONS if one == word), None)
    if found is None:
        raise UsageError(
            f"{_quoted(words)} is no answer to a permission", hint="what fits: `once`, `always` or `reject`"
        )
    if message is not None and found != "reject":
        raise UsageError("`--message` goes with `reject`: it tells the model what to do instead")
    if message is not None and not message.strip():
        raise UsageError("the message is empty", hint="without `--message` a rejection ends the turn")
    return Decision(found, message)


def _is_refusal(request: QuestionRequest, words: Sequence[str]) -> bool:
    """Whether `reject` was said and is not itself an option of the question: choosing does less harm than refusing."""
    is_option = any(one.label.lower() == "reject" for question in request.questions for one in question.options)
    return [word.lower() for word in words] == ["reject"] and not is_option


def _refusal(message: str | None) -> Decision:
    if message is not None:
        raise UsageError(
            "a question cannot be rejected with a message", hint="answer it with words of your own instead"
        )
    return Decision("reject")


def _answers(request: QuestionRequest, words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    questions = request.questions
    if len(questions) == 1 and questions[0].is_multiple:
        return (_choices(questions[0], words),)
    if len(words) != len(questions):
        raise UsageError(
            f"{len(words)} answers to {len(questions)} questions" if len(questions) > 1 else "one answer is needed",
            hint="one word for each question, text of several words in quotation marks: " + _fitting(request),
        )
    return tuple(_choices(question, [word]) for question, word in zip(questions, words, strict=True))


def _choices(question: Question, words: Sequence[str]) -> tuple[str, ...]:
    """Return the answers to one question: labels where options were meant, otherwise the words themselves."""
    pieces = [piece for word in words for piece in _pieces(question, word)] if question.is_multiple else words
    chosen = tuple(dict.fromkeys(_choice(question, piece.strip()) for piece in pieces))
    if not chosen:
        raise UsageError("the answer is empty", hint=f"what fits: {_fitting_one(question)}")
    return chosen


def _pieces(question: Question, word: str) -> list[str]:
    """Split `1,3` at its commas; a sentence with commas stays one answer."""
    pieces = [piece.strip() for piece in word.split(",")]
    return pieces if all(_option(question, piece) for piece in pieces) else [word]


def _choice(question: Question, typed: str) -> str:
    found = _option(question, typed)
    if found:
        return found
    if not typed:
        raise UsageError("the answer is empty", hint=f"what fits: {_fitting_one(question)}")
    has_numbers = any(one.label.strip().isdecimal() for one in question.options)
    if typed.isdecimal() and question.options and not has_numbers:
        raise UsageError(f"there is no option {typed}", hint=f"what fits: {_fitting_one(question)}")
    return typed


def _option(question: Question, typed: str) -> str | None:
    """Return the label that was meant by its number or its words; the words win."""
    labels = [one.label for one in question.options]
    alike = [label for label in labels if label.lower() == typed.lower()]
    if alike:
        return typed if typed in alike else alike[0]
    place = int(typed) if typed.isascii() and typed.isdecimal() and len(typed) < _DIGITS else 0
    return labels[place - 1] if 0 < place <= len(labels) else None


def _fitting(request: QuestionRequest) -> str:
    return "; ".join(_fitting_one(question) for question in request.questions)


def _fitting_one(question: Question) -> str:
    options = [f"{place} (`{one.label}`)" for place, one in enumerate(question.options, 1)]
    return ", ".join([*options, "or text of your own" if options else "text of your own"])


def _quoted(words: Sequence[str]) -> str:
    return f"`{' '.join(words)}`" if words else "nothing"


# --- answering


async def reply(api: Api, session_id: str, waiting: Waiting, answer: Reply) -> Replied:
    """Answer a request of a session (or of its sub-agents), verify that it is gone, and see what the session does now.

    Of several that answer at once one is heard. Raises DivergedError when it was answered already or nobody waits for
    it any more: nothing was changed then. Raises UsageError when the answer does not fit the request, and what Api
    raises; after ConnectionLostError the request still waits.
    """
    _check(waiting.request, answer)
    root = await api.session(session_id)
    if waiting.id not in {one.id for one in await open_requests(api, root.id, waiting.directory)}:
        raise _gone(_short(waiting))
    is_certain = await _post_once(api, root, waiting, answer)
    remaining, is_busy = await _settle(api, root, waiting)
    return Replied(waiting, answer, remaining, is_busy, is_certain)


async def _post_once(api: Api, root: Served, waiting: Waiting, answer: Reply) -> bool:
    """Answer. Returns whether it is certain that ours was heard. A connection that breaks leaves that open at first."""
    try:
        is_heard = await _post(api, waiting, answer)
    except ConnectionLostError:
        if waiting.id in {one.id for one in await open_requests(api, root.id, waiting.directory)}:
            raise
        return False
    if not is_heard:
        raise _gone(_short(waiting))
    return True


async def _post(api: Api, waiting: Waiting, answer: Reply) -> bool:
    if isinstance(answer, Answers):
        return await api.reply_question(waiting.id, waiting.directory, answer.answers)
    if waiting.kind == "question":
        return await api.reject_question(waiting.id, waiting.directory)
    return await api.reply_permission(waiting.id, waiting.directory, answer.word, answer.message)


async def _settle(api: Api, root: Served, waiting: Waiting) -> tuple[tuple[Waiting, ...], bool]:
    """Wait a moment for what the answer leads to. Returns what is asked now, and whether the turn goes on."""
    remaining, is_busy = await _now(api, root)
    for delay_s in _SETTLING_S:
        is_gone = waiting.id not in {one.id for one in remaining}
        if is_gone and (remaining or not is_busy):
            break
        await asyncio.sleep(delay_s)
        remaining, is_busy = await _now(api, root)
    if waiting.id in {one.id for one in remaining}:
        raise HostNotReadyError(
            api.name,
            "its OpenCode server took the answer, and lists the request still",
            hint="see what waits with `remote-dispatch session requests`",
        )
    return remaining, is_busy


async def _now(api: Api, root: Served) -> tuple[tuple[Waiting, ...], bool]:
    remaining = await open_requests(api, root.id, root.directory)
    return remaining, root.id in await api.statuses(root.directory)


def _check(request: Request, answer: Reply) -> None:
    """Raise UsageError for an answer that OpenCode would accept and nobody could have meant."""
    if isinstance(request, PermissionRequest):
        if not isinstance(answer, Decision):
            raise UsageError("a permission is answered by `once`, `always` or `reject`")
        return
    if isinstance(answer, Decision):
        if answer.word != "reject" or answer.message:
            raise UsageError("a question is answered in its own words, or by `reject` without a message")
        return
    if len(answer.answers) != len(request.questions) or not all(answer.answers):
        raise UsageError("each question needs its answer")


def _short(waiting: Waiting) -> str:
    return waiting.id[-SHORTEST_ID:]
