"""Asking and cancelling never undo what another command reached meanwhile."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.dispatch import Link, Store, ask, cancel
from remote_dispatch.errors import HostUnreachableError
from remote_dispatch.model import Collected, State
from tests.dispatch.machines import Pair
from tests.dispatch.values import NOON, a_host, stored

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.remote.connection import Connection


async def test_a_host_that_does_not_answer_leaves_an_end_that_was_reached_meanwhile(tmp_path: Path) -> None:
    store = Store(tmp_path / "dispatches")
    record = stored(store)
    record = store.update(record.id, lambda one: one.advance(State.RUNNING, datetime.now(UTC), run_directory="/run"))

    class Meanwhile(AbstractAsyncContextManager["Connection"]):
        """A way in that leads nowhere, while another command brings the dispatch home."""

        async def __aenter__(self) -> Connection:
            home = {"collected": Collected.WHOLE, "is_cleaned_up": True}
            store.update(record.id, lambda one: one.advance(State.DONE, datetime.now(UTC), **home))
            raise HostUnreachableError("box", "nothing is listening")

        async def __aexit__(self, *_: object) -> None:
            """Nothing was opened."""

    async with Link(a_host(), lambda host: Meanwhile()) as link:
        with pytest.raises(HostUnreachableError):
            await ask(record, link, store)
    kept = store.load(record.id)
    assert (kept.state, kept.collected, kept.unreachable_since) == (State.DONE, Collected.WHOLE, None)


async def test_what_was_copied_since_a_cancel_looked_is_removed_too(tmp_path: Path) -> None:
    pair = Pair.at(tmp_path)
    seen = pair.record()
    pair.store.update(seen.id, lambda one: one.advance(State.STAGING, NOON))
    run = pair.put_run(seen, started=False, outcome=False)
    async with pair.there.link() as link:
        cancelled = await cancel(seen, link, pair.store)
    assert (cancelled.state, cancelled.is_cleaned_up) == (State.CANCELLED, True)
    assert not run.exists()
