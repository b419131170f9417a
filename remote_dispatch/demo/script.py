r"""What the scripted model answers: pure functions from a chat completions request to a reply. No I/O here.

The last user message may hold instructions, one a line; every other line is ignored. Without instructions the answer
shows that the conversation was seen. In arguments `\n` stands for a newline.

    !say TEXT              answer with TEXT
    !think TEXT            reasoning
    !long N                N bytes of text
    !sleep SECONDS         a word per second, for so long
    !write PATH TEXT       call the write tool; a relative PATH is taken from the session's working directory
    !read PATH             call the read tool
    !bash COMMAND          call the bash tool
    !todo a;b;c            call the todowrite tool; the first item is in progress
    !task PROMPT           call the task tool; PROMPT may hold instructions for the sub-agent
    !question [TEXT]       call the question tool
    !tool NAME JSON        call any tool
    !fail STATUS [TIMES]   answer with this HTTP status, for the first TIMES attempts (always without it)
    !error CODE TEXT       the code and the words that `!fail` answers with
    !retry-after-ms MS     the header that `!fail` answers with: how soon to try again
    !retry-after SECONDS   answer with 429 and this header once
    !html                  answer 200 with a web page
    !reset [TIMES]         break the connection before any answer
    !silence               never answer, not even with headers
    !hang                  begin an answer and never end it
    !cut [TIMES]           break the connection in the middle of the answer
    !stream-error TEXT     an error object in the middle of the stream
    !empty                 no text at all
    !too-long [always]     400 `context_length_exceeded`, once; always: when OpenCode compacts the conversation too
    !finish REASON         end the last answer with this finish reason; `none`: without any

A tool call ends an answer; its result brings the next request, which carries on with the next line. The place in the
script is the number of tool results after the last user message; only attempts at the same place are counted.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

TITLE = "A scripted conversation"
TITLE_PROMPT = "You are a title generator"
"""How OpenCode's request for a title begins (OpenCode 1.18)."""

WORKING_DIRECTORY = re.compile(r"^\s*Working directory: (.+)$", re.MULTILINE)
ALWAYS_TOO_LONG = "!too-long always"
"""Searched in the whole conversation: OpenCode quotes it when it compacts (OpenCode 1.18)."""
INSTRUCTION = re.compile(r"^!([a-z][a-z-]*)(?:[ \t]+(.*?))?[ \t\r]*$", re.MULTILINE)

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Say:
    """A piece of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Think:
    """A piece of reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, complete."""

    id: str
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Interruption:
    """Why the answer stays without an end: the connection hangs, or it breaks."""

    kind: Literal["hang", "cut"]


@dataclass(frozen=True, slots=True)
class StreamError:
    """An error object in place of the rest of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP error in place of an answer."""

    status: int
    retry_after: str | None = None
    retry_after_ms: str | None = None
    code: str | None = None
    text: str | None = None


Accident = Literal["html", "reset", "silence"]
"""What comes in place of an HTTP answer: a web page, a broken connection, nothing."""

Act = Say | Think | Pause | Call | Interruption | StreamError


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: what happens, in order, and the finish reason."""

    acts: tuple[Act, ...]
    finish: str
    refusal: Refusal | None = None
    accident: Accident | None = None


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a script."""

    word: str
    argument: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request as the script sees it."""

    system: str
    messages: tuple[Message, ...]
    """Without the system prompt."""

    @property
    def is_title_request(self) -> bool:
        """Whether OpenCode asks for a title, not for an answer."""
        return self.system.lstrip().startswith(TITLE_PROMPT)

    @property
    def directory(self) -> str:
        """The session's working directory as the system prompt names it; `/` when it does not."""
        found = WORKING_DIRECTORY.search(self.system)
        return found[1].strip() if found else "/"

    @property
    def last_user_text(self) -> str:
        """The text of the last user message; empty without one."""
        texts = (text_of(message) for message in reversed(self.messages) if message.get("role") == "user")
        return next(texts, "")

    @property
    def results(self) -> tuple[str, ...]:
        """The tool results since the last user message."""
        since = itertools.takewhile(lambda message: message.get("role") != "user", reversed(self.messages))
        return tuple(text_of(message) for message in since if message.get("role") == "tool")[::-1]


def read_conversation(body: Mapping[str, Any]) -> Conversation:
    """Read the body of a chat completions request; what is missing counts as empty."""
    messages = [message for message in body.get("messages") or [] if isinstance(message, dict)]
    system = "\n".join(text_of(message) for message in messages if message.get("role") == "system")
    return Conversation(system, tuple(message for message in messages if message.get("role") != "system"))


def text_of(message: Message) -> str:
    """Return a message's text, whether its content is a string, a list of parts, or missing."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def answer(conversation: Conversation, attempt: int = 1) -> Reply:
    """Return what the scripted model answers when asked the same thing for the `attempt`-th time."""
    if conversation.is_title_request:
        return Reply((Say(TITLE),), "stop")
    if any(ALWAYS_TOO_LONG in text_of(message) for message in conversation.messages):
        return Reply((), "stop", _TOO_LONG)
    instructions = parse_script(conversation.last_user_text)
    if not instructions:
        return Reply((Say(_summary(conversation)),), "stop")
    step = len(conversation.results)
    lines = [line for line in _step(instructions, step) if not _is_used_up(line, attempt)]
    return _reply(lines, conversation, step)


def parse_script(text: str) -> tuple[Instruction, ...]:
    """Return the instructions in a text, in order.

    `opencode run` wraps an argument that holds a space in quotation marks; those are taken off.
    """
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('\\"', '"')
    return tuple(Instruction(found[1], found[2] or "") for found in INSTRUCTION.finditer(text))


def _step(instructions: Sequence[Instruction], step: int) -> list[Instruction]:
    """Return the lines of one answer: those after the tool call number `step`, up to the next tool call."""
    calls_before = 0
    lines = []
    for instruction in instructions:
        if calls_before == step:
            lines.append(instruction)
        calls_before += instruction.word in TOOLS
    return lines


def _is_used_up(line: Instruction, attempt: int) -> bool:
    match line.word:
        case "retry-after" | "too-long":
            return attempt > 1
        case "fail":
            times = _whole_number(line.argument.partition(" ")[2])
        case "cut" | "reset":
            times = _whole_number(line.argument)
        case _:
            return False
    return 0 < times < attempt


def _reply(lines: Sequence[Instruction], conversation: Conversation, step: int) -> Reply:
    acts: list[Act] = []
    for line in lines:
        if line.word == "say" and any(isinstance(act, Say) for act in acts):
            acts.append(Say("\n"))
        acts.extend(_acts(line, conversation, step))
    has_call = any(isinstance(act, Call) for act in acts)
    is_silent = any(line.word == "empty" for line in lines)
    if not has_call and not is_silent and not any(isinstance(act, Say | Interruption | StreamError) for act in acts):
        acts.append(Say(_closing(conversation)))
    finish = next((line.argument for line in lines if line.word == "finish" and line.argument), None)
    refusal = next((_refusal(line, lines) for line in lines if line.word in REFUSALS), None)
    accident = next((ACCIDENTS[line.word] for line in lines if line.word in ACCIDENTS), None)
    return Reply(tuple(acts), finish or ("tool-calls" if has_call else "stop"), refusal, accident)


def _acts(line: Instruction, conversation: Conversation, step: int) -> Iterator[Act]:
    match line.word:
        case "say":
            yield Say(_unescape(line.argument))
        case "think":
            yield Think(_unescape(line.argument))
        case "long":
            yield from _long(_whole_number(line.argument))
        case "sleep":
            yield from _sleep(_seconds(line.argument))
        case "hang" | "cut":
            yield Say("this answer has no end ")
            yield Interruption(line.word)
        case word if word in TOOLS:
            tool, arguments = TOOLS[word](line.argument, conversation.directory)
            yield Call(f"call_{len(conversation.messages)}_{step}", tool, arguments)
        case "stream-error":
            yield StreamError(line.argument or "the script asked for an error")
        case word if word in MODIFIERS:
            return
        case _:
            yield Say(f"`!{line.word}` is not an instruction\n")


def _refusal(line: Instruction, lines: Sequence[Instruction]) -> Refusal:
    if line.word == "too-long":
        return _TOO_LONG
    if line.word == "retry-after":
        return Refusal(429, retry_after=line.argument or "1")
    given = {one.word: one.argument for one in lines}
    code, _, text = given.get("error", "").partition(" ")
    return Refusal(
        _whole_number(line.argument.partition(" ")[0]) or 500,
        retry_after_ms=given.get("retry-after-ms"),
        code=code or None,
        text=text or None,
    )


def _summary(conversation: Conversation) -> str:
    words = " ".join(conversation.last_user_text.split())[-80:]
    return f"I see {len(conversation.messages)} messages; the last one ends with: {words}"


def _closing(conversation: Conversation) -> str:
    results = conversation.results
    if not results:
        return "done"
    return f"done after {len(results)} tool calls; the last result: {results[-1].strip()[:200]}"


def _long(size: int) -> Iterator[Say]:
    text = "".join(f"line {number:08d} of a long answer\n" for number in range(size // 30 + 1))[:size]
    return (Say(text[start : start + 4096]) for start in range(0, size, 4096))


def _sleep(seconds: float) -> Iterator[Act]:
    while seconds > 0:
        yield Pause(min(1.0, seconds))
        yield Say("tick ")
        seconds -= 1


def _write(argument: str, directory: str) -> tuple[str, dict[str, Any]]:
    path, _, text = argument.partition(" ")
    return "write", {"filePath": str(PurePosixPath(directory) / path), "content": _unescape(text) + "\n"}


def _read(argument: str, directory: str) -> tuple[str, dict[str, Any]]:
    return "read", {"filePath": str(PurePosixPath(directory) / argument)}


def _bash(argument: str, _directory: str) -> tuple[str, dict[str, Any]]:
    return "bash", {"command": _unescape(argument), "description": "runs a scripted command"}


def _todo(argument: str, _directory: str) -> tuple[str, dict[str, Any]]:
    items = [item.strip() for item in argument.split(";") if item.strip()]
    return "todowrite", {
        "todos": [
            {"content": item, "status": "pending" if place else "in_progress", "priority": "medium"}
            for place, item in enumerate(items)
        ]
    }


def _task(argument: str, _directory: str) -> tuple[str, dict[str, Any]]:
    return "task", {"description": "A scripted task", "prompt": _unescape(argument), "subagent_type": "general"}


def _question(argument: str, _directory: str) -> tuple[str, dict[str, Any]]:
    options = [{"label": "yes", "description": "Go on"}, {"label": "no", "description": "Stop here"}]
    text = argument or "Shall I go on?"
    return "question", {"questions": [{"question": text, "header": "Scripted", "options": options}]}


def _any_tool(argument: str, _directory: str) -> tuple[str, dict[str, Any]]:
    name, _, arguments = argument.partition(" ")
    try:
        values = json.loads(arguments or "{}")
    except ValueError:
        values = {"unreadable": arguments}
    return name or "invalid", values if isinstance(values, dict) else {"value": values}


REFUSALS = frozenset({"fail", "retry-after", "too-long"})
ACCIDENTS: Mapping[str, Accident] = {"html": "html", "reset": "reset", "silence": "silence"}
MODIFIERS = REFUSALS | ACCIDENTS.keys() | {"finish", "error", "retry-after-ms", "empty"}
_TOO_LONG = Refusal(
    400,
    code="context_length_exceeded",
    text="This model's maximum context length is 8192 tokens, and the messages hold more",
)

TOOLS: Mapping[str, Callable[[str, str], tuple[str, dict[str, Any]]]] = {
    "write": _write,
    "read": _read,
    "bash": _bash,
    "todo": _todo,
    "task": _task,
    "question": _question,
    "tool": _any_tool,
}


def _unescape(text: str) -> str:
    return text.replace("\\n", "\n")


def _whole_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0
