"""Several things at the same time: the first failure ends all and is raised as itself."""

from __future__ import annotations

import asyncio

import pytest

from remote_dispatch.dispatch.tasks import as_itself, together
from remote_dispatch.errors import HostUnreachableError, UsageError


async def _give(value: int) -> int:
    await asyncio.sleep(0)
    return value


async def _raise(error: BaseException) -> int:
    await asyncio.sleep(0)
    raise error


async def test_both_results_come_back_in_order() -> None:
    assert await together(_give(1), _give(2)) == (1, 2)


async def test_a_failure_ends_the_other_and_is_no_group() -> None:
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(HostUnreachableError, match="gone"):
        await together(_raise(HostUnreachableError("box", "gone")), hang())
    assert ended == ["cancelled"]


async def test_our_own_error_comes_before_a_foreign_one() -> None:
    with pytest.raises(UsageError, match="ours"):
        await together(_raise(KeyError("theirs")), _raise(UsageError("ours")))


async def test_a_foreign_error_stays_what_it_is() -> None:
    with pytest.raises(KeyError, match="theirs"):
        await together(_raise(KeyError("theirs")), _give(1))


async def test_being_cancelled_is_passed_on() -> None:
    began = asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(together(hang(), hang()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_groups_in_groups_are_opened() -> None:
    with pytest.raises(UsageError, match="deep"), as_itself():
        raise ExceptionGroup("outer", [KeyError("x"), ExceptionGroup("inner", [UsageError("deep")])])
