"""Short ways to read a transcript."""

from __future__ import annotations

from typing import Any

from tests.rig.world import MARK

Transcript = dict[str, Any]


def said(transcript: Transcript) -> list[tuple[str, str]]:
    """Return role and text of each message."""
    return [(message["info"]["role"], _text(message)) for message in transcript["messages"]]


def briefs(transcript: Transcript) -> int:
    """Count the messages that are a brief."""
    return sum(MARK in text for role, text in said(transcript) if role == "user")


def times(transcript: Transcript) -> list[int]:
    """Return when each message was made, in the order of the session."""
    return [message["info"]["time"]["created"] for message in transcript["messages"]]


def _text(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")
