"""The texts that have OpenCode's own runtime read OpenCode's database: see reader.js, which says what it can do."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

DONE = 93
"""The reader's exit status when it did what it was asked for. What is no Bun prints its help and ends with 0 or 1."""


@cache
def reader_text() -> str:
    """Return the JavaScript for `OPENCODE -e`, without its comments. No single quote is in it."""
    lines = (line.strip() for line in _text("reader.js").splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


@cache
def reader_script() -> str:
    """Return the POSIX sh functions that scripts here and on a host read with."""
    return f"READER='{reader_text()}'\n{_text('reader.sh')}"


def _text(name: str) -> str:
    return files("remote_dispatch.reader").joinpath(name).read_text(encoding="utf-8")
