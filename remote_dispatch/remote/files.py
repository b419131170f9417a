"""Names of files that travel, and writing one locally so that it appears whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CHUNK_BYTES = 4_000_000
PART = ".part"


def checked_name(name: str) -> PurePosixPath:
    """Return a relative name as a path. Raises ValueError when it is empty, absolute or leaves its directory."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"`{name}` is not a relative file name")
    return path


def parents_of(names: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Return every subdirectory that these names need, outer ones first."""
    return sorted({parent for name in names for parent in name.parents if parent.parts})


def chunks_of(source: bytes | Path) -> Iterator[bytes]:
    """Yield bytes, or a file's content, in pieces that fit into memory."""
    if isinstance(source, bytes):
        for start in range(0, len(source), CHUNK_BYTES):
            yield source[start : start + CHUNK_BYTES]
        return
    with source.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def size_of(source: bytes | Path) -> int:
    """Return how many bytes `chunks_of` will yield."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


@contextmanager
def appearing(target: Path) -> Iterator[IO[bytes]]:
    """Open a file, mode 0600, that takes the name `target` when the block ends well, and vanishes when it does not."""
    part = target.with_name(target.name + PART)
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(descriptor, 0o600)
            yield stream
            stream.flush()
            os.fsync(descriptor)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
