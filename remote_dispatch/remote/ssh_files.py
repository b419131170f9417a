"""Files over SSH: by SFTP, many at once; and the scripts that do the same where SFTP is missing or spoiled.

SFTP 3 has no word for a full disk: whatever fails there is done again by the shell, which says why.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, cast

import asyncssh

from remote_dispatch.errors import HostNotReadyError, IntegrityError, RemoteDispatchError
from remote_dispatch.remote.files import CHUNK_BYTES, PART, appearing, checked_name, chunks_of, parents_of, size_of
from remote_dispatch.remote.ssh_errors import REDACTION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
    from pathlib import Path, PurePosixPath
    from typing import Protocol

    class _Printing(Protocol):
        def stdout(self) -> AsyncIterator[bytes]: ...
        def stderr(self) -> AsyncIterator[bytes]: ...
        async def wait(self) -> int: ...


__all__ = [
    "CLEAN",
    "GET",
    "MAKE",
    "PUT",
    "SFTP_FAILED",
    "all_of",
    "checked",
    "chunks_of",
    "get",
    "place_error",
    "put",
    "save",
    "size_of",
]

SFTP_FAILED = asyncssh.SFTPError
MAKE = 'LC_ALL=C; export LC_ALL; umask 077; mkdir -p -- "$1"'
# The size proves that the link did not break under `cat`, which takes that for the end of the file.
PUT = """
LC_ALL=C; export LC_ALL; umask 077
mkdir -p -- "$1" && cd -- "$1" && mkdir -p -- "$2" && cd -- "$2" || exit 1
rm -f -- "./$3.part"
cat >"./$3.part" && chmod 600 "./$3.part" && [ "$(wc -c <"./$3.part")" -eq "$4" ] && mv -f -- "./$3.part" "./$3" && exit
rm -f -- "./$3.part"
exit 1
"""
CLEAN = 'cd -- "$1" 2>/dev/null || exit 0; shift; for name do rm -f -- "./$name.part"; done'
_MISSING, _TOO_LARGE = 44, 45
GET = f"""
[ -f "$1" ] || exit {_MISSING}
size=$(wc -c <"$1") || exit 1
[ "$size" -le "$2" ] || exit {_TOO_LARGE}
exec cat <"$1"
"""
_OPEN_FILES = 16


def checked(files: Mapping[str, bytes | Path]) -> dict[PurePosixPath, bytes | Path]:
    """Return the files by their checked names. Raises ValueError."""
    return {checked_name(name): source for name, source in files.items()}


async def put(sftp: asyncssh.SFTPClient, directory: PurePosixPath, files: Mapping[PurePosixPath, bytes | Path]) -> None:
    """Write files below a directory: 0600 from their first byte, beside, then renamed. Raises asyncssh's SFTPError."""
    await _make_all(sftp, directory)
    for parent in parents_of(files):
        await _make(sftp, directory / parent)
    limit = asyncio.Semaphore(_OPEN_FILES)

    async def one(name: PurePosixPath, source: bytes | Path) -> None:
        async with limit:
            await _put_one(sftp, str(directory / name), source)

    await all_of([one(name, source) for name, source in files.items()])


async def _put_one(sftp: asyncssh.SFTPClient, path: str, source: bytes | Path) -> None:
    private = asyncssh.SFTPAttrs(permissions=0o600)
    async with sftp.open(path + PART, "wb", attrs=private) as file:
        # A part that an earlier try left keeps its mode: say it again.
        await file.setstat(private)
        offset = 0
        for chunk in chunks_of(source):
            await file.write(chunk, offset)
            offset += len(chunk)
    await sftp.posix_rename(path + PART, path)


async def _make_all(sftp: asyncssh.SFTPClient, directory: PurePosixPath) -> None:
    if await sftp.isdir(str(directory)):
        return
    if directory.parent != directory:
        await _make_all(sftp, directory.parent)
    await _make(sftp, directory)


async def _make(sftp: asyncssh.SFTPClient, directory: PurePosixPath) -> None:
    try:
        await sftp.mkdir(str(directory), asyncssh.SFTPAttrs(permissions=0o700))
    except asyncssh.SFTPError:
        if not await sftp.isdir(str(directory)):
            raise


async def get(sftp: asyncssh.SFTPClient, name: str, source: PurePosixPath, target: Path, *, limit_bytes: int) -> None:
    """Read one regular file. Raises FileNotFoundError, IntegrityError, and asyncssh's SFTPError for everything else."""
    try:
        facts = await sftp.stat(str(source))
    except asyncssh.SFTPNoSuchFile as error:
        raise _missing(source) from error
    if facts.type != asyncssh.FILEXFER_TYPE_REGULAR:
        raise _missing(source)
    if facts.size is not None and facts.size > limit_bytes:
        raise _too_large(name, source, limit_bytes)
    async with sftp.open(str(source), "rb", encoding=None) as file:
        with appearing(target) as copy:
            offset = 0
            while chunk := cast("bytes", await file.read(CHUNK_BYTES, offset)):
                offset += len(chunk)
                if offset > limit_bytes:
                    raise _too_large(name, source, limit_bytes)
                copy.write(chunk)


async def save(channel: _Printing, name: str, source: PurePosixPath, target: Path, *, limit_bytes: int) -> None:
    """Write what `GET` prints. Raises FileNotFoundError, IntegrityError, HostNotReadyError."""
    with appearing(target) as copy:
        size = 0
        async for chunk in channel.stdout():
            size += len(chunk)
            if size > limit_bytes:
                raise _too_large(name, source, limit_bytes)
            copy.write(chunk)
        words = b"".join([chunk async for chunk in channel.stderr()])
        match await channel.wait():
            case 0:
                return
            case code if code == _MISSING:
                raise _missing(source)
            case code if code == _TOO_LARGE:
                raise _too_large(name, source, limit_bytes)
            case _:
                raise place_error(name, words)


def place_error(name: str, words: bytes) -> HostNotReadyError:
    """Return why a place on the host takes or gives no file, from what its tools said in the C locale."""
    text = words.decode(errors="replace")
    for sign, reason in (
        ("No space left", "no space left"),
        ("quota exceeded", "no space left, the quota is used up"),
        ("Read-only file system", "the file system is read-only"),
        ("Permission denied", "no permission to use the directory"),
        ("Not a directory", "a part of the path is not a directory"),
        ("File exists", "a part of the path is not a directory"),
    ):
        if sign in text:
            return HostNotReadyError(name, reason, hint="make room there, or choose another directory")
    cleaned = REDACTION.clean(re.sub(r"[^ -~]", " ", text).strip()[-200:])
    return HostNotReadyError(name, f"a file could not be moved: {cleaned}", hint="look at the directory there")


async def all_of(jobs: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run several things at once; the first error ends the others and is raised as itself, not as a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    ours = [error for error in errors.exceptions if isinstance(error, RemoteDispatchError)]
    first = (ours or errors.exceptions)[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _missing(source: PurePosixPath) -> FileNotFoundError:
    return FileNotFoundError(2, "no such file on the host", str(source))


def _too_large(name: str, source: PurePosixPath, limit_bytes: int) -> IntegrityError:
    return IntegrityError(f"{name}: `{source.name}` is larger than {limit_bytes} bytes")
