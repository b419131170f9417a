"""Two things at the same time, where the first failure ends both and is raised as itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from remote_dispatch.errors import RemoteDispatchError

if TYPE_CHECKING:
    from collections.abc import Coroutine

A = TypeVar("A")
B = TypeVar("B")


async def together(first: Coroutine[None, None, A], second: Coroutine[None, None, B]) -> tuple[A, B]:
    """Return both results. Callers meet the error itself, never a group of errors."""
    try:
        async with asyncio.TaskGroup() as group:
            one, other = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as errors:
        ours = errors.subgroup(RemoteDispatchError)
        raise (ours or errors).exceptions[0] from None
    return one.result(), other.result()
