"""`session open`: OpenCode's own screen or web page of a session, through a tunnel. The password is never in a URL."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.output import Answer, JsonFlag, note, print_lines, run_async, run_command, say, stream
from remote_dispatch.cli.session.app import SessionDesk, SessionName, session_app
from remote_dispatch.errors import CommandError, UsageError
from remote_dispatch.opencode.api import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from remote_dispatch.servers.reach import Door
    from remote_dispatch.sessions.values import NamedSession

_INTERRUPTED = (130, -2)
"""How the screen ends after Ctrl-C: that is how one leaves it."""


@session_app.command("open")
def open_session(
    name: SessionName,
    *,
    is_web: Annotated[
        bool | None, typer.Option("--web/--tui", help="In the browser, or OpenCode's own screen (the default).")
    ] = None,
    is_shown: Annotated[
        bool, typer.Option("--show-password", help="Print the password of the server; on a terminal only.")
    ] = False,
    is_browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the browser, or print the address alone.")
    ] = True,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Open a session in OpenCode itself, through a tunnel that lasts as long as you look at it."""

    def work() -> Answer:
        desk = SessionDesk(hosts_file)
        named = desk.sessions.load(name)
        _check(is_web=is_web, is_shown=is_shown, is_json=is_json)
        if is_web:
            return run_async(_web(desk, named, is_shown=is_shown, is_browser=is_browser, is_json=is_json))
        return run_async(_tui(desk, named))

    run_command("session open", work, is_json=is_json)


def _check(*, is_web: bool | None, is_shown: bool, is_json: bool) -> None:
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if is_shown and (is_json or not is_terminal):
        raise UsageError("`--show-password` prints a password on a terminal only")
    if not is_web and (is_json or not is_terminal):
        raise UsageError("OpenCode's own screen needs a terminal", hint="open its web page instead with `--web`")


async def _tui(desk: SessionDesk, named: NamedSession) -> Answer:
    """Run the screen. Ctrl-C is for it alone: the tunnel lasts until it has ended."""
    binary, host = _opencode(desk.environment), desk.host(named.host)
    async with desk.servers() as servers, servers.tunnel(host) as door:
        await (await servers.api(host)).session(named.session_id)
        argv = [binary, "attach", door.url, "--dir", named.directory, "-s", named.session_id]
        with _interrupts(lambda: None):
            process = await asyncio.create_subprocess_exec(*argv, env=_variables(desk.environment, door))
            status = await process.wait()
    if status not in (0, *_INTERRUPTED):
        raise CommandError("this machine", "opencode attach", status, "", hint="open its web page instead with `--web`")
    return Answer(_data(named), lambda: print_lines([f"{named.name} is as it was left; the tunnel is closed"]))


async def _web(desk: SessionDesk, named: NamedSession, *, is_shown: bool, is_browser: bool, is_json: bool) -> Answer:
    """Keep the tunnel until Ctrl-C, which is the good end of it."""
    import webbrowser

    host = desk.host(named.host)
    async with desk.servers() as servers, servers.tunnel(host) as door:
        await (await servers.api(host)).session(named.session_id)
        url = f"{door.url}/{_page(named)}"
        _tell_page(url, is_json=is_json)
        if door.password is not None:
            _tell_login(door, is_shown=is_shown)
        if is_browser and not await asyncio.to_thread(webbrowser.open, url):
            note("no browser could be opened: open the address yourself")
        is_over = asyncio.Event()
        with _interrupts(is_over.set):
            say("the tunnel lasts until you press Ctrl-C")
            await is_over.wait()
    return Answer(_data(named), lambda: print_lines(["the tunnel is closed"]))


@contextlib.contextmanager
def _interrupts(do: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, do)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _tell_page(url: str, *, is_json: bool) -> None:
    """The end of a tunnel is no secret; the address of somebody's server is, and goes to a terminal only."""
    if not is_loopback(urlsplit(url).hostname) and (is_json or not sys.stdout.isatty()):
        note("the address of this server is printed on a terminal only")
    elif is_json:
        stream({"type": "page", "url": url})
    else:
        print_lines([url])
        sys.stdout.flush()


def _page(named: NamedSession) -> str:
    """Where the web page of OpenCode 1.18 has a session: the directory in base64 without padding, then the id."""
    place = base64.urlsafe_b64encode(named.directory.encode()).decode().rstrip("=")
    return f"{place}/session/{named.session_id}"


def _tell_login(door: Door, *, is_shown: bool) -> None:
    note(f"the browser asks for user and password; the user is `{door.user}`")
    if is_shown:
        say(f"password: {door.password}")
    else:
        say("`--show-password` prints the password here")


def _variables(environment: Mapping[str, str], door: Door) -> dict[str, str]:
    """The password is in the environment of the child alone: a command line can be read by everyone."""
    secret = {"OPENCODE_SERVER_USERNAME": door.user, "OPENCODE_SERVER_PASSWORD": door.password}
    kept = {name: value for name, value in environment.items() if name not in secret}
    return kept | {name: value for name, value in secret.items() if value is not None}


def _opencode(environment: Mapping[str, str]) -> str:
    from remote_dispatch.opencode.program import find_binary

    return str(find_binary(environment))


def _data(named: NamedSession) -> dict[str, Any]:
    from remote_dispatch.cli.session.data import named_data

    return named_data(named)
