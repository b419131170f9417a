"""Makes the real home raise: a test that reads or writes the user's own keys, sessions or settings fails at once."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

FORBIDDEN = (".ssh", ".config", ".local/state", ".local/share/opencode", ".cache/remote-dispatch")
"""Not all of the home: a virtual environment or Python itself may live there."""

_EVENTS = frozenset(
    {
        "open",
        "os.chmod",
        "os.chown",
        "os.link",
        "os.listdir",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.scandir",
        "os.symlink",
        "os.truncate",
        "os.utime",
        "shutil.copyfile",
        "shutil.move",
        "shutil.rmtree",
        "sqlite3.connect",
    }
)


class RealHomeError(AssertionError):
    """A test touched the real home."""


def real_homes() -> frozenset[Path]:
    """Return the home of the environment, as it was when the tests began, and of the user database."""
    return frozenset({Path.home().absolute(), Path(pwd.getpwuid(os.getuid()).pw_dir)})


def guard_the_real_home() -> None:
    """Raise RealHomeError from now on, in this process, on every use of the forbidden places. It cannot be undone."""
    places = tuple(str(home / name) for home in real_homes() for name in FORBIDDEN)

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event in _EVENTS:
            for argument in arguments[:2]:
                if isinstance(argument, str | bytes) and _is_below(argument, places):
                    raise RealHomeError(f"{event} in the real home: {os.fsdecode(argument)}")

    sys.addaudithook(audit)


def _is_below(path: str | bytes, places: tuple[str, ...]) -> bool:
    text = os.fsdecode(path)
    return any(text == place or text.startswith(f"{place}/") for place in places)
