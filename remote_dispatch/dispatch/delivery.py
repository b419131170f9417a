"""What a host says of a run in one answer: its status and, once it has ended, what came of it with its small files.

All of it is untrusted: bounded, cut by the sizes that go before each file, never by what a file holds. It takes the
place of downloads only: whatever is used of it is checked as a download is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.stages import STATUS_TIMEOUT_S, path_of, read_answer
from remote_dispatch.model import SESSION_ID
from remote_dispatch.runner import directory as names
from remote_dispatch.runner.scripts import script
from remote_dispatch.runner.status import parse_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from remote_dispatch.model import Dispatch
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.runner.status import RunStatus

PUSHED_BYTES = 4_000_000
"""What is larger, all together, is downloaded file by file: a download can be resumed."""
WORDS_BYTES = 2_000_000
"""The status, the list and the lines before the files: more is never kept."""
LIMIT_BYTES = PUSHED_BYTES + WORDS_BYTES
GLANCE_TIMEOUT_S = 900.0
"""Time enough for all that may come over a link of 5 KB/s."""

_STATUS_END = b"\nstatus end\n"
_FILE = re.compile(rb"file ([0-9]{1,9}) ([A-Za-z0-9_./-]{1,200})")
_NAMES = re.compile(
    rf"{re.escape(names.BACK_PACKED)}|{re.escape(names.BACK_TODOS)}|{re.escape(names.EVENTS)}"
    rf"|{names.BACK_CHILDREN}/{SESSION_ID.pattern}\.json\.gz|{names.BACK_TOOL_OUTPUT}/tool_[A-Za-z0-9]{{1,80}}"
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came. Of a run that goes on, or of a large result, there is the status alone."""

    status: RunStatus
    listing: tuple[str, ...] | None = None
    """The list of what came of it, as `collect` reads it; None where none came whole."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files of the run directory by their names there, as far as they came."""


async def glance(connection: Connection, record: Dispatch, *, is_result_wanted: bool) -> Delivery:
    """Ask what the run directory shows; where the run has ended and it is wanted, bring the small files along."""
    limit, timeout_s = (PUSHED_BYTES, GLANCE_TIMEOUT_S) if is_result_wanted else (0, STATUS_TIMEOUT_S)
    done = await connection.run(script("glance"), path_of(record), str(limit), "events", timeout_s=timeout_s)
    return read_answer(record, done, lambda: parse_delivery(done.stdout, record.id))


def parse_delivery(printed: bytes, dispatch_id: str) -> Delivery:
    """Read what print_result of push.sh prints. Raises ValueError where not even the status is whole, or is odd.

    What was cut behind that, or makes no sense, is left out.
    """
    words, mark, rest = printed.partition(_STATUS_END)
    status = parse_status(words + mark, dispatch_id)
    if status.outcome is None or len(printed) > LIMIT_BYTES:
        return Delivery(status)
    listing, mark, rest = rest.partition(b"listed\n")
    if not mark or (listing and not listing.endswith(b"\n")):
        return Delivery(status)
    lines = (listing + mark).decode(errors="replace").splitlines()
    return Delivery(status, tuple(lines), dict(_files(rest)))


def _files(rest: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the files that are whole and may be there, up to the first thing that is no file."""
    start = 0
    while (end := rest.find(b"\n", start)) >= 0 and (found := _FILE.fullmatch(rest, start, end)) is not None:
        start = end + 1 + int(found[1])
        name = found[2].decode()
        if start > len(rest):
            return
        if _NAMES.fullmatch(name):
            yield name, rest[end + 1 : start]
