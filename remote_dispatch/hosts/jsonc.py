"""JSON with comments and trailing commas, read into nodes that know their lines and offsets; strict about the rest."""

from __future__ import annotations

from remote_dispatch.hosts.nodes import (
    Array,
    Content,
    JsoncError,
    Member,
    Node,
    Object,
    Scalar,
    first_duplicate,
    plain,
)
from remote_dispatch.hosts.reader import read

__all__ = [
    "Array",
    "Content",
    "JsoncError",
    "Member",
    "Node",
    "Object",
    "Scalar",
    "first_duplicate",
    "parse",
    "plain",
]


def parse(text: str) -> Node:
    """Read one value. Raises JsoncError, also for nesting over 64 and for more than 100,000 tokens."""
    node = read(text)
    if node is not None:
        return node
    from remote_dispatch.hosts import grammar  # noqa: PLC0415 - 100 ms that only a file with faults pays

    return grammar.parse(text)
