"""`acp sessions` and `acp version`: what is on a host, and how old its OpenCode is."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch import __version__
from remote_dispatch.cli.acp.app import LOCAL, AcpDesk, AcpHost, DirectoryOption, acp_app
from remote_dispatch.cli.acp.prompt import starter
from remote_dispatch.cli.acp.view import Policy
from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.output import Answer, JsonFlag, print_fields, print_table, run_async, run_command, say
from remote_dispatch.cli.words import age
from remote_dispatch.errors import RemoteDispatchError, UsageError
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.acp.client import Listed
    from remote_dispatch.acp.version import Installed, Updated
    from remote_dispatch.model import Host

_LONGEST_TITLE = 60


@acp_app.command("sessions")
def sessions(
    host: AcpHost,
    *,
    directory: DirectoryOption = None,
    is_all: Annotated[bool, typer.Option("--all", help="Those of all directories.")] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """List the sessions of a host, newest first: those of its directory, or with `--all` the newest hundred."""

    def work() -> Answer:
        if is_all and directory is not None:
            raise UsageError("`--all` is for all directories", hint="leave `--directory` out")
        return run_async(_sessions(AcpDesk(hosts_file), host, directory, is_all=is_all))

    run_command("acp sessions", work, is_json=is_json)


@acp_app.command("version")
def version(
    host: AcpHost,
    *,
    is_updated: Annotated[
        bool,
        typer.Option("--update", help="Run the host's own `opencode upgrade`, where no agent or server of ours works."),
    ] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Compare the OpenCode of a host with the newest one that the host knows of, and with the local one.

    `--update` ends idle agents and an idle server of ours first, runs `opencode upgrade` there, and looks at what came
    of it. Who had an agent there, such as an editor, gets a new one and goes on.
    """
    run_command(
        "acp version", lambda: run_async(_version(AcpDesk(hosts_file), host, is_updated=is_updated)), is_json=is_json
    )


# --- sessions


async def _sessions(desk: AcpDesk, name: str, directory: str | None, *, is_all: bool) -> Answer:
    from remote_dispatch.acp.conversation import Conversation

    host = desk.host(name)
    async with desk.connection(host) as connection:
        start = starter(connection, host, desk.directory(host, directory), Policy.DENY)
        async with Conversation(start, host.name, version=__version__) as conversation:
            found = await (conversation.all_sessions() if is_all else conversation.sessions_here())
    data = [_session_data(one) for one in found]
    return Answer({"host": host.name, "sessions": data}, lambda: _render_sessions(host, data, is_all=is_all))


def _session_data(session: Listed) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "title": clean(session.title, 300),
        "directory": clean(session.directory, 4000),
        "updated": clean(session.updated, 40) or None,
    }


def _render_sessions(host: Host, data: Sequence[dict[str, Any]], *, is_all: bool) -> None:
    if not data:
        return say(f"no session on {host.name}" + ("" if is_all else " in that directory; `--all` lists the others"))
    rows = [(one["session_id"], _short(one["title"]), one["directory"], ago(one["updated"])) for one in data]
    return print_table(("SESSION", "TITLE", "DIRECTORY", "UPDATED"), rows)


def _short(title: str) -> str:
    return title if len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 1]}…"


def ago(moment: str | None) -> str | None:
    """How long ago an ISO time was, in one rough word; None for what is no time."""
    try:
        read = datetime.fromisoformat(moment or "")
    except ValueError:
        return None
    return age(read if read.tzinfo else read.replace(tzinfo=UTC))


# --- version


async def _version(desk: AcpDesk, name: str, *, is_updated: bool) -> Answer:
    from remote_dispatch.acp.version import installed, update

    host = desk.host(name)
    async with desk.connection(host) as connection:
        there, local = await asyncio.gather(installed(connection, host), _local_version(host))
        updated = None
        if is_updated:
            say(f"{host.name}: running `opencode upgrade` there")
            updated = await update(connection, host, there)
    data = _version_data(host, there, updated, local)
    return Answer(data, lambda: _render_version(data), updated.warnings if updated else ())


async def _local_version(host: Host) -> str | None:
    """The OpenCode of this machine; None where there is none, or where it is the host itself."""
    from remote_dispatch.acp.version import version_of
    from remote_dispatch.opencode.program import find_binary
    from remote_dispatch.remote.local import LocalConnection

    if host.name == LOCAL:
        return None
    try:
        return await version_of(LocalConnection(environment=os.environ), str(find_binary(os.environ)))
    except RemoteDispatchError:
        return None


def _version_data(host: Host, there: Installed, updated: Updated | None, local: str | None) -> dict[str, Any]:
    now = updated.after if updated else there.version
    if host.name == LOCAL:
        local = now
    return {
        "host": host.name,
        "version": now,
        "newest": there.newest,
        "newest_from": there.source,
        "standing": there.but(now).standing.value,
        "local": local,
        "is_like_local": None if now is None or local is None else now == local,
        "agents": len(there.agents),
        "updated": None
        if updated is None
        else {
            "before": updated.before,
            "after": updated.after,
            "ended_agents": updated.ended_agents,
            "is_server_restarted": updated.is_server_restarted,
        },
    }


def _render_version(data: dict[str, Any]) -> None:
    newest = (
        f"{data['newest']} (by its {data['newest_from']})"
        if data["newest"]
        else "unknown: no package tool there names one"
    )
    words = {"current": "current", "behind": "there is a newer one", "unknown": None}
    shown = data["version"] or "unknown"
    standing = words[data["standing"]]
    fields = {
        "host": data["host"],
        "opencode": f"{shown} ({standing})" if standing else shown,
        "newest": newest,
        "local": data["local"] or "none",
    }
    if updated := data["updated"]:
        is_same = updated["before"] == updated["after"]
        fields["update"] = "nothing newer" if is_same else f"{updated['before']} -> {updated['after']}"
    print_fields(fields)
    if data["standing"] == "behind":
        say(f"bring it up to date with `remote-dispatch acp version {data['host']} --update`")
