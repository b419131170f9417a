"""The root of the command line. Importing it imports neither asyncssh nor httpx: `--help` is quick.

The groups' own modules are imported only where the group is asked for: the help of the root names them, no more.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from remote_dispatch import __version__
from remote_dispatch.cli import code, dispatches, upkeep
from remote_dispatch.cli.demo import demo
from remote_dispatch.cli.doctor import doctor
from remote_dispatch.cli.output import JSON_OPTION, Answer, run_command
from remote_dispatch.cli.send import send
from remote_dispatch.errors import UsageError
from remote_dispatch.text import mask_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Container

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


@dataclass(frozen=True, slots=True)
class Group:
    """Commands below one word. The first module has the Typer application, all of them put their commands there."""

    help: str
    application: str
    modules: tuple[str, ...]

    def load(self) -> typer.Typer:
        """Import the modules, and return the application."""
        first, *_ = [import_module(f"remote_dispatch.cli.{name}") for name in self.modules]
        loaded: typer.Typer = getattr(first, self.application)
        return loaded


GROUPS = {
    "hosts": Group(
        "Manage the hosts: public names for private addresses.",
        "hosts_app",
        ("hosts", "hosts_edit", "hosts_trust", "hosts_import", "hosts_setup"),
    ),
    "plugin": Group(
        "Ask for a host from inside OpenCode: the plugin that gives models the tool `remote_dispatch`.",
        "plugin_app",
        ("plugin",),
    ),
    "session": Group(
        "Named sessions on OpenCode servers: prompt, watch and answer them from here.",
        "session_app",
        (
            "session.app",
            "session.manage",
            "session.look",
            "session.read",
            "session.offered",
            "session.open",
            "session.send",
            "session.watch",
            "session.requests",
            "session.server",
        ),
    ),
    "acp": Group(
        "The Agent Client Protocol: any editor, or a script, on any host.",
        "acp_app",
        ("acp.app", "acp.bridge", "acp.prompt", "acp.look"),
    ),
}


def build(wanted: Container[str]) -> typer.Typer:
    """Make the command line. Of the groups only the wanted ones have their commands."""
    made = typer.Typer(
        name=NAME,
        help=HELP,
        epilog=EXIT_CODES,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(root)
    for name, command in COMMANDS.items():
        made.command(name)(command)
    for name, group in GROUPS.items():
        made.add_typer(group.load() if name in wanted else typer.Typer(), name=name, help=group.help)
    return made


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


COMMANDS: dict[str, Callable[..., None]] = {
    "send": send,
    "list": dispatches.list_dispatches,
    "show": dispatches.show,
    "logs": dispatches.logs,
    "wait": dispatches.wait,
    "collect": dispatches.collect,
    "cancel": dispatches.cancel,
    "resume": dispatches.resume,
    "diff": code.diff,
    "apply": code.apply,
    "verify": upkeep.verify,
    "remove": upkeep.remove,
    "prune": upkeep.prune,
    "doctor": doctor,
    "demo": demo,
}


def main() -> None:
    """Run the command line. With `--json` a call that cannot be understood still ends with an envelope."""
    asked = build([*sys.argv, *(word for name in _COMPLETED_LINES for word in os.environ.get(name, "").split())])
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
