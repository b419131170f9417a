"""Small translations between people and values: ages, durations."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from remote_dispatch.errors import UsageError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def age(moment: datetime) -> str:
    """How long ago, in one rough word: `4 min`."""
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def duration_s(text: str | None) -> float | None:
    """Read `90`, `90s`, `30m`, `2h` or `1d`, in seconds. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd]?)", text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"`{text}` is not a time", hint="write `90s`, `30m`, `2h` or `1d`")
    return float(match[1]) * _UNITS[match[2]]
