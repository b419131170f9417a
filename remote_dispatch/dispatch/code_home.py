"""The code comes home: what the host packed, checked in a quarantine, as one branch. Nothing else here changes."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.journal import journaled
from remote_dispatch.dispatch.report import Step
from remote_dispatch.dispatch.settle import is_code_due
from remote_dispatch.dispatch.stages import path_of
from remote_dispatch.errors import (
    CommandError,
    ConfigurationError,
    ConnectionLostError,
    HostNotReadyError,
    IntegrityError,
    RemoteDispatchError,
)
from remote_dispatch.model import Carried, CodeHome
from remote_dispatch.runner import directory as names
from remote_dispatch.runner.scripts import script
from remote_dispatch.runner.status import parse_partial
from remote_dispatch.text import clean
from remote_dispatch.workspace.arrival import receive_archive, receive_bundle
from remote_dispatch.workspace.changes import diffstat
from remote_dispatch.workspace.claim import read_claim
from remote_dispatch.workspace.git import find_git
from remote_dispatch.workspace.landing import Landed, land
from remote_dispatch.workspace.repository import adopt_directory, find_repository
from remote_dispatch.workspace.snapshot import read_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.passage import Passage
    from remote_dispatch.dispatch.store import Folder, Store
    from remote_dispatch.model import Dispatch
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.workspace.arrival import Arrived
    from remote_dispatch.workspace.changes import Diffstat
    from remote_dispatch.workspace.claim import Claim
    from remote_dispatch.workspace.repository import Repository
    from remote_dispatch.workspace.snapshot import Snapshot

CODE_LIMIT_BYTES = 4 * 1024 * 1024 * 1024
SMALL_LIMIT_BYTES = 1024 * 1024
DOWNLOAD_TIMEOUT_S = 3600.0
PACK_TIMEOUT_S = 1800.0
STAT_FILES = 40


@dataclass(frozen=True, slots=True)
class Brought:
    """What was downloaded, with the digests that the host wrote down."""

    claim: Claim
    file: Path | None
    """The bundle or archive; None where nothing was to be packed."""
    left_there: tuple[str, ...] = ()
    """Names of files that the host could not send, as it says."""


async def bring_code(passage: Passage) -> bool:
    """Bring what the run made of the code; False when the host could not pack it, now neither. Again does nothing.

    Raises IntegrityError for what is damaged or not acceptable, ConfigurationError where the repository here is gone:
    the host keeps its copy.
    """
    async with passage.store.held(f"code-{passage.dispatch_id}"), journaled("code", passage.dispatch_id, passage.store):
        record = passage.record
        if not is_code_due(record):
            return True
        passage.report(Step("code", f"bringing the code from {record.host}", record.name))
        connection = await passage.connection()
        run = PurePosixPath(path_of(record))
        with _safe_there(record):
            brought = await _downloaded(connection, record, passage.folder, run)
            if brought is None:
                place = await _packed_now(connection, record)
                brought = await _downloaded(connection, record, passage.folder, run / place) if place else None
            if brought is None:
                passage.update(_lost)
                return False
            code = await _received(record, passage.folder, brought, is_partial=False)
        passage.update(lambda current: _with_code(current, code))
        return True


async def bring_partial(record: Dispatch, link: Link, store: Store) -> Dispatch:
    """Bring the code as it is at this moment, while the run goes on. What runs there notices nothing.

    Raises HostNotReadyError when the host cannot pack it, and what `bring_code` raises.
    """
    async with store.held(f"code-{record.id}"):
        record = store.load(record.id)
        if not is_code_due(record):
            return record
        connection = await link.connection()
        place = await _packed_now(connection, record)
        run = PurePosixPath(path_of(record))
        brought = await _downloaded(connection, record, store.folder(record.id), run / place) if place else None
        if brought is None:
            raise HostNotReadyError(
                record.host,
                f"the code of `{record.name}` could not be packed there",
                hint=f"it is there in {record.code.directory if record.code else record.remote_directory}",
            )
        with _safe_there(record):
            code = await _received(record, store.folder(record.id), brought, is_partial=True)
        return store.update(record.id, lambda current: _with_code(current, code))


@contextmanager
def _safe_there(record: Dispatch) -> Iterator[None]:
    """Whatever fails on this machine, the error says where the work is."""
    safe = f"the code is safe on {record.host}; try again with `remote-dispatch collect {record.name}`"
    try:
        yield
    except ConnectionLostError:
        raise
    except RemoteDispatchError as error:
        if isinstance(error, CommandError) and "No space left" in error.output:
            raise _refused_here("no space left on device", record, safe) from error
        error.hint = error.hint or safe
        raise
    except OSError as error:
        raise _refused_here((error.strerror or type(error).__name__).lower(), record, safe) from error


def _refused_here(why: str, record: Dispatch, safe: str) -> ConfigurationError:
    top = record.code.top if record.code else "."
    return ConfigurationError(
        f"this machine: {why}", hint=f"is there space, and may you write, in `{top}` and in `~/.local/state`? {safe}"
    )


async def _packed_now(connection: Connection, record: Dispatch) -> str | None:
    """Have the host pack the tree as it is; return the directory in the run directory, None when it cannot."""
    completed = await connection.run(script("partial"), path_of(record), record.id, timeout_s=PACK_TIMEOUT_S)
    try:
        return parse_partial(completed.stdout).directory
    except ValueError:
        return None


async def _downloaded(connection: Connection, record: Dispatch, folder: Folder, there: PurePosixPath) -> Brought | None:
    """Bring the files and compare their digests; None where the host could not pack them."""
    code = record.code
    assert code is not None
    folder.code.mkdir(mode=0o700, exist_ok=True)
    sums = await _sums(connection, folder, there)
    if names.BACK_CODE not in sums:
        return None
    claim = await _fetched(connection, there, names.BACK_CODE, folder, sums, limit_bytes=SMALL_LIMIT_BYTES)
    name = names.BACK_BUNDLE if code.is_bundle else names.BACK_ARCHIVE
    file = None
    if name in sums:
        file = await _fetched(connection, there, name, folder, sums, limit_bytes=CODE_LIMIT_BYTES)
    read = read_claim(await asyncio.to_thread(claim.read_bytes))
    return Brought(read, file, await _named(connection, folder, there) if read.left_out else ())


async def _named(connection: Connection, folder: Folder, there: PurePosixPath) -> tuple[str, ...]:
    """For people only: nothing depends on it."""
    target = folder.code / "left-out.part"
    try:
        await connection.download(there / names.BACK_LEFT_OUT, target, limit_bytes=SMALL_LIMIT_BYTES, timeout_s=60.0)
    except (FileNotFoundError, IntegrityError):
        return ()
    lines = target.read_text(encoding="utf-8", errors="replace").splitlines()
    target.unlink()
    return tuple(clean(line, 200) for line in lines[:STAT_FILES])


async def _received(record: Dispatch, folder: Folder, brought: Brought, *, is_partial: bool) -> Carried:
    """Check what was brought, and make it the branch of the dispatch. Returns what the record keeps of it."""
    code = record.code
    assert code is not None
    repository, snapshot = await opened(record, folder)
    if code.is_bundle:
        arrived = await receive_bundle(repository, snapshot, brought.file, brought.claim, folder.code)
    elif brought.file is None:
        raise IntegrityError(f"{record.host}: the archive of the code is missing there")
    else:
        arrived = await receive_archive(repository, snapshot, brought.file, brought.claim, folder.code)
    previous = Landed(code.branch, code.result) if code.branch and code.result else None
    # Without a repository here the result stays in ours, where `diff` and `apply` find it.
    landed = await land(repository, arrived, record.name, previous) if code.is_repository else None
    return code.model_copy(
        update={
            "home": _state(arrived, is_partial=is_partial),
            "result": arrived.result,
            "branch": landed.branch if landed else code.branch,
            "stat": _shown(await diffstat(repository.git, arrived)) if arrived.is_changed else "",
            "further": tuple(sorted(arrived.branches)),
            "not_taken": (*brought.left_there, *_not_taken(arrived)),
            "left_there": brought.claim.left_out,
        }
    )


async def opened(record: Dispatch, folder: Folder) -> tuple[Repository, Snapshot]:
    """Return the repository here and the snapshot that left. Raises ConfigurationError where one of them is gone."""
    code = record.code
    assert code is not None
    top = Path(code.top)
    git = await find_git()
    repository = None
    if await asyncio.to_thread(top.is_dir):
        repository = await (find_repository(git, top) if code.is_repository else adopt_directory(git, top, folder.code))
    if repository is None or repository.top != top:
        raise ConfigurationError(
            f"the code of `{record.name}` came from {top}, and no repository is there any more",
            hint=f"put it back there, then run `remote-dispatch collect {record.name}`; what came of it is kept",
        )
    snapshot = await read_snapshot(repository, folder.code)
    if snapshot is None:
        raise ConfigurationError(
            f"what `{record.name}` needs to know of the code that left is gone from {folder.code}",
            hint=f"the host keeps the work in {code.directory}",
        )
    return repository, snapshot


async def _sums(connection: Connection, folder: Folder, there: PurePosixPath) -> dict[str, str]:
    # Not among the scratch files: those go when another command has merged.
    target = folder.code / "sums.part"
    try:
        await connection.download(there / names.BACK_SUMS, target, limit_bytes=SMALL_LIMIT_BYTES, timeout_s=60.0)
    except FileNotFoundError:
        return {}
    lines = target.read_text(encoding="utf-8", errors="replace").splitlines()
    target.unlink()
    return {name: digest for digest, separator, name in (line.partition("  ") for line in lines) if separator}


async def _fetched(
    connection: Connection,
    there: PurePosixPath,
    name: str,
    folder: Folder,
    sums: dict[str, str],
    *,
    limit_bytes: int,
) -> Path:
    """Download one file; what an earlier try brought is used, and where it turns out wrong, all comes anew."""
    target = folder.code / name
    if target.exists() and await asyncio.to_thread(_digest, target) == sums[name]:
        return target
    for is_resumed in (True, False):
        try:
            await connection.download(
                there / name,
                target,
                limit_bytes=limit_bytes,
                timeout_s=DOWNLOAD_TIMEOUT_S,
                is_resumed=is_resumed,
            )
        except FileNotFoundError as error:
            raise IntegrityError(
                f"{connection.name}: `{name}` is missing there", hint="was something removed there by hand?"
            ) from error
        if await asyncio.to_thread(_digest, target) == sums[name]:
            return target
    target.unlink()
    raise IntegrityError(
        f"{connection.name}: `{name}` differs from what was written there",
        hint="collect it again: the host keeps its copy",
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _state(arrived: Arrived, *, is_partial: bool) -> CodeHome:
    if is_partial:
        return CodeHome.PARTIAL
    return CodeHome.HOME if arrived.is_changed else CodeHome.UNCHANGED


def _shown(stat: Diffstat) -> str:
    lines = [f"{clean(one.path, 200)} +{one.added or 0} -{one.removed or 0}" for one in stat.files[:STAT_FILES]]
    more = len(stat.files) - STAT_FILES
    count = "1 file" if len(stat.files) == 1 else f"{len(stat.files)} files"
    total = f"{count}, +{stat.added} -{stat.removed}"
    return "\n".join([*lines, *([f"and {more} more"] if more > 0 else []), total])


def _not_taken(arrived: Arrived) -> tuple[str, ...]:
    named = tuple(clean(one, 200) for one in arrived.refused[:STAT_FILES])
    return (*named, f"{arrived.left_out} files that are ignored, or stayed there") if arrived.left_out else named


def _with_code(record: Dispatch, code: Carried) -> Dispatch:
    """Note what is home, with what the user should know of it."""
    warnings = [text for text in record.warnings if text != _not_packed(record)]
    if code.further:
        warnings.append(f"further branches were made there: {', '.join(code.further)}; `show` says how to get them")
    if code.left_there:
        warnings.append(
            f"{code.left_there} files of the code are only on {record.host}, in {code.directory}; "
            f"`remote-dispatch remove {record.name}` gives them up"
        )
    return record.but(code=code, warnings=tuple(dict.fromkeys(warnings)))


def _lost(record: Dispatch) -> Dispatch:
    assert record.code is not None
    code = record.code.model_copy(update={"home": CodeHome.LOST})
    return record.but(code=code, warnings=tuple(dict.fromkeys((*record.warnings, _not_packed(record)))))


def _not_packed(record: Dispatch) -> str:
    where = record.code.directory if record.code else ""
    return f"the code could not be packed on {record.host}; it is there, in {where}"
