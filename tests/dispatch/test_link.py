"""One connection to a host: opened once, and anew after a loss, with patience."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.dispatch.link import LONGEST_DELAY_S, Link
from remote_dispatch.errors import AuthenticationError, HostUnreachableError
from remote_dispatch.remote.local import LocalConnection
from tests.dispatch.values import a_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from remote_dispatch.errors import RemoteDispatchError
    from remote_dispatch.model import Host


class Way:
    """A way in that fails as often as it is told, and notes what happens."""

    def __init__(self, *failures: RemoteDispatchError) -> None:
        self.failures = list(failures)
        self.events: list[str] = []
        self.delays: list[float] = []

    @asynccontextmanager
    async def connect(self, host: Host) -> AsyncIterator[LocalConnection]:
        if self.failures:
            raise self.failures.pop(0)
        self.events.append(f"open {host.name}")
        yield LocalConnection()
        self.events.append("close")

    async def sleep(self, delay_s: float) -> None:
        self.delays.append(delay_s)

    def link(self) -> Link:
        return Link(a_host(), self.connect, sleep=self.sleep)


async def test_steps_share_one_connection_which_is_closed_at_the_end() -> None:
    way = Way()
    async with way.link() as link:
        assert await link.connection() is await link.connection()
        assert way.events == ["open box"]
    assert way.events == ["open box", "close"]


async def test_nothing_is_opened_before_it_is_needed() -> None:
    way = Way()
    async with way.link():
        pass
    assert way.events == []


async def test_what_failed_in_the_background_is_told_once_and_then_tried_anew() -> None:
    way = Way(HostUnreachableError("box", "no route"))
    async with way.link() as link:
        link.begin()
        await asyncio.sleep(0)
        assert not way.failures
        with pytest.raises(HostUnreachableError):
            await link.connection()
        await link.connection()
    assert way.events == ["open box", "close"]


async def test_a_dropped_connection_is_closed_and_opened_anew() -> None:
    way = Way()
    async with way.link() as link:
        first = await link.connection()
        await link.drop()
        assert await link.connection() is not first
    assert way.events == ["open box", "close", "open box", "close"]


async def test_delays_grow_with_jitter_up_to_half_a_minute() -> None:
    way = Way(*(HostUnreachableError("box", "no route") for _ in range(12)))
    heard: list[HostUnreachableError] = []
    async with way.link() as link:
        await link.again(heard.append, patience_s=60)
    assert len(heard) == len(way.delays) == 12
    full = [min(0.5 * 2**number, LONGEST_DELAY_S) for number in range(12)]
    assert all(whole / 2 <= delay <= whole for delay, whole in zip(way.delays, full, strict=True))
    assert way.delays[-1] > way.delays[0]
    assert any(later / earlier not in (1, 2) for earlier, later in pairwise(way.delays))


async def test_patience_has_an_end_and_the_last_failure_is_told() -> None:
    way = Way(HostUnreachableError("box", "first"), HostUnreachableError("box", "last"))
    async with way.link() as link:
        with pytest.raises(HostUnreachableError, match="first"):
            await link.again(lambda _: None, patience_s=-1)


async def test_a_refused_login_is_not_tried_again() -> None:
    way = Way(AuthenticationError("box", "no key was accepted"))
    async with way.link() as link:
        with pytest.raises(AuthenticationError):
            await link.again(lambda _: None, patience_s=60)
    assert way.delays == []
