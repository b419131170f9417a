"""What an installation changed, kept beside the plugin's file, so that everything can be as it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from remote_dispatch.hosts.files import UnreadableError, read_text, replace_text
from remote_dispatch.plugin.entry import EntryReceipt

if TYPE_CHECKING:
    from collections.abc import Iterable


class Receipt(BaseModel):
    """One installation."""

    version: int = 1
    configuration: Path | None = None
    made_configuration: bool = False
    entry: EntryReceipt | None = None
    plugin_digest: str = ""
    """Of the plugin's file as it was written: a changed one is the user's."""
    made: list[Path] = []
    """Directories and files that were made and go again, directories when they are empty."""


def load(path: Path) -> Receipt:
    """Read a receipt; a missing or damaged one is an empty one: then the entry is looked for by its name."""
    try:
        return Receipt.model_validate_json(read_text(path) or "{}")
    except (UnreadableError, ValidationError):
        return Receipt()


def save(path: Path, receipt: Receipt) -> None:
    """Keep a receipt, 0600: it may repeat a line of the configuration."""
    replace_text(path, receipt.model_dump_json(indent=2) + "\n")


def make_directories(path: Path) -> list[Path]:
    """Make a directory and what is missing above it; return what was made, the upper first."""
    missing = [one for one in (*reversed(path.parents), path) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(paths: Iterable[Path]) -> None:
    """Remove those directories that are empty now, the lower first."""
    for path in sorted(paths, key=lambda one: len(one.parts), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
