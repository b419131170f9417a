"""What the session commands print of sessions: the JSON of each, and the words for people. No address is among them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from remote_dispatch.cli.words import age
from remote_dispatch.sessions.looks import Unseen
from remote_dispatch.sessions.report import SessionReport, data_of, report_of, state_words
from remote_dispatch.sessions.values import Phase

if TYPE_CHECKING:
    from remote_dispatch.opencode.served import Raw
    from remote_dispatch.sessions.looks import Stranger
    from remote_dispatch.sessions.values import Look, NamedSession

_ORDER = (Phase.WAITING, Phase.RETRYING, Phase.BUSY, Phase.STARTING, Phase.ENDING, Phase.ENDED, Phase.IDLE)
_UNREPORTED = ("failure", "detail", "todo", "tool", "last_message", "last_activity", "tokens", "cost")


def named_data(named: NamedSession) -> dict[str, Any]:
    """Return the JSON of a record. Fields are only ever added."""
    return {
        "name": named.name,
        "host": named.host,
        "session_id": named.session_id,
        "title": named.title,
        "works_on": named.works_on,
        "directory": named.directory,
        "created": named.created,
        "dispatch": named.dispatch,
    }


def seen_data(seen: Look | Unseen) -> dict[str, Any]:
    """Return the JSON of one session in a list: the record, and what its server says; nulls where it says nothing."""
    record = named_data(seen.named)
    if isinstance(seen, Unseen):
        unknown: dict[str, Any] = {"agent": None, "model": None, **dict.fromkeys(_UNREPORTED), "requests": []}
        return {**record, **unknown, "state": str(seen.state), "remark": seen.remark}
    session = seen.reading.session
    return {
        **record,
        **data_of(report_of(seen)),
        "agent": session.agent,
        "model": str(session.model) if session.model else None,
        "remark": None,
    }


def stranger_data(stranger: Stranger) -> dict[str, Any]:
    """Return the JSON of a session that has no name here."""
    session = stranger.session
    return {
        "host": stranger.host,
        "session_id": session.id,
        "title": session.title,
        "directory": session.directory,
        "state": state_of_stranger(stranger),
        "last_activity": moment(session.updated_ms),
        "tokens": session.usage.total,
        "cost": session.usage.cost,
    }


def state_of_stranger(stranger: Stranger) -> str:
    """Return the phase, as far as a list knows it."""
    if stranger.status is None:
        return Phase.IDLE.value
    return Phase.RETRYING.value if stranger.status.type == "retry" else Phase.BUSY.value


def by_urgency(seen: Look | Unseen) -> tuple[int, float, str]:
    """Sort by it: what waits for somebody, what works, what is over; in each, the newest activity first."""
    if isinstance(seen, Unseen):
        return len(_ORDER), -seen.named.created.timestamp(), seen.named.name
    report = report_of(seen)
    newest = report.last_sign.timestamp() if report.last_sign else 0.0
    return _ORDER.index(report.phase), -newest, report.name


def state_in_brief(report: SessionReport) -> str:
    """Return the state with its kind, without the provider's words."""
    return state_words(report).partition(":")[0]


def moment(time_ms: int) -> datetime | None:
    """Return a time of the server's clock; None for none."""
    return datetime.fromtimestamp(time_ms / 1000, UTC) if time_ms else None


def ago(time: datetime | None) -> str | None:
    """Return how long ago, in one rough word."""
    return age(time) if time else None


def info_of(message: Raw) -> Raw:
    """Return what stands above the parts of a message."""
    info = message.get("info")
    return info if isinstance(info, dict) else {}


def parts_of(message: Raw) -> list[Raw]:
    """Return the parts of a message."""
    parts = message.get("parts")
    return [one for one in parts if isinstance(one, dict)] if isinstance(parts, list) else []
