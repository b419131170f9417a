"""The run directory of a dispatch on its host: every file name in it, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePosixPath

JOB = "job.json"
"""What was asked, as JSON: enough to finish the dispatch from another machine."""
MANIFEST = "manifest"
"""What was sent: lines `sha256  name`, as `sha256sum -c` reads them; gzipped files are listed as they are, packed."""
PARCEL = "parcel"
"""The small files together, as they travel; the launcher puts each into its place (parcel.py)."""
SESSION = "session.json"
"""The travelling transcript; sent as `session.json.gz` and unpacked by the runner, as each of CHILDREN is."""
CHILDREN = "children"
TOOL_OUTPUT = "tool-output"
BRIEF = "brief.txt"
CODE_BUNDLE = "code.bundle"
"""The code as it travels where the host has git; CODE_ARCHIVE where it has none."""
CODE_ARCHIVE = "code.tar.gz"
PARAM = "param"
ENVIRONMENT = "param/env"
RUNNER = "runner.sh"
LOCK = "lock"
"""`lock/owner` holds boot id, pid and start time of the runner; a dead lock is taken over by making `lock/next/`.
A lock with a file `recovery` in it is held by a recovery."""
WAITER = "waiter"
"""`waiter.PID` names a process that waits for news, as `lock/owner` does: the runner wakes it. See wake.sh."""
JOURNAL = "journal"
"""What the runner did: lines `EPOCH STEP POINT`; see points.py."""
STARTED = "started"
"""Written just before OpenCode may be started, with the time: from then on the brief is never run again."""
OPENCODE_PID = "opencode.pid"
"""Boot id, pid and start time of OpenCode, written by the process that becomes it."""
STOPPED = "stopped"
"""Made by `cancel`: no OpenCode is started any more."""
LIVE_END = "live-end"
"""Made by `end`: the turn of a live run is over, with 0 where it ended well. The runner waits for it."""
ENDED = "ended"
"""When OpenCode ended, and with which exit status; kept for a recovery."""
DIRECTORY = "directory"
"""The working directory as the runner entered it, symlinks resolved."""
EVENTS = "events.jsonl"
STDERR = "stderr.log"
RUNNER_LOG = "runner.log"
IMPORT_LOG = "import.log"
BEFORE = "before.tsv"
"""The session and those below it before the run, as the runner's query prints them; AFTER is the same afterwards."""
AFTER = "after.tsv"
BACK = "back.json"
"""The back-file as OpenCode exported it; `outcome.json` has its digest and size. BACK_PACKED is what travels."""
BACK_PACKED = "back.json.gz"
BACK_CHILDREN = "back-children"
"""`<session id>.json.gz` for each session below ours that is new or has changed."""
BACK_CHILDREN_LIST = "back-children.txt"
"""The ids of those sessions, one a line: an id without its file is an export that failed."""
BACK_TODOS = "back-todos.json"
"""A JSON array of `session_id content status priority position`, of our session and all below it."""
BACK_TOOL_OUTPUT = "back-tool-output"
BACK_SUMS = "back-sums"
"""Lines `sha256  name` for what came of the code, todos, sub-agents' back-files as they travel, and tool outputs."""
BACK_BUNDLE = "back.bundle"
BACK_ARCHIVE = "back.tar.gz"
BACK_CODE = "back-code"
"""What came of the code, as lines `key value`; bundle or archive are there only if home lacks something of it."""
BACK_LEFT_OUT = "back-left-out"
"""The names of what could not be packed, one a line, for people: its digest is nowhere."""
OUTCOME = "outcome.json"


def work_tree(state_directory: PurePosixPath, dispatch_id: str, name: str) -> PurePosixPath:
    """Return where the code of a dispatch is unpacked, below the parent of `RemoteFacts.state_directory`."""
    return state_directory.parent / "work" / dispatch_id / name


def packed(name: str) -> str:
    """Return the name under which a file of this name travels gzipped."""
    return f"{name}.gz"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """One run directory, by its absolute path on the host."""

    path: PurePosixPath

    @classmethod
    def of(cls, state_directory: PurePosixPath, dispatch_id: str) -> RunDirectory:
        """Return the run directory of a dispatch below `RemoteFacts.state_directory`."""
        return cls(state_directory / dispatch_id)

    def __truediv__(self, name: str) -> PurePosixPath:
        return self.path / name

    def back_child(self, session_id: str) -> PurePosixPath:
        """Return the packed back-file of a sub-agent's session."""
        return self.path / BACK_CHILDREN / packed(f"{session_id}.json")
