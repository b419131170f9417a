"""The call that asked for the dispatch, and calls beside it, are still open in the export: close them truthfully."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from remote_dispatch.model import Mode
from remote_dispatch.transcript.identity import part_id_after
from remote_dispatch.transcript.shape import (
    Message,
    Part,
    Transcript,
    is_open_call,
    last_with_role,
    mapping,
    messages_of,
    parts_of,
    state_of,
    with_messages,
)

if TYPE_CHECKING:
    from collections.abc import Collection

OUR_TOOL = "remote_dispatch"

_LIVE = "status"
"""Where the plugin shows in an open call how far it is; no argument of the tool."""

_OURS = "handed over to "
_NOT_OURS = "not finished at the hand-over"
_OUR_COMMAND = re.compile(r"(?<![\w.-])remote[-_]dispatch\s(?:[^\n;&|]*\s)?(?:send|resume)\b")
_NO_TOKENS = {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}}
_AFTERWARDS = {
    Mode.ONE_WAY: "The conversation goes on there.",
    Mode.ROUND_TRIP: "The conversation goes on there, and comes home when the work is done.",
}


def open_calls(transcript: Transcript) -> tuple[Part, ...]:
    """Return the tool calls of the last assistant message that have not ended."""
    last = last_with_role(messages_of(transcript), "assistant")
    return tuple(part for part in parts_of(last) if is_open_call(part)) if last else ()


def asks_for_a_dispatch(part: Part) -> bool:
    """Whether a tool call hands this session over: our tool, or our command in a shell."""
    if part.get("tool") == OUR_TOOL:
        return True
    command = mapping(state_of(part).get("input")).get("command")
    return part.get("tool") == "bash" and isinstance(command, str) and _OUR_COMMAND.search(command) is not None


def is_unfinished(part: Part) -> bool:
    """Whether the part is a tool call that has not ended, or text that still grows."""
    is_streaming = part["type"] in ("text", "reasoning") and "end" not in mapping(part.get("time"))
    return is_streaming or is_open_call(part)


def was_closed_for_a_journey(part: Part) -> bool:
    """Whether the end of a tool call was written by `close_open_calls`, not by the tool."""
    state = state_of(part)
    title, output = str(state.get("title")), str(state.get("output"))
    is_ours = title.startswith(_OURS) and output.startswith("This session was handed over to the host")
    return is_ours or (title == _NOT_OURS and output.startswith("This call had not finished"))


def close_open_calls(transcript: Transcript, *, host: str, mode: Mode, now_ms: int) -> Transcript:
    """Return a copy in which the open calls of the last assistant message, and this message, are completed.

    The call that is ours says that the session went to `host`; any other says that it had not finished by then.
    Inputs are kept. Older interrupted messages stay as they are, and so does a transcript without an open call.
    """
    calls = open_calls(transcript)
    if not calls:
        return transcript
    ours = _our_calls(calls, host)
    last = last_with_role(messages_of(transcript), "assistant")
    return with_messages(
        transcript,
        (
            _closed(message, ours, host, mode, now_ms) if message is last else message
            for message in messages_of(transcript)
        ),
    )


def _our_calls(calls: tuple[Part, ...], host: str) -> set[str]:
    """With several dispatches at once, those that name this host; a host named by a variable is taken for ours."""
    candidates = [part for part in calls if asks_for_a_dispatch(part)]
    named = [part for part in candidates if _names(part, host)]
    return {part["id"] for part in named or candidates}


def _names(part: Part, host: str) -> bool:
    asked = mapping(state_of(part).get("input"))
    if part.get("tool") == OUR_TOOL:
        return asked.get("host") == host
    return re.search(rf"(?<![\w.-]){re.escape(host)}(?![\w.-])", str(asked.get("command"))) is not None


def _closed(message: Message, ours: Collection[str], host: str, mode: Mode, now_ms: int) -> Message:
    started = message["info"]["time"]["created"]
    parts = [
        _completed(part, _account(part["id"] in ours, host, mode), started, now_ms) if is_open_call(part) else part
        for part in parts_of(message)
    ]
    return _finished({**message, "parts": parts}, now_ms)


def _account(is_ours: bool, host: str, mode: Mode) -> tuple[str, str]:  # noqa: FBT001 - which of the two accounts
    if is_ours:
        output = f"This session was handed over to the host `{host}` ({mode.value}). {_AFTERWARDS[mode]}"
        return f"{_OURS}{host}", output
    output = (
        f"This call had not finished when the session was handed over to the host `{host}`. Its result is not known."
    )
    return _NOT_OURS, output


def _completed(part: Part, account: tuple[str, str], started: int, now_ms: int) -> Part:
    state = state_of(part)
    start = mapping(state.get("time")).get("start", started)
    title, output = account
    completed = {
        "status": "completed",
        "input": _asked_for(part),
        "output": output,
        "title": title,
        "metadata": mapping(state.get("metadata")),
        "time": {"start": start, "end": max(now_ms, start)},
    }
    return {**part, "state": completed}


def _asked_for(part: Part) -> dict[str, Any]:
    """The input as the model wrote it."""
    given = mapping(state_of(part).get("input"))
    return {name: value for name, value in given.items() if name != _LIVE or part.get("tool") != OUR_TOOL}


def _finished(message: Message, now_ms: int) -> Message:
    """As OpenCode ends a step: a step-finish part, then `finish` and `time.completed` of the message."""
    info = message["info"]
    parts = parts_of(message)
    if not _has_finished_step(parts):
        parts = [*parts, _step_finish(message, now_ms)]
    completed = max(now_ms, info["time"]["created"])
    info = {"finish": "tool-calls", **info, "time": {"completed": completed, **info["time"]}}
    return {**message, "info": info, "parts": parts}


def _has_finished_step(parts: list[Part]) -> bool:
    steps = [part["type"] for part in parts if part["type"] in ("step-start", "step-finish")]
    return steps[-1:] == ["step-finish"]


def _step_finish(message: Message, now_ms: int) -> Part:
    starts = [part for part in parts_of(message) if part["type"] == "step-start"]
    snapshot = {"snapshot": starts[-1]["snapshot"]} if starts and "snapshot" in starts[-1] else {}
    info = message["info"]
    fields: dict[str, Any] = {
        "reason": "tool-calls",
        **snapshot,
        "type": "step-finish",
        "tokens": _NO_TOKENS,
        "cost": 0,
    }
    new_id = part_id_after((part["id"] for part in parts_of(message)), now_ms)
    return {**fields, "id": new_id, "sessionID": info.get("sessionID"), "messageID": info["id"]}
