"""The repository around a directory, or one of ours for a directory without git. Reads only."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.errors import CommandError, ConfigurationError, UsageError
from remote_dispatch.workspace.git import LONG_S, make_store

if TYPE_CHECKING:
    from remote_dispatch.workspace.git import Git

_OWN = "own.git"
_OPERATIONS = {
    "MERGE_HEAD": "merge",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "BISECT_LOG": "bisect",
}
_ID_LENGTH = {"sha1": 40, "sha256": 64}


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository with a working tree, as it was when it was looked at."""

    git: Git
    """git at `top`, on this repository."""
    top: Path
    """Where the working tree begins, symlinks resolved."""
    prefix: PurePosixPath
    """The asked directory within it; `.` for the top."""
    git_dir: Path
    common_dir: Path
    """Where objects and branches are: not `git_dir` in a linked worktree."""
    index: Path
    objects: Path
    object_format: str
    """`sha1` or `sha256`."""
    head: str | None
    """The commit that is checked out; None before the first one."""
    branch: str | None
    """Its full name (`refs/heads/main`); None when HEAD is detached."""
    project: str
    """What clones share: the oldest root commit of HEAD's history. Of a shallow clone only one cut equally has it."""
    shallow: tuple[str, ...] = ()
    """The commits whose parents are not here."""
    is_partial: bool = False
    """Whether objects may be missing here that a remote promised."""
    is_sparse: bool = False
    is_adopted: bool = False
    """Whether the directory has no git, and the repository is ours."""
    operation: str | None = None
    """What is under way: merge, rebase, cherry-pick, revert or bisect. Conflicted files travel with their markers."""

    @property
    def is_shallow(self) -> bool:
        """Whether the history is cut."""
        return bool(self.shallow)

    @property
    def name(self) -> str:
        """What its directory is called."""
        return self.top.name or "root"


async def find_repository(git: Git, directory: Path) -> Repository | None:
    """Return the repository around a directory, None where there is none.

    Raises UsageError for a bare one and inside `.git`, ConfigurationError where git refuses it for its owner.
    """
    here = git.at(directory)
    if not await _is_repository(here):
        return None
    if await here.line("rev-parse", "--is-inside-work-tree") != "true":
        what = await _without_tree(here)
        raise UsageError(f"`{directory}` is {what}", hint="choose a working tree, or use `--code none`")
    top = Path(await here.line("rev-parse", "--show-toplevel"))
    prefix = PurePosixPath(await here.line("rev-parse", "--show-prefix") or ".")
    found = git.at(top)
    if not await _is_repository(found) or await _git_dir(found) != await _git_dir(here):
        raise UsageError(
            f"the repository of `{directory}` is not found from its own top, `{top}`",
            hint="take `core.worktree` out of its settings, or use `--code none`",
        )
    return await _looked_at(found, top, prefix)


async def adopt_directory(git: Git, directory: Path, folder: Path) -> Repository:
    """Return a repository of ours, in `folder`, whose working tree is a directory without git; that is only read.

    Raises UsageError for a directory that holds our own files: a home directory, say.
    """
    top = _resolved(directory)
    if _resolved(folder).is_relative_to(top):
        raise UsageError(
            f"`{directory}` is too wide to travel: it holds the files of remote-dispatch, too",
            hint="choose a directory below it, or use `--code none`",
        )
    store = folder / _OWN
    # What travels is what is there: the user's own line ends, not those of a repository's agreement.
    own = (await make_store(git, store, "sha1")).with_settings("core.autocrlf=false", "core.bare=false")
    repository = await _looked_at(replace(own, directory=top).using(GIT_WORK_TREE=top), top, PurePosixPath())
    return replace(repository, is_adopted=True)


def _resolved(path: Path) -> Path:
    return path.resolve()


async def _is_repository(here: Git) -> bool:
    ran = await here.run("rev-parse", "--git-dir", accepted=(0, 128))
    if ran.status == 0:
        return True
    if b"not a git repository" in ran.stderr and b"not a git repository: " not in ran.stderr:
        return False
    if b"dubious ownership" in ran.stderr or b"unsafe repository" in ran.stderr:
        raise ConfigurationError(
            f"git refuses the repository around `{here.directory}`, which belongs to another user",
            hint="`git config --global --add safe.directory DIRECTORY` tells git to trust it",
        )
    await here.run("rev-parse", "--git-dir")
    return False


async def _without_tree(here: Git) -> str:
    bare, inside = (await here.line("rev-parse", "--is-bare-repository", "--is-inside-git-dir")).split("\n")
    if bare == "true":
        return "a bare repository, without a working tree"
    return "inside a `.git` directory" if inside == "true" else "outside of the working tree of its repository"


async def _git_dir(git: Git) -> str:
    return await git.line("rev-parse", "--absolute-git-dir")


async def _looked_at(git: Git, top: Path, prefix: PurePosixPath) -> Repository:
    git_dir = Path(await _git_dir(git))
    common_dir = top / await git.line("rev-parse", "--git-common-dir")
    object_format = await git.line("rev-parse", "--show-object-format")
    head = await git.find("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    shallow = _shallow(common_dir)
    return Repository(
        git=git,
        top=top,
        prefix=prefix,
        git_dir=git_dir,
        common_dir=common_dir,
        index=top / await git.line("rev-parse", "--git-path", "index"),
        objects=_resolved(top / await git.line("rev-parse", "--git-path", "objects")),
        object_format=object_format,
        head=head,
        branch=await git.find("symbolic-ref", "--quiet", "HEAD"),
        project=await _project(git, top, head, shallow, object_format),
        shallow=shallow,
        is_partial=await git.find("config", "--get-regexp", r"^(remote\..*\.promisor|extensions\.partialclone)$")
        is not None,
        is_sparse=await git.find("config", "--type=bool", "--get", "core.sparseCheckout") == "true",
        operation=next((word for name, word in _OPERATIONS.items() if (git_dir / name).exists()), None),
    )


def _shallow(common_dir: Path) -> tuple[str, ...]:
    place = common_dir / "shallow"
    return tuple(sorted(place.read_text("ascii").split())) if place.exists() else ()


async def _project(git: Git, top: Path, head: str | None, shallow: tuple[str, ...], object_format: str) -> str:
    if head is None:
        return _made_up(os.fsencode(top), object_format)
    try:
        roots = (await git.line("rev-list", "--max-parents=0", head, timeout_s=LONG_S)).split()
    except CommandError as error:
        raise UsageError(
            f"the history of `{top}` is not complete: {error.output}", hint="`git fsck` says what is missing"
        ) from error
    return _made_up("\n".join((roots[-1], *shallow)).encode(), object_format) if shallow else roots[-1]


def _made_up(peculiar: bytes, object_format: str) -> str:
    """An id in the form of the others, for what shares no objects: it has no history yet, or one that is cut here."""
    return hashlib.sha256(peculiar).hexdigest()[: _ID_LENGTH[object_format]]
