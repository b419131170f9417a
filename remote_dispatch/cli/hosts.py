"""`remote-dispatch hosts`: what the hosts files say, by name. Only `show --reveal` prints an address, on a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.completion import complete_host
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
from remote_dispatch.errors import ConfigurationError, UsageError
from remote_dispatch.text import mask_addresses

if TYPE_CHECKING:
    from remote_dispatch.hosts import Layer, Problem, Registry
    from remote_dispatch.model import Host

__all__ = ["HostName", "HostsFile", "complete_host", "hosts_app", "load_registry", "public_fields", "working_directory"]

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

    return Registry.load(environment=os.environ, project=working_directory(), hosts_file=hosts_file, is_alias=_is_alias)


HostName = Annotated[str, typer.Argument(metavar="NAME", help="The name of a host.", autocompletion=complete_host)]


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
def show_path(
    *,
    origin: Annotated[
        str | None,
        typer.Option(
            "--origin",
            metavar="NAME",
            help="Show where each field of this host comes from, and the entries that it hides.",
            autocompletion=complete_host,
        ),
    ] = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Show every place of a hosts file, whether it is there, and which are ignored and why."""

    def work() -> Answer:
        registry = load_registry(hosts_file)
        return _origin(registry, origin) if origin is not None else _path(registry)

    run_command("hosts path", work, is_json=is_json)


@hosts_app.command("validate")
def validate_files(*, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Name every problem of every hosts file that counts: file, line, host and field."""
    run_command("hosts validate", lambda: _validate(load_registry(hosts_file)), is_json=is_json)


def _list(registry: Registry, *, is_names: bool) -> Answer:
    _tell_notes(registry)
    warnings = tuple(str(problem) for problem in registry.problems)
    if is_names:
        names = registry.names
        return Answer(data={"names": names}, render=lambda: print_lines(names), warnings=warnings)
    hosts = [_row(registry, name) for name in registry.names]
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
    _tell_notes(registry)
    host, origin = registry[name], registry.origin(name)
    shown = _own_fields(host) | _private(host) if is_revealed else public_fields(host)
    fields = shown | {"file": str(origin)}
    return Answer(
        data={"host": public_fields(host), "file": origin.file, "line": origin.line, "kind": origin.kind},
        render=lambda: print_fields({key: _text(value) for key, value in fields.items()}),
    )


def _path(registry: Registry) -> Answer:
    _tell_notes(registry)
    layers = [
        {
            "path": layer.path,
            "kind": layer.kind,
            "exists": layer.exists,
            "ignored": layer.ignored,
            "trust": layer.trust,
        }
        for layer in registry.places.layers
    ]
    rows = [(str(layer.path), _state(layer)) for layer in registry.places.layers]
    return Answer(
        data={"layers": layers, "target": registry.places.target},
        render=lambda: print_table(("PATH", "STATE"), rows),
    )


def _origin(registry: Registry, name: str) -> Answer:
    """An entry counts as a whole: the fields of earlier entries are shown as hidden."""
    standings = registry.standings(name)
    last = standings[-1]
    entries = [
        {
            "file": one.entry.file,
            "line": one.entry.line,
            "kind": one.origin.kind,
            "counts": one is last,
            "fields": [{"field": field.name, "line": field.line} for field in one.entry.fields],
        }
        for one in standings
    ]
    rows = [
        (field.name or "?", f"{one.entry.file}:{field.line}", None if one is last else f"hidden by {last.origin}")
        for one in reversed(standings)
        for field in one.entry.fields
    ]
    return Answer(
        data={"host": name if name in registry.all_names else None, "entries": entries},
        render=lambda: print_table(("FIELD", "FROM", "STATE"), rows),
        warnings=tuple(str(problem) for problem in last.entry.problems),
    )


def _validate(registry: Registry) -> Answer:
    from remote_dispatch.hosts.remarks import remarks_on

    remarks, problems = remarks_on(registry), registry.problems
    for text in remarks:
        note(text)
    files = [layer.path for layer in registry.places.layers if layer.exists and not layer.ignored]
    return Answer(
        data={"files": files, "problems": [_problem(problem) for problem in problems], "remarks": remarks},
        render=lambda: _print_problems(registry, len(files)),
        error=_verdict(len(problems)),
    )


def _print_problems(registry: Registry, files: int) -> None:
    print_lines(str(problem) for problem in registry.problems)
    if not registry.problems:
        say(f"no problems: {_count(len(registry.names), 'host')} in {_count(files, 'file')}")


def _verdict(count: int) -> ConfigurationError | None:
    if not count:
        return None
    return ConfigurationError(
        f"the hosts files have {_count(count, 'problem')}",
        hint="`remote-dispatch hosts set NAME FIELD VALUE` cures a field, `remote-dispatch hosts edit` the rest",
    )


def _tell_notes(registry: Registry) -> None:
    for text in registry.notes:
        note(text)


def _print_hosts(hosts: list[dict[str, Any]]) -> None:
    """Where an entry is from is shown when it is not a hosts file of the user."""
    if not hosts:
        return say(
            "no hosts yet: add one with `remote-dispatch hosts add NAME ADDRESS`, or take them from ~/.ssh/config with "
            "`remote-dispatch hosts import`"
        )
    rows = [[host["name"], *(host[column] for column in _COLUMNS)] for host in hosts]
    headings = ["NAME", *(column.upper() for column in _COLUMNS)]
    foreign = [str(host["file"]) if host["kind"] in ("project", "inline") else None for host in hosts]
    if any(foreign):
        headings.append("FROM")
        rows = [[*row, place] for row, place in zip(rows, foreign, strict=True)]
    return print_table(headings, rows)


def _row(registry: Registry, name: str) -> dict[str, Any]:
    host, origin, overridden = registry[name], registry.origin(name), registry.overrides.get(name)
    return {
        "name": name,
        **{column: _masked(getattr(host, column)) for column in _COLUMNS},
        "file": origin.file,
        "line": origin.line,
        "kind": origin.kind,
        "overrides": str(overridden) if overridden else None,
    }


def public_fields(host: Host) -> dict[str, Any]:
    """Return the fields that may be shown; of the environment, the names of its variables.

    A rule for `ssh` may hold an address, and so may any other text: it is masked.
    """
    return {field: _masked(value) for field, value in _own_fields(host).items()}


def _own_fields(host: Host) -> dict[str, Any]:
    from remote_dispatch.hosts import PRIVATE_FIELDS

    fields = host.model_dump(exclude=set(PRIVATE_FIELDS), exclude_none=True)
    return fields | ({"env": sorted(host.env)} if host.env else {})


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask_addresses(value)
    if not isinstance(value, dict):
        return value
    masked: dict[str, Any] = {}
    for key, inner in value.items():
        shown = mask_addresses(key)
        while shown in masked:  # two rules stay two
            shown += " "
        masked[shown] = _masked(inner)
    return masked


def _private(host: Host) -> dict[str, Any]:
    return {
        "address": host.host,
        "port": host.port,
        "server": host.server,
        "server_user": host.server_user,
        "server_password_command": host.server_password_command,
    }


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
    how = {LayerKind.INLINE: ": hosts among the plugin's options", LayerKind.PROJECT: ": trusted"}
    return f"read{how.get(layer.kind, '')}"


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def working_directory() -> Path | None:
    """Return the current directory; None when it is not there any more."""
    with contextlib.suppress(FileNotFoundError):
        return Path.cwd()
    return None


def _is_alias(name: str) -> bool:
    from remote_dispatch.remote.ssh_aliases import aliases

    return name in aliases()
