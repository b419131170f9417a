"""How a request is shown and asked on a terminal: in full, without control characters, each foreign line marked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from remote_dispatch.cli.output import has_color, note, say
from remote_dispatch.errors import DivergedError, UsageError
from remote_dispatch.opencode.served import PermissionRequest
from remote_dispatch.sessions.requests import Answers, Decision, reply, short_ids, understand
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Question, QuestionRequest
    from remote_dispatch.sessions.requests import Replied, Reply, Waiting
    from remote_dispatch.sessions.values import NamedSession

Ask = Callable[[str], Awaitable[str | None]]
"""Puts a prompt and returns the line that was typed; None at the end of the input."""

LIMIT = 1_000_000
_TITLE = 200
_GUTTER = "| "
"""Before every line that is not ours: none of them can pass for one of ours."""
_LETTERS = {"o": "once", "a": "always", "r": "reject"}
_COLORS = {f"{_GUTTER}+": typer.colors.GREEN, f"{_GUTTER}-": typer.colors.RED}
_DEPTH = 20


# --- shown


def request_lines(waiting: Waiting) -> list[str]:
    """Return the whole request as lines; what is foreign in them is cleaned."""
    request = waiting.request
    by = f", asked by a sub-agent: {_brief(waiting.title)}" if waiting.is_sub_agent else ""
    if isinstance(request, PermissionRequest):
        return [f"permission: {_brief(request.permission)}{by}", *_permission_lines(request)]
    return [f"question{by}", *_question_lines(request)]


def commands_for(name: str, short: str, waiting: Waiting) -> list[str]:
    """Return how it is answered, as lines."""
    command = f"remote-dispatch session reply {name} {short}"
    ending = f"`reject` ends the {'sub-agent' if waiting.is_sub_agent else 'turn'}"
    if isinstance(waiting.request, PermissionRequest):
        return [f"{ending}, `reject --message TEXT` lets it go on", f"answer: {command} once|always|reject"]
    one_each = " ".join(_fitting(question) for question in waiting.request.questions)
    return [ending, f"answer: {command} {one_each}"]


def print_foreign(lines: Iterable[str], *, is_talk: bool = False) -> None:
    """Print lines with foreign text in them, however long they are, on stdout or as talk on stderr."""
    file = sys.stderr if is_talk else sys.stdout
    for line in lines:
        text = clean(line, LIMIT).replace("\n", " ")
        color = next((color for mark, color in _COLORS.items() if text.lstrip().startswith(mark)), None)
        shown = typer.style(text, fg=color) if color and has_color(file) else text
        typer.echo(shown, err=is_talk, color=has_color(file))


def _permission_lines(request: PermissionRequest) -> Iterator[str]:
    metadata = request.metadata
    match request.permission:
        case "bash" if isinstance(metadata.get("command"), str):
            yield from _foreign(metadata["command"])
        case "edit" if isinstance(metadata.get("diff"), str):
            yield from _foreign(str(metadata.get("filepath", "")))
            yield from _foreign(_without_heading(metadata["diff"]))
        case "external_directory" if isinstance(metadata.get("directories"), list):
            yield from _foreign("\n".join(map(str, metadata["directories"])))
            if isinstance(metadata.get("command"), str):
                yield "for the command"
                yield from _foreign(metadata["command"])
        case _:
            yield from _foreign("\n".join(request.patterns))
            if metadata:
                yield from _foreign(json.dumps(_cleaned(metadata), ensure_ascii=False, indent=2))
    if request.always:
        yield "`always` allows, in this directory until the server stops:"
        yield from _foreign("\n".join(request.always))


def _question_lines(request: QuestionRequest) -> Iterator[str]:
    for question in request.questions:
        if question.header:
            yield from _foreign(f"[{question.header}]")
        yield from _foreign(question.question)
        for place, option in enumerate(question.options, 1):
            description = f": {option.description}" if option.description else ""
            first, *more = _foreign(f"{option.label}{description}", gutter="")
            yield f"  {place}  {first}"
            yield from (f"     {_GUTTER}{line}" for line in more)
        if question.is_multiple:
            yield "  several may be chosen"


def _without_heading(diff: str) -> str:
    """Return a unified diff without the two lines that only repeat the file's name."""
    lines = diff.split("\n")
    is_headed = len(lines) > 2 and lines[0].startswith("Index: ") and lines[1].startswith("===")
    return "\n".join(lines[2:] if is_headed else lines).rstrip("\n")


def _foreign(text: str, gutter: str = _GUTTER) -> list[str]:
    return [f"{gutter}{line}" for line in clean(text, LIMIT).split("\n")]


def _brief(text: str) -> str:
    return clean(text, _TITLE).replace("\n", " ")


def _fitting(question: Question) -> str:
    numbers = [str(place) for place in range(1, len(question.options) + 1)]
    return "|".join([*numbers, "TEXT"])


# --- as JSON


def request_data(named: NamedSession, waiting: Waiting, short: str) -> dict[str, Any]:
    """Return a request for `--json`, complete. `id` and `short` can both be typed."""
    request = waiting.request
    data: dict[str, Any] = {
        "name": named.name,
        "host": named.host,
        "id": request.id,
        "short": short,
        "kind": waiting.kind,
        "session_id": request.session_id,
        "is_sub_agent": waiting.is_sub_agent,
        "title": clean(waiting.title, LIMIT),
        "directory": clean(waiting.directory, LIMIT),
    }
    if isinstance(request, PermissionRequest):
        return data | {
            "permission": clean(request.permission, LIMIT),
            "patterns": _cleaned(list(request.patterns)),
            "always": _cleaned(list(request.always)),
            "metadata": _cleaned(request.metadata),
        }
    return data | {"questions": [_question_data(question) for question in request.questions]}


def answer_data(answer: Reply) -> dict[str, Any]:
    """Return an answer for `--json`: the decision and its message, or the answers to each question."""
    if isinstance(answer, Answers):
        return {"decision": None, "message": None, "answers": [list(one) for one in answer.answers]}
    return {"decision": answer.word, "message": answer.message, "answers": None}


def _question_data(question: Question) -> dict[str, Any]:
    return {
        "header": clean(question.header, LIMIT),
        "question": clean(question.question, LIMIT),
        "options": [
            {"number": place, "label": clean(one.label, LIMIT), "description": clean(one.description, LIMIT)}
            for place, one in enumerate(question.options, 1)
        ],
        "multiple": question.is_multiple,
    }


def _cleaned(value: object, depth: int = _DEPTH) -> object:
    """Return foreign JSON with every text in it cleaned; what lies too deep is left out."""
    if isinstance(value, str):
        return clean(value, LIMIT)
    if isinstance(value, int | float | None):
        return value
    if depth == 0:
        return None
    if isinstance(value, dict):
        return {clean(str(key), _TITLE): _cleaned(one, depth - 1) for key, one in value.items()}
    return [_cleaned(one, depth - 1) for one in value] if isinstance(value, list) else None


# --- told


def replied_lines(named: NamedSession, replied: Replied, short: str) -> list[str]:
    """Return what was answered, and what the session does now with the next command."""
    return [*_answered(named, replied, short), _now(named, replied)]


def _answered(named: NamedSession, replied: Replied, short: str) -> list[str]:
    return [f"answered `{short}` of {named.name}: {_said(replied.answer)}", *_reach_of(replied)]


def _said(answer: Reply) -> str:
    if isinstance(answer, Answers):
        return "; ".join(", ".join(_brief(text) for text in one) for one in answer.answers)
    return f"{answer.word}, with the message: {_brief(answer.message)}" if answer.message else answer.word


def _reach_of(replied: Replied) -> list[str]:
    if isinstance(replied.answer, Decision) and replied.answer.word == "always":
        return ["it holds in that directory, for all its sessions, until the server there stops"]
    return []


def _now(named: NamedSession, replied: Replied) -> str:
    if replied.remaining:
        first = short_ids(one.id for one in replied.remaining)[replied.remaining[0].id]
        return f"it asks something more: `remote-dispatch session requests {named.name}` shows it (`{first}`)"
    if replied.is_busy:
        return f"it works on: `remote-dispatch session watch {named.name}`"
    return f"its turn has ended: `remote-dispatch session show {named.name}`"


# --- asked


async def answer_here(api: Api, named: NamedSession, waiting: Waiting, ask: Ask | None = None) -> bool:
    """Ask the person at the terminal, answer, and tell what was answered; what comes of it the caller's view shows.

    Returns False when the request is left waiting. What was answered elsewhere meanwhile is told, not raised; for the
    rest it raises what `reply` raises.
    """
    say(f"{named.name} on {named.host} asks")
    answer = await answer_on_terminal(waiting, ask or read_line)
    short = short_ids([waiting.id])[waiting.id]
    if answer is None:
        note(f"it waits on: `remote-dispatch session reply {named.name} {short} ANSWER`")
        return False
    try:
        replied = await reply(api, named.session_id, waiting, answer)
    except DivergedError as error:
        note(error.message)
        return True
    print_foreign(_answered(named, replied, short), is_talk=True)
    return True


async def answer_on_terminal(waiting: Waiting, ask: Ask | None = None) -> Reply | None:
    """Show a request on stderr and ask for the answer until one fits; None to leave it waiting (empty line, Ctrl-D)."""
    print_foreign(request_lines(waiting), is_talk=True)
    if isinstance(waiting.request, PermissionRequest):
        return await _ask_permission(waiting.request, ask or read_line)
    return await _ask_questions(waiting.request, ask or read_line)


async def _ask_permission(request: PermissionRequest, ask: Ask) -> Reply | None:
    while True:
        typed = await ask("[o]nce, [a]lways, [r]eject; Enter: later > ")
        if not typed or not typed.strip():
            return None
        word = _LETTERS.get(typed.strip().lower(), typed.strip())
        try:
            answer = understand(request, [word])
        except UsageError as error:
            _say_error(error)
            continue
        return await _ask_instead(ask) if answer == Decision("reject") else answer


async def _ask_instead(ask: Ask) -> Reply | None:
    instead = await ask("what should it do instead? Enter: nothing, the turn ends here > ")
    return None if instead is None else Decision("reject", instead.strip() or None)


async def _ask_questions(request: QuestionRequest, ask: Ask) -> Reply | None:
    answers: list[tuple[str, ...]] = []
    for question in request.questions:
        answer = await _ask_question(replace(request, questions=(question,)), ask)
        if not isinstance(answer, Answers):
            return answer
        answers += answer.answers
    return Answers(tuple(answers))


async def _ask_question(request: QuestionRequest, ask: Ask) -> Reply | None:
    """Ask one question of a request."""
    question = request.questions[0]
    asked = f"{_brief(question.header)}: " if question.header else ""
    several = ", several with commas" if question.is_multiple else ""
    numbers = f"1 to {len(question.options)}, or your own words{several}" if question.options else "your own words"
    while True:
        typed = await ask(f"{asked}{numbers}, or reject; Enter: later > ")
        if not typed or not typed.strip():
            return None
        try:
            return understand(request, [typed.strip()])
        except UsageError as error:
            _say_error(error)


def _say_error(error: UsageError) -> None:
    say(f"{error.message}; {error.hint}" if error.hint else error.message)


async def read_line(prompt: str) -> str | None:
    """Put a prompt on stderr and return the line that is typed; None for Ctrl-D.

    Everything else goes on meanwhile, and the wait can be cancelled. What was typed before the prompt is thrown away:
    it was no answer to it.
    """
    _forget_what_was_typed()
    typer.echo(prompt, nl=False, err=True)
    file, loop = sys.stdin.fileno(), asyncio.get_running_loop()
    typed = bytearray()
    is_there: asyncio.Future[None] = loop.create_future()

    def take() -> None:
        chunk = os.read(file, 4096)
        typed.extend(chunk)
        if (not chunk or chunk.endswith(b"\n")) and not is_there.done():
            is_there.set_result(None)

    loop.add_reader(file, take)
    try:
        await is_there
    finally:
        loop.remove_reader(file)
    return typed.decode(errors="replace").rstrip("\r\n") if typed else None


def _forget_what_was_typed() -> None:
    import termios

    with contextlib.suppress(termios.error):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
