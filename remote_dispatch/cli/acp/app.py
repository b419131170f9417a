"""The group `acp`, and what its commands share: arguments, and the desk that also knows this machine as a host."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from remote_dispatch.cli.completion import complete_host
from remote_dispatch.cli.desk import Desk
from remote_dispatch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection

acp_app = typer.Typer(
    help="The Agent Client Protocol: any editor, or a script, on any host.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

LOCAL = "local"
"""The host that is this machine."""

AcpHost = Annotated[
    str,
    typer.Argument(metavar="HOST", help="A host of the registry, or `local`.", autocompletion=complete_host),
]
DirectoryOption = Annotated[
    str | None,
    typer.Option(
        "--directory",
        metavar="DIR",
        help="The working directory there; otherwise that of the host's entry, or the home; with `local` this one.",
    ),
]


class AcpDesk(Desk):
    """The things that the commands of `acp` share."""

    def host(self, name: str) -> Host:
        """Return a host: one of the registry, or this machine.

        Raises UnknownNameError, HostNotReadyError, and ConfigurationError for one that only has the URL of a server.
        """
        if name == LOCAL:
            return _this_machine()
        host = self.registry[name]
        if host.host is None:
            raise ConfigurationError(
                f"{name}: only the URL of a server is known of it, and an agent is started over SSH",
                hint=f"give it an address with `remote-dispatch hosts set {name} host ADDRESS`",
            )
        return host

    @asynccontextmanager
    async def connection(self, host: Host) -> AsyncIterator[Connection]:
        """Connect to a host, and close the connection at the end. Raises what opening an SSH connection raises."""
        if host.name == LOCAL:
            from remote_dispatch.remote.local import LocalConnection

            yield LocalConnection(environment=os.environ)
            return
        async with self.link(host) as link:
            yield await link.connection()

    @staticmethod
    def directory(host: Host, asked: str | None) -> str:
        """Return where to work: as asked, as the entry says, else the home; on this machine the current directory."""
        if host.name == LOCAL:
            return os.path.abspath(os.path.expanduser(asked or "."))  # noqa: PTH100, PTH111 - text as it was typed
        return asked or host.directory or "~"


def _this_machine() -> Host:
    """A host without an address that is ever used; its OpenCode is the one that all commands use here."""
    from remote_dispatch.model import Host
    from remote_dispatch.opencode.program import find_binary

    return Host(name=LOCAL, host=LOCAL, opencode=str(find_binary(os.environ)))
