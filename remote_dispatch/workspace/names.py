"""Which names an archive may hold. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath


def leads_out(place: PurePosixPath, target: str) -> bool:
    """Whether a symlink at this relative place leads out of the tree, by its words alone."""
    if target.startswith("/") or not target:
        return True
    depth = len(place.parts) - 1
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return True
    return False


def is_foreign(name: str) -> bool:
    """Whether no honest archive of a tree has this name: absolute, empty, or with `..` in it."""
    path = PurePosixPath(name)
    return not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name


def is_of_git(place: PurePosixPath) -> bool:
    """Whether it is, or is below, what git would take for a repository: that stays where it is."""
    return any(part.lower() == ".git" for part in place.parts)
