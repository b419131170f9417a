"""What travels beside HEAD's history, with sizes, and what is left out and why. Reads only."""

from __future__ import annotations

import asyncio
import os
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from remote_dispatch.errors import UsageError
from remote_dispatch.text import clean
from remote_dispatch.workspace.git import LONG_S
from remote_dispatch.workspace.secrets import is_likely_secret
from remote_dispatch.workspace.status import Kind, Line, read_status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from remote_dispatch.workspace.repository import Repository

_ATTRIBUTES = ".gitattributes"
_LFS = "filter=lfs"


class Reason(StrEnum):
    """Why something is left out."""

    SECRET = "secret"  # noqa: S105 - a word, not a password
    """It is untracked and looks like one."""
    REPOSITORY = "repository"
    """Another repository, which is no submodule."""
    SUBMODULE = "submodule"
    """Changes inside a submodule: the commit that it points to travels."""
    SPECIAL = "special"
    """Neither file nor directory nor symlink."""
    PRIVATE = "private"
    """Our own records."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """By what a changed file is recognised."""

    mode: int = 0
    bytes: int = 0
    changed_ns: int = 0
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One file that travels. `path` is relative to the top; `origin` is what a renamed one was called."""

    path: str
    kind: Kind
    origin: str | None = None
    stamp: Stamp = Stamp()

    @property
    def bytes(self) -> int:
        """Its size; 0 for what was deleted."""
        return self.stamp.bytes


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that stays here."""

    path: str
    reason: Reason
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Survey:
    """What will travel beside HEAD's history; two are equal when no file changed in between."""

    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]
    lfs: tuple[str, ...]
    """Files that travel as pointers of Git LFS, without their contents."""
    include: tuple[str, ...]
    private: Path | None = None

    @property
    def total_bytes(self) -> int:
        """The size of all files that travel, unpacked."""
        return sum(entry.bytes for entry in self.entries)


async def survey(repository: Repository, include: Sequence[str] = (), *, private: Path | None = None) -> Survey:
    """Look at the working tree; `include` has patterns of `.gitignore`, relative to the top, for what travels anyway.

    Nothing below `private` travels. Raises UsageError for a pattern that is none, or that no file matches.
    """
    lines = await _status(repository)
    included = await _included(repository, include)
    lfs = await _lfs(repository)
    return await asyncio.to_thread(_sorted_out, repository.top, lines, included, lfs, tuple(include), private)


async def survey_paths(repository: Repository, paths: Collection[str]) -> Survey:
    """Look at everything that is tracked or not ignored, likely secrets too, and at these paths if they exist."""
    lines = await _status(repository)
    known = {path for line in lines for path in (line.path, line.origin)}
    tracked = set(await repository.git.names("ls-files", "-z"))
    wanted = [Line(path, Kind.INCLUDED) for path in paths if path not in known and path not in tracked]
    return await asyncio.to_thread(_all_of, repository.top, [*lines, *wanted])


async def history_bytes(repository: Repository, known: Collection[str] = ()) -> int:
    """Return what HEAD's history takes in this repository, packed, without what `known` commits have."""
    if repository.head is None:
        return 0
    revisions = "".join(f"{one}\n" for one in (repository.head, *(f"^{one}" for one in known)))
    arguments = ("rev-list", "--disk-usage", "--objects", "--use-bitmap-index", "--ignore-missing", "--stdin")
    # Whether the host has what a partial clone lacks shows when it is packed.
    missing = ("--missing=allow-any",) if repository.is_partial else ()
    return int(await repository.git.line(*arguments, *missing, input=revisions.encode(), timeout_s=LONG_S))


async def _status(repository: Repository) -> list[Line]:
    """Finding renames needs contents, which a partial clone may lack."""
    renames = "--no-renames" if repository.is_partial else "--find-renames"
    arguments = ("--porcelain=v2", "-z", "--untracked-files=all", "--ignore-submodules=none", renames)
    return read_status((await repository.git.run("status", *arguments, timeout_s=LONG_S)).stdout)


async def _included(repository: Repository, patterns: Iterable[str]) -> set[str]:
    included: set[str] = set()
    for pattern in patterns:
        if not pattern.strip("/") or pattern.startswith("!") or "\0" in pattern:
            raise UsageError(f"`{_shown(pattern)}` is not a pattern of files to include")
        found = await repository.git.names("ls-files", "-z", "--others", "--ignored", f"--exclude={pattern}")
        if not found and not await repository.git.names("ls-files", "-z", "-i", "-c", f"--exclude={pattern}"):
            raise UsageError(
                f"`--include {_shown(pattern)}` matches no file",
                hint="patterns are those of .gitignore, relative to the repository's top",
            )
        included.update(found)
    return included


async def _lfs(repository: Repository) -> tuple[str, ...]:
    git = repository.git.using(GIT_LITERAL_PATHSPECS="0")
    attributes = await git.names("ls-files", "-z", "-c", "-o", "--exclude-standard", "--", f":(glob)**/{_ATTRIBUTES}")
    places = [repository.top / name for name in attributes] + [repository.common_dir / "info" / "attributes"]
    if not await asyncio.to_thread(_mention_lfs, places):
        return ()
    return tuple(await git.names("ls-files", "-z", "--", ":(attr:filter=lfs)"))


def _mention_lfs(places: Iterable[Path]) -> bool:
    return any(_LFS in place.read_text("utf-8", "replace") for place in places if place.is_file())


def _sorted_out(
    top: Path,
    lines: Sequence[Line],
    included: set[str],
    lfs: tuple[str, ...],
    include: tuple[str, ...],
    private: Path | None,
) -> Survey:
    entries: list[Entry] = []
    left_out: list[LeftOut] = []
    listed = {line.path for line in lines}
    wanted = (Line(path, Kind.INCLUDED) for path in included - listed)
    for line in sorted((*lines, *wanted), key=lambda one: one.path):
        found = _stamp(top / line.path)
        reason = _why_not(top, line, found, private) or _why_guarded(top, line, found, included)
        if reason is not None:
            left_out.append(LeftOut(line.path, reason, found.bytes if found else 0))
        if reason is None or (reason is Reason.SUBMODULE and line.is_pointer_changed):
            entries.append(_entry(line, found))
    return Survey(tuple(entries), tuple(left_out), lfs, include, private)


def _all_of(top: Path, lines: Iterable[Line]) -> Survey:
    entries = []
    for line in lines:
        found = _stamp(top / line.path)
        is_there = found is not None or line.kind is not Kind.INCLUDED
        if is_there and _why_not(top, line, found, None) in (None, Reason.SUBMODULE):
            entries.append(_entry(line, found))
    return Survey(tuple(entries), (), (), ())


def _entry(line: Line, found: Stamp | None) -> Entry:
    if found is None or line.kind is Kind.DELETED:
        return Entry(line.path, Kind.DELETED, line.origin)
    return Entry(line.path, line.kind, line.origin, found)


def _why_not(top: Path, line: Line, found: Stamp | None, private: Path | None) -> Reason | None:
    """Why git could not carry it."""
    if line.is_submodule:
        return Reason.SUBMODULE if line.is_dirty_inside else None
    if private is not None and (top / line.path).is_relative_to(private):
        return Reason.PRIVATE
    if found is None or line.kind is Kind.DELETED or stat.S_ISREG(found.mode) or stat.S_ISLNK(found.mode):
        return None
    if not stat.S_ISDIR(found.mode):
        return Reason.SPECIAL
    return Reason.REPOSITORY if line.kind in (Kind.UNTRACKED, Kind.INCLUDED) else None


def _why_guarded(top: Path, line: Line, found: Stamp | None, included: set[str]) -> Reason | None:
    """Why the user has to wish it. What is tracked is in the history anyway."""
    if line.kind is not Kind.UNTRACKED or line.path in included or found is None or not stat.S_ISREG(found.mode):
        return None
    return Reason.SECRET if is_likely_secret(top / line.path, found.bytes) else None


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return Stamp(found.st_mode, size, max(found.st_mtime_ns, found.st_ctime_ns), found.st_ino)


def _shown(pattern: str) -> str:
    return clean(os.fsencode(pattern).decode(errors="replace"), 100)
