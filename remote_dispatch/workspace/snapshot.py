"""One commit of the working tree as it is. The user's repository is only read: index and objects of ours take it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.errors import IntegrityError
from remote_dispatch.workspace.git import LONG_S, as_author, joined, make_store
from remote_dispatch.workspace.status import Kind
from remote_dispatch.workspace.survey import survey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.workspace.git import Git
    from remote_dispatch.workspace.repository import Repository
    from remote_dispatch.workspace.survey import Survey

SNAPSHOT_REF = "refs/dispatch/snapshot"
_STORE = "snapshot.git"
_MESSAGE = "The working tree as it was when it was dispatched"
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The commit, and the bare repository of ours that has it; everything else it reads in the user's."""

    commit: str
    tree: str
    base: str | None
    """HEAD, its only parent; None when there was no commit yet."""
    store: Path
    shallow: tuple[str, ...]
    object_format: str
    is_partial: bool
    survey: Survey | None = None
    """What travelled: not quite what was surveyed first, when files changed in between."""


async def take_snapshot(repository: Repository, found: Survey, folder: Path) -> Snapshot:
    """Make the commit of HEAD with what was surveyed.

    A file that changes meanwhile is taken once more, as a survey by the same wishes finds it; the commit is the working
    tree as it was at one moment. Raises IntegrityError when it does not come to rest.
    """
    git = await _store(repository, folder)
    for _ in range(_ATTEMPTS):
        with _scratch(folder) as scratch:
            tree = await stage(repository, found, scratch / "index", git.directory / "objects")
        again = await survey(repository, found.include, private=found.private)
        if again == found:
            return await _committed(repository, git, tree, found)
        found = again
    raise IntegrityError(
        "files changed all the time while they were copied", hint="try again when nothing writes there any more"
    )


async def read_snapshot(repository: Repository, folder: Path) -> Snapshot | None:
    """Return the snapshot that was taken into this folder, or None."""
    if not (folder / _STORE / "HEAD").exists():
        return None
    git = await _store(repository, folder)
    commit = await git.find("rev-parse", "--verify", "--quiet", SNAPSHOT_REF)
    if commit is None:
        return None
    tree, *parents = (await git.line("show", "--no-patch", "--format=%T %P", commit)).split()
    return _described(repository, git, commit, tree, parents[0] if parents else None, None)


async def stage(repository: Repository, found: Survey, index: Path, objects: Path) -> str:
    """Return the tree of the user's index with what was surveyed, made with an index and objects of ours.

    The index is a copy of the user's: it knows which files are unchanged. Afterwards it holds that tree.
    """
    with suppress(FileNotFoundError):
        # With the time of the original: git reads files again that are not older than the index.
        await asyncio.to_thread(shutil.copy2, repository.index, index)
    git = repository.git.using(GIT_INDEX_FILE=index, GIT_OBJECT_DIRECTORY=objects)
    git = git.with_settings("core.looseCompression=1", f"lfs.storage={objects.parent / 'lfs'}")
    gone = [entry.path for entry in found.entries if entry.kind is Kind.DELETED]
    gone += [entry.origin for entry in found.entries if entry.origin is not None]
    there = [entry.path for entry in found.entries if entry.kind is not Kind.DELETED]
    await _update(git, ("--force-remove",), gone)
    await _update(git, ("--add", "--remove", "--replace"), there)
    missing = ("--missing-ok",) if repository.is_partial else ()
    return await git.line("write-tree", *missing, timeout_s=LONG_S)


async def _update(git: Git, how: tuple[str, ...], paths: list[str]) -> None:
    if paths:
        await git.run("update-index", *how, "-z", "--stdin", input=joined(paths), timeout_s=LONG_S)


async def _store(repository: Repository, folder: Path) -> Git:
    git = await make_store(repository.git, folder / _STORE, repository.object_format, repository.objects)
    if repository.shallow:
        (folder / _STORE / "shallow").write_text("".join(f"{one}\n" for one in repository.shallow), "ascii")
    return git


async def _committed(repository: Repository, git: Git, tree: str, found: Survey) -> Snapshot:
    commit = await commit_tree(git, tree, repository.head, message=_MESSAGE)
    await git.run("update-ref", SNAPSHOT_REF, commit)
    await _keep(git, commit, repository)
    return _described(repository, git, commit, tree, repository.head, found)


async def commit_tree(git: Git, tree: str, parent: str | None, *, message: str) -> str:
    """Make a commit of ours and return its id."""
    parents = ("-p", parent) if parent else ()
    return await git.using(**as_author()).line("commit-tree", *parents, "-m", message, tree)


async def _keep(git: Git, commit: str, repository: Repository) -> None:
    """Copy what is not in HEAD's history: what was staged only may be pruned there long before the result comes."""
    revisions = f"{commit}\n" + (f"^{repository.head}\n" if repository.head else "")
    missing = ("--missing=allow-any",) if repository.is_partial else ()
    pack = git.directory / "objects" / "pack" / "pack"
    await git.run("pack-objects", "--revs", "--quiet", *missing, str(pack), input=revisions.encode(), timeout_s=LONG_S)
    await git.run("prune-packed", "--quiet", timeout_s=LONG_S)


def _described(
    repository: Repository, git: Git, commit: str, tree: str, base: str | None, found: Survey | None
) -> Snapshot:
    return Snapshot(
        commit,
        tree,
        base,
        git.directory,
        repository.shallow,
        repository.object_format,
        repository.is_partial,
        found,
    )


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="index-", dir=folder) as place:
        yield Path(place)
