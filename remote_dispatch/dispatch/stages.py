"""The steps on the host, one remote command each: stage in, launch, look, cancel, clean up."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from remote_dispatch.dispatch.tasks import as_itself
from remote_dispatch.errors import (
    ConnectionLostError,
    DeadlinePassedError,
    HostNotReadyError,
    IntegrityError,
    TaskFailedError,
)
from remote_dispatch.remote.connection import Completed
from remote_dispatch.runner.directory import PARCEL
from remote_dispatch.runner.parcel import fitting, parcel
from remote_dispatch.runner.scripts import script
from remote_dispatch.runner.status import (
    LIMIT_BYTES,
    LaunchState,
    RunStatus,
    parse_clean,
    parse_launch,
    parse_status,
    parse_told,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from remote_dispatch.model import Dispatch
    from remote_dispatch.remote.connection import Connection

T = TypeVar("T")

STATUS_TIMEOUT_S = 60.0
"""Longer than it takes to notice that the link is dead."""
EVENTS_TIMEOUT_S = 300.0
UPLOAD_TIMEOUT_S = 3600.0
LAUNCH_WAIT_S = 600
CANCEL_WAIT_S = 120
_WAITING = ("-",)
"""The launcher's values where it shall wait for them; see launch.sh."""


@dataclass(frozen=True, slots=True)
class Launched:
    """What a launch found or brought about, and what the run directory showed then, but for OpenCode's processes."""

    state: LaunchState
    status: RunStatus


def warm_up(connection: Connection) -> None:
    """Begin what staging and launching would wait for: SFTP, and a launcher that waits to be told."""
    connection.warm(script("launch"), *_WAITING)


@asynccontextmanager
async def stage_in(
    connection: Connection, record: Dispatch, files: Mapping[str, Path], *, is_resumed: bool
) -> AsyncIterator[None]:
    """Send everything the runner needs; enter the block when all is on its way, and leave it when all has arrived.

    What is small travels as one file, which the launcher takes apart and checks against the manifest.
    """
    run_directory = PurePosixPath(path_of(record))
    parcels = await asyncio.to_thread(_parcelled, files)
    is_gone = asyncio.Event()
    with as_itself():
        async with asyncio.TaskGroup() as group:
            upload = connection.upload(
                run_directory, parcels, timeout_s=UPLOAD_TIMEOUT_S, is_resumed=is_resumed, on_gone=is_gone.set
            )
            group.create_task(upload).add_done_callback(lambda _: is_gone.set())
            await is_gone.wait()
            yield


async def stage_each(connection: Connection, record: Dispatch, files: Mapping[str, Path]) -> None:
    """Copy every file by itself, whatever is there already: the way for a host where a parcel did not arrive whole."""
    await connection.upload(PurePosixPath(path_of(record)), files, timeout_s=UPLOAD_TIMEOUT_S)


def _parcelled(files: Mapping[str, Path]) -> dict[str, bytes | Path]:
    small = fitting({name: path.stat().st_size for name, path in files.items()})
    large: dict[str, bytes | Path] = {name: path for name, path in files.items() if name not in small}
    return large | {PARCEL: parcel({name: files[name].read_bytes() for name in files if name in small})}


async def launch(connection: Connection, record: Dispatch, *, has_parcel: bool = False) -> Launched:
    """Start the runner, detached, and return once the import is proved and the brief runs, or the runner has ended.

    A second launch of the same dispatch does nothing. With `has_parcel` nothing begins before the parcel is there and
    taken apart. Raises HostNotReadyError when no runner came up.
    """
    completed = await _told(connection, path_of(record), str(LAUNCH_WAIT_S), "1" if has_parcel else "0")
    launched = read_answer(
        record, completed, lambda: Launched(parse_launch(completed.stdout), parse_status(completed.stdout, record.id))
    )
    if launched.state in (LaunchState.FAILED, LaunchState.ABSENT):
        raise HostNotReadyError(
            record.host, "the runner did not start", hint="is the home directory there full, or read-only?"
        )
    return launched


async def _told(connection: Connection, *values: str) -> Completed:
    """Tell a launcher what to launch; one that waits for it is used."""
    limit_s = LAUNCH_WAIT_S + 60.0
    try:
        async with asyncio.timeout(limit_s), connection.converse(script("launch"), *_WAITING) as launcher:
            await launcher.write("".join(f"{value}\n" for value in values).encode("utf-8", "surrogateescape"))
            launcher.write_eof()
            said = bytearray()
            async for chunk in launcher.stdout():
                said += chunk
                del said[:-LIMIT_BYTES]
            return Completed(await launcher.wait(), bytes(said), b"")
    except TimeoutError:
        raise DeadlinePassedError(
            f"{connection.name}: the launch did not end in {limit_s:g} s and may still go on there",
            hint="nothing runs twice: `remote-dispatch resume` carries on",
        ) from None


async def recover(connection: Connection, record: Dispatch) -> None:
    """Start a runner that only exports what OpenCode has of a run that left no result. Again does nothing."""
    values = (path_of(record), str(LAUNCH_WAIT_S), "recover")
    completed = await connection.run(script("launch"), *values, timeout_s=LAUNCH_WAIT_S + 60.0)
    state = read_answer(record, completed, lambda: parse_launch(completed.stdout))
    if state in (LaunchState.FAILED, LaunchState.ABSENT):
        raise HostNotReadyError(
            record.host,
            "no runner came up to export the session again",
            hint="is the home directory there full, or read-only?",
        )


async def look(connection: Connection, record: Dispatch) -> RunStatus:
    """Ask what the run directory shows."""
    completed = await connection.run(script("status"), path_of(record), timeout_s=STATUS_TIMEOUT_S)
    return read_answer(record, completed, lambda: parse_status(completed.stdout, record.id))


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
    return read_answer(record, completed, lambda: parse_status(completed.stdout, record.id))


async def end_turn(connection: Connection, record: Dispatch, *, is_good: bool) -> None:
    """Tell the runner of a live dispatch that its turn is over: it exports now. Again changes nothing."""
    values = (path_of(record), "0" if is_good else "1")
    completed = await connection.run(script("end"), *values, timeout_s=STATUS_TIMEOUT_S)
    read_answer(record, completed, lambda: parse_told(completed.stdout))


async def clean_up(connection: Connection, record: Dispatch, *, is_unbegun: bool = False) -> bool:
    """Remove the run directory; False when the host keeps it, because something lives there.

    With `is_unbegun` it is kept, too, where OpenCode was started after all.
    """
    word = ("unbegun",) if is_unbegun else ()
    completed = await connection.run(script("clean"), path_of(record), record.id, *word, timeout_s=60.0)
    return read_answer(record, completed, lambda: parse_clean(completed.stdout)) is None


def read_answer(record: Dispatch, completed: Completed, parse: Callable[[], T]) -> T:
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
