"""The log that grows while a run is watched: whole or not at all, and never without bound."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.dispatch import Store
from remote_dispatch.dispatch.event_log import event_log
from remote_dispatch.runner.outcome import Outcome
from remote_dispatch.runner.status import RunStatus
from tests.dispatch.values import DISPATCH_ID, NOON, SESSION, stored

if TYPE_CHECKING:
    from pathlib import Path

OUTCOME = Outcome.model_validate({"dispatch": DISPATCH_ID, "session": SESSION, "started": True})
ENDED = RunStatus(exists=True, events_bytes=2000, outcome=OUTCOME)


def test_a_stream_without_an_end_does_not_fill_this_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "dispatches")
    folder = store.folder(stored(store, NOON).id)
    with event_log(folder, 0, limit_bytes=1000) as log:
        for _ in range(20):
            log.write(b"x" * 100)
        assert sum(path.stat().st_size for path in folder.path.glob("scratch-*")) <= 1000
        log.complete(ENDED)
    assert not folder.events.exists()


def test_what_is_whole_takes_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path / "dispatches")
    folder = store.folder(stored(store, NOON).id)
    with event_log(folder, 0) as log:
        log.write(b"x" * 2000)
        log.complete(ENDED)
    assert folder.events.read_bytes() == b"x" * 2000


@pytest.mark.parametrize("status", [RunStatus(exists=False), replace(ENDED, events_bytes=3000)])
def test_nothing_is_left_of_what_is_not_whole(tmp_path: Path, status: RunStatus) -> None:
    store = Store(tmp_path / "dispatches")
    folder = store.folder(stored(store, NOON).id)
    before = sorted(folder.path.iterdir())
    with event_log(folder, 0) as log:
        log.write(b"x" * 2000)
        log.complete(status)
    with event_log(folder, 2000) as log:
        log.write(b"y")
    assert sorted(folder.path.iterdir()) == before
