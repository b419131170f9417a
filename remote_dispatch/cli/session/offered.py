"""`session agents` and `session models`: what a host's server offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.output import Answer, JsonFlag, print_table, run_async, run_command, say
from remote_dispatch.cli.session.app import HostName, SessionDesk, session_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.sessions.offers import Offers

_LONGEST_CELL = 80

DirectoryOption = Annotated[
    str | None, typer.Option("--directory", help="For this directory there; the entry's, or the home, otherwise.")
]


@session_app.command("agents")
def agents(
    host: HostName, *, directory: DirectoryOption = None, hosts_file: HostsFile = None, is_json: JsonFlag = False
) -> None:
    """List the agents that can lead a session on a host, the default first."""
    run_command("session agents", lambda: run_async(_agents(SessionDesk(hosts_file), host, directory)), is_json=is_json)


@session_app.command("models")
def models(
    host: HostName,
    part: Annotated[str, typer.Argument(metavar="[PART]", help="Only those with this in their names.")] = "",
    *,
    directory: DirectoryOption = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """List the models that a host offers."""
    run_command(
        "session models",
        lambda: run_async(_models(SessionDesk(hosts_file), host, part.lower(), directory)),
        is_json=is_json,
    )


async def _agents(desk: SessionDesk, host_name: str, directory: str | None) -> Answer:
    found = await _offered(desk, host_name, directory)
    data = [
        {
            "name": one.name,
            "mode": one.mode,
            "description": one.description,
            "model": str(one.model) if one.model else None,
            "is_default": one.name == found.agent,
        }
        for one in found.primary
    ]
    return Answer({"host": host_name, "agents": data}, lambda: _render_agents(data))


async def _models(desk: SessionDesk, host_name: str, part: str, directory: str | None) -> Answer:
    found = await _offered(desk, host_name, directory)
    data = [
        {
            "model": one,
            "context": found.offer.context.get(one) or None,
            "variants": list(found.offer.variants.get(one, ())),
            "is_default": one == found.model,
        }
        for one in sorted(found.offer.models)
        if part in one.lower()
    ]
    return Answer({"host": host_name, "models": data}, lambda: _render_models(data, len(found.offer.models)))


async def _offered(desk: SessionDesk, host_name: str, directory: str | None) -> Offers:
    from remote_dispatch.sessions.offers import offers, work_directory

    host = desk.host(host_name)
    async with desk.servers() as servers:
        api = await servers.api(host)
        found = await offers(api, await work_directory(api, host, directory))
    desk.remember(host.name, found)
    return found


def _render_agents(data: Sequence[dict[str, Any]]) -> None:
    rows = [
        (one["name"], "default" if one["is_default"] else None, one["model"], one["description"][:_LONGEST_CELL])
        for one in data
    ]
    print_table(("AGENT", "", "MODEL", "WHAT IT IS FOR"), rows)


def _render_models(data: Sequence[dict[str, Any]], offered: int) -> None:
    if not data and offered:
        return say(f"none of its {offered} models is called so")
    if not data:
        return say("no model is offered; log in there with `opencode auth login`")
    rows = [
        (
            one["model"],
            "default" if one["is_default"] else None,
            str(one["context"]) if one["context"] else None,
            ", ".join(one["variants"]) or None,
        )
        for one in data
    ]
    return print_table(("MODEL", "", "CONTEXT", "VARIANTS"), rows)
