"""The root of the command line. Importing it imports neither asyncssh nor httpx: `--help` is quick."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from remote_dispatch import __version__
from remote_dispatch.cli import dispatches, upkeep
from remote_dispatch.cli.demo import demo
from remote_dispatch.cli.hosts import hosts_app
from remote_dispatch.cli.output import JSON_OPTION, Answer, run_command
from remote_dispatch.cli.plugin import plugin_app
from remote_dispatch.cli.send import send
from remote_dispatch.errors import UsageError
from remote_dispatch.text import mask_addresses

NAME = "remote-dispatch"
EXIT_CODES = (
    "Exit codes: 0 done and verified · 1 the task failed, was lost or cancelled · 2 usage · 3 done with warnings · "
    "4 login or host key · 5 host unreachable · 6 deadline passed, still running · 7 an answer is needed · "
    "8 diverged or held elsewhere · 9 host not ready · 10 unknown host, session or name · "
    "11 hosts file or configuration · 12 integrity check failed, both copies kept · 70 our bug · "
    "130 interrupted (the dispatch goes on)."
)

app = typer.Typer(
    name=NAME,
    help="Hand an OpenCode conversation to another machine over SSH, and bring it home.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(is_asked: bool) -> None:  # noqa: FBT001 - typer's signature
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    *,
    is_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hand an OpenCode conversation to another machine over SSH, and bring it home."""


app.command("send")(send)
app.command("list")(dispatches.list_dispatches)
app.command("show")(dispatches.show)
app.command("logs")(dispatches.logs)
app.command("wait")(dispatches.wait)
app.command("collect")(dispatches.collect)
app.command("cancel")(dispatches.cancel)
app.command("resume")(dispatches.resume)
app.command("verify")(upkeep.verify)
app.command("remove")(upkeep.remove)
app.command("prune")(upkeep.prune)
app.add_typer(hosts_app, name="hosts")
app.add_typer(plugin_app, name="plugin")
app.command("demo")(demo)


def main() -> None:
    """Run the command line. With `--json` a call that cannot be understood still ends with an envelope."""
    if JSON_OPTION not in sys.argv:
        app(prog_name=NAME)
    try:
        sys.exit(app(prog_name=NAME, standalone_mode=False))
    except typer.TyperException as error:
        _refuse(error)


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
