"""The group `session`, and what its commands share: arguments, and the desk with hosts, names and servers."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from remote_dispatch.cli.completion import complete_agent, complete_host, complete_model, complete_named_session
from remote_dispatch.cli.desk import Desk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from remote_dispatch.model import Host
    from remote_dispatch.servers.reach import Servers
    from remote_dispatch.sessions.offers import Offers
    from remote_dispatch.sessions.store import SessionStore

session_app = typer.Typer(
    help="Named sessions on OpenCode servers: prompt, watch and answer them from here.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

HostName = Annotated[str, typer.Argument(metavar="HOST", help="A host of the registry.", autocompletion=complete_host)]
SessionName = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of a session.", autocompletion=complete_named_session)
]
SessionNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME…]", help="Names of sessions.", autocompletion=complete_named_session),
]
AgentOption = Annotated[
    str | None, typer.Option("--agent", help="The agent that leads it.", autocompletion=complete_agent)
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="PROVIDER/ID", help="The model.", autocompletion=complete_model),
]


class SessionDesk(Desk):
    """The things that the session commands share."""

    def __init__(self, hosts_file: Path | None) -> None:
        super().__init__(hosts_file)
        self.environment: Mapping[str, str] = os.environ

    @property
    def sessions(self) -> SessionStore:
        """The named sessions of this user."""
        from remote_dispatch.sessions.store import default_session_store

        return default_session_store(self.store)

    def host(self, name: str) -> Host:
        """Return a host of the registry, or the server that OPENCODE_API_URL names. Raises UnknownNameError."""
        from remote_dispatch.servers.reach import host_named

        return host_named(self.registry, self.environment, name)

    def remember(self, host: str, found: Offers) -> None:
        """Keep what a server offers, for the completion of the shell. Where that cannot be written, it is not kept."""
        from remote_dispatch.dispatch.files import make_private, write_whole

        place = self.store.root.parent / "offers"
        offered = {"agents": [one.name for one in found.primary], "models": list(found.offer.models)}
        with contextlib.suppress(OSError):
            make_private(place)
            write_whole(place / f"{host}.json", json.dumps(offered).encode())

    def servers(self) -> Servers:
        """The servers of all hosts: an async context manager; each is reached when it is first asked for."""
        from remote_dispatch.servers.reach import Servers

        return Servers(self.link, self.environment)
