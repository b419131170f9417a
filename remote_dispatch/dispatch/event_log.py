"""Keeps a run's events on this machine while they are shown, so that they need not travel a second time for `logs`."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from remote_dispatch.errors import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from remote_dispatch.dispatch.store import Folder
    from remote_dispatch.runner.status import RunStatus


LIMIT_BYTES = 256 * 1024 * 1024
"""A larger log is not kept here."""


class EventLog:
    """A log that grows beside its place and takes it once it is whole.

    It is a convenience: where it grows absurdly, or the disk takes no more, nothing is kept here, and the events are
    fetched later, if at all.
    """

    def __init__(self, target: Path, part: Path, file: IO[bytes] | None, limit_bytes: int) -> None:
        self._target = target
        self._part = part
        self._file = file
        self._limit_bytes = limit_bytes

    def write(self, chunk: bytes) -> None:
        """Add what comes behind the last chunk."""
        if self._file is not None:
            try:
                self._file.write(chunk)
                if self._file.tell() <= self._limit_bytes:
                    return
            except OSError:
                pass
            self._give_up()

    def _give_up(self) -> None:
        _remove(self._part)
        self._file = None

    def complete(self, status: RunStatus) -> None:
        """Put it in its place if the run has ended and all of its events are here."""
        if self._file is None or status.outcome is None:
            return
        with suppress(OSError):
            self._file.flush()
            if 0 < self._file.tell() == status.events_bytes:
                self._part.replace(self._target)


@contextmanager
def event_log(folder: Folder, offset: int, *, limit_bytes: int = LIMIT_BYTES) -> Iterator[EventLog]:
    """Open the log of this command for events from `offset` on; after a lost connection the same one goes on."""
    part = folder.scratch(f"events-{os.getpid()}")
    file = _opened(part, offset)
    try:
        yield EventLog(folder.events, part, file, limit_bytes)
    except ConnectionLostError:
        raise
    except BaseException:
        _remove(part)
        raise
    else:
        _remove(part)
    finally:
        if file is not None:
            with suppress(OSError):
                file.close()


def _opened(part: Path, offset: int) -> IO[bytes] | None:
    """Open what was kept, at that byte; nothing where less was kept, or it cannot be opened."""
    try:
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b", buffering=0)
    except OSError:
        return None
    if file.seek(0, os.SEEK_END) < offset:
        file.close()
        _remove(part)
        return None
    file.seek(offset)
    file.truncate()
    return file


def _remove(part: Path) -> None:
    with suppress(OSError):
        part.unlink(missing_ok=True)
