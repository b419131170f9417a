"""Which fields OpenCode 1.18 knows in messages and parts, and which of them it rewrites by itself."""

from __future__ import annotations

import re

WRITTEN_BY_OPENCODE = frozenset({"time", "cost", "tokens", "summary"})
"""Fields of a message that OpenCode itself rewrites after the turn: diffs of a user message, sums, times."""

WRITTEN_AT_THE_END = frozenset({"finish", "error", "structured"})
"""Fields that an assistant message gets when it ends."""

STRUCTURED = frozenset({"state", "time", "tokens", "cache", "path", "model", "summary", "source"})
"""Fields that are objects with fields of their own; any other object is content as a whole."""

KNOWN = frozenset(
    re.findall(
        r"\w+",
        """
    id sessionID messageID role type time agent model system tools format summary parentID mode path cost tokens modelID
    providerID finish error variant structured text synthetic ignored metadata snapshot reason hash files tool callID
    state mime filename url source name prompt description command auto overflow tail_start_id attempt status input
    output title attachments raw created completed start end compacted total reasoning cache read write cwd root value
    diffs body
    """,
    )
)
"""Every field of messages and parts in the schema, outside tool inputs, metadata and errors."""
