"""What came back is received in a repository of its own, where nothing of it can do harm, and looked at before use."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from remote_dispatch.errors import CommandError, IntegrityError
from remote_dispatch.text import clean
from remote_dispatch.workspace.bundle import read_head
from remote_dispatch.workspace.claim import Claim, read_claim, write_claim
from remote_dispatch.workspace.git import LONG_S, borrow, joined, make_store, split
from remote_dispatch.workspace.snapshot import read_snapshot
from remote_dispatch.workspace.tree import leaves
from remote_dispatch.workspace.unpack import Listing, list_archive, write_import

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from remote_dispatch.workspace.git import Git
    from remote_dispatch.workspace.repository import Repository
    from remote_dispatch.workspace.snapshot import Snapshot

RESULT_REF = "refs/dispatch/result"
HEAD_REF = "refs/dispatch/head"
BRANCH_REFS = "refs/dispatch/branches/"
_STORE = "arrived.git"
_CLAIM = "claim"
_REFUSED = "refused"
_LOADED_REF = "refs/dispatch/loaded"
_SUBMODULE = 0o160000
_LONGEST_NAME = 4096
_MESSAGE = b"The directory as it came back\n"
# git's own limit on what it holds in memory: a small pack may describe an object of any size.
_MEMORY = {"GIT_ALLOC_LIMIT": "1g"}
_SMALL_MEMORY = ("core.bigFileThreshold=32m", "pack.threads=1", "core.deltaBaseCacheLimit=64m")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken from a host."""

    parcel_bytes: int = 4 * 1024**3
    unpacked_bytes: int = 16 * 1024**3
    files: int = 1_000_000
    name_bytes: int = 200_000_000


@dataclass(frozen=True, slots=True)
class Arrived:
    """A result that was looked at, in the bare repository `store`. All ids are of commits that are there."""

    store: Path
    snapshot: str
    base: str | None
    result: str
    head: str | None = None
    branches: Mapping[str, str] = field(default_factory=dict)
    left_out: int = 0
    """How many files stayed on the host, as it says, or were ignored."""
    refused: tuple[str, ...] = ()
    """What an archive held that is not taken: links out of the tree, devices, repositories."""

    @property
    def is_changed(self) -> bool:
        """Whether anything came that was not sent."""
        return self.result != self.snapshot or bool(set(self.branches.values()) - {self.snapshot})


async def receive_bundle(
    repository: Repository,
    snapshot: Snapshot,
    bundle: Path | None,
    claim: Claim,
    folder: Path,
    limits: Limits | None = None,
) -> Arrived:
    """Take a bundle in. Without one, what is claimed must be known here: nothing was changed there.

    Raises IntegrityError for everything that is damaged, incomplete or not what the claim says; then what came before
    is still there.
    """
    limits = limits or Limits()
    if claim.result is None:
        raise IntegrityError("the host does not say which commit is the result")
    with _untrusted():
        git = await _quarantine(repository, snapshot, folder)
        came: frozenset[str] = frozenset()
        if bundle is not None:
            with bundle.open("rb") as stream:
                came = await _take_pack(git, snapshot, stream, claim, limits)
        await _check_commits(git, snapshot, claim, came)
        await _check_tree(git, claim.result, limits)
        return await _settled(git, snapshot, claim, (), folder)


async def receive_archive(
    repository: Repository, snapshot: Snapshot, archive: Path, claim: Claim, folder: Path, limits: Limits | None = None
) -> Arrived:
    """Take an archive in, as one commit on top of the snapshot; ignored files that were not sent stay out.

    Raises IntegrityError for an archive that no honest program packs; then what came before is still there.
    """
    limits = limits or Limits()
    await asyncio.to_thread(_check_size, archive, limits)
    with _untrusted():
        git = await _quarantine(repository, snapshot, folder)
        is_case_blind = await repository.git.find("config", "--type=bool", "--get", "core.ignoreCase") == "true"
        found = await asyncio.to_thread(
            list_archive,
            archive,
            unpacked_bytes=limits.unpacked_bytes,
            files=limits.files,
            is_case_blind=is_case_blind,
        )
        sent = await leaves(git, snapshot.tree)
        ignored = await _ignored(git, found, {leaf.path for leaf in sent}, folder)
        submodules = [(leaf.id, leaf.path) for leaf in sent if leaf.mode == _SUBMODULE]
        result = await _loaded(git, snapshot, archive, found.paths - ignored, submodules, limits)
        whole = Claim(result, left_out=claim.left_out + len(ignored))
        return await _settled(git, snapshot, whole, found.refused, folder)


async def read_arrived(repository: Repository, folder: Path) -> Arrived | None:
    """Return what was received into this folder, or None."""
    store = folder / _STORE
    snapshot = await read_snapshot(repository, folder)
    if snapshot is None or not (store / _CLAIM).exists():
        return None
    borrow(store / "objects", snapshot.store / "objects")
    claim = read_claim((store / _CLAIM).read_bytes())
    return _described(store, snapshot, claim, tuple(split((store / _REFUSED).read_bytes())))


@contextmanager
def _untrusted() -> Iterator[None]:
    """What git refuses here is the host's doing, but for a full disk."""
    try:
        yield
    except CommandError as error:
        if "No space left" in error.output:
            raise
        why = error.output or "git did not come to an end with it"
        raise IntegrityError(f"the result from the host is refused: {why}", hint="it is still on the host") from error


def _new(folder: Path) -> Path:
    return folder / f"{_STORE}.new"


async def _quarantine(repository: Repository, snapshot: Snapshot, folder: Path) -> Git:
    place = _new(folder)
    await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
    git = await make_store(repository.git, place, snapshot.object_format, snapshot.store / "objects")
    if snapshot.shallow:
        (place / "shallow").write_text("".join(f"{one}\n" for one in snapshot.shallow), "ascii")
    return git.using(**_MEMORY).with_settings(*_SMALL_MEMORY)


# --- a bundle


async def _take_pack(git: Git, snapshot: Snapshot, stream: IO[bytes], claim: Claim, limits: Limits) -> frozenset[str]:
    """Take the objects in and return their ids. Its refs are compared and forgotten."""
    await asyncio.to_thread(_check_size, Path(stream.name), limits)
    head = await asyncio.to_thread(read_head, stream)
    if head.object_format != snapshot.object_format:
        raise IntegrityError(
            f"the bundle from the host is refused: it is of another format than {snapshot.object_format}"
        )
    if head.tips - claim.ids:
        raise IntegrityError("the bundle from the host is refused: it holds what its list of results does not name")
    if head.prerequisites - await _commits_among(git, head.prerequisites):
        raise IntegrityError("the bundle from the host is refused: it continues a history that is not here")
    return await _absorb(git, stream, limits)


async def _absorb(git: Git, stream: IO[bytes], limits: Limits) -> frozenset[str]:
    """Check every object as it is taken in, then what they come to unpacked. Returns their ids."""
    # git reads the descriptor, which stands behind what Python has buffered.
    os.lseek(stream.fileno(), stream.tell(), os.SEEK_SET)
    how = ("--stdin", "--fix-thin", "--strict", f"--max-input-size={limits.parcel_bytes}")
    said = await git.run("index-pack", *how, input=stream, timeout_s=LONG_S)
    name = said.stdout.split()[-1].decode("ascii")
    return await _check_unpacked(git, git.directory / "objects" / "pack" / f"pack-{name}.idx", limits)


async def _check_unpacked(git: Git, index: Path, limits: Limits) -> frozenset[str]:
    with index.open("rb") as stream:
        shown = await git.run("show-index", input=stream)
    ids = [line.split(b" ")[1] for line in shown.stdout.splitlines()]
    asked = b"".join(one + b"\n" for one in ids)
    sizes = (await git.run("cat-file", "--batch-check=%(objectsize)", input=asked, timeout_s=LONG_S)).stdout.split()
    if sum(map(int, sizes)) > limits.unpacked_bytes:
        raise IntegrityError("the result from the host is refused: unpacked it is too large")
    return frozenset(one.decode("ascii") for one in ids)


async def _check_commits(git: Git, snapshot: Snapshot, claim: Claim, came: frozenset[str]) -> None:
    """Whether what is claimed is there, to the last object: it came, or is in the history of what was sent.

    Another commit of the user's repository, which can be read here too, is no result of the host's.
    """
    missing = claim.ids - await _commits_among(git, claim.ids)
    if missing or not all([await _is_theirs(git, snapshot, one, came) for one in sorted(claim.ids)]):
        raise IntegrityError("the result from the host is refused: a commit that it names did not come")
    revisions = "".join(f"{one}\n" for one in (*sorted(claim.ids), f"^{snapshot.commit}"))
    arguments = ("--objects", "--quiet", "--stdin")
    await git.run("rev-list", *arguments, input=revisions.encode(), timeout_s=LONG_S)


async def _is_theirs(git: Git, snapshot: Snapshot, commit: str, came: frozenset[str]) -> bool:
    if commit in came:
        return True
    return (await git.run("merge-base", "--is-ancestor", commit, snapshot.commit, accepted=(0, 1))).status == 0


async def _commits_among(git: Git, ids: frozenset[str]) -> frozenset[str]:
    asked = "".join(f"{one}\n" for one in sorted(ids)).encode()
    said = (await git.run("cat-file", "--batch-check=%(objectname) %(objecttype)", input=asked)).stdout.decode()
    return frozenset(line.split(" ")[0] for line in said.splitlines() if line.endswith(" commit"))


async def _check_tree(git: Git, commit: str, limits: Limits) -> None:
    found = await leaves(git, commit, limit_bytes=limits.name_bytes)
    if len(found) > limits.files:
        raise IntegrityError(f"the result from the host is refused: it holds over {limits.files} files")
    if any(len(leaf.path) > _LONGEST_NAME for leaf in found):
        raise IntegrityError("the result from the host is refused: a path in it is longer than a path may be")


# --- an archive


async def _ignored(git: Git, found: Listing, sent: set[str], folder: Path) -> frozenset[str]:
    """Which new files the ignore files of the archive itself exclude: git would not have packed them."""
    new = sorted(found.paths - sent)
    if not new or not found.ignores:
        return frozenset()
    with tempfile.TemporaryDirectory(prefix="ignore-", dir=folder) as place:
        await asyncio.to_thread(_write_all, Path(place), found.ignores)
        # It knows no literal names; behind `./` no name is taken for more than a name.
        reader = replace(git, directory=Path(place)).using(GIT_WORK_TREE=place, GIT_LITERAL_PATHSPECS="0")
        names = joined([f"./{path}" for path in new])
        ran = await reader.with_settings("core.bare=false").run(
            "check-ignore", "--stdin", "-z", "--no-index", input=names, accepted=(0, 1), timeout_s=LONG_S
        )
    return frozenset(name.removeprefix("./") for name in split(ran.stdout))


def _write_all(root: Path, contents: Mapping[str, bytes]) -> None:
    for name, content in contents.items():
        place = root / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise IntegrityError("the archive from the host is refused: a name in it is too long") from error


async def _loaded(
    git: Git,
    snapshot: Snapshot,
    archive: Path,
    taken: frozenset[str],
    submodules: Sequence[tuple[str, str]],
    limits: Limits,
) -> str:
    """Make the commit in a repository beside, and take it over from there with the checks that a bundle gets."""
    with tempfile.TemporaryDirectory(prefix="load-", dir=git.directory) as place:
        loader = await make_store(git, Path(place) / "load.git", snapshot.object_format, git.directory / "objects")
        with tempfile.TemporaryFile(dir=place) as stream:
            head = _commit_head(snapshot.commit)
            await asyncio.to_thread(write_import, archive, taken, submodules, head, stream, limits.unpacked_bytes)
            stream.seek(0)
            await loader.run("fast-import", "--quiet", "--done", input=stream, timeout_s=LONG_S)
        commit = await loader.line("rev-parse", _LOADED_REF)
        if await loader.line("rev-parse", f"{commit}^{{tree}}") == snapshot.tree:
            return snapshot.commit
        with tempfile.TemporaryFile(dir=place) as pack:
            revisions = f"{commit}\n^{snapshot.commit}\n".encode()
            await loader.run("pack-objects", "--revs", "--stdout", "-q", input=revisions, output=pack, timeout_s=LONG_S)
            pack.seek(0)
            await _absorb(git, pack, limits)
    return commit


def _commit_head(parent: str) -> bytes:
    who = f"committer remote-dispatch <remote-dispatch@invalid> {int(time.time())} +0000\n".encode()
    message = f"data {len(_MESSAGE)}\n".encode() + _MESSAGE
    return f"commit {_LOADED_REF}\n".encode() + who + message + f"from {parent}\n".encode()


# --- both


def _check_size(parcel: Path, limits: Limits) -> None:
    if parcel.stat().st_size > limits.parcel_bytes:
        raise IntegrityError(f"the result from the host is refused: it is larger than {limits.parcel_bytes} bytes")


async def _settled(git: Git, snapshot: Snapshot, claim: Claim, refused: tuple[str, ...], folder: Path) -> Arrived:
    """Name what is there, and put the repository in the place of an earlier one."""
    assert claim.result is not None
    refs = {RESULT_REF: claim.result, **{BRANCH_REFS + name: one for name, one in claim.branches.items()}}
    if claim.head is not None:
        refs[HEAD_REF] = claim.head
    updates = "".join(f"update {name} {one}\n" for name, one in refs.items())
    await git.run("update-ref", "--stdin", input=updates.encode("utf-8", "surrogateescape"))
    (git.directory / _REFUSED).write_bytes(joined(refused))
    (git.directory / _CLAIM).write_bytes(write_claim(claim))
    store = folder / _STORE
    await asyncio.to_thread(_replace, git.directory, store)
    return _described(store, snapshot, claim, refused)


def _replace(new: Path, place: Path) -> None:
    old = place.with_name(f"{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _described(store: Path, snapshot: Snapshot, claim: Claim, refused: tuple[str, ...]) -> Arrived:
    assert claim.result is not None
    return Arrived(
        store,
        snapshot.commit,
        snapshot.base,
        claim.result,
        claim.head,
        claim.branches,
        claim.left_out,
        tuple(clean(path, 200) for path in refused),
    )
