"""Reading the head of a bundle ourselves: which refs it names is shown to nobody and made nowhere."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import IO

from remote_dispatch.errors import IntegrityError

_SIGNATURES = (b"# v2 git bundle\n", b"# v3 git bundle\n")
_LINE_LIMIT = 5000
_MOST_LINES = 20_000
_PREREQUISITE = re.compile(rb"-([0-9a-f]{40}(?:[0-9a-f]{24})?)(?: .*)?\n")
_TIP = re.compile(rb"([0-9a-f]{40}(?:[0-9a-f]{24})?) .+\n")
_FORMAT = b"@object-format="


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before the pack."""

    tips: frozenset[str]
    prerequisites: frozenset[str]
    object_format: str


def read_head(stream: IO[bytes]) -> Head:
    """Read up to the pack and leave the stream there. Raises IntegrityError for what is no bundle that we take."""
    if stream.readline(_LINE_LIMIT) not in _SIGNATURES:
        raise _refused("it is no bundle of git")
    tips: set[str] = set()
    prerequisites: set[str] = set()
    object_format = "sha1"
    for _ in range(_MOST_LINES):
        line = stream.readline(_LINE_LIMIT)
        if line == b"\n":
            return Head(frozenset(tips), frozenset(prerequisites), object_format)
        if line.startswith(_FORMAT):
            object_format = line[len(_FORMAT) :].decode("ascii", "replace").strip()
        elif found := _PREREQUISITE.fullmatch(line):
            prerequisites.add(found[1].decode())
        elif found := _TIP.fullmatch(line):
            tips.add(found[1].decode())
        else:
            raise _refused("its head is malformed, or asks for what we do not know")
    raise _refused("its head does not end")


def _refused(why: str) -> IntegrityError:
    return IntegrityError(f"the bundle from the host is refused: {why}")
