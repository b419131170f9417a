"""What the host's scripts and the conversation say, where only tests ask."""

from __future__ import annotations

import re
from typing import Any

from remote_dispatch.runner.status import LaunchState

ON_ITS_WAY = frozenset({LaunchState.STARTED, LaunchState.IMPORTING, LaunchState.HELD, LaunchState.ENDED})


def end_of(talk: bytes) -> tuple[str, int] | None:
    """Return how `follow` says that it is over, and the size of the events; None where it was cut before."""
    ends = re.findall(rb"^ended (outcome|lost|gone) ([0-9]+)$", talk, re.MULTILINE)
    return (ends[-1][0].decode(), int(ends[-1][1])) if ends else None


def the_last_text(transcript: dict[str, Any]) -> str:
    """Return what was said last."""
    return str([part["text"] for part in transcript["messages"][-1]["parts"] if part["type"] == "text"][-1])
