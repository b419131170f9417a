"""The log that grows while a run is watched: whole or not at all, and never without bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch.dispatch import Store
from remote_dispatch.dispatch.event_log import event_log
from remote_dispatch.runner.status import RunStatus
from tests.dispatch.values import NOON, stored

if TYPE_CHECKING:
    from pathlib import Path


def test_a_stream_without_an_end_does_not_fill_this_disk(tmp_path: Path) -> None:
    store = Store(tmp_path / "dispatches")
    folder = store.folder(stored(store, NOON).id)
    with event_log(folder, 0, limit_bytes=1000) as log:
        for _ in range(20):
            log.write(b"x" * 100)
        assert sum(path.stat().st_size for path in folder.path.glob("scratch-*")) <= 1000
        log.complete(RunStatus(exists=True, events_bytes=2000))
    assert not folder.events.exists()
