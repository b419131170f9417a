"""Transcripts: read, prepared for another machine, compared and merged. Pure: no I/O, no asyncio.

A transcript is a plain dict as OpenCode's session export holds it. Functions return copies that share what they did
not touch; nothing changes its argument.
"""

from remote_dispatch.transcript.arrival import Arrival, Journey, Way, decide
from remote_dispatch.transcript.busy import INTERRUPTED_AFTER_MS, is_busy
from remote_dispatch.transcript.clocks import fit, in_order, newest_ms, outward_shift_ms, shift
from remote_dispatch.transcript.compare import Compared, Standing, compare, content_digest
from remote_dispatch.transcript.identity import (
    fresh_ids,
    inverted,
    new_message_id,
    new_part_id,
    new_session_id,
    rename,
)
from remote_dispatch.transcript.merge import (
    additions,
    as_copy,
    check_back,
    continued,
    lacking,
    left_there,
    message_ids,
    moved_on,
    new_messages,
    part_ids,
    read_back_problems,
    was_taken_back,
    without,
)
from remote_dispatch.transcript.open_call import close_open_calls, open_calls
from remote_dispatch.transcript.permissions import (
    agent_override,
    decisions,
    permission_override,
    rules_from,
    with_permissions,
)
from remote_dispatch.transcript.reading import (
    PIECE_BYTES,
    as_it_is,
    canonical,
    checked,
    count,
    digest,
    dump,
    dumped,
    parse,
    read,
)
from remote_dispatch.transcript.references import children_of, tool_outputs
from remote_dispatch.transcript.shape import Message, Part, Transcript
from remote_dispatch.transcript.sharing import alike
from remote_dispatch.transcript.travel import (
    has_pending_revert,
    origin_of,
    restore,
    retarget,
    without_reverted,
    without_workspace,
)
from remote_dispatch.transcript.verdict import Verdict, failure_detail, failure_kind, judge, refused_calls

__all__ = [
    "INTERRUPTED_AFTER_MS",
    "PIECE_BYTES",
    "Arrival",
    "Compared",
    "Journey",
    "Message",
    "Part",
    "Standing",
    "Transcript",
    "Verdict",
    "Way",
    "additions",
    "agent_override",
    "alike",
    "as_copy",
    "as_it_is",
    "canonical",
    "check_back",
    "checked",
    "children_of",
    "close_open_calls",
    "compare",
    "content_digest",
    "continued",
    "count",
    "decide",
    "decisions",
    "digest",
    "dump",
    "dumped",
    "failure_detail",
    "failure_kind",
    "fit",
    "fresh_ids",
    "has_pending_revert",
    "in_order",
    "inverted",
    "is_busy",
    "judge",
    "lacking",
    "left_there",
    "message_ids",
    "moved_on",
    "new_message_id",
    "new_messages",
    "new_part_id",
    "new_session_id",
    "newest_ms",
    "open_calls",
    "origin_of",
    "outward_shift_ms",
    "parse",
    "part_ids",
    "permission_override",
    "read",
    "read_back_problems",
    "refused_calls",
    "rename",
    "restore",
    "retarget",
    "rules_from",
    "shift",
    "tool_outputs",
    "was_taken_back",
    "with_permissions",
    "without",
    "without_reverted",
    "without_workspace",
]
