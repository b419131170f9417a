"""The command line: thin. Parse, call the library, render.

`main` answers `hosts list --names` before the command-line library is loaded: the plugin asks for it again and again.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["main"]

_NAMES_COMMAND = ["hosts", "list"]
COMPLETION_VARIABLE = "_REMOTE_DISPATCH_COMPLETE"
"""Set while a shell asks what may come next: then nothing is to be run."""


def main() -> None:
    """Run the command line, and leave with the exit code."""
    if sys.argv[1:3] == _NAMES_COMMAND and COMPLETION_VARIABLE not in os.environ and _print_names(sys.argv[3:]):
        return
    from remote_dispatch.cli.app import main as run

    run()


def _print_names(arguments: Sequence[str]) -> bool:
    """Print the names where that is all there is to say. Nothing is printed otherwise."""
    from remote_dispatch.hosts.quick import names_here

    asked = _asked(arguments)
    if asked is None:
        return False
    is_json, hosts_file = asked
    names = names_here(hosts_file)
    return names is not None and _write(_envelope(names) if is_json else "".join(f"{name}\n" for name in names))


def _asked(arguments: Sequence[str]) -> tuple[bool, Path | None] | None:
    """Read `--names [--json] [--hosts FILE]`, in any order; None for anything else."""
    from pathlib import Path

    words, flags, files = list(arguments), [], []
    while words:
        word = words.pop(0)
        if word == "--hosts" and words:
            files.append(words.pop(0))
        else:
            flags.append(word)
    is_understood = sorted(flags) in (["--names"], ["--json", "--names"]) and len(files) < 2
    if not is_understood or any(not file or file.startswith("-") for file in files):
        return None
    return "--json" in flags, Path(files[0]) if files else None


def _envelope(names: Sequence[str]) -> str:
    """The line of `cli.output.envelope`, which a test compares."""
    import json

    answer = {"schema": 1, "command": "hosts list", "ok": True, "data": {"names": names}, "error": None}
    return json.dumps(answer) + "\n"


def _write(text: str) -> bool:
    """Write past Python's buffers: what cannot be written is not lost, and the usual way says why."""
    data = text.encode("ascii")
    try:
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]
    except (AttributeError, OSError, ValueError):  # without a stdout at all it is None
        return False
    return True
