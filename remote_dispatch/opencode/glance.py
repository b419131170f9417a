"""The sessions of this machine at a glance, for the shell's completion: read-only, bounded, never a word on failure.

OpenCode itself takes over a second to say the same. Nothing that matters may rest on this: it knows the tables of 1.18.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 50
_DEADLINE_S = 0.4
_STEPS_BETWEEN_LOOKS = 10_000
_QUERY = (
    "select id, title from session where parent_id is null and time_archived is null "
    "and substr(id, 1, length(:beginning)) = :beginning "
    "order by directory = :directory desc, time_updated desc limit :most"
)


def glance(environment: Mapping[str, str], directory: Path, beginning: str = "") -> list[tuple[str, str]]:
    """Return ids that begin so, with titles: at most 50, those of this directory first, the newest first.

    Titles are as OpenCode has them: foreign text. Without a readable database, and in doubt, there is nothing.
    """
    database = database_file(environment)
    try:
        if database is None or not database.is_file():
            return []
        with contextlib.closing(sqlite3.connect(_read_only(database), uri=True, timeout=0.1)) as connection:
            end = time.monotonic() + _DEADLINE_S
            connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS_BETWEEN_LOOKS)
            values = {"beginning": beginning, "directory": str(directory), "most": _MOST}
            return [(str(row[0]), str(row[1])) for row in connection.execute(_QUERY, values)]
    except (OSError, ValueError, sqlite3.Error):
        return []


def database_file(environment: Mapping[str, str]) -> Path | None:
    """Return where OpenCode 1.18 keeps its database: OPENCODE_DB, else `opencode.db` in its data directory."""
    base = Path(environment.get("XDG_DATA_HOME") or Path(environment.get("HOME") or "/", ".local/share"))
    named = environment.get("OPENCODE_DB") or "opencode.db"
    return None if named == ":memory:" else base / "opencode" / named


def _read_only(database: Path) -> str:
    """Name it so that nothing is written beside it: without a journal of changes (WAL) it is read as it lies there."""
    is_in_use = database.with_name(f"{database.name}-wal").exists()
    return f"{database.absolute().as_uri()}?mode=ro{'' if is_in_use else '&immutable=1'}"
