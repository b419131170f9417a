"""The root of the command line. Importing it imports neither asyncssh nor httpx: `--help` is quick.

A call that begins with the name of a command imports and builds that one alone. The help of the root names the groups
without importing them.
"""

from __future__ import annotations

import os
import sys
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from remote_dispatch import __version__
from remote_dispatch.cli import COMPLETION_VARIABLE
from remote_dispatch.cli.output import JSON_OPTION, Answer, run_command
from remote_dispatch.errors import UsageError
from remote_dispatch.text import mask_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    app: typer.Typer
    """The whole command line, made when it is first asked for."""

NAME = "remote-dispatch"
EXIT_CODES = (
    "Exit codes: 0 done and verified · 1 the task failed, was lost or cancelled · 2 usage · 3 done with warnings · "
    "4 login or host key · 5 host unreachable · 6 deadline passed, still running · 7 an answer is needed · "
    "8 diverged or held elsewhere · 9 host not ready · 10 unknown host, session or name · "
    "11 hosts file or configuration · 12 integrity check failed, both copies kept · 70 our bug · "
    "130 interrupted (the dispatch goes on)."
)

HELP = "Hand an OpenCode conversation to another machine over SSH, and bring it home."
INSTALL_OPTION = "--install-completion"
_COMPLETED_LINES = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")
"""Where Typer's scripts for the shells put the line that is to be completed; then sys.argv has no words."""


COMMANDS = {
    "send": "send.send",
    "list": "dispatches.list_dispatches",
    "show": "dispatches.show",
    "logs": "dispatches.logs",
    "wait": "dispatches.wait",
    "collect": "dispatches.collect",
    "cancel": "dispatches.cancel",
    "resume": "dispatches.resume",
    "diff": "code.diff",
    "apply": "code.apply",
    "verify": "upkeep.verify",
    "remove": "upkeep.remove",
    "prune": "upkeep.prune",
    "doctor": "doctor.doctor",
    "demo": "demo.demo",
}
"""Each command's module and function below `remote_dispatch.cli`, in the order of the help."""


@dataclass(frozen=True, slots=True)
class Group:
    """Commands below one word, by the module that puts them there. The first module has the Typer application."""

    help: str
    application: str
    modules: Mapping[str, str]

    def load(self, command: str | None = None) -> typer.Typer:
        """Import the modules, and return the application; for a command that it has, with that one alone."""
        home, *others = self.modules
        of_command = [name for name, commands in self.modules.items() if command in commands.split()]
        first, *_ = [import_module(f"remote_dispatch.cli.{name}") for name in (home, *(of_command or others))]
        loaded: typer.Typer = getattr(first, self.application)
        return _narrowed(loaded, command) if of_command else loaded


GROUPS = {
    "hosts": Group(
        "Manage the hosts: public names for private addresses.",
        "hosts_app",
        {
            "hosts": "list show path validate",
            "hosts_edit": "add set unset remove rename edit",
            "hosts_trust": "trust untrust",
            "hosts_import": "import",
            "hosts_setup": "setup",
        },
    ),
    "plugin": Group(
        "Ask for a host from inside OpenCode: the plugin that gives models the tool `remote_dispatch`.",
        "plugin_app",
        {"plugin": "install uninstall status"},
    ),
    "session": Group(
        "Named sessions on OpenCode servers: prompt, watch and answer them from here.",
        "session_app",
        {
            "session.app": "",
            "session.manage": "new adopt fork rename forget abort delete",
            "session.look": "list show",
            "session.read": "messages todo diff",
            "session.offered": "agents models",
            "session.open": "open",
            "session.send": "send run",
            "session.watch": "watch",
            "session.requests": "requests reply",
            "session.server": "server",
        },
    ),
    "acp": Group(
        "The Agent Client Protocol: any editor, or a script, on any host.",
        "acp_app",
        {"acp.app": "", "acp.bridge": "bridge", "acp.prompt": "prompt", "acp.look": "sessions version"},
    ),
}


def build(
    wanted: Container[str], only: str | None = None, command: str | None = None, *, is_listed: bool = False
) -> typer.Typer:
    """Make the command line. Of the groups only the wanted ones have their commands.

    `only` names the one command or group that there is to be, and `command` the one of that group, where it is known
    which one is called. With `is_listed` commands have a name and a line of help, all that the root's help shows.
    """
    made = typer.Typer(
        name=NAME,
        help=HELP,
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(root)
    for name, place in COMMANDS.items():
        if only in (None, name):
            module, _, name_there = place.partition(".")
            function = getattr(import_module(f"remote_dispatch.cli.{module}"), name_there)
            made.command(name)(_without_options(function) if is_listed else function)
    for name, group in GROUPS.items():
        if only in (None, name):
            made.add_typer(group.load(command) if name in wanted else typer.Typer(), name=name, help=group.help)
    return made


def _narrowed(application: typer.Typer, command: str | None) -> typer.Typer:
    """To understand the options of its other commands takes time, and nobody asked for them."""
    narrowed = copy(application)
    narrowed.registered_commands = [one for one in application.registered_commands if one.name == command]
    narrowed.registered_groups = [one for one in application.registered_groups if one.name == command]
    return narrowed


def called() -> typer.Typer:
    """Make as much of the command line as this call, or the line that a shell completes, needs."""
    if COMPLETION_VARIABLE in os.environ:
        words = " ".join(os.environ.get(name, "") for name in _COMPLETED_LINES).split()
        first = words[1] if len(words) > 1 else None
        return build(words, first if first in COMMANDS or first in GROUPS else None)
    if sys.argv[1:] in ([], ["-h"], ["--help"], ["--version"]):
        return build((), is_listed=True)
    first, second = (*sys.argv[1:3], None, None)[:2]
    return build(sys.argv, first, second) if first in COMMANDS or first in GROUPS else build(sys.argv)


def _without_options(command: Callable[..., None]) -> Callable[[], None]:
    """To understand the options of every command takes longer than all the rest that is ours."""

    def described() -> None:
        """Never run: it is there to be listed."""

    described.__doc__ = command.__doc__
    return described


def __getattr__(name: str) -> typer.Typer:
    if name != "app":
        raise AttributeError(name)
    made = globals()["app"] = build(GROUPS)
    return made


def _print_version(is_asked: bool) -> None:  # noqa: FBT001 - typer's signature
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit


def root(
    *,
    is_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What holds for every command: its help is that of the application."""


def main() -> None:
    """Run the command line. With `--json` a call that cannot be understood still ends with an envelope."""
    asked = called()
    if INSTALL_OPTION in sys.argv:
        _install_completion(asked)
    if JSON_OPTION not in sys.argv:
        asked(prog_name=NAME)
    try:
        sys.exit(asked(prog_name=NAME, standalone_mode=False))
    except typer.TyperException as error:
        _refuse(error)


def _install_completion(asked: typer.Typer) -> None:
    from remote_dispatch.cli.completion import mend_script_for_zsh

    try:
        asked(prog_name=NAME)
    finally:
        mend_script_for_zsh(Path.home())


def _refuse(error: typer.TyperException) -> NoReturn:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else NAME
    text = mask_addresses(error.format_message()).rstrip(".")

    def work() -> Answer:
        raise UsageError(text[:1].lower() + text[1:], hint=f"see `{path} --help`")

    try:
        run_command(path.partition(" ")[2] or NAME, work, is_json=True)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    raise AssertionError("run_command always leaves by Exit")
