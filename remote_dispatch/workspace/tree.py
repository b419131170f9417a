"""Reading trees of a repository, bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.workspace.git import LONG_S, OUTPUT_LIMIT_BYTES, split

if TYPE_CHECKING:
    from remote_dispatch.workspace.git import Git


@dataclass(frozen=True, slots=True)
class Leaf:
    """A file, symlink or submodule of a tree. `mode` is git's: 100644, 100755, 120000 or 160000, octal."""

    mode: int
    id: str
    path: str


async def leaves(git: Git, tree: str, *, limit_bytes: int = OUTPUT_LIMIT_BYTES) -> list[Leaf]:
    """Return what a tree holds, at all depths, by path. Raises CommandError beyond `limit_bytes` of names."""
    ran = await git.run("ls-tree", "-r", "-z", "--full-tree", tree, limit_bytes=limit_bytes, timeout_s=LONG_S)
    return [_leaf(record) for record in split(ran.stdout)]


def _leaf(record: str) -> Leaf:
    facts, path = record.split("\t", 1)
    mode, _, object_id = facts.split(" ")
    return Leaf(int(mode, 8), object_id, path)


async def changed_paths(git: Git, one: str, other: str) -> list[str]:
    """Return the paths at which two trees differ, both names of what was renamed."""
    return await git.names("diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", one, other)


def parents_of(path: str) -> list[str]:
    """Return the directories above a path, the nearest last."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
