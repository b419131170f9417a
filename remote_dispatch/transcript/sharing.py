"""Let copies of one conversation share what is equal in them: three of 100 MB then cost little more than one."""

from __future__ import annotations

import marshal
from typing import TYPE_CHECKING, Any

from remote_dispatch.transcript.shape import Message, Transcript, id_of, messages_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

_WITHOUT_REFERENCES: Final = 2
"""A version of marshal's format in which the bytes depend on nothing but the value."""


def alike(*others: Transcript | None) -> Callable[[Message], Message]:
    """Return what makes the values of a message, read a moment ago, the same objects as equal ones of `others`.

    For `read(..., each=...)`: the message itself is changed where it differs. A message that is equal in every respect,
    order and types included, becomes the very message of the first of `others` that has it.
    """
    known = {id_of(message): message for other in reversed(others) if other for message in messages_of(other)}

    def one(message: Message) -> Message:
        other = known.get(id_of(message))
        return other if other is not None and _is_same(message, other) else _shared(message, other)

    return one


def _is_same(value: Message, known: Message) -> bool:
    """Whether both are the same JSON. For `==` alone True is 1, and 1 is 1.0; marshal keeps them apart, and is fast.

    What is too deep for one of them is not called the same: Python 3.13's parser goes deeper than marshal.
    """
    try:
        return value == known and marshal.dumps(value, _WITHOUT_REFERENCES) == marshal.dumps(known, _WITHOUT_REFERENCES)
    except (RecursionError, ValueError):
        return False


def _shared(value: Any, known: Any) -> Any:
    """Return `known` where both are the same JSON, otherwise `value` with the objects that they have in common."""
    if type(value) is not type(known):
        return value
    try:
        if isinstance(value, dict):
            return _shared_object(value, known)
        if isinstance(value, list):
            return _shared_list(value, known)
    except RecursionError:
        return value
    # 0.0 is equal to -0.0, and not the same.
    return known if value == known and (value or not isinstance(value, float)) else value


def _shared_object(value: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    for name in value.keys() & known.keys():
        value[name] = _shared(value[name], known[name])
    is_same = list(value) == list(known) and all(value[name] is known[name] for name in value)
    return known if is_same else value


def _shared_list(value: list[Any], known: list[Any]) -> list[Any]:
    value[: len(known)] = [_shared(one, other) for one, other in zip(value, known, strict=False)]
    is_same = len(value) == len(known) and all(one is other for one, other in zip(value, known, strict=True))
    return known if is_same else value
