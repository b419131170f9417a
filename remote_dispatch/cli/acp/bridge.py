"""`acp bridge`: an editor on this machine, the OpenCode of a host."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.acp.app import LOCAL, AcpDesk, AcpHost, DirectoryOption, acp_app
from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.output import Answer, note, run_async, run_command

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import BinaryIO

    from remote_dispatch.acp.attached import Manners
    from remote_dispatch.acp.editor import Log
    from remote_dispatch.acp.rewrite import Pair, PathMap
    from remote_dispatch.dispatch import Link
    from remote_dispatch.model import Host

EPILOG = (
    "Exit codes: 0 the editor closed its side · 2 usage · 4 login or host key · 5 host unreachable, or with `--raw` "
    "the link was lost · 6 it did not start in time · 9 OpenCode or a directory is missing there, or it ended again "
    "and again · 10 unknown host · 11 hosts file · 130 interrupted. Before the bridge ends it answers what the editor "
    "asked with the same error."
)


@acp_app.command("bridge", epilog=EPILOG)
def bridge(
    host: AcpHost,
    *,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="LOCAL=REMOTE",
            help="A directory here, and the one there that stands for it; may be repeated. Without it the project of "
            "the current directory stands for the directory of the host's entry, or else the home here for the home "
            "there.",
        ),
    ] = None,
    directory: DirectoryOption = None,
    is_durable: Annotated[
        bool, typer.Option("--durable", help="Keep the agent alive there when the link is lost, and miss nothing.")
    ] = False,
    keeps_mcp: Annotated[
        bool,
        typer.Option("--keep-mcp", help="Send MCP servers of this machine too: they start, or are sought, there."),
    ] = False,
    is_raw: Annotated[
        bool, typer.Option("--raw", help="Change no message and do not reconnect: to see what is said.")
    ] = False,
    hosts_file: HostsFile = None,
) -> None:
    """Be the agent of an editor: it talks to this on stdin and stdout, and OpenCode works on the host.

    Give this command to an editor that speaks the Agent Client Protocol. Only the protocol goes to stdout; remarks, and
    what OpenCode prints on stderr, go to stderr.
    """
    from remote_dispatch.acp.attached import Manners

    manners = Manners(is_durable=is_durable, keeps_mcp=keeps_mcp)
    run_command(
        "acp bridge",
        lambda: run_async(_bridge(AcpDesk(hosts_file), host, maps or (), directory, manners, is_raw=is_raw)),
        is_json=False,
    )


async def _bridge(
    desk: AcpDesk, name: str, maps: Sequence[str], directory: str | None, manners: Manners, *, is_raw: bool
) -> Answer:
    from remote_dispatch.acp.bridge import Bridge
    from remote_dispatch.acp.editor import Log, stdio_wire
    from remote_dispatch.acp.raw import pass_unchanged
    from remote_dispatch.acp.way import AgentWay

    host = desk.host(name)
    manners = replace(manners, agent=host.agent, model=host.model)
    places, start = _places(host, maps, directory)
    if os.isatty(0):
        note("this is for an editor: give it this command as its agent (Ctrl-D ends it)")
    source, target = _own_stdio()
    with Log(2) as log:
        editor = await stdio_wire(source, target, on_noise=lambda line: log.say(f"no message: {_text(line)}"))
        async with _link(desk, host) as link:
            way = AgentWay(
                link,
                start.remote,
                is_durable=manners.is_durable,
                has_side=not is_raw,
                on_stderr=lambda chunk: log.say(_text(chunk)),
            )
            if is_raw:
                await pass_unchanged(editor, name, way)
            else:
                say = partial(_remark, log)
                running = Bridge(editor, name, way, places=places, start=start, manners=manners, note=say).run()
                await _until_terminated(running)
    return Answer()


async def _until_terminated(work: Coroutine[Any, Any, None]) -> None:
    """Do it; an editor that ends us by a signal, as many do, has closed its side: a durable agent must end too."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        waiting = asyncio.current_task()
        if waiting is not None and waiting.cancelling():
            raise


def _remark(log: Log, text: str) -> None:
    log.say(f"note: {text}")


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _places(host: Host, maps: Sequence[str], directory: str | None) -> tuple[PathMap, Pair]:
    from remote_dispatch.acp.rewrite import Pair, PathMap
    from remote_dispatch.acp.way import places_of

    if host.name == LOCAL and not maps:
        return PathMap((Pair("/", "/"),)), Pair("/", AcpDesk.directory(host, directory))
    return places_of(maps, directory or host.directory, here=_here(), home=Path.home())


def _here() -> list[Path]:
    """The names of the current directory; an editor may know it by the one with links in it."""
    real = Path.cwd()
    with suppress(OSError):
        named = Path(os.environ.get("PWD") or real)
        if named.is_absolute() and named.samefile(real):
            return [named, real]
    return [real]


def _link(desk: AcpDesk, host: Host) -> Link:
    if host.name != LOCAL:
        return desk.link(host)
    from remote_dispatch.dispatch import Link

    return Link(host, lambda _: desk.connection(host))


def _own_stdio() -> tuple[BinaryIO, BinaryIO]:
    """Take stdin and stdout for the protocol alone: what anything else prints goes to stderr."""
    source, target = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(source, "rb", buffering=0), os.fdopen(target, "wb", buffering=0)
