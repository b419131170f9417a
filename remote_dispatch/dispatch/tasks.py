"""Several things at the same time, where the first failure ends all and is raised as itself, never in a group."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from remote_dispatch.errors import RemoteDispatchError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

A = TypeVar("A")
B = TypeVar("B")


async def together(first: Coroutine[None, None, A], second: Coroutine[None, None, B]) -> tuple[A, B]:
    """Return both results."""
    with as_itself():
        async with asyncio.TaskGroup() as group:
            one, other = group.create_task(first), group.create_task(second)
    return one.result(), other.result()


@contextmanager
def as_itself() -> Iterator[None]:
    """Raise the first error of a group, ours before others."""
    try:
        yield
    except BaseExceptionGroup as errors:
        ours = errors.subgroup(RemoteDispatchError)
        raise _first(ours or errors) from None


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
