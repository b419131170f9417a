"""Files over SSH: by SFTP, many at once; and the scripts that do the same where SFTP is missing or spoiled.

SFTP 3 has no word for a full disk: whatever fails there is done again by the shell, which says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

import asyncssh

from remote_dispatch.errors import HostNotReadyError, IntegrityError, RemoteDispatchError
from remote_dispatch.remote.files import (
    BLOCK_BYTES,
    BLOCKS_IN_FLIGHT,
    LARGE_BYTES,
    PART,
    appearing,
    checked_name,
    chunks_of,
    parents_of,
    part_size,
    proved_bytes,
    size_of,
    told,
)
from remote_dispatch.remote.ssh_errors import REDACTION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path, PurePosixPath
    from typing import Protocol

    class _Printing(Protocol):
        def stdout(self) -> AsyncIterator[bytes]: ...
        def stderr(self) -> AsyncIterator[bytes]: ...
        async def wait(self) -> int: ...


T = TypeVar("T")

__all__ = [
    "BLOCK_BYTES",
    "CLEAN",
    "GET",
    "MAKE",
    "PUT",
    "SFTP_FAILED",
    "SIZES",
    "Bounds",
    "News",
    "all_of",
    "checked",
    "chunks_of",
    "get",
    "is_large",
    "part_size",
    "place_error",
    "proved_bytes",
    "put",
    "save",
    "size_of",
    "tell_nobody",
    "told",
]

SFTP_FAILED = asyncssh.SFTPError
MAKE = 'LC_ALL=C; export LC_ALL; umask 077; mkdir -p -- "$1"'
# The size proves that the link did not break under `cat`, which takes that for the end of the file. `dd` and not `>>`:
# should the writer of an earlier connection still have a piece to write, it writes the same bytes to the same place.
# It always talks, and where the link is gone it would die of that.
PUT = f"""
LC_ALL=C; export LC_ALL; umask 077
mkdir -p -- "$1" && cd -- "$1" && mkdir -p -- "$2" && cd -- "$2" || exit 1
if [ "$5" -gt 0 ]; then
  chmod 600 "./$3.part" && words=$(dd bs={BLOCK_BYTES} seek="$5" conv=notrunc of="./$3.part" 2>&1) ||
    {{ rm -f -- "./$3.part"; echo "$words" >&2; exit 1; }}
else
  rm -f -- "./$3.part"
  cat >"./$3.part" && chmod 600 "./$3.part" || {{ rm -f -- "./$3.part"; exit 1; }}
fi
[ "$(wc -c <"./$3.part")" -eq "$4" ] && mv -f -- "./$3.part" "./$3" && exit
[ "$4" -gt {LARGE_BYTES} ] || rm -f -- "./$3.part"
exit 1
"""
# Two lines a name: the size of the file and of its part, -1 for none.
SIZES = """
cd -- "$1" 2>/dev/null || exit 0
shift
for name do
  for file in "./$name" "./$name.part"; do
    { [ -f "$file" ] && wc -c <"$file"; } 2>/dev/null || echo -1
  done
done
"""
CLEAN = 'cd -- "$1" 2>/dev/null || exit 0; shift; for name do rm -f -- "./$name.part"; done'
_MISSING, _TOO_LARGE = 44, 45
GET = f"""
[ -f "$1" ] || exit {_MISSING}
size=$(wc -c <"$1") || exit 1
[ "$size" -le "$2" ] || exit {_TOO_LARGE}
exec tail -c "+$(($3 + 1))" <"$1"
"""
_OPEN_FILES = 16
_NEW = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL
_PRIVATE = asyncssh.SFTPAttrs(permissions=0o600)
_CLOSE_S = 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a download may do: bring so many bytes, and continue an earlier one."""

    limit_bytes: int
    is_resumed: bool = False


def checked(files: Mapping[str, bytes | Path]) -> dict[PurePosixPath, bytes | Path]:
    """Return the files by their checked names. Raises ValueError."""
    return {checked_name(name): source for name, source in files.items()}


def is_large(source: bytes | Path) -> bool:
    """Whether what an earlier, broken upload left of it is worth continuing."""
    return size_of(source) > LARGE_BYTES


@dataclass(frozen=True, slots=True)
class News:
    """Who is told how an upload goes on: of the bytes of each piece that arrived, and when all is on its way."""

    on_sent: Callable[[int], None]
    on_gone: Callable[[], None] | None = None


async def put(
    sftp: asyncssh.SFTPClient,
    directory: PurePosixPath,
    files: Mapping[PurePosixPath, bytes | Path],
    news: News,
    *,
    is_resumed: bool = False,
) -> None:
    """Write files below a directory: 0600 from their first byte, beside, then renamed. Raises asyncssh's SFTPError.

    With `is_resumed` a large file that is there is left alone, and a part of one is continued. `on_sent` is told of
    each block that arrived, and of what was there.
    """
    if _is_little(files):
        try:
            return await _put_at_once(sftp, directory, files, news)
        except asyncssh.SFTPError:
            pass  # What stood in the way, or a server that keeps no order: step by step it is found out.
    await _make_all(sftp, _places(directory, files))
    return await _put_each(sftp, directory, files, news, is_resumed=is_resumed)


def _is_little(files: Mapping[PurePosixPath, bytes | Path]) -> bool:
    return len(files) <= _OPEN_FILES and sum(map(size_of, files.values())) <= LARGE_BYTES


async def _put_each(
    sftp: asyncssh.SFTPClient,
    directory: PurePosixPath,
    files: Mapping[PurePosixPath, bytes | Path],
    news: News,
    *,
    is_resumed: bool,
) -> None:
    """Write files, each step of each when the one before it was answered."""
    tell = news.on_sent
    limit = asyncio.Semaphore(_OPEN_FILES)

    async def one(name: PurePosixPath, source: bytes | Path) -> None:
        async with limit:
            path = str(directory / name)
            start = 0
            if is_resumed and is_large(source):
                if await _size_there(sftp, path) == size_of(source):
                    tell(size_of(source))
                    return await _remove(sftp, path + PART)
                start = proved_bytes(await _size_there(sftp, path + PART), size_of(source))
            return await _put_one(sftp, path, source, start, tell)

    await all_of([one(name, source) for name, source in files.items()])


async def _put_at_once(
    sftp: asyncssh.SFTPClient, directory: PurePosixPath, files: Mapping[PurePosixPath, bytes | Path], news: News
) -> None:
    """Write a few small files in three round trips: one to make and open all, one to fill them, one to name them.

    Where `on_gone` waits it is two: whoever is told checks what arrived, so the names go along unasked. Elsewhere a
    name is only given to what is whole, for an older file may have it. OpenSSH's server does one thing after the other.
    Where another one does not, something fails, or the files are whole all the same.
    """
    blocks = {str(directory / name): [*chunks_of(source, 0, BLOCK_BYTES)] for name, source in files.items()}
    made = asyncio.gather(*(_mkdir(sftp, one) for one in _places(directory, files)), return_exceptions=True)
    opened = await _open_all(sftp, [path + PART for path in blocks])
    await made
    steps = [
        asyncio.ensure_future(step)
        for file, path in zip(opened, blocks, strict=True)
        for step in _filled(file, blocks[path], news.on_sent)
    ]
    if news.on_gone is None:
        await _every(steps)
    steps += [asyncio.ensure_future(sftp.posix_rename(path + PART, path)) for path in blocks]
    # Each of them sends what it has to say in its first step.
    await asyncio.sleep(0)
    if news.on_gone:
        news.on_gone()
    await _every(steps)


async def _open_all(sftp: asyncssh.SFTPClient, paths: Iterable[str]) -> list[asyncssh.SFTPClientFile]:
    """Make these files. Where one cannot be made the others are closed, for the server may live for long."""
    # One request a block, which is sent in its first step.
    opening = [asyncio.ensure_future(_new(sftp, path, block_size=0)) for path in paths]
    try:
        return await _every(opening)
    except asyncssh.SFTPError:
        opened = [one.result() for one in opening if one.exception() is None]
        await asyncio.gather(*(file.close() for file in opened), return_exceptions=True)
        raise


def _new(sftp: asyncssh.SFTPClient, path: str, *, block_size: int = -1) -> Awaitable[asyncssh.SFTPClientFile]:
    return sftp.open(path, _NEW, attrs=_PRIVATE, encoding=None, block_size=block_size)


def _filled(
    file: asyncssh.SFTPClientFile, blocks: Sequence[bytes], tell: Callable[[int], None]
) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield all that is to be done with an open file, in this order."""
    for number, block in enumerate(blocks):
        yield _write_block(file, block, number * BLOCK_BYTES, tell)
    yield file.setstat(_PRIVATE)
    yield file.close()


async def _write_block(file: asyncssh.SFTPClientFile, block: bytes, offset: int, tell: Callable[[int], None]) -> None:
    await file.write(block, offset)
    tell(len(block))


async def _every(jobs: Iterable[Awaitable[T]]) -> list[T]:
    """Return all results, once all have ended. Raises the first error."""
    done = await asyncio.gather(*jobs, return_exceptions=True)
    for one in done:
        if isinstance(one, BaseException):
            raise one
    return cast("list[T]", done)


def tell_nobody(_: int) -> None:
    """Let a piece arrive unheard."""


async def _put_one(
    sftp: asyncssh.SFTPClient, path: str, source: bytes | Path, start: int, tell: Callable[[int], None]
) -> None:
    async with _opened(await (_continued(sftp, path) if start else _begun(sftp, path))) as file:
        # A part that an earlier try left keeps its mode: say it again.
        await file.setstat(_PRIVATE)
        tell(start)
        await _write(file, source, start, tell)
    await sftp.posix_rename(path + PART, path)


async def _continued(sftp: asyncssh.SFTPClient, path: str) -> asyncssh.SFTPClientFile:
    return await sftp.open(path + PART, "r+b", attrs=_PRIVATE)


async def _begun(sftp: asyncssh.SFTPClient, path: str) -> asyncssh.SFTPClientFile:
    """A new file: what stands at its name, perhaps a link to somewhere else, is removed and never written through."""
    try:
        return await _new(sftp, path + PART)
    except asyncssh.SFTPError:
        await _remove(sftp, path + PART)
        return await _new(sftp, path + PART)


@contextlib.asynccontextmanager
async def _opened(file: asyncssh.SFTPClientFile) -> AsyncIterator[asyncssh.SFTPClientFile]:
    """Close the file at the end. After an error nobody may answer any more, so its closing is not waited for long."""
    try:
        yield file
    except BaseException:
        with contextlib.suppress(asyncssh.Error, OSError):
            async with asyncio.timeout(_CLOSE_S):
                await file.close()
        raise
    await file.close()


async def _write(file: asyncssh.SFTPClientFile, source: bytes | Path, start: int, tell: Callable[[int], None]) -> None:
    """Write from `start` on, with so few blocks in flight as `proved_bytes` counts on."""
    with _first_error():
        async with asyncio.TaskGroup() as group:
            pending: deque[asyncio.Task[int]] = deque()
            for number, block in enumerate(chunks_of(source, start, BLOCK_BYTES)):
                if len(pending) == BLOCKS_IN_FLIGHT:
                    tell(await pending.popleft())
                pending.append(group.create_task(file.write(block, start + number * BLOCK_BYTES)))
            for task in pending:
                tell(await task)


async def _size_there(sftp: asyncssh.SFTPClient, path: str) -> int:
    """Return the size of a regular file; -1 where there is none."""
    try:
        facts = await sftp.lstat(path)
    except asyncssh.SFTPNoSuchFile:
        return -1
    return facts.size if facts.type == asyncssh.FILEXFER_TYPE_REGULAR and facts.size is not None else -1


async def _remove(sftp: asyncssh.SFTPClient, path: str) -> None:
    with contextlib.suppress(asyncssh.SFTPNoSuchFile):
        await sftp.remove(path)


def _places(directory: PurePosixPath, files: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Return every directory that these files need, outer ones first."""
    return [*list(directory.parents)[-2::-1], directory, *(directory / parent for parent in parents_of(files))]


async def _make_all(sftp: asyncssh.SFTPClient, directories: Sequence[PurePosixPath]) -> None:
    """Make directories, in one round trip where nothing stands in the way; those that are there are refused."""
    makes = asyncio.gather(*(_mkdir(sftp, one) for one in directories), return_exceptions=True)
    are_there = await _every(sftp.isdir(str(one)) for one in directories)
    await makes
    if not all(are_there):
        for one in directories:
            await _make(sftp, one)


async def _make(sftp: asyncssh.SFTPClient, directory: PurePosixPath) -> None:
    if await sftp.isdir(str(directory)):
        return
    try:
        await _mkdir(sftp, directory)
    except asyncssh.SFTPError:
        if not await sftp.isdir(str(directory)):
            raise


def _mkdir(sftp: asyncssh.SFTPClient, directory: PurePosixPath) -> Coroutine[Any, Any, None]:
    return sftp.mkdir(str(directory), asyncssh.SFTPAttrs(permissions=0o700))


async def get(
    sftp: asyncssh.SFTPClient,
    name: str,
    source: PurePosixPath,
    target: Path,
    bounds: Bounds,
) -> None:
    """Read one regular file. Raises FileNotFoundError, IntegrityError, and asyncssh's SFTPError for everything else."""
    try:
        facts = await sftp.stat(str(source))
    except asyncssh.SFTPNoSuchFile as error:
        raise _missing(source) from error
    if facts.type != asyncssh.FILEXFER_TYPE_REGULAR:
        raise _missing(source)
    size = facts.size or 0
    if size > bounds.limit_bytes:
        raise _too_large(name, source, bounds.limit_bytes)
    async with _opened(await sftp.open(str(source), "rb", encoding=None)) as file:
        with appearing(target, is_continued=bounds.is_resumed) as copy:
            if copy.tell() > size:
                copy.seek(0)
                copy.truncate()
            await _read(file, copy, size)


async def _read(file: asyncssh.SFTPClientFile, copy: IO[bytes], size: int) -> None:
    """Read from where the copy stands up to `size`, blocks in order, a few in flight."""
    with _first_error():
        async with asyncio.TaskGroup() as group:
            pending: deque[asyncio.Task[bytes | str]] = deque()
            for offset in range(copy.tell(), size, BLOCK_BYTES):
                if len(pending) == BLOCKS_IN_FLIGHT:
                    copy.write(cast("bytes", await pending.popleft()))
                pending.append(group.create_task(file.read(min(BLOCK_BYTES, size - offset), offset)))
            for task in pending:
                copy.write(cast("bytes", await task))
    if copy.tell() != size:
        raise asyncssh.SFTPFailure("the file became shorter while it was read")


async def save(
    channel: _Printing,
    name: str,
    source: PurePosixPath,
    target: Path,
    bounds: Bounds,
    *,
    start: int,
) -> None:
    """Write what `GET` prints from `start` on. Raises FileNotFoundError, IntegrityError, HostNotReadyError."""
    with appearing(target, is_continued=bounds.is_resumed) as copy:
        copy.seek(start)
        copy.truncate()
        async for chunk in channel.stdout():
            copy.write(chunk)
            if copy.tell() > bounds.limit_bytes:
                raise _too_large(name, source, bounds.limit_bytes)
        words = b"".join([chunk async for chunk in channel.stderr()])
        match await channel.wait():
            case 0:
                return
            case code if code == _MISSING:
                raise _missing(source)
            case code if code == _TOO_LARGE:
                raise _too_large(name, source, bounds.limit_bytes)
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
    with _first_error():
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)


@contextlib.contextmanager
def _first_error() -> Iterator[None]:
    try:
        yield
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
