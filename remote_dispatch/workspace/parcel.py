"""The snapshot as one file that travels: a bundle for a host with git, an archive for one without."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from stat import S_ISLNK, S_ISREG
from typing import IO, TYPE_CHECKING, Literal

from remote_dispatch.errors import IntegrityError, UsageError
from remote_dispatch.text import clean
from remote_dispatch.workspace.git import LONG_S
from remote_dispatch.workspace.names import leads_out
from remote_dispatch.workspace.snapshot import SNAPSHOT_REF
from remote_dispatch.workspace.tree import Leaf, leaves

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from remote_dispatch.workspace.git import Git
    from remote_dispatch.workspace.snapshot import Snapshot

_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BLOB_HEADER = re.compile(rb"([0-9a-f]{40,64}) blob (\d+)\n")
_SHOWN_NAMES = 5
_HINT = "choose a host with git, or use `--code none`"


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file that is ready to travel."""

    path: Path
    kind: Literal["bundle", "archive"]
    sha256: str
    bytes: int


async def make_bundle(git: Git, snapshot: Snapshot, target: Path, known: Collection[str] = ()) -> Parcel:
    """Bundle the snapshot with its history, but for what is in the history of the commits that the host knows.

    The bundle has one ref, `refs/dispatch/snapshot`. Ids that are no commits here count for nothing. Raises UsageError
    when the history has holes (a partial clone).
    """
    store = git.on(snapshot.store)
    revisions = [SNAPSHOT_REF, *(f"^{one}" for one in await _known_here(store, _but_itself(snapshot, known)))]
    if snapshot.is_partial:
        await _check_complete(store, revisions)
    source = "".join(f"{one}\n" for one in revisions).encode()
    await store.run("bundle", "create", "--quiet", str(target), "--stdin", input=source, timeout_s=LONG_S)
    return await _sealed(target, "bundle")


async def make_archive(git: Git, snapshot: Snapshot, target: Path) -> Parcel:
    """Pack the snapshot's tree as a tar.gz that depends on nothing but the tree; submodules are left out.

    Names in it are relative. Raises UsageError when a symlink leads out of the tree.
    """
    store = git.on(snapshot.store)
    found = [leaf for leaf in await leaves(store, snapshot.tree) if S_ISREG(leaf.mode) or S_ISLNK(leaf.mode)]
    ids = "".join(f"{leaf.id}\n" for leaf in found).encode()
    with tempfile.TemporaryFile(dir=target.parent) as contents:
        await store.run("cat-file", "--batch", "--buffer", input=ids, output=contents, timeout_s=LONG_S)
        await asyncio.to_thread(_write_archive, found, contents, target)
    return await _sealed(target, "archive")


def _but_itself(snapshot: Snapshot, known: Collection[str]) -> set[str]:
    """The same tree within the same second is the same commit, and git refuses to bundle nothing: send that commit."""
    if snapshot.commit not in known:
        return set(known)
    return {*known, *([snapshot.base] if snapshot.base else [])} - {snapshot.commit}


async def _known_here(store: Git, known: Collection[str]) -> list[str]:
    ids = sorted({one for one in known if _ID.fullmatch(one)})
    if not ids:
        return []
    asked = "".join(f"{one}\n" for one in ids).encode()
    said = await store.line("cat-file", "--batch-check=%(objectname) %(objecttype)", input=asked)
    return [line.split(" ")[0] for line in said.split("\n") if line.endswith(" commit")]


async def _check_complete(store: Git, revisions: Sequence[str]) -> None:
    source = "".join(f"{one}\n" for one in revisions).encode()
    ran = await store.run(
        "rev-list", "--objects", "--missing=print", "--stdin", input=source, timeout_s=LONG_S, accepted=(0, 128)
    )
    missing = sum(line.startswith(b"?") for line in ran.stdout.splitlines())
    if missing or ran.status:
        raise UsageError(
            "this is a partial clone, and parts of the history that has to travel are not here",
            hint="take a full clone, or use `--code existing` with a checkout on the host",
        )


def _write_archive(found: Sequence[Leaf], contents: IO[bytes], target: Path) -> None:
    contents.seek(0)
    part = target.with_name(target.name + ".part")
    with (
        part.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, errors="surrogateescape") as archive,
    ):
        out = [leaf.path for leaf in found if not _add(archive, leaf, contents)]
    if out:
        part.unlink()
        shown = ", ".join(f"`{clean(path, 100)}`" for path in out[:_SHOWN_NAMES])
        raise UsageError(f"symlinks lead out of the directory, and cannot travel in an archive: {shown}", hint=_HINT)
    part.replace(target)


def _add(archive: tarfile.TarFile, leaf: Leaf, contents: IO[bytes]) -> bool:
    header = _BLOB_HEADER.fullmatch(contents.readline(200))
    if header is None or header[1].decode() != leaf.id:
        raise IntegrityError(f"the contents of `{clean(leaf.path, 100)}` are missing in the repository")
    member = tarfile.TarInfo(leaf.path)
    member.mode = 0o755 if leaf.mode & 0o111 else 0o644
    size = int(header[2])
    if S_ISLNK(leaf.mode):
        member.type, member.linkname = tarfile.SYMTYPE, contents.read(size).decode("utf-8", "surrogateescape")
        if leads_out(PurePosixPath(leaf.path), member.linkname):
            contents.read(1)
            return False
        archive.addfile(member)
    else:
        member.size = size
        archive.addfile(member, contents)
    contents.read(1)
    return True


async def _sealed(path: Path, kind: Literal["bundle", "archive"]) -> Parcel:
    return await asyncio.to_thread(_described, path, kind)


def _described(path: Path, kind: Literal["bundle", "archive"]) -> Parcel:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Parcel(path, kind, digest, path.stat().st_size)
