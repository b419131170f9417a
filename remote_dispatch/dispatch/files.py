"""Files of ours on this machine: private, written whole or not at all, and locks for the milliseconds of one step."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

RECORD_LIMIT_BYTES = 256 * 1024 * 1024


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keep other processes out for the milliseconds of one step."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_private(path: Path) -> None:
    """Make a directory and what is missing above it, 0700 each: `parents=True` would give those the umask's mode."""
    for place in (*reversed(path.parents), path):
        place.mkdir(mode=0o700, exist_ok=True)


def read_regular_file(path: Path) -> bytes:
    """Read a regular file. Raises OSError for anything else, and for one that no record can be."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode) or state.st_size > RECORD_LIMIT_BYTES:
            raise OSError(errno.EINVAL, "not a record")
        return file.read()


def write_sealed(path: Path, value: Any) -> None:
    """Write JSON data whole, with its digest on the first line."""
    text = json.dumps(value).encode()
    write_sealed_pieces(path, lambda: (text,))


def write_sealed_pieces(path: Path, pieces: Callable[[], Iterable[bytes]]) -> None:
    """Write what is too large for one text, likewise: `pieces` yields JSON data, and is called twice."""
    digest = hashlib.sha256()
    for piece in pieces():
        digest.update(piece)
    write_whole(path, itertools.chain((digest.hexdigest().encode() + b"\n",), pieces()))


def read_sealed(path: Path) -> Any:
    """Read what `write_sealed` wrote; None where there is nothing, or it was damaged since."""
    try:
        with path.open("rb") as file:
            digest, text = file.readline().removesuffix(b"\n"), file.read()
    except OSError:
        return None
    if digest[:1] in (b"{", b"[") and not text:
        # Written by an earlier version, without a digest.
        with suppress(ValueError):
            return json.loads(digest)
    return json.loads(text) if digest == hashlib.sha256(text).hexdigest().encode() else None


def write_private(path: Path, data: bytes, *, is_flushed: bool) -> None:
    """Write a small file, mode 0600, never through a link."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        if is_flushed:
            os.fsync(file.fileno())


def flush(path: Path) -> None:
    """Flush a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file beside its place, flush it to the disk, rename it: nobody sees half of it. Mode 0600.

    `data` may come in pieces.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{re.sub('[^a-z]', '', path.name)}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines((data,) if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    flush(path.parent)
