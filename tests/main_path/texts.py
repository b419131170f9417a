"""Short ways to read a transcript, and to have accidents happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.rig.world import MARK

if TYPE_CHECKING:
    from tests.rig.world import World

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


def orders(world: World, **points: str) -> dict[str, str]:
    """Order what happens at points of the command line: `stage_before="kill"`."""
    directory = world.directory / "orders"
    directory.mkdir(exist_ok=True)
    for point, action in points.items():
        (directory / point.replace("_", ".")).write_text(action)
    return {"REMOTE_DISPATCH_FAILPOINTS": str(directory)}
