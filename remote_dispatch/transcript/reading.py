"""Read and write a transcript, check its shape, tell two apart. Unknown fields and lone surrogates survive."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from remote_dispatch.errors import IntegrityError
from remote_dispatch.model import SESSION_ID
from remote_dispatch.transcript.layout import messages_in, strict_json
from remote_dispatch.transcript.shape import Message, Transcript, id_of, messages_of, parts_of, without_info

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    Keep = Callable[[Message], Message]
    """What is kept of a message that was read and checked; the message is its own."""

PIECE_BYTES = 1_000_000
"""About as much is held of a text while it is read or written."""
_MESSAGE_ID = re.compile(r"msg_[A-Za-z0-9_.-]{1,100}")
_PART_ID = re.compile(r"prt_[A-Za-z0-9_.-]{1,100}")
_ROLES = ("user", "assistant")
_VOLATILE_TIME = "updated"
_ESCAPE = len(r"\u0000")
_SORTED = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_AS_THEY_COME = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def parse(data: bytes) -> Transcript:
    """Read a session export and check its shape.

    A byte order mark and text before the first `{` are skipped: on Windows OpenCode's progress line came before the
    JSON. Raises IntegrityError for anything that is not one whole transcript: cut, of another shape, with an id twice.
    """
    return checked(_decoded(data))


def as_it_is(message: Message) -> Message:
    """Return the message."""
    return message


def checked(value: Any, *, each: Keep = as_it_is) -> Transcript:
    """Return decoded JSON as a transcript, once its shape is checked as `parse` does. Raises IntegrityError."""
    _check_frame(value)
    return {**value, "messages": list(_checked(value["messages"], each))}


def read(pieces: Callable[[], Iterable[bytes]], *, each: Keep = as_it_is) -> Transcript:
    """Read a session export piece by piece, so that little more than the result is in memory; otherwise like `parse`.

    `each` gets every message, once it is checked, and returns what is kept of it. `pieces` is called again, and
    everything is parsed as a whole, for a layout other than OpenCode's or that of `dump`, and for what is broken.
    """
    try:
        return _read(messages_in(pieces()), each)
    except (IntegrityError, ValueError, RecursionError):
        return checked(_decoded(b"".join(pieces())), each=each)


def dump(transcript: Transcript) -> bytes:
    """Write a transcript as ASCII JSON, a line for each message; lone surrogates survive. Raises IntegrityError."""
    return b"".join(dumped(transcript))


def dumped(transcript: Transcript) -> Iterator[bytes]:
    """Yield what `dump` returns, in pieces of about PIECE_BYTES, at least one."""
    held: list[str] = []
    size = 0
    for text in _texts(transcript):
        held.append(text)
        size += len(text)
        if size >= PIECE_BYTES:
            yield "".join(held).encode("ascii")
            held, size = [], 0
    if held:
        yield "".join(held).encode("ascii")


def digest(transcript: Transcript) -> str:
    """Return the SHA-256 (hex) of the content, whatever the formatting and order of keys.

    `info.time.updated` is left out: every import over the session sets it to the time of the import.
    """
    info = transcript["info"]
    time = {name: value for name, value in info.get("time", {}).items() if name != _VOLATILE_TIME}
    total = hashlib.sha256(canonical({**without_info(transcript, "time")["info"], "time": time}).encode("ascii"))
    rest = {name: value for name, value in transcript.items() if name not in ("info", "messages")}
    total.update(canonical(rest).encode("ascii"))
    for message in messages_of(transcript):
        total.update(b"\n" + canonical(message).encode("ascii"))
    return total.hexdigest()


def count(transcript: Transcript) -> tuple[int, int]:
    """Return the numbers of messages and of parts."""
    messages = messages_of(transcript)
    return len(messages), sum(len(parts_of(message)) for message in messages)


def canonical(value: Any) -> str:
    """Return the one spelling of a JSON value: sorted keys, no blanks, ASCII. Raises IntegrityError."""
    return _encoded(_SORTED, value)


def _texts(transcript: Transcript) -> Iterator[str]:
    before = "{"
    for name, value in transcript.items():
        yield f"{before}{_encoded(_AS_THEY_COME, name)}:"
        yield from _lines(value) if name == "messages" and value else (_encoded(_AS_THEY_COME, value),)
        before = ","
    yield "}\n" if transcript else "{}\n"


def _lines(messages: Iterable[Message]) -> Iterator[str]:
    before = "[\n"
    for message in messages:
        yield before
        yield _encoded(_AS_THEY_COME, message)
        before = ",\n"
    yield "\n]"


def _encoded(encoder: json.JSONEncoder, value: Any) -> str:
    try:
        return encoder.encode(value)
    except RecursionError as error:
        raise IntegrityError("the transcript is nested too deeply") from error
    except ValueError as error:
        raise IntegrityError("the transcript holds a number that JSON does not know") from error


def _decoded(data: bytes) -> Any:
    try:
        text = data.decode(json.detect_encoding(data), "surrogatepass")
    except UnicodeDecodeError as error:
        raise IntegrityError("the transcript is not text") from error
    start = text.find("{")
    if start < 0:
        raise IntegrityError("the transcript is empty" if not text.strip() else "the transcript is not JSON")
    return _from_json(text[start:])


def _from_json(text: str) -> Any:
    try:
        return strict_json(text)
    except json.JSONDecodeError as error:
        is_cut = error.pos >= len(text.rstrip()) - _ESCAPE or "Unterminated" in error.msg
        problem = f"ends too early, after {len(text)} characters" if is_cut else f"is not JSON at character {error.pos}"
        raise IntegrityError(f"the transcript {problem}") from error
    except RecursionError as error:
        raise IntegrityError("the transcript is nested too deeply") from error
    except ValueError as error:
        raise IntegrityError("the transcript holds a number that JSON does not know") from error


def _read(found: Generator[Any, None, dict[str, Any]], each: Keep) -> Transcript:
    frame: Transcript = {}

    def elements() -> Iterator[Any]:
        nonlocal frame
        frame = yield from found

    messages = list(_checked(elements(), each))
    _check_frame(frame)
    return {**frame, "messages": messages}


def _check_frame(transcript: Any) -> None:
    _require(isinstance(transcript, dict), "is not an object")
    info, messages = transcript.get("info"), transcript.get("messages")
    _require(isinstance(info, dict), "has no `info`")
    _require(isinstance(messages, list), "has no `messages`")
    _require(_is_id(info.get("id"), SESSION_ID), "has no valid session id")
    _require(isinstance(info.get("time", {}), dict), "has no valid `info.time`")


def _checked(messages: Iterable[Any], each: Keep) -> Iterator[Message]:
    message_ids: list[str] = []
    part_ids: list[str] = []
    for number, message in enumerate(messages):
        _check_message(message, number)
        message_ids.append(id_of(message))
        part_ids.extend(part["id"] for part in parts_of(message))
        yield each(message)
    _check_unique(message_ids, "message")
    _check_unique(part_ids, "part")


def _check_message(message: Any, number: int) -> None:
    where = f"has a message (number {number + 1}) "
    _require(isinstance(message, dict), where + "that is not an object")
    info, parts = message.get("info"), message.get("parts")
    _require(isinstance(info, dict), where + "without `info`")
    _require(isinstance(parts, list), where + "without `parts`")
    _require(_is_id(info.get("id"), _MESSAGE_ID), where + "without a valid id")
    _require(info.get("role") in _ROLES, where + "of an unknown role")
    _require(_has_creation_time(info), where + "without a time of creation")
    for part in parts:
        _check_part(part, where)


def _check_part(part: Any, where: str) -> None:
    _require(isinstance(part, dict), where + "with a part that is not an object")
    _require(_is_id(part.get("id"), _PART_ID), where + "with a part without a valid id")
    _require(isinstance(part.get("type"), str), where + "with a part without a type")


def _has_creation_time(info: Message) -> bool:
    time = info.get("time")
    created = time.get("created") if isinstance(time, dict) else None
    return isinstance(created, int | float) and not isinstance(created, bool)


def _is_id(value: Any, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _check_unique(ids: list[str], what: str) -> None:
    _require(len(set(ids)) == len(ids), f"holds the same {what} id twice")


def _require(is_so: bool, problem: str) -> None:  # noqa: FBT001 - the one assertion of this module, read as a sentence
    if not is_so:
        raise IntegrityError(f"the transcript {problem}")
