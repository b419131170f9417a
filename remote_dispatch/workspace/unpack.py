"""An archive from a host without git, read with suspicion and turned into a stream for `git fast-import`.

Nothing is ever extracted: names and links of the archive touch no file system.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import unicodedata
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from remote_dispatch.errors import IntegrityError
from remote_dispatch.text import clean
from remote_dispatch.workspace.names import is_foreign, is_of_git, leads_out

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

_ONE_READ_BYTES = 64_000_000
_CHUNK_BYTES = 1_000_000
_IGNORE = ".gitignore"
_IGNORE_BYTES = 1_000_000
_LONGEST_NAME = 4096
_REGULAR, _EXECUTABLE, _SYMLINK = "100644", "100755", "120000"


@dataclass(frozen=True, slots=True)
class Listing:
    """What an archive holds. Paths are relative and normalised."""

    paths: frozenset[str]
    """Regular files, and symlinks that stay within the tree."""
    refused: tuple[str, ...]
    """What is none of these, and stays out: links out of the tree, devices, repositories."""
    ignores: Mapping[str, bytes]
    """The `.gitignore` files."""


def list_archive(archive: Path, *, unpacked_bytes: int, files: int, is_case_blind: bool) -> Listing:
    """Read the names. Raises IntegrityError for an archive that no honest program packs, or a too large one."""
    paths: dict[str, str] = {}
    refused: list[str] = []
    ignores: dict[str, bytes] = {}
    with _members(archive, unpacked_bytes, files) as members:
        for member, stream in members:
            path = _checked_name(member)
            if path is None:
                continue
            if not _is_welcome(member, PurePosixPath(path), paths):
                refused.append(path)
                continue
            key = _case_blind(path) if is_case_blind else path
            if key in paths:
                raise _suspicious(f"`{_shown(path)}` is in it twice")
            paths[key] = path
            if PurePosixPath(path).name == _IGNORE and member.isreg() and member.size <= _IGNORE_BYTES:
                ignores[path] = stream.read(member.size)
    _check_nesting(frozenset(paths))
    return Listing(frozenset(paths.values()), tuple(refused), ignores)


def write_import(
    archive: Path, taken: Collection[str], beside: Iterable[tuple[str, str]], head: bytes, out: IO[bytes], limit: int
) -> None:
    """Write the stream that makes a commit of these paths.

    `beside` has submodules, as (id, path); `head` is the commit's beginning, from `commit` to its parent.
    """
    marks: dict[str, tuple[str, int]] = {}
    with _members(archive, limit, None) as members:
        for member, stream in members:
            path = _checked_name(member)
            if path is None or path not in taken or path in marks:
                continue
            marks[path] = _write_blob(member, stream, marks, out, len(marks) + 1)
    out.write(head + b"deleteall\n")
    for path, (mode, mark) in marks.items():
        out.write(f"M {mode} :{mark} ".encode() + _quoted(path) + b"\n")
    for commit, path in beside:
        out.write(f"M 160000 {commit} ".encode() + _quoted(path) + b"\n")
    out.write(b"done\n")


def _write_blob(
    member: tarfile.TarInfo, stream: IO[bytes], marks: Mapping[str, tuple[str, int]], out: IO[bytes], mark: int
) -> tuple[str, int]:
    if member.islnk():
        return marks[_link_source(member)]
    if member.issym():
        target = os.fsencode(member.linkname)
        out.write(f"blob\nmark :{mark}\ndata {len(target)}\n".encode() + target + b"\n")
        return _SYMLINK, mark
    out.write(f"blob\nmark :{mark}\ndata {member.size}\n".encode())
    left = member.size
    while left:
        chunk = stream.read(min(_CHUNK_BYTES, left))
        if not chunk:
            raise _suspicious("it ends in the middle of a file")
        out.write(chunk)
        left -= len(chunk)
    out.write(b"\n")
    return (_EXECUTABLE if member.mode & 0o100 else _REGULAR), mark


@contextmanager
def _members(
    archive: Path, unpacked_bytes: int, files: int | None
) -> Iterator[Iterator[tuple[tarfile.TarInfo, IO[bytes]]]]:
    try:
        with (
            _Bounded(archive, unpacked_bytes) as unpacked,
            _Tar.open(fileobj=unpacked, mode="r:", errors="surrogateescape") as tar,
        ):
            yield _each(tar, files)
            while unpacked.read(_CHUNK_BYTES):  # to its end, where its checksum stands
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError) as error:
        raise _suspicious("it is damaged, or no archive") from error


def _each(tar: _Tar, files: int | None) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    count = 0
    while (member := tar.next()) is not None:
        count += 1
        if files is not None and count > files:
            raise _suspicious(f"it holds over {files} names")
        if member.issparse():
            raise _suspicious(f"`{_shown(member.name)}` has holes")
        yield member, (tar.extractfile(member) if member.isreg() else None) or io.BytesIO()
        tar.members = []  # or a million of them stay in memory


class _Tar(tarfile.TarFile):
    members: list[tarfile.TarInfo]


class _Bounded(gzip.GzipFile):
    """A stream that refuses to go on behind its limit, and to hand out much at once: tarfile reads headers whole."""

    def __init__(self, archive: Path, limit: int) -> None:
        super().__init__(archive, "rb")
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _ONE_READ_BYTES or self.tell() + size > self._limit + _ONE_READ_BYTES:
            raise _suspicious("unpacked it is too large")
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset > self._limit:
            raise _suspicious("unpacked it is too large")
        return super().seek(offset, whence)


def _checked_name(member: tarfile.TarInfo) -> str | None:
    """The path of a member; None for directories, which git does not keep."""
    name = member.name
    if member.isdir() and not PurePosixPath(name).parts:
        return None
    if is_foreign(name) or len(name) > _LONGEST_NAME:
        raise _suspicious(f"`{_shown(name)}` is no name within it")
    return None if member.isdir() else str(PurePosixPath(name))


def _is_welcome(member: tarfile.TarInfo, place: PurePosixPath, paths: Mapping[str, str]) -> bool:
    if is_of_git(place):
        return False
    if member.islnk():
        source = _link_source(member)
        if source not in paths.values():
            raise _suspicious(f"`{_shown(member.name)}` is a hard link to what is not in it")
        return True
    if member.issym():
        return not leads_out(place, member.linkname)
    return member.isreg()


def _link_source(member: tarfile.TarInfo) -> str:
    return str(PurePosixPath(member.linkname))


def _check_nesting(paths: frozenset[str]) -> None:
    for path in paths:
        for parent in PurePosixPath(path).parents:
            if str(parent) in paths:
                raise _suspicious(f"`{_shown(path)}` lies below a file or a symlink")


def _case_blind(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _quoted(path: str) -> bytes:
    plain = os.fsencode(path)
    return b'"' + plain.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'


def _shown(name: str) -> str:
    return clean(name, 100)


def _suspicious(why: str) -> IntegrityError:
    return IntegrityError(f"the archive from the host is refused: {why}")
