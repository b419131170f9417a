"""What the scripts on the host print, read as values. All of it is untrusted: bounded, parsed, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Literal, get_args

from pydantic import ValidationError

from remote_dispatch.runner.outcome import Outcome

LIMIT_BYTES = 65_536
"""More than this is never looked at."""

Held = Literal["yes", "no", "dead"]


class LaunchState(StrEnum):
    """What `launch` found or brought about; see launch.sh."""

    STARTED = "started"
    IMPORTING = "importing"
    HELD = "held"
    RECOVERING = "recovering"
    ENDED = "ended"
    LOST = "lost"
    ABSENT = "absent"
    DAMAGED = "damaged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What a run directory shows. `directory` is None until the runner has entered it."""

    exists: bool
    started: bool = False
    held: Held = "no"
    """Whether a living runner holds the lock; `dead` when its holder is gone."""
    outcome: Outcome | None = None
    events_bytes: int = 0
    last_event_age_s: int | None = None
    directory: PurePosixPath | None = None
    is_recovering: bool = False
    """Whether the living runner is a recovery, which only exports; `outcome` is an earlier one until it has ended."""
    is_opencode_alive: bool = False
    """Whether OpenCode still works on the brief; it may outlive its runner."""

    @property
    def is_lost(self) -> bool:
        """Whether it was started, left no outcome, and nobody holds the lock but perhaps a recovery."""
        return self.started and self.outcome is None and (self.held != "yes" or self.is_recovering)


@dataclass(frozen=True, slots=True)
class Partial:
    """What `partial` did; see partial.sh. Where nothing is set but `is_there`, no code came along."""

    directory: str | None
    """Where the result of the code lies within the run directory, as far as it is."""
    problem: str | None
    """A word for why it could not be packed."""
    is_there: bool
    """Whether there is such a run directory."""


def parse_status(printed: bytes, dispatch_id: str) -> RunStatus:
    """Read what `status` and `cancel` print.

    Unknown keys are ignored. Raises ValueError for a cut answer, and for an outcome that is malformed or belongs to
    another dispatch.
    """
    values = _values(printed)
    if values.get("exists") != "yes":
        return RunStatus(exists=False)
    return RunStatus(
        exists=True,
        started=values.get("started") == "yes",
        held=_held(values.get("held", "no")),
        outcome=parse_outcome(values["outcome_json"].encode(), dispatch_id) if values.get("outcome") == "yes" else None,
        events_bytes=_number(values.get("events_bytes")) or 0,
        last_event_age_s=_number(values.get("last_event_age_s")),
        directory=_path(values.get("directory_hex")),
        is_recovering=values.get("recovering") == "yes",
        is_opencode_alive=values.get("opencode") == "yes",
    )


def parse_outcome(text: bytes, dispatch_id: str) -> Outcome:
    """Read an outcome file. Raises ValueError when it is malformed or belongs to another dispatch."""
    try:
        outcome = Outcome.model_validate_json(text[:LIMIT_BYTES])
    except ValidationError as error:
        raise ValueError("the outcome file is not what the runner writes") from error
    if outcome.dispatch != dispatch_id:
        raise ValueError("the outcome file belongs to another dispatch")
    return outcome


def parse_launch(printed: bytes) -> LaunchState:
    """Read what `launch` prints. Raises ValueError for anything else."""
    words = _last_match(rb"^launched ([a-z]+)$", printed)
    return LaunchState(words[0].decode())


def parse_clean(printed: bytes) -> str | None:
    """Read what `clean` prints: None when the run directory is gone, else why it was kept; see clean.sh."""
    words = _last_match(rb"^(removed|kept [a-z]+)$", printed)
    return words[0].decode().partition(" ")[2] or None


def parse_told(printed: bytes) -> bool:
    """Read what `end` prints: whether there is such a live run. Raises ValueError for anything else."""
    return _last_match(rb"^end (told|absent)$", printed)[0] == b"told"


def parse_sweep(printed: bytes) -> int:
    """Read what `sweep` prints: how many leftovers were removed."""
    return int(_last_match(rb"^swept ([0-9]{1,9})$", printed)[0])


def parse_partial(printed: bytes) -> Partial:
    """Read what `partial` prints. Raises ValueError for anything else."""
    line = _last_match(rb"^partial (none|absent|failed [a-z-]{1,20}|packed partial\.[0-9]{1,10})$", printed)[0].decode()
    word, _, rest = line.partition(" ")
    return Partial(
        directory=rest if word == "packed" else None,
        problem=rest if word == "failed" else None,
        is_there=word != "absent",
    )


def _values(printed: bytes) -> dict[str, str]:
    """Return the pairs between the marks; what a login shell says before them is skipped."""
    text = printed[-LIMIT_BYTES:].decode(errors="replace")
    _, begin, rest = text.rpartition("status begin\n")
    block, end, _ = rest.partition("status end")
    if not (begin and end):
        raise ValueError("the status was cut")
    pairs = (line.partition(" ") for line in block.split("\n"))
    return {key: value for key, _, value in pairs if key} | {"outcome_json": _outcome_line(block)}


def _outcome_line(block: str) -> str:
    return next((line.partition(" ")[2] for line in block.split("\n") if line.startswith("outcome_json ")), "")


def _last_match(pattern: bytes, printed: bytes) -> tuple[bytes, ...]:
    found = None
    for found in re.finditer(pattern, printed[-LIMIT_BYTES:], re.MULTILINE):  # noqa: B007 - the last one is wanted
        pass
    if found is None:
        raise ValueError("the script did not say what came of it")
    return found.groups()


def _held(word: str) -> Held:
    return next((known for known in get_args(Held) if known == word), "no")


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"-?[0-9]{1,18}", text) else None


def _path(text: str | None) -> PurePosixPath | None:
    if not text or not re.fullmatch(r"(?:[0-9a-f]{2}){1,4096}", text):
        return None
    return PurePosixPath(bytes.fromhex(text).decode(errors="surrogateescape"))
