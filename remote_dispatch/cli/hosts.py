"""`remote-dispatch hosts`: add, list and show hosts by name. Only `show --reveal` prints an address, on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from remote_dispatch.cli.output import (
    Answer,
    JsonFlag,
    note,
    print_fields,
    print_lines,
    print_table,
    run_command,
    say,
)
from remote_dispatch.errors import RemoteDispatchError, UsageError

if TYPE_CHECKING:
    from remote_dispatch.hosts import Layer, Problem, Registry
    from remote_dispatch.model import Host

_COLUMNS = ("agent", "model", "directory", "permissions")

hosts_app = typer.Typer(
    help="Manage the hosts: public names for private addresses.", no_args_is_help=True, pretty_exceptions_enable=False
)

HostsFile = Annotated[
    Path | None,
    typer.Option("--hosts", metavar="FILE", help="Use this hosts file alone (also: REMOTE_DISPATCH_HOSTS)."),
]


def load_registry(hosts_file: Path | None) -> Registry:
    """Read the hosts files as this process sees them; for every command that takes a host."""
    from remote_dispatch.hosts import Registry

    return Registry.load(
        environment=os.environ, project=_working_directory(), hosts_file=hosts_file, is_alias=_is_alias
    )


def complete_host(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a host. A broken file completes nothing, silently: the shell is no place for errors."""
    try:
        names = load_registry(context.params.get("hosts_file")).names
    except (RemoteDispatchError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]


HostName = Annotated[str, typer.Argument(metavar="NAME", help="The name of a host.", autocompletion=complete_host)]


@hosts_app.command("add")
def add_host(
    name: Annotated[str, typer.Argument(help="The name that you and models will use.")],
    address: Annotated[str, typer.Argument(help="`user@host`, `host:port`, or an alias of ~/.ssh/config.")],
    *,
    port: Annotated[int | None, typer.Option(help="The SSH port.")] = None,
    agent: Annotated[str | None, typer.Option(help="The agent to run there.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to run there: `provider/id`.")] = None,
    variant: Annotated[str | None, typer.Option(help="The variant of the model.")] = None,
    directory: Annotated[str | None, typer.Option(help="The working directory there; quote a leading `~`.")] = None,
    permissions: Annotated[
        Literal["deny", "auto"] | None, typer.Option(help="What becomes of a permission that is asked for there.")
    ] = None,
    opencode: Annotated[str | None, typer.Option(help="Where OpenCode is, when it is not found by itself.")] = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Add a host to your hosts file; comments and formatting stay."""
    fields = {"port": port, "agent": agent, "model": model, "variant": variant, "directory": directory}
    fields |= {"permissions": permissions, "opencode": opencode}
    run_command("hosts add", lambda: _add(name, address, fields, hosts_file), is_json=is_json)


@hosts_app.command("list")
def list_hosts(
    *,
    is_names: Annotated[bool, typer.Option("--names", help="Print the names alone, one on a line.")] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """List the hosts by name, and what is wrong in the hosts files."""
    run_command("hosts list", lambda: _list(load_registry(hosts_file), is_names=is_names), is_json=is_json)


@hosts_app.command("show")
def show_host(
    name: HostName,
    *,
    is_revealed: Annotated[bool, typer.Option("--reveal", help="Print the address too; on a terminal only.")] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Show one host without its address."""
    run_command(
        "hosts show", lambda: _show(name, hosts_file, is_revealed=is_revealed, is_json=is_json), is_json=is_json
    )


@hosts_app.command("path")
def show_path(*, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Show every place of a hosts file, whether it is there, and which are ignored and why."""
    run_command("hosts path", lambda: _path(load_registry(hosts_file)), is_json=is_json)


def _add(name: str, address: str, fields: dict[str, Any], hosts_file: Path | None) -> Answer:
    from remote_dispatch.hosts import add

    file = add(load_registry(hosts_file).places, name, address, **fields)
    say(f"added `{name}` to {file}")
    host = load_registry(hosts_file)[name]
    return Answer(data={"host": _public(host), "file": file})


def _list(registry: Registry, *, is_names: bool) -> Answer:
    for text in registry.notes:
        note(text)
    warnings = tuple(str(problem) for problem in registry.problems)
    if is_names:
        names = registry.names
        return Answer(data={"names": names}, render=lambda: print_lines(names), warnings=warnings)
    hosts = [_row(registry[name]) for name in registry.names]
    return Answer(
        data={"hosts": hosts, "problems": [_problem(problem) for problem in registry.problems]},
        render=lambda: _print_hosts(hosts),
        warnings=warnings,
    )


def _show(name: str, hosts_file: Path | None, *, is_revealed: bool, is_json: bool) -> Answer:
    if is_revealed and (is_json or not sys.stdout.isatty()):
        raise UsageError(
            "`--reveal` prints an address on a terminal only", hint="run `remote-dispatch hosts show` without it"
        )
    registry = load_registry(hosts_file)
    host, origin = registry[name], registry.origin(name)
    fields = _public(host) | {"file": f"{origin.file}:{origin.line}"} | (_private(host) if is_revealed else {})
    return Answer(
        data={"host": _public(host), "file": origin.file, "line": origin.line},
        render=lambda: print_fields({key: _text(value) for key, value in fields.items()}),
    )


def _path(registry: Registry) -> Answer:
    layers = [
        {"path": layer.path, "kind": layer.kind, "exists": layer.exists, "ignored": layer.ignored}
        for layer in registry.places.layers
    ]
    rows = [(str(layer.path), _state(layer)) for layer in registry.places.layers]
    return Answer(
        data={"layers": layers, "target": registry.places.target},
        render=lambda: print_table(("PATH", "STATE"), rows),
    )


def _print_hosts(hosts: list[dict[str, str | None]]) -> None:
    if not hosts:
        return say("no hosts yet: add one with `remote-dispatch hosts add NAME ADDRESS`")
    return print_table(
        ("NAME", *(column.upper() for column in _COLUMNS)),
        [[host["name"], *(host[column] for column in _COLUMNS)] for host in hosts],
    )


def _row(host: Host) -> dict[str, str | None]:
    return {"name": host.name, **{column: getattr(host, column) for column in _COLUMNS}}


def _public(host: Host) -> dict[str, Any]:
    """The fields that may be shown; of the environment, the names of its variables."""
    from remote_dispatch.hosts import PRIVATE_FIELDS

    fields = host.model_dump(exclude=set(PRIVATE_FIELDS), exclude_none=True)
    return fields | ({"env": sorted(host.env)} if host.env else {})


def _private(host: Host) -> dict[str, Any]:
    return {"address": host.host, "port": host.port, "server": host.server}


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "host": problem.host,
        "field": problem.field,
        "message": problem.message,
    }


def _state(layer: Layer) -> str:
    from remote_dispatch.hosts import LayerKind

    if not layer.exists:
        return "not there"
    if layer.ignored:
        return f"ignored: {layer.ignored}"
    return "read: hosts among the plugin's options" if layer.kind is LayerKind.INLINE else "read"


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _working_directory() -> Path | None:
    with contextlib.suppress(FileNotFoundError):
        return Path.cwd()
    return None


def _is_alias(name: str) -> bool:
    from remote_dispatch.remote.ssh_config import aliases

    with contextlib.suppress(OSError):
        return name in aliases()
    return False
