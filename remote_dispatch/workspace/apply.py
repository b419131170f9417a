"""The result comes into the working tree: merged three-way, or not at all."""

from __future__ import annotations

import asyncio
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.errors import CommandError, DivergedError
from remote_dispatch.text import clean
from remote_dispatch.workspace.git import LONG_S, borrow, split
from remote_dispatch.workspace.landing import bring_objects
from remote_dispatch.workspace.snapshot import commit_tree, stage
from remote_dispatch.workspace.survey import survey_paths
from remote_dispatch.workspace.tree import changed_paths, parents_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from remote_dispatch.workspace.arrival import Arrived
    from remote_dispatch.workspace.git import Git
    from remote_dispatch.workspace.repository import Repository

_SHOWN_PATHS = 10
_AS_BRANCH = "`--branch NAME` puts the result into a branch, to be merged by hand"
_MERGE_NAMES = "working tree and result"


@dataclass(frozen=True, slots=True)
class Applied:
    """What was changed here, relative to the top; nothing when all of it was here already."""

    paths: tuple[str, ...]
    commits: int = 0


async def apply(repository: Repository, arrived: Arrived, folder: Path) -> Applied:
    """Merge what changed since the snapshot into the working tree as it is now; index, HEAD and branches stay.

    Raises DivergedError, with the paths, when both sides changed the same; then nothing was touched.
    """
    with tempfile.TemporaryDirectory(prefix="apply-", dir=folder) as place:
        objects, index = Path(place) / "objects", Path(place) / "index"
        borrow(objects, repository.objects, arrived.store / "objects")
        git = repository.git.using(GIT_OBJECT_DIRECTORY=objects, GIT_INDEX_FILE=index)
        in_the_way = await _in_the_way(repository, git, arrived)
        here = await stage(repository, await survey_paths(repository, in_the_way), index, objects)
        merged = await _merged(git, arrived, here)
        paths = await _move(repository, git, here, merged)
    return Applied(tuple(paths))


async def apply_as_commit(repository: Repository, arrived: Arrived) -> Applied:
    """Put the commits of the result on top of HEAD, each as it is but for its parents; the snapshot is left out.

    Raises DivergedError unless HEAD has exactly what was sent, uncommitted changes of then included, and neither index
    nor working tree has changes: everything else would be a merge, which is for the user to make.
    """
    git = repository.git
    head = await _ready_head(repository)
    if await _has_result(git, arrived, head):
        return Applied(())
    if await _tree(git, head) != await _tree(git.on(arrived.store), arrived.snapshot):
        raise DivergedError("HEAD is not what was sent: the result cannot simply be put on top", hint=_AS_BRANCH)
    on_top, count = await _replayed(git.on(arrived.store), arrived, head)
    await bring_objects(repository, arrived, on_top)
    if not await _is_ancestor(git, head, on_top):
        raise DivergedError("the result does not continue what was sent", hint=_AS_BRANCH)
    paths = await _move(repository, git, head, on_top)
    await git.run("update-ref", "-m", "remote-dispatch: result applied", "HEAD", on_top, head)
    return Applied(tuple(paths), count)


async def _in_the_way(repository: Repository, git: Git, arrived: Arrived) -> list[str]:
    """What lies, ignored or not, where the result changes something: the merge has to see it."""
    changed = await changed_paths(git, arrived.snapshot, arrived.result)
    places = dict.fromkeys(place for path in changed for place in (*parents_of(path), path))
    return await asyncio.to_thread(_files_among, repository.top, places)


def _files_among(top: Path, places: Iterable[str]) -> list[str]:
    return [place for place in places if _is_file(top / place)]


def _is_file(place: Path) -> bool:
    try:
        mode = place.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (stat.S_ISREG(mode) or stat.S_ISLNK(mode)) and not any(one.is_symlink() for one in place.parents)


async def _merged(git: Git, arrived: Arrived, here: str) -> str:
    """The tree of the merge, whose base is the snapshot whatever the history of the result looks like."""
    ours = await commit_tree(git, here, arrived.snapshot, message=_MERGE_NAMES)
    theirs = await commit_tree(git, f"{arrived.result}^{{tree}}", arrived.snapshot, message=_MERGE_NAMES)
    how = ("--write-tree", "--name-only", "--no-messages", "-z")
    ran = await git.run("merge-tree", *how, ours, theirs, accepted=(0, 1), timeout_s=LONG_S)
    tree, *conflicts = split(ran.stdout)
    if ran.status:
        raise DivergedError(f"both sides changed the same: {_shown(dict.fromkeys(conflicts))}", hint=_AS_BRANCH)
    return tree


async def _move(repository: Repository, git: Git, here: str, there: str) -> list[str]:
    """Take the working tree from one tree to another, and return the paths at which they differ.

    git looks at every file that it knows before it changes the first; for ignored ones it has no regard, so we have.
    """
    paths = await changed_paths(git, here, there)
    if not paths:
        return []
    await _check_sparse(repository, git, paths)
    known = set(await git.names("ls-files", "-z"))
    coming = await git.names("diff-tree", "-r", "-z", "--name-only", "--no-renames", "--diff-filter=d", here, there)
    if strangers := await asyncio.to_thread(_strangers, repository.top, known, coming):
        raise DivergedError(f"files here are in the way: {_shown(strangers)}", hint=f"move them away, or {_AS_BRANCH}")
    # Files that were written anew with the same contents count as changed until the index has their new times.
    await git.run("update-index", "-q", "--refresh", accepted=(0, 1), timeout_s=LONG_S)
    try:
        await git.run("read-tree", "-m", "-u", "--no-sparse-checkout", here, there, timeout_s=LONG_S)
    except CommandError as error:
        hint = f"see `git status`, and try again, or {_AS_BRANCH}"
        raise DivergedError(f"files here are in the way: {error.output}", hint=hint) from error
    return paths


def _strangers(top: Path, known: Collection[str], coming: Iterable[str]) -> list[str]:
    """Files at, above or below the places of what comes, of which git does not know."""
    places = dict.fromkeys(place for path in coming for place in (*parents_of(path), path))
    coming = set(coming)
    found = [place for place in places if place not in known and _is_file(top / place)]
    directories = [place for place in coming if place not in known and _is_directory(top / place)]
    below = (str(one.relative_to(top)) for place in directories for one in (top / place).rglob("*") if _is_file(one))
    return [*found, *(one for one in below if one not in known)]


def _is_directory(place: Path) -> bool:
    return place.is_dir() and not place.is_symlink()


async def _check_sparse(repository: Repository, git: Git, paths: list[str]) -> None:
    if not repository.is_sparse or not paths:
        return
    outside = {line[2:] for line in await git.names("ls-files", "-t", "-z") if line.startswith("S ")}
    if absent := outside.intersection(paths):
        raise DivergedError(
            f"the result changes what the sparse checkout leaves out: {_shown(absent)}", hint=_AS_BRANCH
        )


async def _ready_head(repository: Repository) -> str:
    git = repository.git
    head = await git.find("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if head is None:
        raise DivergedError("there is no commit yet to put the result on", hint=_AS_BRANCH)
    changed = await git.names("status", "--porcelain", "-z", "--untracked-files=no", "--no-renames")
    if changed:
        paths = _shown(dict.fromkeys(one[3:] for one in changed))
        raise DivergedError(f"there are changes that are not committed: {paths}", hint="commit or stash them first")
    return head


async def _has_result(git: Git, arrived: Arrived, head: str) -> bool:
    """Whether HEAD has the same tree, or the result itself in its history."""
    if await _tree(git, head) == await _tree(git.on(arrived.store), arrived.result):
        return True
    ran = await git.run("merge-base", "--is-ancestor", arrived.result, head, accepted=(0, 1, 128))
    return ran.status == 0


async def _tree(git: Git, commit: str) -> str:
    return await git.line("rev-parse", f"{commit}^{{tree}}")


async def _replayed(store: Git, arrived: Arrived, head: str) -> tuple[str, int]:
    """The result with HEAD in the place of the snapshot: trees, authors, dates and messages stay."""
    stop = (f"^{arrived.base}",) if arrived.base else ()
    how = ("--topo-order", "--reverse", arrived.result, f"^{arrived.snapshot}", *stop)
    commits = (await store.line("rev-list", *how, timeout_s=LONG_S)).split()
    renamed = {arrived.snapshot: head}
    for commit in commits:
        content = (await store.run("cat-file", "commit", commit)).stdout
        renamed[commit] = await store.line("hash-object", "-t", "commit", "-w", "--stdin", input=_on(content, renamed))
    return renamed.get(arrived.result, arrived.result), len(commits)


def _on(content: bytes, renamed: dict[str, str]) -> bytes:
    """A commit's text with other parents; a signature of the old text goes."""
    head, separator, message = content.partition(b"\n\n")
    lines: list[bytes] = []
    is_signature = False
    for line in head.split(b"\n"):
        is_signature = line.startswith(b"gpgsig") or (is_signature and line.startswith(b" "))
        if is_signature:
            continue
        parent = line.removeprefix(b"parent ").decode("ascii", "replace") if line.startswith(b"parent ") else None
        lines.append(line if parent is None else b"parent " + renamed.get(parent, parent).encode())
    return b"\n".join(lines) + separator + message


async def _is_ancestor(git: Git, one: str, other: str) -> bool:
    return (await git.run("merge-base", "--is-ancestor", one, other, accepted=(0, 1))).status == 0


def _shown(paths: Iterable[str]) -> str:
    listed = list(paths)
    more = f" and {len(listed) - _SHOWN_PATHS} more" if len(listed) > _SHOWN_PATHS else ""
    return ", ".join(f"`{clean(path, 100)}`" for path in listed[:_SHOWN_PATHS]) + more
