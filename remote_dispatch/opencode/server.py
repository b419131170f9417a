"""A running OpenCode server on this machine, over HTTP: told that a session came home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from remote_dispatch.errors import CommandError
from remote_dispatch.model import Model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from remote_dispatch.model import Origin

REQUEST_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """Where the server listens, and how to log in. The password is shown by no repr."""

    url: str
    user: str
    password: str | None

    def __repr__(self) -> str:
        return "Server(...)"


def server_from(environment: Mapping[str, str], url: str | None) -> Server | None:
    """The server named by `url` or REMOTE_DISPATCH_SERVER; its password from OPENCODE_SERVER_PASSWORD."""
    address = url or environment.get("REMOTE_DISPATCH_SERVER")
    if not address:
        return None
    user = environment.get("OPENCODE_SERVER_USERNAME", "opencode")
    return Server(address.rstrip("/"), user, environment.get("OPENCODE_SERVER_PASSWORD"))


async def prompt(server: Server, session_id: str, directory: Path, text: str, origin: Origin) -> None:
    """Start a turn of the session with this text, with the agent and model it had before it left.

    `prompt_async` answers before the turn starts and never reports a bad agent or model (OpenCode 1.18). Raises
    CommandError when the server does not answer, refuses us or does not know the session.
    """
    import httpx  # noqa: PLC0415 - 100 ms that only this step pays

    from remote_dispatch.opencode.wire import client  # noqa: PLC0415 - as above

    body: dict[str, Any] = {"parts": [{"type": "text", "text": text}]}
    if origin.agent:
        body["agent"] = origin.agent
    if origin.model:
        model = Model.parse(origin.model)
        body["model"] = {"providerID": model.provider, "modelID": model.id}
    login = httpx.BasicAuth(server.user, server.password) if server.password is not None else None
    try:
        async with client(server.url, login) as http:
            answer = await http.post(
                f"/session/{session_id}/prompt_async",
                json=body,
                headers={"x-opencode-directory": quote(str(directory))},
                timeout=REQUEST_TIMEOUT_S,
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandError("the OpenCode server", "prompt_async", None, type(error).__name__) from error
    if answer.status_code != 204:
        raise CommandError("the OpenCode server", "prompt_async", None, f"HTTP status {answer.status_code}")
