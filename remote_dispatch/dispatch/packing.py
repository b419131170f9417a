"""A transcript as it travels and is kept: gzipped on the way out, unpacked and checked on the way in.

Both ways go piece by piece, while other threads compress, unpack and hash: a large transcript is never held as a text.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from remote_dispatch import transcript as transcripts
from remote_dispatch.errors import IntegrityError
from remote_dispatch.remote.files import chunks_of
from remote_dispatch.runner.job import Payload, SessionFile
from remote_dispatch.transcript import PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from remote_dispatch.transcript import Message, Transcript

UNPACKED_LIMIT_BYTES = 2 * 1024 * 1024 * 1024
THREADS = min(4, os.cpu_count() or 1)
_BLOCK_BYTES = 256 * 1024
_GZIP = 31


def packed(transcript: Transcript, target: Path | None = None) -> SessionFile:
    """Dump and compress; level 1 beats the wire from 40 Mbit/s on (measured), and costs least.

    One of more than a piece (PIECE_BYTES) goes into the file `target`, mode 0600, and has a member for each piece,
    which every gunzip reads as one.
    """
    messages, parts = transcripts.count(transcript)
    members = _members(transcripts.dumped(transcript))
    first = list(itertools.islice(members, 2))
    if target is None or len(first) < 2:
        payload = Payload.of(b"".join([*first, *members]))
    else:
        payload = _written(itertools.chain(first, members), target)
    return SessionFile(transcript["info"]["id"], payload, messages, parts)


def read_export(path: Path, *, each: Callable[[Message], Message] = transcripts.as_it_is) -> Transcript:
    """Read an unpacked transcript from a file; see `transcripts.read`. Raises IntegrityError."""
    return transcripts.read(lambda: chunks_of(path, size=PIECE_BYTES), each=each)


def read_back(
    path: Path,
    sha256: str | None,
    *,
    limit_bytes: int = UNPACKED_LIMIT_BYTES,
    each: Callable[[Message], Message] = transcripts.as_it_is,
) -> Transcript:
    """Unpack and parse a back-file, and compare its hash; `each` as in `transcripts.read`. Raises IntegrityError."""
    return transcripts.read(lambda: _ahead(_checked(path, sha256, limit_bytes)), each=each)


def _members(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress each piece, in order, several at once: zlib needs no lock of Python."""
    with ThreadPoolExecutor(THREADS) as pool:
        under_way: deque[Future[bytes]] = deque()
        for piece in pieces:
            under_way.append(pool.submit(gzip.compress, piece, compresslevel=1, mtime=0))
            if len(under_way) > THREADS:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _written(members: Iterable[bytes], target: Path) -> Payload:
    digest = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for member in members:
            digest.update(member)
            file.write(member)
    return Payload(target, digest.hexdigest())


def _ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Have the next piece ready, made by another thread, while one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, pieces, None)
        while (piece := upcoming.result()) is not None:
            upcoming = pool.submit(next, pieces, None)
            yield piece


def _checked(path: Path, sha256: str | None, limit_bytes: int) -> Iterator[bytes]:
    """Yield what is in a gzip file. Raises IntegrityError: too much, damaged, or at the end when the hash differs."""
    digest, size = hashlib.sha256(), 0
    try:
        for piece in _unpacked(path):
            digest.update(piece)
            size += len(piece)
            if size > limit_bytes:
                raise IntegrityError("the back-file is absurdly large")
            yield piece
    except (OSError, EOFError, zlib.error) as error:
        raise IntegrityError("the back-file is damaged", hint="collect it again: the host keeps its copy") from error
    if sha256 is not None and digest.hexdigest() != sha256:
        raise IntegrityError(
            "the back-file differs from what the host wrote", hint="collect it again: the host keeps its copy"
        )


def _unpacked(path: Path) -> Iterator[bytes]:
    """Yield pieces of at most PIECE_BYTES, whatever the file holds: a small one may hold gigabytes."""
    blocks, rest = chunks_of(path, size=_BLOCK_BYTES), b""
    while rest := rest or next(blocks, b""):
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            block = member.unconsumed_tail or rest or next(blocks, b"")
            # Without a block there may still be something of the one before.
            piece, rest = member.decompress(block, PIECE_BYTES), b""
            if not (block or piece):
                raise EOFError
            yield piece
        rest = member.unused_data
