"""Names of files that travel, writing one locally so that it appears whole or not at all, and where a part goes on."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import IO, TYPE_CHECKING

from remote_dispatch.errors import ConnectionLostError, RemoteDispatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CHUNK_BYTES = 4_000_000
PART = ".part"
LARGE_BYTES = 1_000_000
"""From here on a broken transfer is worth continuing."""
BLOCK_BYTES = 250_000
"""One SFTP request to OpenSSH, which takes 261,120 bytes."""
BLOCKS_IN_FLIGHT = 8
"""As much as OpenSSH's window of two megabytes lets travel anyway."""
NETWORK_ERRORS = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.ENETRESET}
)
"""What the system says of a connection beside ConnectionError's own numbers."""


def checked_name(name: str) -> PurePosixPath:
    """Return a relative name as a path. Raises ValueError when it is empty, absolute or leaves its directory."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"`{name}` is not a relative file name")
    return path


def parents_of(names: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Return every subdirectory that these names need, outer ones first."""
    return sorted({parent for name in names for parent in name.parents if parent.parts})


def chunks_of(source: bytes | Path, start: int = 0, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yield bytes, or a file's content, from `start` on in pieces of `size` bytes, the last one shorter."""
    if isinstance(source, bytes):
        for offset in range(start, len(source), size):
            yield source[offset : offset + size]
        return
    with source.open("rb") as stream:
        stream.seek(start)
        while chunk := stream.read(size):
            yield chunk


def told(pieces: Iterable[bytes], on_sent: Callable[[int], None] | None) -> Iterator[bytes]:
    """Yield the pieces, and tell the size of each once the next one is asked for."""
    for piece in pieces:
        yield piece
        if on_sent:
            on_sent(len(piece))


def size_of(source: bytes | Path) -> int:
    """Return how many bytes `chunks_of` will yield."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def proved_bytes(part_bytes: int, size: int) -> int:
    """Return how much of a part that an upload left is surely there, in whole blocks; the rest is sent again.

    Some servers carry out requests in parallel, so a part may have holes, but never far from its end: a block is only
    sent once the one `BLOCKS_IN_FLIGHT` before it was confirmed. So a byte of block k proves everything below block
    k - BLOCKS_IN_FLIGHT + 1. A part larger than the file is of something else and proves nothing.
    """
    if not 0 < part_bytes <= size:
        return 0
    last = (part_bytes - 1) // BLOCK_BYTES
    return max(0, last - BLOCKS_IN_FLIGHT + 1) * BLOCK_BYTES


@contextmanager
def appearing(target: Path, *, is_continued: bool = False) -> Iterator[IO[bytes]]:
    """Open a file, mode 0600, that takes the name `target` when the block ends well, and vanishes when it does not.

    With `is_continued` it stands at the end of what an earlier block left, and stays when the network, the user or a
    deadline ended this one. Write in order only: then what is there is a beginning.
    """
    part = target.with_name(target.name + PART)
    if not is_continued or not _is_ours(part):
        part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "r+b") as stream:
            os.fchmod(descriptor, 0o600)
            stream.seek(0, os.SEEK_END)
            yield stream
            stream.flush()
            os.fsync(descriptor)
        part.replace(target)
    except BaseException as error:
        if not is_continued or not _is_break(error):
            part.unlink(missing_ok=True)
        raise


def part_size(target: Path) -> int:
    """Return how much of a file an earlier, broken `appearing` left; 0 for none."""
    part = target.with_name(target.name + PART)
    return part.lstat().st_size if _is_ours(part) else 0


def _is_ours(part: Path) -> bool:
    try:
        return S_ISREG(part.lstat().st_mode)
    except OSError:
        return False


def _is_break(error: BaseException) -> bool:
    """Whether a transfer was interrupted, and did not fail for a reason of its own."""
    if isinstance(error, OSError):
        return isinstance(error, ConnectionError) or error.errno in NETWORK_ERRORS
    return isinstance(error, ConnectionLostError) or not isinstance(error, RemoteDispatchError)
