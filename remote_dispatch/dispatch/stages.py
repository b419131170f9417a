"""The steps on the host, one remote command each: stage in, launch, look, cancel, clean up."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from remote_dispatch.errors import ConnectionLostError, HostNotReadyError, IntegrityError, TaskFailedError
from remote_dispatch.runner.scripts import script
from remote_dispatch.runner.status import LaunchState, parse_clean, parse_launch, parse_status, parse_told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from remote_dispatch.model import Dispatch
    from remote_dispatch.remote.connection import Completed, Connection
    from remote_dispatch.runner.status import RunStatus

T = TypeVar("T")

STATUS_TIMEOUT_S = 60.0
"""Longer than it takes to notice that the link is dead."""
EVENTS_TIMEOUT_S = 300.0
UPLOAD_TIMEOUT_S = 3600.0
LAUNCH_WAIT_S = 600
CANCEL_WAIT_S = 120

PROBLEMS = {
    "opencode-missing": "OpenCode is not there any more",
    "directory": "the working directory can neither be entered nor made",
    "code-refused": "the code that travelled along could not be unpacked there",
    "import-refused": "OpenCode there refused the session",
    "import-unproved": "OpenCode there said it imported the session, but does not have it whole",
    "no-space": "no space is left on the disk there",
    "terminated": "the runner was ended",
    "export-failed": "OpenCode there could not export the session afterwards",
}
"""What the runner's words for a problem mean."""


async def stage_in(
    connection: Connection, record: Dispatch, files: Mapping[str, bytes | Path], *, is_resumed: bool
) -> None:
    """Copy everything the runner needs; the launcher checks it against the manifest."""
    run_directory = PurePosixPath(path_of(record))
    await connection.upload(run_directory, files, timeout_s=UPLOAD_TIMEOUT_S, is_resumed=is_resumed)


async def launch(connection: Connection, record: Dispatch) -> LaunchState:
    """Start the runner, detached, and return once the import is proved and the brief runs, or the runner has ended.

    A second launch of the same dispatch does nothing. Raises HostNotReadyError when no runner came up.
    """
    state = await _launched(connection, record)
    if state in (LaunchState.FAILED, LaunchState.ABSENT):
        raise HostNotReadyError(
            record.host, "the runner did not start", hint="is the home directory there full, or read-only?"
        )
    return state


async def recover(connection: Connection, record: Dispatch) -> None:
    """Start a runner that only exports what OpenCode has of a run that left no result. Again does nothing."""
    if await _launched(connection, record, "recover") in (LaunchState.FAILED, LaunchState.ABSENT):
        raise HostNotReadyError(
            record.host,
            "no runner came up to export the session again",
            hint="is the home directory there full, or read-only?",
        )


async def _launched(connection: Connection, record: Dispatch, *what: str) -> LaunchState:
    values = (path_of(record), str(LAUNCH_WAIT_S), *what)
    completed = await connection.run(script("launch"), *values, timeout_s=LAUNCH_WAIT_S + 60.0)
    return _read(record, completed, lambda: parse_launch(completed.stdout))


async def look(connection: Connection, record: Dispatch) -> RunStatus:
    """Ask what the run directory shows."""
    completed = await connection.run(script("status"), path_of(record), timeout_s=STATUS_TIMEOUT_S)
    return _read(record, completed, lambda: parse_status(completed.stdout, record.id))


async def events_of(connection: Connection, record: Dispatch) -> bytes:
    """Return OpenCode's events so far."""
    completed = await connection.run(script("tail"), path_of(record), "0", timeout_s=EVENTS_TIMEOUT_S)
    if completed.exit_status != 0:
        raise TaskFailedError(f"{record.host}: the run directory of `{record.name}` is gone", hint="nothing runs there")
    return completed.stdout


async def stop(connection: Connection, record: Dispatch) -> RunStatus:
    """End the runner with all its processes and return what the run directory shows then: it still exports."""
    completed = await connection.run(
        script("cancel"), path_of(record), str(CANCEL_WAIT_S), timeout_s=CANCEL_WAIT_S + 60.0
    )
    return _read(record, completed, lambda: parse_status(completed.stdout, record.id))


async def end_turn(connection: Connection, record: Dispatch, *, is_good: bool) -> None:
    """Tell the runner of a live dispatch that its turn is over: it exports now. Again changes nothing."""
    values = (path_of(record), "0" if is_good else "1")
    completed = await connection.run(script("end"), *values, timeout_s=STATUS_TIMEOUT_S)
    _read(record, completed, lambda: parse_told(completed.stdout))


async def clean_up(connection: Connection, record: Dispatch, *, is_unbegun: bool = False) -> bool:
    """Remove the run directory; False when the host keeps it, because something lives there.

    With `is_unbegun` it is kept, too, where OpenCode was started after all.
    """
    word = ("unbegun",) if is_unbegun else ()
    completed = await connection.run(script("clean"), path_of(record), record.id, *word, timeout_s=60.0)
    return _read(record, completed, lambda: parse_clean(completed.stdout)) is None


def _read(record: Dispatch, completed: Completed, parse: Callable[[], T]) -> T:
    """Read what a script said. One that was killed, as at a shutdown, says half of it: that is a lost connection."""
    try:
        return parse()
    except ValueError as error:
        if completed.exit_status != 0:
            raise ConnectionLostError(record.host, "a command was ended there before it had answered") from error
        raise IntegrityError(
            f"{record.host}: what its run directory shows makes no sense", hint="was something changed there by hand?"
        ) from error


def path_of(record: Dispatch) -> str:
    """The run directory. Raises TaskFailedError for a dispatch that never reached its host."""
    if record.run_directory is None:
        raise TaskFailedError(
            f"dispatch `{record.name}` never reached {record.host}", hint="nothing ran; send the session again"
        )
    return record.run_directory
