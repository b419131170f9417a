"""What changes in a transcript for the journey, and what is put back when it comes home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from remote_dispatch.model import Model, Origin
from remote_dispatch.transcript.reading import digest
from remote_dispatch.transcript.shape import (
    Message,
    Transcript,
    id_of,
    last_with_role,
    mapping,
    messages_of,
    parts_of,
    role_of,
    with_info,
    with_messages,
    without_info,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

NO_VARIANT = "default"
"""What OpenCode stores in `info.model.variant` when there is none."""


def origin_of(transcript: Transcript) -> Origin:
    """Return what the local session is: agent, model and variant of the session, else of its last user message."""
    info = transcript["info"]
    last = mapping((last_with_role(messages_of(transcript), "user") or {}).get("info"))
    model = _model(info.get("model")) or _model(last.get("model"))
    return Origin(
        agent=info.get("agent") or last.get("agent"),
        model=str(model) if model else None,
        variant=_variant(info.get("model")) or _variant(last.get("model")),
        directory=info.get("directory", ""),
        title=info.get("title", ""),
        digest=digest(transcript),
        messages=len(messages_of(transcript)),
    )


def retarget(transcript: Transcript, *, agent: str | None, model: Model | None, variant: str | None) -> Transcript:
    """Return a copy that names this agent, model and variant; None leaves a field alone.

    A variant belongs to its model: with another model and no variant asked for, the old one goes.
    """
    changes: dict[str, Any] = {} if agent is None else {"agent": agent}
    old = mapping(transcript["info"].get("model"))
    if model is not None:
        kept = old.get("variant", NO_VARIANT) if _model(old) == model else NO_VARIANT
        changes["model"] = {"id": model.id, "providerID": model.provider, "variant": variant or kept}
    elif variant is not None and old:
        changes["model"] = {**old, "variant": variant}
    return with_info(transcript, **changes) if changes else transcript


def restore(messages: Iterable[Message], origin: Origin) -> list[Message]:
    """Return copies in which user messages name the origin's agent and model; assistant messages keep the truth.

    OpenCode 1.18 answers a user message with the agent and model that this message names.
    """
    return [_restored(message, origin) if role_of(message) == "user" else message for message in messages]


def without_workspace(transcript: Transcript) -> Transcript:
    """Return a copy without `info.workspaceID`, which no other machine knows: there every request would fail."""
    return without_info(transcript, "workspaceID")


def has_pending_revert(transcript: Transcript) -> bool:
    """Whether the user took messages back. They are still there; OpenCode deletes them at the next prompt."""
    return bool(mapping(transcript["info"].get("revert")).get("messageID"))


def without_reverted(transcript: Transcript) -> Transcript:
    """Return a copy without the messages and parts that were taken back, as OpenCode leaves it at the next prompt."""
    if not has_pending_revert(transcript):
        return transcript
    revert = transcript["info"]["revert"]
    ids = [id_of(message) for message in messages_of(transcript)]
    if revert["messageID"] not in ids:
        return without_info(transcript, "revert")
    cut = ids.index(revert["messageID"])
    kept = [*messages_of(transcript)[:cut], *_rest(messages_of(transcript)[cut], revert.get("partID"))]
    return with_messages(without_info(transcript, "revert"), kept)


def _rest(message: Message, part_id: str | None) -> list[Message]:
    ids = [part["id"] for part in parts_of(message)]
    if part_id not in ids:
        return []
    return [{**message, "parts": parts_of(message)[: ids.index(part_id)]}]


def _restored(message: Message, origin: Origin) -> Message:
    changes: dict[str, Any] = {} if origin.agent is None else {"agent": origin.agent}
    if origin.model is not None:
        model = Model.parse(origin.model)
        variant = {} if origin.variant is None else {"variant": origin.variant}
        changes["model"] = {"providerID": model.provider, "modelID": model.id, **variant}
    return with_info(message, **changes)


def _model(value: Any) -> Model | None:
    """The session has `id`, messages have `modelID`."""
    fields = mapping(value)
    name = fields.get("id") or fields.get("modelID")
    provider = fields.get("providerID")
    return Model(provider, name) if isinstance(provider, str) and isinstance(name, str) else None


def _variant(value: Any) -> str | None:
    variant = mapping(value).get("variant")
    return variant if isinstance(variant, str) and variant != NO_VARIANT else None
