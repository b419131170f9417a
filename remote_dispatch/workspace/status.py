"""Reading `git status --porcelain=v2 -z`. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Kind(StrEnum):
    """How a file that travels beside HEAD's history stands; where several are true, the first of them here."""

    UNMERGED = "unmerged"
    DELETED = "deleted"
    RENAMED = "renamed"
    UNSTAGED = "unstaged"
    STAGED = "staged"
    UNTRACKED = "untracked"
    INCLUDED = "included"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the status. `path` is relative to the top; bytes that are not UTF-8 are surrogates."""

    path: str
    kind: Kind
    origin: str | None = None
    """What a renamed file was called."""
    is_submodule: bool = False
    is_pointer_changed: bool = False
    """Whether the submodule has another commit checked out than the index says."""
    is_dirty_inside: bool = False
    """Whether the submodule holds changes of its own."""


_FIELDS_BEFORE_PATH = {"1": 8, "2": 9, "u": 10}


def read_status(output: bytes) -> list[Line]:
    """Return the lines of the output in its order."""
    return list(_lines(iter(os.fsdecode(output).split("\0"))))


def _lines(records: Iterator[str]) -> Iterator[Line]:
    for record in records:
        match record[:1]:
            case "1" | "2" | "u":
                yield _tracked(record, next(records) if record[0] == "2" else None)
            case "?":
                yield Line(record[2:], Kind.UNTRACKED)
            case _:  # headers, and what stands behind the last NUL
                continue


def _tracked(record: str, origin: str | None) -> Line:
    *fields, path = record.split(" ", _FIELDS_BEFORE_PATH[record[0]])
    states, submodule = fields[1], fields[2]
    return Line(
        path,
        _kind(record[0], states),
        origin if "R" in states else None,
        is_submodule=submodule[0] == "S",
        is_pointer_changed=submodule[1] == "C",
        is_dirty_inside="M" in submodule or "U" in submodule,
    )


def _kind(record_type: str, states: str) -> Kind:
    staged, unstaged = states[0], states[1]
    if record_type == "u":
        return Kind.UNMERGED
    if unstaged == "D" or (staged == "D" and unstaged == "."):
        return Kind.DELETED
    if "R" in states:
        return Kind.RENAMED
    return Kind.STAGED if unstaged == "." else Kind.UNSTAGED
