"""Compare the session that left, the local one as it is now, and the one that came back; bring the new messages in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from remote_dispatch.errors import IntegrityError
from remote_dispatch.transcript.identity import fresh_ids, rename
from remote_dispatch.transcript.reading import canonical
from remote_dispatch.transcript.shape import (
    Message,
    Part,
    Transcript,
    id_of,
    is_open_call,
    last_with_role,
    mapping,
    messages_of,
    parts_of,
    role_of,
    with_info,
    with_messages,
    without_info,
)
from remote_dispatch.transcript.travel import has_pending_revert

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_WRITTEN_BY_OPENCODE = frozenset({"time", "cost", "tokens", "summary"})
"""Fields of a message that OpenCode itself rewrites after the turn: diffs of a user message, sums, times."""
_STRUCTURED = frozenset({"state", "time", "tokens", "cache", "path", "model", "summary", "source"})
_KNOWN = frozenset(
    re.findall(
        r"\w+",
        """
    id sessionID messageID role type time agent model system tools format summary parentID mode path cost tokens modelID
    providerID finish error variant structured text synthetic ignored metadata snapshot reason hash files tool callID
    state mime filename url source name prompt description command auto overflow tail_start_id attempt status input
    output title attachments raw created completed start end compacted total reasoning cache read write cwd root value
    diffs body
    """,
    )
)
"""Every field of messages and parts in OpenCode 1.18's schema, outside tool inputs, metadata and errors."""


def message_ids(transcript: Transcript) -> tuple[str, ...]:
    """Return the ids of all messages in their order."""
    return tuple(id_of(message) for message in messages_of(transcript))


def part_ids(transcript: Transcript) -> tuple[str, ...]:
    """Return the ids of all parts in their order."""
    return tuple(part["id"] for message in messages_of(transcript) for part in parts_of(message))


def check_back(back: Transcript, *, session_id: str, base_ids: Collection[str]) -> None:
    """Raise IntegrityError unless this is our session and still holds every message that was sent."""
    if back["info"]["id"] != session_id:
        raise IntegrityError("what came back is another session")
    held = set(message_ids(back))
    lost = [one for one in base_ids if one not in held]
    if lost:
        raise IntegrityError(f"what came back lacks {len(lost)} of the {len(base_ids)} messages that were sent")
    if not all(_belongs(message, session_id) for message in messages_of(back)):
        raise IntegrityError("what came back holds messages of another session")


def new_messages(base_ids: Collection[str], back: Transcript) -> list[Message]:
    """Return the messages that were not sent, in their order."""
    known = set(base_ids)
    return [message for message in messages_of(back) if id_of(message) not in known]


def moved_on(base: Transcript, current: Transcript) -> bool:
    """Whether the local session (`current`) went on by itself since it was exported (`base`).

    A new user message, a removed or edited message or part, and messages taken back count. What the turn that asked
    for the dispatch still writes does not: the end of its open message, and further answers to the same user message.
    """
    now = {id_of(message): message for message in messages_of(current)}
    known = set(message_ids(base))
    return (
        has_pending_revert(current)
        or any(_was_changed(message, now.get(id_of(message))) for message in messages_of(base))
        or any(not _ends_the_turn(message, base) for message in messages_of(current) if id_of(message) not in known)
    )


def additions(current: Transcript, back_messages: Iterable[Message]) -> Transcript:
    """Return what is imported over the local session: its `info` and only the new messages.

    OpenCode 1.18: import over a session adds unknown message and part ids and changes nothing that exists.
    """
    return with_messages(current, back_messages)


def as_copy(
    base: Transcript, back_messages: Iterable[Message], children: Iterable[Transcript] = (), *, host: str, now_ms: int
) -> list[Transcript]:
    """Return an independent session, and its sub-agents' sessions behind it, all under fresh ids, times as they are.

    It has the messages that left and the new ones; one mapping serves the whole family, so that they point to each
    other. Its title is `TITLE (from HOST)`. It has no parent and is not shared. `base` is the local transcript with
    its open calls closed: neither retargeted nor shifted.
    """
    title = f"{base['info'].get('title', '')} (from {host})".strip()
    whole = with_messages(
        without_info(with_info(base, title=title), "parentID", "share", "revert", "workspaceID"),
        [*messages_of(base), *back_messages],
    )
    family = [whole, *children]
    ids = fresh_ids(family, now_ms)
    return [rename(one, ids) for one in family]


def read_back_problems(expected: Transcript, actual: Transcript) -> list[str]:
    """Return what is missing or different in `actual`, one sentence each; an empty list means that all is there.

    Further messages in `actual` are fine. A field of `expected` that OpenCode does not know may be missing: its
    import drops unknown fields.
    """
    there = {id_of(message): message for message in messages_of(actual)}
    wanted = messages_of(expected)
    problems = [problem for message in wanted for problem in _message_problems(message, there.get(id_of(message)))]
    if _order(message_ids(expected), message_ids(actual)):
        problems.append("the messages are in another order")
    return problems


def _belongs(message: Message, session_id: str) -> bool:
    return message["info"].get("sessionID") == session_id and all(
        part.get("sessionID") == session_id and part.get("messageID") == id_of(message) for part in parts_of(message)
    )


def _was_changed(before: Message, after: Message | None) -> bool:
    if after is None:
        return True
    is_open = _is_open(before)
    if not is_open and _settled_info(before) != _settled_info(after):
        return True
    now = {part["id"]: part for part in parts_of(after)}
    old = {part["id"] for part in parts_of(before)}
    has_more = any(one not in old for one in now)
    return (has_more and not is_open) or any(
        _part_was_changed(part, now.get(part["id"]), is_open) for part in parts_of(before)
    )


def _part_was_changed(before: Part, after: Part | None, is_message_open: bool) -> bool:  # noqa: FBT001 - a fact
    if after is None:
        return True
    if is_message_open and _is_unfinished(before):
        return any(before.get(field) != after.get(field) for field in ("type", "tool", "callID"))
    return _settled_part(before) != _settled_part(after)


def _is_open(message: Message) -> bool:
    return role_of(message) == "assistant" and "completed" not in message["info"]["time"]


def _is_unfinished(part: Part) -> bool:
    is_streaming = part["type"] in ("text", "reasoning") and "end" not in mapping(part.get("time"))
    return is_streaming or is_open_call(part)


def _settled_info(message: Message) -> str:
    return canonical({name: value for name, value in message["info"].items() if name not in _WRITTEN_BY_OPENCODE})


def _settled_part(part: Part) -> str:
    """Without times: OpenCode marks old tool outputs as compacted there."""
    state = part.get("state")
    settled = {name: value for name, value in part.items() if name != "time"}
    if isinstance(state, dict):
        settled["state"] = {name: value for name, value in state.items() if name != "time"}
    return canonical(settled)


def _ends_the_turn(message: Message, base: Transcript) -> bool:
    asked = last_with_role(messages_of(base), "user")
    is_answer = role_of(message) == "assistant" and asked is not None
    return is_answer and message["info"].get("parentID") == id_of(asked or {})


def _message_problems(expected: Message, actual: Message | None) -> list[str]:
    name = f"message {id_of(expected)}"
    if actual is None:
        return [f"{name} is missing"]
    problems = [] if _same(expected["info"], actual["info"]) else [f"{name} is different"]
    there = {part["id"]: part for part in parts_of(actual)}
    for part in parts_of(expected):
        if part["id"] not in there:
            problems.append(f"part {part['id']} of {name} is missing")
        elif not _same(part, there[part["id"]]):
            problems.append(f"part {part['id']} of {name} is different")
    if _order([part["id"] for part in parts_of(expected)], list(there)):
        problems.append(f"the parts of {name} are in another order")
    return problems


def _order(expected: Sequence[str], actual: Sequence[str]) -> bool:
    """Whether the ids that both hold stand in different orders."""
    wanted, held = set(expected), set(actual)
    return [one for one in expected if one in held] != [one for one in actual if one in wanted]


def _same(expected: dict[str, Any], actual: dict[str, Any]) -> bool:
    kept = _as_imported(expected, actual)
    return canonical(kept) == canonical(actual)


def _as_imported(expected: dict[str, Any], actual: dict[str, Any]) -> dict[str, Any]:
    """Leave out what OpenCode does not know and did not keep."""
    kept: dict[str, Any] = {}
    for name, value in expected.items():
        if name not in actual and name not in _KNOWN:
            continue
        is_structure = name in _STRUCTURED and isinstance(value, dict) and isinstance(actual.get(name), dict)
        kept[name] = _as_imported(value, actual[name]) if is_structure else value
    return kept
