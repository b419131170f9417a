"""The OpenCode server of a host, for named sessions: does it answer, and what does it offer?"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING

from remote_dispatch.dispatch import Link
from remote_dispatch.doctor.finding import Check, Finding, Fix, Severity
from remote_dispatch.errors import CommandError, RemoteDispatchError
from remote_dispatch.model import Model
from remote_dispatch.servers.reach import Servers, is_by_url
from remote_dispatch.servers.state import Condition, ServerState, is_ours, look_at_server
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Offer, ServedAgent
    from remote_dispatch.remote.connection import Connection

LOOK_TIMEOUT_S = 60.0
_NAMED = 5


async def judge_server(
    host: Host, connection: Connection | None, environment: Mapping[str, str], installed: str | None = None
) -> tuple[Finding, ...]:
    """Look at the server of a host, through a connection that is open, or by its URL. Raises nothing of ours.

    `installed` is the version of OpenCode that a start would take.
    """
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S), Servers(lambda one: _link(one, connection), environment) as servers:
            state = await look_at_server(servers, host)
            if state.condition is not Condition.UP:
                return (_unusable(host, state),)
            return (*_usable(host, state, installed), *await _offered(host, state, await servers.api(host)))
    except TimeoutError:
        return (_failed(host, "the server did not answer in time", None),)
    except RemoteDispatchError as error:
        return (_failed(host, error.message, error.hint),)


def _link(host: Host, connection: Connection | None) -> Link:
    """The connection that the doctor has already; a server by URL needs none."""
    assert connection is not None
    return Link(host, lambda _: nullcontext(connection))


# --- does it answer


def _unusable(host: Host, state: ServerState) -> Finding:
    if state.condition is Condition.DOWN and state.is_ours:
        return Finding(
            Check.SERVER,
            Severity.NOTE,
            "its OpenCode server for named sessions is down",
            cure="start it when you need it; `session new` does so by itself",
            command=f"remote-dispatch session server start {host.name}",
            fix=Fix.START_SERVER,
        )
    if state.condition is Condition.SILENT:
        return Finding(
            Check.SERVER,
            Severity.WARNING,
            "the process of its OpenCode server lives, and answers nothing",
            cure="start it anew",
            command=f"remote-dispatch session server restart {host.name} --force",
        )
    error = state.error
    check = Check.SERVER_LOGIN if state.condition is Condition.REFUSED and not _is_foreign(error) else Check.SERVER
    return _failed(host, error.message if error else "it does not answer", error.hint if error else None, check)


def _is_foreign(error: RemoteDispatchError | None) -> bool:
    """Whether what answers is no OpenCode server, rather than one that refuses us."""
    return isinstance(error, CommandError)


def _failed(host: Host, message: str, hint: str | None, check: Check = Check.SERVER) -> Finding:
    """Dispatches do without it; for a host that is nothing but a server it is all there is."""
    severity = Severity.ERROR if host.host is None else Severity.WARNING
    return Finding(check, severity, message.removeprefix(f"{host.name}: "), cure=hint)


def _usable(host: Host, state: ServerState, installed: str | None) -> Iterator[Finding]:
    busy = len(state.activity.busy) if state.activity else 0
    at = f"; {busy} session{'s' if busy > 1 else ''} at work" if busy else ""
    running = state.running
    if running is not None and running.is_loopback_only is False:
        yield Finding(
            Check.SERVER,
            Severity.WARNING,
            "its OpenCode server listens for other machines too",
            cure="see what `server` in OpenCode's configuration there says, and start it anew",
            command=f"remote-dispatch session server restart {host.name}",
        )
    else:
        way = ", by its URL" if is_by_url(host) else ", through SSH"
        since = f", up since {running.started:%Y-%m-%d %H:%M} UTC" if running else way
        yield Finding(Check.SERVER, Severity.OK, f"OpenCode {clean(state.version, 60)}{since}{at}")
    if running is not None and installed not in (None, state.version):
        yield Finding(
            Check.SERVER,
            Severity.NOTE,
            f"OpenCode {clean(str(installed), 60)} is there by now",
            cure="it serves after the next start",
            command=f"remote-dispatch session server restart {host.name}",
        )
    yield Finding(Check.SERVER_LOGIN, Severity.OK, "made by us, and accepted" if is_ours(host) else "accepted")


# --- what it offers


async def _offered(host: Host, state: ServerState, api: Api) -> tuple[Finding, ...]:
    directory = state.running.directory if state.running else (await api.paths()).directory
    offer, agents, configuration = await asyncio.gather(
        api.offer(directory), api.agents(directory), api.configuration(directory)
    )
    remarks = (Finding(Check.SERVER, Severity.NOTE, remark) for remark in api.remarks)
    return (*remarks, _providers(offer), _model(host, offer, configuration.get("model")), _agents(host, agents))


def _providers(offer: Offer) -> Finding:
    """Configured does not mean reachable: only a prompt shows that (OpenCode 1.18)."""
    providers = list(dict.fromkeys(Model.parse(model).provider for model in offer.models))
    if providers:
        return Finding(Check.SERVER_MODELS, Severity.OK, f"providers: {_listed(providers)}")
    return Finding(
        Check.SERVER_MODELS,
        Severity.WARNING,
        "the server has no provider",
        cure="log in where it runs, then start it anew",
        command="opencode auth login",
        is_there=True,
    )


def _model(host: Host, offer: Offer, default: object) -> Finding:
    if host.model is not None and host.model not in offer.models:
        seen = f"the entry's model `{clean(host.model, 100)}` is not there"
        return _to_choose(Check.SERVER_MODELS, seen, f"remote-dispatch session models {host.name}")
    if host.model is not None:
        return Finding(Check.SERVER_MODELS, Severity.OK, f"`{host.model}` is there")
    if not isinstance(default, str):
        seen = "neither the entry nor OpenCode there names a model: it takes the one that was used last"
        return Finding(Check.SERVER_MODELS, Severity.NOTE, seen)
    if default not in offer.models:
        seen = f"the server's default model `{clean(default, 100)}` is not there"
        return _to_choose(Check.SERVER_MODELS, seen, f"remote-dispatch session models {host.name}")
    return Finding(Check.SERVER_MODELS, Severity.OK, f"the default is `{clean(default, 100)}`")


def _agents(host: Host, agents: Sequence[ServedAgent]) -> Finding:
    names = [agent.name for agent in agents if agent.is_primary]
    if host.agent is not None and host.agent not in names:
        seen = f"the entry's agent `{clean(host.agent, 100)}` is not there, or cannot lead a session"
        return _to_choose(Check.SERVER_AGENTS, seen, f"remote-dispatch session agents {host.name}")
    if not names:
        return Finding(Check.SERVER_AGENTS, Severity.WARNING, "the server has no agent that can lead a session")
    return Finding(Check.SERVER_AGENTS, Severity.OK, f"agents: {_listed(names)}")


def _to_choose(check: Check, seen: str, command: str) -> Finding:
    return Finding(check, Severity.WARNING, seen, cure="name one that is; this lists them", command=command)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{clean(name, 100)}`" for name in names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
