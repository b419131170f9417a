"""Values that the tests of this room begin with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from remote_dispatch.model import Dispatch, DispatchRequest, Host, Moment, RemoteFacts, State
from remote_dispatch.opencode.catalogue import Agent, Catalogue
from remote_dispatch.opencode.probe import Probed

if TYPE_CHECKING:
    from remote_dispatch.dispatch.store import Store

NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
DISPATCH_ID = "20260102-120000-abcdefgh"
SESSION = "ses_000000000001TTTTTTTTTTTTTT"
ALLOW = {"permission": "*", "pattern": "*", "action": "allow"}
TOOL_OUTPUT = {
    "permission": "external_directory",
    "pattern": "/home/ada/.local/share/opencode/tool-output/*",
    "action": "allow",
}


def rule(permission: str, action: str, pattern: str = "*") -> dict[str, Any]:
    """Return one permission rule."""
    return {"permission": permission, "pattern": pattern, "action": action}


def a_request(**fields: Any) -> DispatchRequest:
    """Return a request for the host `box`."""
    return DispatchRequest.model_validate(
        {"host": "box", "session_id": SESSION, "local_directory": Path("/home/ada/project"), **fields}
    )


def a_record(*states: State, **fields: Any) -> Dispatch:
    """Return a record that has been through these states."""
    history = tuple(Moment(state=state, at=NOON) for state in (State.NEW, *states))
    usual = {"id": DISPATCH_ID, "name": "kumo", "request": a_request(), "history": history}
    return Dispatch.model_validate({**usual, **fields})


def stored(store: Store, now: datetime = NOON, /, **fields: Any) -> Dispatch:
    """Record a dispatch in this store; a `name` that is asked for stands in the request."""
    request = fields.pop("request", None) or a_request(name=fields.pop("name", None))
    with store.reserved(now) as folder:

        def complete(name: str) -> Dispatch:
            history = (Moment(state=State.NEW, at=now),)
            usual = {"id": folder.path.name, "name": name, "request": request, "history": history}
            return Dispatch.model_validate({**usual, **fields})

        return store.create(request.name, complete)


def a_host(**fields: Any) -> Host:
    """Return the registry entry `box`."""
    return Host.model_validate({"name": "box", "host": "nowhere", **fields})


def a_catalogue(**fields: Any) -> Catalogue:
    """Return what a host with one provider offers."""
    agents = {
        "build": Agent("build", "primary", (ALLOW, TOOL_OUTPUT)),
        "plan": Agent("plan", "primary", (ALLOW, rule("edit", "deny"))),
        "helper": Agent("helper", "all"),
        "general": Agent("general", "subagent", (ALLOW, TOOL_OUTPUT)),
    }
    models = ("opencode/free", "own/large", "own/small", "other/large")
    return Catalogue(**{"models": models, "agents": agents, **fields})


def the_facts(**fields: Any) -> RemoteFacts:
    """Return what a probe learned of a host whose clock is right."""
    usual: dict[str, Any] = {
        "system": "Linux",
        "machine": "x86_64",
        "home": PurePosixPath("/home/ada"),
        "shell": "/bin/sh",
        "path": None,
        "state_directory": PurePosixPath("/home/ada/.local/state/remote-dispatch/runs"),
        "opencode": PurePosixPath("/usr/bin/opencode"),
        "opencode_version": "1.18.33",
        "git_version": None,
        "free_bytes": None,
        "clock_offset_ms": 0,
        "directory": PurePosixPath("/home/ada/project"),
        "is_directory_there": True,
    }
    return RemoteFacts(**{**usual, **fields})


def a_probe(held: dict[str, frozenset[str]] | None = None, **facts: Any) -> Probed:
    """Return a probe of a host that holds these ids."""
    return Probed(the_facts(**facts), a_catalogue(), held or {})
