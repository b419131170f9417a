"""Move a transcript in time. OpenCode orders messages by their time of creation, so two clocks must never mix.

All times are milliseconds since 1970. Touched are `info.time.*`, the messages' `info.time.*`, the parts' `time.*` and
`state.time.*`; nothing inside a tool's input, output or metadata.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from remote_dispatch.transcript.shape import Message, Part, Transcript, map_parts, mapping, messages_of, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Clock = Callable[[int], int]


def newest_ms(transcript: Transcript) -> int:
    """Return the newest time in the messages and their parts; that of the session's creation when there are none."""
    created = mapping(transcript["info"].get("time")).get("created", 0)
    return max(_times(messages_of(transcript)), default=int(created))


def shift(transcript: Transcript, delta_ms: int) -> Transcript:
    """Return a copy with `delta_ms` added to every time."""
    if delta_ms == 0:
        return transcript

    def later(time: int) -> int:
        return time + delta_ms

    messages = [_moved(message, later) for message in messages_of(transcript)]
    return {**transcript, "info": _retimed(transcript["info"], later), "messages": messages}


def outward_shift_ms(newest_ms: int, host_now_ms: int, margin_ms: int = 2000) -> int:
    """Return what to add (zero or less) so that the history ends `margin_ms` before the host's present.

    OpenCode 1.18 calls the model for ever, or ignores the prompt, where the history lies in the host's future.
    """
    return min(0, host_now_ms - margin_ms - newest_ms)


def in_order(messages: Sequence[Message]) -> list[Message]:
    """Return the messages with no time of creation behind the next message's: their order is what counts.

    A prompt that a server got twice has the time of its second post, behind its own answer (OpenCode 1.18).
    """
    ordered: list[Message] = []
    for message in reversed(messages):
        limit = ordered[-1]["info"]["time"]["created"] if ordered else message["info"]["time"]["created"]
        ordered.append(_not_after(message, limit))
    return ordered[::-1]


def fit(messages: Sequence[Message], *, delta_ms: int, after_ms: int, before_ms: int) -> list[Message]:
    """Return copies whose times are `delta_ms` later and lie between `after_ms` and `before_ms`, both excluded.

    Times that would lie outside are moved, and pressed together where the gap is shorter than they are, all by one
    map that keeps every order. Times of creation stay apart as long as the gap has a millisecond for each; below
    that, equal ones are ordered by id. With no gap at all everything lies one millisecond after `after_ms`.
    """
    times = sorted(set(_times(messages)))
    created = {int(message["info"]["time"]["created"]) for message in messages}
    moved = _placed([time + delta_ms for time in times], {time + delta_ms for time in created}, after_ms, before_ms)
    clock = dict(zip(times, moved, strict=True))
    return [_moved(message, lambda time: clock[time]) for message in messages]


def _not_after(message: Message, limit_ms: int) -> Message:
    info = message["info"]
    if info["time"]["created"] <= limit_ms:
        return message
    return {**message, "info": {**info, "time": {**info["time"], "created": limit_ms}}}


def _placed(times: list[int], created: set[int], after_ms: int, before_ms: int) -> list[int]:
    """Place ascending times into the gap; the result ascends too."""
    if not times:
        return []
    low, high = after_ms + 1, max(before_ms - 1, after_ms + 1)
    if times[-1] - times[0] <= high - low:
        move = max(low - times[0], 0) + min(high - times[-1], 0)
        return [time + move for time in times]
    return _pressed(times, _steps(times, created, high - low), low, high)


def _steps(times: list[int], created: set[int], room: int) -> list[int]:
    """How far each time must be from the one before, in milliseconds: one for all, for the created, or for none."""
    everywhere = [1] * (len(times) - 1)
    later_created = created - {min(created)}
    between_created = [int(later in later_created) for _, later in pairwise(times)]
    return next((steps for steps in (everywhere, between_created) if sum(steps) <= room), [0] * (len(times) - 1))


def _pressed(times: list[int], steps: list[int], low: int, high: int) -> list[int]:
    span, left = times[-1] - times[0], sum(steps)
    placed = [low]
    for time, step in zip(times[1:], steps, strict=True):
        left -= step
        proportional = low + (time - times[0]) * (high - low) // span
        placed.append(min(high - left, max(placed[-1] + step, proportional)))
    return placed


def _moved(message: Message, clock: Clock) -> Message:
    return map_parts({**message, "info": _retimed(message["info"], clock)}, lambda part: _part_moved(part, clock))


def _part_moved(part: Part, clock: Clock) -> Part:
    state = part.get("state")
    if part.get("type") == "tool" and isinstance(state, dict):
        part = {**part, "state": _retimed(state, clock)}
    return _retimed(part, clock)


def _retimed(holder: dict[str, Any], clock: Clock) -> dict[str, Any]:
    times = holder.get("time")
    if not isinstance(times, dict):
        return holder
    moved = {name: clock(int(value)) if _is_time(value) else value for name, value in times.items()}
    return {**holder, "time": moved}


def _times(messages: Iterable[Message]) -> Iterator[int]:
    for message in messages:
        yield from _times_in(message["info"])
        for part in parts_of(message):
            yield from _times_in(part)
            if part.get("type") == "tool":
                yield from _times_in(mapping(part.get("state")))


def _times_in(holder: dict[str, Any]) -> Iterator[int]:
    return (int(value) for value in mapping(holder.get("time")).values() if _is_time(value))


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
