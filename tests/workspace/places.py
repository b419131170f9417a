"""A repository as users have them, and a host that is a plain directory with git."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.workspace.arrival import Arrived, receive_archive, receive_bundle
from remote_dispatch.workspace.claim import Claim
from remote_dispatch.workspace.git import Git, find_git
from remote_dispatch.workspace.landing import Landed, land
from remote_dispatch.workspace.parcel import make_archive, make_bundle
from remote_dispatch.workspace.repository import Repository, adopt_directory, find_repository
from remote_dispatch.workspace.snapshot import Snapshot, take_snapshot
from remote_dispatch.workspace.survey import survey

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

TIMEOUT_S = 60


def sh(directory: Path, *arguments: str | Path, input: bytes = b"", **variables: str) -> str:  # noqa: A002
    """Run git as a user would."""
    ran = subprocess.run(
        ["git", *(os.fspath(one) for one in arguments)],
        cwd=directory,
        input=input,
        env=os.environ | variables,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if ran.returncode:
        raise AssertionError(f"git {arguments}: {ran.stderr.decode(errors='replace')}")
    return os.fsdecode(ran.stdout.removesuffix(b"\n"))


def write(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)


def commit(root: Path, files: dict[str, str | bytes], message: str = "work") -> str:
    write(root, files)
    sh(root, "add", "-A")
    sh(root, "commit", "-q", "--allow-empty", "-m", message)
    return sh(root, "rev-parse", "HEAD")


def everything(root: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, time and digest of everything below a directory, symlinks not followed.

    Without the times of objects: git renews the time of one that it would have written again, so that none is pruned.
    """
    return {
        os.fspath(place.relative_to(root)): (place.lstat().st_mode, _changed(root, place), _digest(place))
        for place in sorted(root.rglob("*"))
        if place.is_symlink() or not place.is_dir()
    }


def _changed(root: Path, place: Path) -> int:
    return 0 if "objects" in place.relative_to(root).parts else place.lstat().st_mtime_ns


def contents(root: Path) -> dict[str, tuple[bool, str]]:
    """What git keeps of a working tree: names, contents, and whether they are executable."""
    return {
        os.fspath(place.relative_to(root)): (bool(place.lstat().st_mode & 0o100), _digest(place))
        for place in sorted(root.rglob("*"))
        if (place.is_symlink() or place.is_file()) and ".git" not in place.relative_to(root).parts
    }


def _digest(place: Path) -> str:
    if place.is_symlink():
        return f"-> {place.readlink()}"
    return hashlib.sha256(place.read_bytes()).hexdigest()


@dataclass
class Home:
    """A directory of the user, and the dispatch's folder beside it."""

    git: Git
    repository: Repository
    folder: Path

    @property
    def top(self) -> Path:
        return self.repository.top

    @classmethod
    async def at(cls, directory: Path, folder: Path) -> Home:
        git = await find_git()
        folder.mkdir(parents=True, exist_ok=True)
        found = await find_repository(git, directory) or await adopt_directory(git, directory, folder)
        return cls(git, found, folder)

    async def again(self) -> Home:
        """The same, looked at anew."""
        return await Home.at(self.top, self.folder)

    async def snapshot(self, include: Sequence[str] = ()) -> Snapshot:
        return await take_snapshot(self.repository, await survey(self.repository, include), self.folder)

    def tree(self, snapshot: Snapshot, commit: str | None = None) -> dict[str, str]:
        """What a tree holds: path to `mode content`."""
        listed = sh(snapshot.store, "ls-tree", "-r", "-z", commit or snapshot.tree).split("\0")
        pairs = (line.split("\t", 1) for line in listed if line)
        return {path: f"{facts.split()[0]} {_content(snapshot.store, facts)}" for facts, path in pairs}

    async def send(self, far: Far, include: Sequence[str] = (), known: Collection[str] = ()) -> Snapshot:
        """Snapshot and bundle, unpacked on the far side."""
        snapshot = await self.snapshot(include)
        far.unpack((await make_bundle(self.git, snapshot, self.folder / "code.bundle", known)).path, snapshot)
        return snapshot

    async def send_archive(self, place: Path) -> Snapshot:
        """Snapshot and archive, unpacked by a plain tar."""
        snapshot = await self.snapshot()
        parcel = await make_archive(self.git, snapshot, self.folder / "code.tar.gz")
        place.mkdir()
        subprocess.run(
            ["tar", "-xzf", parcel.path, "-C", place], check=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S
        )
        return snapshot

    async def receive(self, far: Far, snapshot: Snapshot) -> Arrived:
        bundle, claim = far.pack(snapshot)
        return await receive_bundle(self.repository, snapshot, bundle, claim, self.folder)

    async def receive_archive(self, place: Path, snapshot: Snapshot) -> Arrived:
        archive = self.folder / "back.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(place, ".")
        return await receive_archive(self.repository, snapshot, archive, Claim(), self.folder)

    async def land(self, arrived: Arrived, name: str = "kumo", previous: Landed | None = None) -> Landed:
        landed = await land(self.repository, arrived, name, previous)
        assert landed is not None
        return landed


def _content(store: Path, facts: str) -> str:
    _, kind, object_id = facts.split()
    return object_id if kind == "commit" else sh(store, "cat-file", "blob", object_id)


@dataclass
class Far:
    """What a host does, with plain git: a repository of its own for each dispatch."""

    top: Path

    def unpack(self, bundle: Path, snapshot: Snapshot) -> None:
        if not self.top.exists():
            self.top.mkdir(parents=True)
            sh(self.top, "init", "-q", f"--object-format={snapshot.object_format}")
        if snapshot.shallow:
            (self.top / ".git/shallow").write_text("".join(f"{one}\n" for one in snapshot.shallow))
        sh(self.top, "fetch", "-q", bundle, f"refs/dispatch/snapshot:refs/dispatch/{snapshot.commit[:8]}")
        sh(self.top, "checkout", "-q", "-f", "-B", "dispatch/kumo", snapshot.commit)

    def pack(self, snapshot: Snapshot) -> tuple[Path | None, Claim]:
        """A last commit of what is not committed, and everything new as a bundle."""
        head = sh(self.top, "rev-parse", "HEAD")
        if sh(self.top, "status", "--porcelain"):
            commit(self.top, {}, "the rest")
        result = sh(self.top, "rev-parse", "HEAD")
        listed = sh(self.top, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads").splitlines()
        branches = {name: one for name, one in (line.split(" ") for line in listed) if name != "dispatch/kumo"}
        claim = Claim(result, head, branches)
        if claim.ids == {snapshot.commit}:
            return None, claim
        bundle = self.top.parent / "back.bundle"
        sh(self.top, "bundle", "create", "-q", bundle, "HEAD", "--branches", f"^{snapshot.commit}")
        return bundle, claim
