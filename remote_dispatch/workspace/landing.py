"""The result becomes one branch of the user's repository. Nothing else of it changes."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING

from remote_dispatch.errors import CommandError, IntegrityError, UsageError
from remote_dispatch.workspace.claim import is_branch_name
from remote_dispatch.workspace.git import LONG_S, borrow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.workspace.arrival import Arrived
    from remote_dispatch.workspace.git import Git
    from remote_dispatch.workspace.repository import Repository

_HEADS = "refs/heads/"
_ROOM = "dispatch"
_MOST_SUFFIXES = 100


@dataclass(frozen=True, slots=True)
class Landed:
    """The branch, by its short name, and where it was put."""

    branch: str
    commit: str


async def land(repository: Repository, arrived: Arrived, name: str, previous: Landed | None = None) -> Landed | None:
    """Make the branch `dispatch/<name>`, or `dispatch-<name>` where a branch `dispatch` stands in the way.

    A branch of that name which is not ours is left alone, and the next free suffix (`-2`) taken. `previous` is what an
    earlier call returned: while it still stands there and nobody has it checked out, it is moved. Returns None, and
    makes nothing, when nothing was changed on the host.
    """
    if arrived.result == arrived.snapshot:
        return None
    await bring_objects(repository, arrived)
    taken = await _branches(repository.git)
    for branch in _candidates(taken, name):
        there = taken.get(branch)
        if there == arrived.result:
            return Landed(branch, there)
        is_ours = previous == Landed(branch, there or "") and branch not in await _checked_out(repository.git)
        if is_ours or (there is None and not any(one.startswith(f"{branch}/") for one in taken)):
            await put_branch(repository.git, branch, arrived.result, there, f"remote-dispatch: result of {name}")
            return Landed(branch, arrived.result)
    raise UsageError(f"no name is free for the branch of `{name}`", hint="`git branch --list 'dispatch*'` lists them")


async def bring_objects(repository: Repository, arrived: Arrived, *commits: str) -> None:
    """Copy what these commits (the result, when none is named) need into the user's repository, checked once more."""
    tips = commits or (arrived.result,)
    if await _are_complete(repository.git, tips, arrived.base):
        return
    store = repository.git.on(arrived.store)
    revisions = _revisions(tips, arrived.base)
    with tempfile.TemporaryFile(dir=arrived.store) as pack:
        how = ("--revs", "--stdout", "--delta-base-offset", "-q")
        await store.run("pack-objects", *how, input=revisions, output=pack, timeout_s=LONG_S)
        pack.seek(0)
        await _take_in(repository, pack)
    if not await _are_complete(repository.git, tips, arrived.base):
        raise IntegrityError("the result is not complete in this repository", hint="`git fsck` says what is missing")


async def _take_in(repository: Repository, pack: IO[bytes]) -> None:
    """Add a pack as git's own receiving does: what is cut short, by a full disk say, leaves nothing behind.

    git removes such a directory itself when a killed process left it, as it does with its own.
    """
    with tempfile.TemporaryDirectory(prefix="tmp_objdir-dispatch-", dir=repository.objects) as place:
        borrow(Path(place), repository.objects)
        git = repository.git.using(GIT_OBJECT_DIRECTORY=place)
        await git.run("index-pack", "--stdin", "--strict", input=pack, timeout_s=LONG_S)
        await asyncio.to_thread(_move_pack, Path(place, "pack"), repository.objects / "pack")


def _move_pack(source: Path, target: Path) -> None:
    """The index goes last: without it git does not see the pack."""
    target.mkdir(exist_ok=True)
    for path in sorted(source.iterdir(), key=lambda one: one.suffix == ".idx"):
        path.replace(target / path.name)


async def put_branch(git: Git, branch: str, commit: str, old: str | None, why: str) -> None:
    """Make a branch, or move it from where it was. Raises UsageError when it was moved meanwhile."""
    try:
        await git.run("update-ref", "--no-deref", "-m", why, _HEADS + branch, commit, old or "0" * len(commit))
    except CommandError as error:
        raise UsageError(f"the branch `{branch}` could not be written: {error.output}") from error


async def make_branch(repository: Repository, arrived: Arrived, branch: str) -> str:
    """Put the result into a new branch of the user's choice and return its name. One that has it already is fine.

    Raises UsageError for a bad name and one that is taken.
    """
    if not is_branch_name(branch):
        raise UsageError("that is no name for a branch", hint="choose one with `--branch NAME`")
    there = (await _branches(repository.git)).get(branch)
    if there == arrived.result:
        return branch
    if there is not None:
        raise UsageError(f"there is a branch `{branch}` already", hint="choose another name with `--branch NAME`")
    await bring_objects(repository, arrived)
    await put_branch(repository.git, branch, arrived.result, None, "remote-dispatch: result")
    return branch


def _candidates(taken: dict[str, str], name: str) -> Iterator[str]:
    plain = f"{_ROOM}-{name}" if _ROOM in taken else f"{_ROOM}/{name}"
    yield plain
    for number in count(2):
        if number > _MOST_SUFFIXES:
            return
        yield f"{plain}-{number}"


async def _branches(git: Git) -> dict[str, str]:
    said = await git.line("for-each-ref", "--format=%(objectname) %(refname)", _HEADS)
    pairs = (line.split(" ", 1) for line in said.splitlines())
    return {name.removeprefix(_HEADS): commit for commit, name in pairs}


async def _checked_out(git: Git) -> set[str]:
    prefix = f"branch {_HEADS}"
    lines = await git.names("worktree", "list", "--porcelain", "-z")
    return {line.removeprefix(prefix) for line in lines if line.startswith(prefix)}


def _revisions(tips: tuple[str, ...], base: str | None) -> bytes:
    return "".join(f"{one}\n" for one in (*tips, *((f"^{base}",) if base else ()))).encode()


async def _are_complete(git: Git, tips: tuple[str, ...], base: str | None) -> bool:
    how = ("rev-list", "--objects", "--quiet", "--stdin")
    ran = await git.run(*how, input=_revisions(tips, base), accepted=(0, 1, 128), timeout_s=LONG_S)
    return ran.status == 0
