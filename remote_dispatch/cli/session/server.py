"""`session server`: start, stop and look at the OpenCode server of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.output import Answer, JsonFlag, note, print_fields, run_async, run_command
from remote_dispatch.cli.session.app import HostName, SessionDesk, session_app
from remote_dispatch.cli.words import age, duration_s
from remote_dispatch.errors import DivergedError, HostNotReadyError, UsageError

if TYPE_CHECKING:
    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.servers.reach import Servers
    from remote_dispatch.servers.state import ServerState

server_app = typer.Typer(
    help="Start, stop and look at the OpenCode server of a host.", no_args_is_help=True, pretty_exceptions_enable=False
)
session_app.add_typer(server_app, name="server")

NEVER = "never"
_NEWNESS = {True: ", just started", False: ", ran already", None: ""}

IdleStop = Annotated[
    str | None,
    typer.Option(
        "--idle-stop",
        metavar=f"TIME|{NEVER}",
        help="Stop it by itself once nobody used it for so long, such as `30m`. By default it never stops by itself.",
    ),
]
ForceFlag = Annotated[bool, typer.Option("--force", help="Even while sessions work: their turns are aborted.")]


@server_app.command("start")
def start(
    host: HostName, *, idle_stop: IdleStop = None, hosts_file: HostsFile = None, is_json: JsonFlag = False
) -> None:
    """Start an OpenCode server on a host; one that runs already is left alone, but for `--idle-stop`."""
    run_command(
        "session server start",
        lambda: run_async(_start(SessionDesk(hosts_file), host, _idle_stop_s(idle_stop))),
        is_json=is_json,
        interrupted_hint=f"see whether it came up with `remote-dispatch session server status {host}`",
    )


@server_app.command("status")
def status(host: HostName, *, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Say whether the OpenCode server of a host is up, since when, and what it is at."""
    run_command("session server status", lambda: run_async(_status(SessionDesk(hosts_file), host)), is_json=is_json)


@server_app.command("stop")
def stop(
    host: HostName, *, is_forced: ForceFlag = False, hosts_file: HostsFile = None, is_json: JsonFlag = False
) -> None:
    """Stop the OpenCode server of a host, with every process that it started. Sessions are kept."""
    run_command(
        "session server stop",
        lambda: run_async(_stop(SessionDesk(hosts_file), host, is_forced=is_forced)),
        is_json=is_json,
        interrupted_hint=f"see whether it is gone with `remote-dispatch session server status {host}`",
    )


@server_app.command("restart")
def restart(
    host: HostName,
    *,
    idle_stop: IdleStop = None,
    is_forced: ForceFlag = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Stop the OpenCode server of a host and start it anew: it reads its configuration only at its start."""
    run_command(
        "session server restart",
        lambda: run_async(_restart(SessionDesk(hosts_file), host, _idle_stop_s(idle_stop), is_forced=is_forced)),
        is_json=is_json,
        interrupted_hint=f"see whether it is up with `remote-dispatch session server status {host}`",
    )


async def _start(desk: SessionDesk, name: str, idle_stop_s: float | None) -> Answer:
    from remote_dispatch.servers import on_host

    host = _ours(desk.host(name), "start")
    async with desk.servers() as servers:
        connection = await servers.connection(host)
        running = await on_host.start(connection, host, idle_stop_s=idle_stop_s)
        return await _shown(servers, host, is_new=running.is_new)


async def _status(desk: SessionDesk, name: str) -> Answer:
    async with desk.servers() as servers:
        return await _shown(servers, desk.host(name))


async def _stop(desk: SessionDesk, name: str, *, is_forced: bool) -> Answer:
    host = _ours(desk.host(name), "stop")
    async with desk.servers() as servers:
        connection = await servers.connection(host)
        state, is_stopped = await _stopped(servers, connection, host, "stop", is_forced=is_forced)
    aborted = len(state.activity.busy) if state.activity else 0
    data = {"host": host.name, "is_stopped": is_stopped, "aborted_sessions": aborted}
    words = f"the server of {host.name} is stopped" if is_stopped else f"no server of ours runs on {host.name}"
    return Answer(data=data, render=lambda: typer.echo(words))


async def _restart(desk: SessionDesk, name: str, idle_stop_s: float | None, *, is_forced: bool) -> Answer:
    from remote_dispatch.servers import on_host

    host = _ours(desk.host(name), "restart")
    async with desk.servers() as servers:
        connection = await servers.connection(host)
        state, _ = await _stopped(servers, connection, host, "restart", is_forced=is_forced)
        if idle_stop_s is None and state.running is not None:
            idle_stop_s = state.running.idle_stop_s
        await on_host.start(connection, host, idle_stop_s=idle_stop_s)
        return await _shown(servers, host, is_new=True)


async def _stopped(
    servers: Servers, connection: Connection, host: Host, word: str, *, is_forced: bool
) -> tuple[ServerState, bool]:
    """Return how the server was, and whether there was anything to stop."""
    from remote_dispatch.servers import on_host
    from remote_dispatch.servers.state import Condition, our_api

    state = await _state(servers, host, is_forced=is_forced)
    if not is_forced:
        _check_idle(host, state, word)
    if state.running is None:
        return state, await on_host.stop(connection, None, None)
    if state.condition is not Condition.UP:
        return state, await on_host.stop(connection, state.running, None)
    async with our_api(connection, state.running) as api:
        return state, await on_host.stop(connection, state.running, api)


async def _state(servers: Servers, host: Host, *, is_forced: bool) -> ServerState:
    """By force even a server is stopped of which nobody knows any more how it is reached."""
    from remote_dispatch.servers.state import Condition, ServerState, look_at_server

    try:
        return await look_at_server(servers, host)
    except HostNotReadyError:
        if not is_forced:
            raise
        return ServerState(Condition.SILENT, is_ours=True)


def _check_idle(host: Host, state: ServerState, word: str) -> None:
    if state.running is None or (state.activity is not None and not state.activity.busy):
        return
    count = len(state.activity.busy) if state.activity else 0
    seen = "it does not answer, so nobody knows what its sessions are at"
    if count:
        seen = "a session works on its server" if count == 1 else f"{count} sessions work on its server"
    raise DivergedError(
        f"{host.name}: {seen}",
        hint=f"`remote-dispatch session server {word} {host.name} --force` aborts their turns; "
        f"`remote-dispatch session list --host {host.name}` shows them",
    )


async def _shown(servers: Servers, host: Host, *, is_new: bool | None = None) -> Answer:
    from remote_dispatch.servers.state import look_at_server

    state = await look_at_server(servers, host)
    for text in state.remarks:
        note(text)
    data = state_data(host, state)
    if is_new is not None:
        data["is_new"] = is_new
    warnings: tuple[str, ...] = ()
    if state.running is not None and state.running.is_loopback_only is False:
        warnings = (f"the server of {host.name} listens for other machines too: stop it, and see its configuration",)
    return Answer(data=data, render=lambda: _render(host, data), warnings=warnings, error=state.error)


def state_data(host: Host, state: ServerState) -> dict[str, Any]:
    """Return the `data` of the envelope. Fields are only ever added; neither port nor password is among them."""
    running, active = state.running, state.activity
    return {
        "host": host.name,
        "state": state.condition,
        "is_ours": state.is_ours,
        "version": state.version or None,
        "started": running.started if running else None,
        "directory": running.directory if running else None,
        "idle_stop_s": running.idle_stop_s if running else None,
        "is_loopback_only": running.is_loopback_only if running else None,
        "busy_sessions": len(active.busy) if active else None,
        "waiting_requests": active.waiting if active else None,
        "remarks": state.remarks,
    }


def _render(host: Host, data: dict[str, Any]) -> None:
    started, idle = data["started"], data["idle_stop_s"]
    print_fields(
        {
            "host": host.name,
            "state": str(data["state"]) + _NEWNESS[data.get("is_new")],
            "version": data["version"],
            "since": f"{started:%Y-%m-%d %H:%M} UTC ({age(started)})" if started else None,
            "directory": data["directory"],
            "reached": _reached(host, data),
            "busy sessions": _count(data["busy_sessions"]),
            "waiting requests": _count(data["waiting_requests"]),
            "stops by itself": None if not started else f"after {_length(idle)} without use" if idle else NEVER,
        }
    )
    if data["state"] == "down" and data["is_ours"]:
        note(f"`remote-dispatch session server start {host.name}` starts one")


def _reached(host: Host, data: dict[str, Any]) -> str | None:
    from remote_dispatch.servers.reach import is_by_url

    if not data["is_ours"]:
        return f"{'by its URL' if is_by_url(host) else 'through SSH'}: somebody else starts and stops it"
    return {True: "through SSH only", False: "BY OTHER MACHINES TOO"}.get(data["is_loopback_only"])


def _length(seconds: float) -> str:
    return f"{seconds / 60:.3g} min" if seconds >= 60 else f"{seconds:.0f} s"


def _count(number: int | None) -> str | None:
    return None if number is None else str(number)


def _idle_stop_s(text: str | None) -> float | None:
    return 0.0 if text == NEVER else duration_s(text)


def _ours(host: Host, word: str) -> Host:
    if host.server is not None:
        raise UsageError(
            f"the server of {host.name} is somebody else's: it is not ours to {word}",
            hint=f"{word} it where it runs; `remote-dispatch session server status {host.name}` shows how it is",
        )
    return host
