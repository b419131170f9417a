"""What a transcript refers to outside itself: sub-agents' sessions and the files of long tool outputs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from remote_dispatch.model import SESSION_ID
from remote_dispatch.transcript.reading import canonical
from remote_dispatch.transcript.shape import Part, Transcript, mapping, messages_of, parts_of, state_of, texts_in

if TYPE_CHECKING:
    from collections.abc import Iterator

_TASK = re.compile(r"<task id=\"(ses_[A-Za-z0-9]{20,40})\"")
_OUTPUT_PLACE = "/tool-output/tool_"
_TOOL_OUTPUT = re.compile(r"/tool-output/(tool_[A-Za-z0-9]{1,80})(?![A-Za-z0-9_])")


def children_of(transcript: Transcript) -> tuple[str, ...]:
    """Return the ids of the sub-agents' sessions that the task parts name, each once, in order."""
    named = (child for part in _all_parts(transcript) for child in _children_in(part))
    return tuple(dict.fromkeys(child for child in named if child != transcript["info"]["id"]))


def tool_outputs(transcript: Transcript) -> tuple[str, ...]:
    """Return the file names `tool_...` of long outputs that absolute paths in the transcript name, each once, in order.

    OpenCode cuts an output of about 2,000 lines, keeps the rest in `DATA/tool-output/` and puts that path in the text.
    """
    parts = (part for part in _all_parts(transcript) if any(_OUTPUT_PLACE in text for text in texts_in(part)))
    return tuple(dict.fromkeys(name for part in parts for name in _TOOL_OUTPUT.findall(canonical(part))))


def _all_parts(transcript: Transcript) -> Iterator[Part]:
    return (part for message in messages_of(transcript) for part in parts_of(message))


def _children_in(part: Part) -> Iterator[str]:
    if part.get("tool") != "task":
        return
    state = state_of(part)
    session = mapping(state.get("metadata")).get("sessionId")
    if isinstance(session, str) and SESSION_ID.fullmatch(session):
        yield session
    output = state.get("output")
    if isinstance(output, str):
        yield from _TASK.findall(output)
