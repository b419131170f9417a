"""`remote-dispatch plugin`: put the plugin into OpenCode, take it out, and say how it stands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.hosts import load_registry
from remote_dispatch.cli.output import Answer, JsonFlag, note, print_fields, run_command, say

if TYPE_CHECKING:
    from remote_dispatch.plugin import Done, Place, Standing, Status

plugin_app = typer.Typer(
    help="Ask for a host from inside OpenCode: the plugin that gives models the tool `remote_dispatch`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ProjectFlag = Annotated[
    bool, typer.Option("--project", help="For this project alone: its git top level, else this directory.")
]


@plugin_app.command("install")
def install_plugin(*, is_project: ProjectFlag = False, is_json: JsonFlag = False) -> None:
    """Install the plugin into OpenCode, or bring it up to date; OpenCode has it at its next start."""
    run_command("plugin install", lambda: _install(is_project=is_project), is_json=is_json)


@plugin_app.command("uninstall")
def uninstall_plugin(*, is_project: ProjectFlag = False, is_json: JsonFlag = False) -> None:
    """Take the plugin out; OpenCode's configuration is as it was before."""
    run_command("plugin uninstall", lambda: _uninstall(is_project=is_project), is_json=is_json)


@plugin_app.command("status")
def show_status(*, is_project: ProjectFlag = False, is_json: JsonFlag = False) -> None:
    """Say what is installed, whether it is current and works, and what a model will see."""
    run_command("plugin status", lambda: _status(is_project=is_project), is_json=is_json)


def _install(*, is_project: bool) -> Answer:
    from remote_dispatch.plugin import install, this_command

    done = install(_place(is_project=is_project), this_command(), os.environ)
    if not done.changed:
        say("the plugin is installed and current: nothing to do")
    _tell(done)
    if done.changed:
        say("start OpenCode anew, then ask it for one of your hosts; `remote-dispatch plugin status` says what it sees")
    return Answer(data=_data(done))


def _uninstall(*, is_project: bool) -> Answer:
    from remote_dispatch.plugin import uninstall

    done = uninstall(_place(is_project=is_project), os.environ)
    if not (done.restored or done.removed):
        say("the plugin is not installed: nothing to do")
    _tell(done)
    return Answer(data=_data(done), warnings=tuple(done.kept))


def _status(*, is_project: bool) -> Answer:
    from remote_dispatch.plugin import PlaceKind, problem_of, read_status

    status = read_status(os.environ, Path.cwd(), load_registry(None))
    for text in status.remarks:
        note(text)
    return Answer(
        data=_status_data(status),
        render=lambda: print_fields(_fields(status)),
        error=problem_of(status, PlaceKind.PROJECT if is_project else None),
    )


def _place(*, is_project: bool) -> Place:
    from remote_dispatch.plugin import project_place, user_place

    return project_place(os.environ, Path.cwd()) if is_project else user_place(os.environ)


def _tell(done: Done) -> None:
    for path in done.changed:
        say(f"wrote {path}")
    for path in done.restored:
        say(f"restored {path}")
    for path in done.removed:
        say(f"removed {path}")


def _data(done: Done) -> dict[str, Any]:
    return {"changed": done.changed, "restored": done.restored, "removed": done.removed, "kept": done.kept}


def _fields(status: Status) -> dict[str, str | None]:
    return {
        "user": _standing(status.user),
        "project": _standing(status.project),
        "opencode": f"{status.opencode} ({status.opencode_version})" if status.opencode else "not found",
        "packages": _packages(status),
        "inline hosts": _inline(status),
        "tool": "remote_dispatch",
        "description": status.description,
    }


def _standing(one: Standing) -> str:
    if not one.is_installed:
        return "not installed"
    state = "current" if one.is_current else "not that of this version"
    runs = f"runs {' '.join(one.command)} ({one.version or 'which cannot be started'})"
    place = f"{one.plugin_file}" + (f", named in {one.configuration}" if one.configuration else "")
    return f"installed, {state}; {runs}; {place}"


def _packages(status: Status) -> str:
    kinds = ", ".join(f"{kind} in {path}" for path, kind in status.packages.items())
    waits = "OpenCode waits for the package registry at its start until they are there" if status.is_waiting else ""
    return "; ".join(part for part in (kinds, waits) if part)


def _inline(status: Status) -> str | None:
    return "; ".join(f"{', '.join(names)} in {path}" for path, names in status.inline_hosts.items()) or None


def _status_data(status: Status) -> dict[str, Any]:
    return {
        "user": _standing_data(status.user),
        "project": _standing_data(status.project),
        "opencode": {"path": status.opencode, "version": status.opencode_version},
        "tool": {"name": "remote_dispatch", "description": status.description, "hosts": status.names},
        "packages": [{"directory": path, "kind": kind} for path, kind in status.packages.items()],
        "is_waiting": status.is_waiting,
        "inline_hosts": [{"file": path, "names": names} for path, names in status.inline_hosts.items()],
        "remarks": status.remarks,
    }


def _standing_data(one: Standing) -> dict[str, Any]:
    return {
        "is_installed": one.is_installed,
        "is_current": one.is_current,
        "file": one.plugin_file,
        "configuration": one.configuration,
        "command": one.command,
        "version": one.version,
    }
