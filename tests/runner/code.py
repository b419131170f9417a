"""Code as it leaves home, made with plain git, and what comes back, read with plain git."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.runner.job import Code, Payload

if TYPE_CHECKING:
    from tests.runner.conftest import Host

BRANCH = "dispatch/kumo"
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "me",
    "GIT_AUTHOR_EMAIL": "me@example.invalid",
    "GIT_COMMITTER_NAME": "me",
    "GIT_COMMITTER_EMAIL": "me@example.invalid",
}


def git(place: Path, *arguments: object) -> str:
    """Run git there and return what it prints, without the last newline."""
    argv = ["git", "-C", str(place), "-c", "init.defaultBranch=main", *map(str, arguments)]
    done = subprocess.run(argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


@dataclass
class Home:
    """A repository at home. Its last commit stands for the snapshot."""

    top: Path

    @classmethod
    def make(cls, top: Path, files: dict[str, str] | None = None, *, object_format: str = "sha1") -> Home:
        top.mkdir(parents=True)
        git(top, "init", "-q", f"--object-format={object_format}")
        home = cls(top)
        home.commit({"a.txt": "one\n", "sub/b.txt": "two\n", ".gitignore": "*.log\n"} if files is None else files)
        return home

    def commit(self, files: dict[str, str]) -> str:
        for name, text in files.items():
            (self.top / name).parent.mkdir(parents=True, exist_ok=True)
            (self.top / name).write_text(text)
        git(self.top, "add", "-A", "-f")
        git(self.top, "commit", "-q", "--allow-empty", "-m", "work")
        return git(self.top, "rev-parse", "HEAD")

    def carried(self, *, without: str | None = None, **changes: Any) -> Code:
        """The code as it leaves; `without` is a commit that the host has."""
        bundle = self.top.with_name("code.bundle")
        git(self.top, "update-ref", "refs/dispatch/snapshot", "HEAD")
        git(self.top, "bundle", "create", "-q", bundle, "refs/dispatch/snapshot", *([f"^{without}"] if without else []))
        values: dict[str, Any] = {
            "kind": "bundle",
            "payload": Payload.of(bundle.read_bytes()),
            "project": git(self.top, "rev-list", "--max-parents=0", "HEAD"),
            "snapshot": git(self.top, "rev-parse", "HEAD"),
            "base": None,
            "branch": BRANCH,
            "name": "my app",
            "prefix": PurePosixPath("sub"),
            "author": "OpenCode on box",
        }
        return Code(**(values | changes))

    def archived(self, **changes: Any) -> Code:
        """The same files for a host without git."""
        git(self.top, "archive", "--format=tar.gz", "-o", self.top.with_name("code.tar.gz"), "HEAD")
        payload = Payload.of(self.top.with_name("code.tar.gz").read_bytes())
        return replace(self.carried(), kind="archive", payload=payload, **changes)

    def receive(self, place: Path) -> Back:
        """Read what came back in a directory."""
        back = Back.read(place)
        if (place / "back.bundle").exists():
            how = ("-q", "--no-tags", "--no-recurse-submodules", "--force")
            git(self.top, "fetch", *how, place / "back.bundle", "refs/dispatch/*:refs/back/*")
        return back

    def files(self, commit: str) -> dict[str, str]:
        """Every file of a commit, submodules aside."""
        listed = (line.partition("\t") for line in git(self.top, "ls-tree", "-r", "-z", commit).split("\0") if line)
        return {name: git(self.top, "show", f"{commit}:{name}") for what, _, name in listed if "blob" in what}

    def parents(self, commit: str) -> list[str]:
        return git(self.top, "log", "-1", "--format=%P", commit).split()


@dataclass
class Back:
    """`back-code`, read."""

    result: str
    head: str
    branches: dict[str, str]
    left_out: int

    @classmethod
    def read(cls, place: Path) -> Back:
        lines = [line.split(" ") for line in (place / "back-code").read_text().splitlines()]
        single = {line[0]: line[1] for line in lines if len(line) == 2}
        branches = {line[1]: line[2] for line in lines if line[0] == "branch"}
        return cls(single.get("result", ""), single.get("head", ""), branches, int(single["left_out"]))


def unpacked(place: Path) -> dict[str, str]:
    """Every file and link of `back.tar.gz`, links with an arrow."""
    with tarfile.open(place / "back.tar.gz") as archive:
        return {
            str(PurePosixPath(one.name)): f"-> {one.linkname}" if one.issym() else _text(archive, one)
            for one in archive.getmembers()
        }


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    stream = archive.extractfile(member)
    assert stream is not None
    return stream.read().decode()


def an_archive(*members: tuple[str, bytes, str]) -> Payload:
    """An archive of members as (name, type, link or text)."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if kind == tarfile.REGTYPE:
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
            else:
                member.linkname = text
                archive.addfile(member)
    return Payload.of(stream.getvalue())


def state_of(host: Host) -> Path:
    """Where everything of ours lies."""
    return host.run_directory.parents[1]


def tree_of(host: Host) -> Path:
    return state_of(host) / "work" / host.id / "my app"


def hide_git(host: Host) -> None:
    """Leave a host only with the programs that any has, and no git."""
    for place in host.environment["PATH"].split(":")[1:]:
        for program in Path(place).iterdir():
            here = host.root / "bin" / program.name
            if not program.name.startswith("git") and not here.is_symlink():
                here.symlink_to(program)
    host.environment["PATH"] = str(host.root / "bin")


def use_busybox(host: Host) -> None:
    """Give the host the small tools of a busybox; skip where there is none."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    for name in ("awk", "cp", "find", "grep", "gzip", "readlink", "sed", "stat", "tar", "tr", "wc", "xargs"):
        (host.root / "bin" / name).symlink_to(busybox)
