"""Compare the session that left, the local one as it is now, and the one that came back; bring the new messages in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remote_dispatch.errors import IntegrityError
from remote_dispatch.transcript.fields import KNOWN, STRUCTURED, WRITTEN_AT_THE_END, WRITTEN_BY_OPENCODE
from remote_dispatch.transcript.identity import fresh_ids, rename
from remote_dispatch.transcript.open_call import is_unfinished
from remote_dispatch.transcript.reading import canonical, count
from remote_dispatch.transcript.shape import (
    Message,
    Part,
    Transcript,
    id_of,
    is_aside,
    last_with_role,
    messages_of,
    parts_of,
    role_of,
    with_info,
    with_messages,
    without_info,
)
from remote_dispatch.transcript.travel import has_pending_revert, without_reverted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence


def message_ids(transcript: Transcript) -> tuple[str, ...]:
    """Return the ids of all messages in their order."""
    return tuple(id_of(message) for message in messages_of(transcript))


def part_ids(transcript: Transcript) -> tuple[str, ...]:
    """Return the ids of all parts in their order."""
    return tuple(part["id"] for message in messages_of(transcript) for part in parts_of(message))


def check_back(back: Transcript, *, session_id: str, base_ids: Collection[str]) -> None:
    """Raise IntegrityError unless this is our session, all of it is its own, no id stands twice, and it is not empty.

    It may lack messages that were sent: somebody may have taken them back on the host (`was_taken_back`).
    """
    if back["info"]["id"] != session_id:
        raise IntegrityError("what came back is another session")
    if base_ids and not messages_of(back):
        raise IntegrityError(f"what came back lacks all of the {len(base_ids)} messages that were sent")
    if not all(_belongs(message, session_id) for message in messages_of(back)):
        raise IntegrityError("what came back holds messages of another session")
    for ids in (message_ids(back), part_ids(back)):
        if len(set(ids)) != len(ids):
            raise IntegrityError("what came back holds the same id twice")


def new_messages(base_ids: Collection[str], back: Transcript) -> list[Message]:
    """Return the messages that were not sent, in their order."""
    known = set(base_ids)
    return [message for message in messages_of(back) if id_of(message) not in known]


def moved_on(base: Transcript, current: Transcript) -> bool:
    """Whether the local session (`current`) went on by itself since it was exported (`base`).

    A new user message, a removed or edited message or part, a compaction and messages taken back count. What the turn
    that asked for the dispatch still writes does not: the end of its open message, and further answers to the same
    user message. Nor does what is no part of the conversation: title, permissions, sharing, archiving, sums, times,
    and what is shown to the user alone.
    """
    now = {id_of(message): message for message in messages_of(current)}
    known = set(message_ids(base))
    asked = _asked(base)
    return (
        has_pending_revert(current)
        or any(_was_changed(message, now.get(id_of(message)), asked) for message in messages_of(base))
        or any(_begins_anew(message, asked) for message in messages_of(current) if id_of(message) not in known)
    )


def is_under_way(current: Transcript) -> bool:
    """Whether a turn goes on here, as far as the messages tell."""
    return _asked(current) is not None


def ends_answered(messages: Sequence[Message]) -> bool:
    """Whether OpenCode's loop takes the newest prompt of these for answered; else it answers it itself (1.18)."""
    asked = last_with_role(list(messages), "user")
    if asked is None:
        return True
    last = messages[-1]
    has_calls = any(part["type"] == "tool" for part in parts_of(last))
    return _has_reason_to_end(last) and not has_calls and last["info"].get("parentID") == id_of(asked)


def was_taken_back(back: Transcript, sent: Transcript) -> bool:
    """Whether somebody took messages back on the host: a revert is pending, or sent messages or parts are gone.

    OpenCode 1.18 deletes what was taken back at the next prompt: whole messages, and the last parts of one.
    `sent` is the local transcript as it left, open calls as they were.
    """
    kept = without_reverted(back)
    held = {*message_ids(kept), *part_ids(kept)}
    return count(kept) != count(back) or any(one not in held for one in (*message_ids(sent), *part_ids(sent)))


def left_there(sent: Transcript, back: Transcript) -> Transcript:
    """Return of `sent` the messages and parts that the host still has, as they were here when they left.

    This and the new messages of `without_reverted(back)` are exactly what the host has.
    """
    kept = without_reverted(back)
    parts = {id_of(message): {part["id"] for part in parts_of(message)} for message in messages_of(kept)}
    return with_messages(
        sent,
        (
            {**message, "parts": [part for part in parts_of(message) if part["id"] in parts[id_of(message)]]}
            for message in messages_of(sent)
            if id_of(message) in parts
        ),
    )


def lacking(current: Transcript, fresh: Iterable[Message]) -> list[Message]:
    """Return those of the new messages that are not here whole.

    OpenCode 1.18 imports row by row: a message may have arrived without its parts.
    """
    here = {*message_ids(current), *part_ids(current)}
    return [
        message
        for message in fresh
        if id_of(message) not in here or any(part["id"] not in here for part in parts_of(message))
    ]


def continued(current: Transcript, placed: Iterable[Message]) -> list[Message]:
    """Return the messages as they will be here: of one that is here in part, its fields and those parts stay."""
    here = {id_of(message): message for message in messages_of(current)}
    return [_completed(here.get(id_of(message)), message) for message in placed]


def without(current: Transcript, messages: Iterable[Message]) -> Transcript:
    """Return a copy without these messages."""
    gone = {id_of(message) for message in messages}
    return with_messages(current, (message for message in messages_of(current) if id_of(message) not in gone))


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
    its open calls closed: neither retargeted nor shifted. It is not archived: OpenCode would list it nowhere.
    """
    title = f"{base['info'].get('title', '')} (from {host})".strip()
    whole = with_messages(
        without_info(with_info(base, title=title, time=_awake(base)), "parentID", "share", "revert", "workspaceID"),
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


def _asked(base: Transcript) -> str | None:
    """The id of the user message that the turn under way answers; None when the session rests."""
    messages = [message for message in messages_of(base) if not is_aside(message)]
    asked = last_with_role(messages, "user")
    return None if asked is None or _rests(messages[-1]) else id_of(asked)


def _rests(last: Message) -> bool:
    """A turn goes on after a tool call, after an answer without a reason to end, and after a context overflow."""
    info = last["info"]
    is_ended = "completed" in info["time"] and _has_reason_to_end(last)
    return role_of(last) == "assistant" and (is_ended or "error" in info)


def _has_reason_to_end(answer: Message) -> bool:
    """Whether the model ended the turn with it."""
    return answer["info"].get("finish") not in (None, "tool-calls", "unknown")


def _was_changed(before: Message, after: Message | None, asked: str | None) -> bool:
    if after is None:
        return True
    if after is before:
        return False
    is_open = _is_open(before) and before["info"].get("parentID") == asked
    if _settled_info(before, is_open) != _settled_info(after, is_open):
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
    if is_message_open and is_unfinished(before):
        return any(before.get(field) != after.get(field) for field in ("type", "tool", "callID"))
    return after is not before and _settled_part(before) != _settled_part(after)


def _is_open(message: Message) -> bool:
    return role_of(message) == "assistant" and "completed" not in message["info"]["time"]


def _settled_info(message: Message, is_open: bool) -> str:  # noqa: FBT001 - a fact
    unsettled = WRITTEN_BY_OPENCODE | WRITTEN_AT_THE_END if is_open else WRITTEN_BY_OPENCODE
    return canonical({name: value for name, value in message["info"].items() if name not in unsettled})


def _settled_part(part: Part) -> str:
    """Without times: OpenCode marks old tool outputs as compacted there."""
    state = part.get("state")
    settled = {name: value for name, value in part.items() if name != "time"}
    if isinstance(state, dict):
        settled["state"] = {name: value for name, value in state.items() if name != "time"}
    return canonical(settled)


def _begins_anew(message: Message, asked: str | None) -> bool:
    """Whether it is neither the end of the turn under way nor for the user's eyes only."""
    is_its_end = asked is not None and message["info"].get("parentID") == asked
    return not is_its_end and not is_aside(message)


def _completed(here: Message | None, message: Message) -> Message:
    if here is None:
        return message
    present = {part["id"]: part for part in parts_of(here)}
    return {**here, "parts": [present.get(part["id"], part) for part in parts_of(message)]}


def _awake(transcript: Transcript) -> dict[str, Any]:
    return {name: at for name, at in transcript["info"]["time"].items() if name not in ("archived", "compacting")}


def _message_problems(expected: Message, actual: Message | None) -> list[str]:
    name = f"message {id_of(expected)}"
    if actual is None:
        return [f"{name} is missing"]
    if actual is expected:
        return []
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
    return expected is actual or canonical(_as_imported(expected, actual)) == canonical(actual)


def _as_imported(expected: dict[str, Any], actual: dict[str, Any]) -> dict[str, Any]:
    """Leave out what OpenCode does not know and did not keep."""
    kept: dict[str, Any] = {}
    for name, value in expected.items():
        if name not in actual and name not in KNOWN:
            continue
        is_structure = name in STRUCTURED and isinstance(value, dict) and isinstance(actual.get(name), dict)
        kept[name] = _as_imported(value, actual[name]) if is_structure else value
    return kept
