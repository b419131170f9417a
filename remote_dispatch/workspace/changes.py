"""What the result changed of what was sent: counted, and as a patch. Names and lines are the host's: clean them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.workspace.git import LONG_S, OUTPUT_LIMIT_BYTES, split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.workspace.arrival import Arrived
    from remote_dispatch.workspace.git import Git

_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color", "--find-renames", "--ignore-submodules=none")
# As git has it unless told otherwise: the user may like patches that `git apply` does not take.
_APPLICABLE = ("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "--unified=3", "--inter-hunk-context=0")


@dataclass(frozen=True, slots=True)
class Changed:
    """One changed file. Lines are None for a binary one; `origin` is what a renamed one was called."""

    path: str
    added: int | None
    removed: int | None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Diffstat:
    """All changed files, by path."""

    files: tuple[Changed, ...]

    @property
    def added(self) -> int:
        """How many lines came."""
        return sum(one.added or 0 for one in self.files)

    @property
    def removed(self) -> int:
        """How many lines went."""
        return sum(one.removed or 0 for one in self.files)


async def diffstat(git: Git, arrived: Arrived) -> Diffstat:
    """Return what was changed since the snapshot."""
    store = git.on(arrived.store)
    ran = await store.run("diff", *_PLAIN, "--numstat", "-z", arrived.snapshot, arrived.result, timeout_s=LONG_S)
    return Diffstat(tuple(_changed(iter(split(ran.stdout)))))


async def diff(git: Git, arrived: Arrived, *, limit_bytes: int = OUTPUT_LIMIT_BYTES) -> bytes:
    """Return the patch that `git apply` takes, from the snapshot to the result; CommandError beyond the limit."""
    store = git.on(arrived.store)
    arguments = ("diff", *_PLAIN, *_APPLICABLE, "--binary", "--full-index", arrived.snapshot, arrived.result)
    return (await store.run(*arguments, timeout_s=LONG_S, limit_bytes=limit_bytes)).stdout


def _changed(records: Iterator[str]) -> Iterator[Changed]:
    for record in records:
        added, removed, path = record.split("\t", 2)
        origin = None if path else next(records)
        yield Changed(path or next(records), _count(added), _count(removed), origin)


def _count(text: str) -> int | None:
    return None if text == "-" else int(text)
