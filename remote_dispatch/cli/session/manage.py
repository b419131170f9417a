"""`session new`, `adopt`, `fork`, `rename`, `forget`, `abort` and `delete`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.completion import complete_host
from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.options import PermissionRulesOption
from remote_dispatch.cli.output import Answer, JsonFlag, note, print_lines, run_async, run_command, say
from remote_dispatch.cli.session.app import AgentOption, HostName, ModelOption, SessionDesk, SessionName, session_app
from remote_dispatch.errors import AnswerNeededError, ConfigurationError, HostNotReadyError, UsageError

if TYPE_CHECKING:
    from remote_dispatch.model import Host, PermissionRules
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.servers.reach import Servers
    from remote_dispatch.sessions.manage import Made, Wish
    from remote_dispatch.sessions.offers import Offers
    from remote_dispatch.sessions.values import NamedSession

POLICIES = ("ask", "deny", "auto")

NameOption = Annotated[str | None, typer.Option("--name", help="Its name; four letters are made up otherwise.")]
WorksOnOption = Annotated[str, typer.Option("--works-on", metavar="TEXT", help="What it is about, for your lists.")]
YesFlag = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@session_app.command("new")
def new(
    host: HostName,
    *,
    title: Annotated[str | None, typer.Option(help="Its title; OpenCode makes one up otherwise.")] = None,
    name: NameOption = None,
    directory: Annotated[str | None, typer.Option(help="The working directory there; quote a leading `~`.")] = None,
    agent: AgentOption = None,
    model: ModelOption = None,
    permissions: Annotated[
        str | None,
        typer.Option(
            "--permissions",
            metavar="ask|deny|auto",
            help="Ask, refuse, or grant what OpenCode would ask for.",
            autocompletion=lambda incomplete: [one for one in POLICIES if one.startswith(incomplete)],
        ),
    ] = None,
    permission_rules: PermissionRulesOption = None,
    works_on: WorksOnOption = "",
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Begin a session on a host; its OpenCode server is started where none runs."""

    def work() -> Answer:
        from remote_dispatch.sessions.manage import Wish

        rules = checked_rules(permission_rules)
        wish = Wish(title, name, directory, agent, model, checked_policy(permissions), rules, works_on)
        return run_async(_new(SessionDesk(hosts_file), host, wish, is_json=is_json))

    run_command("session new", work, is_json=is_json)


@session_app.command("adopt")
def adopt(
    host: Annotated[
        str,
        typer.Argument(metavar="HOST", help="A host; or a dispatch, without an id.", autocompletion=complete_host),
    ],
    session_id: Annotated[str | None, typer.Argument(metavar="[SES_ID]", help="The id of a session there.")] = None,
    *,
    name: NameOption = None,
    works_on: WorksOnOption = "",
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Give a name to a session that is on a host already: one that others began, or that of a dispatch."""
    run_command(
        "session adopt",
        lambda: run_async(_adopt(SessionDesk(hosts_file), host, session_id, name, works_on)),
        is_json=is_json,
    )


@session_app.command("fork")
def fork(
    name: SessionName,
    *,
    message_id: Annotated[
        str | None, typer.Option("--at", metavar="MESSAGE", help="Copy only what came before this message.")
    ] = None,
    new_name: NameOption = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Copy a session under a name of its own; both go on by themselves."""
    run_command(
        "session fork",
        lambda: run_async(_fork(SessionDesk(hosts_file), name, message_id, new_name)),
        is_json=is_json,
    )


@session_app.command("rename")
def rename(
    old: SessionName,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
    *,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Call a session by another name; its title stays."""

    def work() -> Answer:
        renamed = SessionDesk(hosts_file).sessions.rename(old, new_name)
        return Answer(_named(renamed), lambda: print_lines([f"{old} is called {renamed.name} now"]))

    run_command("session rename", work, is_json=is_json)


@session_app.command("forget")
def forget(name: SessionName, *, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Forget the name; the session stays on its host."""
    run_command("session forget", lambda: _forget(SessionDesk(hosts_file), name), is_json=is_json)


@session_app.command("abort")
def abort(name: SessionName, *, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Abort the turn that runs, with those of its sub-agents, and see that it ended."""
    run_command("session abort", lambda: run_async(_abort(SessionDesk(hosts_file), name)), is_json=is_json)


@session_app.command("delete")
def delete(
    name: SessionName, *, is_agreed: YesFlag = False, hosts_file: HostsFile = None, is_json: JsonFlag = False
) -> None:
    """Delete a session on its host, with all its messages, and forget the name."""

    def work() -> Answer:
        desk = SessionDesk(hosts_file)
        named = desk.sessions.load(name)
        _agree(named, is_agreed=is_agreed)
        return run_async(_delete(desk, named))

    run_command("session delete", work, is_json=is_json)


def checked_policy(text: str | None) -> str | None:
    """Return what `--permissions` says. Raises UsageError."""
    if text is None or text in POLICIES:
        return text
    raise UsageError("`--permissions`: expected `ask`, `deny` or `auto`")


def checked_rules(path: Path | None) -> PermissionRules | None:
    """Read the file of `--permission-rules`. Raises ConfigurationError."""
    if path is None:
        return None
    from pydantic import TypeAdapter, ValidationError

    from remote_dispatch.cli.send import read_rules
    from remote_dispatch.model import PermissionRules

    try:
        rules: PermissionRules = TypeAdapter(PermissionRules).validate_python(read_rules(path))
    except ValidationError as error:
        raise ConfigurationError(
            f"`{path.name}` holds no permission rules",
            hint='they look like `{"bash": {"*": "deny", "git *": "allow"}}`',
        ) from error
    return rules


async def started_api(servers: Servers, host: Host) -> tuple[Api, bool]:
    """Reach the server of a host, and start it where none runs, telling the user; the second is whether it was."""
    try:
        return await servers.api(host), False
    except HostNotReadyError:
        if host.host is None:
            raise
        note(f"starting an OpenCode server on {host.name}")
        return await servers.api(host, starts=True), True


async def _new(desk: SessionDesk, host_name: str, wish: Wish, *, is_json: bool) -> Answer:
    from remote_dispatch.cli.screen import is_interactive
    from remote_dispatch.sessions.manage import create

    host, store = desk.host(host_name), desk.sessions
    store.check_name(wish.name)
    choose = _choose_agent if is_interactive() and not is_json else None
    async with desk.servers() as servers:
        api, is_started = await started_api(servers, host)
        made = await create(api, host, store, wish, choose=choose)
    desk.remember(host.name, made.offers)
    data = {
        **_named(made.named),
        "agent": made.agent,
        "model": made.model,
        "permissions": made.permissions,
        "is_server_started": is_started,
    }
    return Answer(data, lambda: _render_made(made))


async def _choose_agent(found: Offers) -> str | None:
    """Offer the primary agents, the default first. One alone is no choice."""
    agents = found.primary
    if len(agents) < 2:
        return None
    say("agents:")
    for number, one in enumerate(agents, 1):
        described = f"  {one.description}" if one.description else ""
        say(f"  {number}  {one.name}{described[:160]}")
    with _interrupts():
        while True:
            typed: str = typer.prompt("Which one leads it?", default=agents[0].name, err=True).strip()
            chosen = {str(number): one.name for number, one in enumerate(agents, 1)}.get(typed, typed)
            if chosen in [one.name for one in agents]:
                return chosen
            say(f"there is no agent `{typed}` in this list")


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Ctrl-C ends a question at once; asyncio would only note it and wait for the answer."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


async def _adopt(desk: SessionDesk, place: str, session_id: str | None, name: str | None, works_on: str) -> Answer:
    from remote_dispatch.sessions.live import adopt_dispatch, check_writable
    from remote_dispatch.sessions.manage import adopt

    async with desk.servers() as servers:
        if session_id is None:
            if place in desk.registry:
                raise UsageError(
                    "name the session to adopt",
                    hint=f"see the ids with `remote-dispatch session list --host {place} --all`",
                )
            named = await adopt_dispatch(
                place, desk.store, desk.registry, servers, desk.link, desk.sessions, rename=name
            )
        else:
            host = desk.host(place)
            await check_writable(host, session_id, desk.store, desk.link)
            api, _ = await started_api(servers, host)
            named = await adopt(api, host, desk.sessions, session_id, name=name, works_on=works_on)
    return Answer(_named(named), lambda: _render_named(named, "is the name of"))


async def _fork(desk: SessionDesk, name: str, message_id: str | None, new_name: str | None) -> Answer:
    from remote_dispatch.sessions.manage import fork

    named = desk.sessions.load(name)
    async with desk.servers() as servers:
        api, _ = await started_api(servers, desk.host(named.host))
        copy = await fork(api, named, desk.sessions, message_id=message_id, name=new_name)
    return Answer({**_named(copy), "fork_of": name}, lambda: _render_named(copy, f"is a copy of {name}:"))


def _forget(desk: SessionDesk, name: str) -> Answer:
    store = desk.sessions
    named = store.load(name) if name not in store.unreadable() else None
    store.forget(name)
    lines = [f"{name} is forgotten"]
    if named is not None:
        lines.append(f"  remote-dispatch session adopt {named.host} {named.session_id}   gives it a name again")
    return Answer(_named(named) if named else {"name": name}, lambda: print_lines(lines))


async def _abort(desk: SessionDesk, name: str) -> Answer:
    from remote_dispatch.cli.session.data import seen_data
    from remote_dispatch.sessions.looks import look_at
    from remote_dispatch.sessions.manage import abort, is_at_work

    named = desk.sessions.load(name)
    async with desk.servers() as servers:
        api = await servers.api(desk.host(named.host))
        was_at_work = await is_at_work(api, named)
        if was_at_work:
            await abort(api, named)
        seen = await look_at(api, named)
    text = f"{name}: the turn was aborted" if was_at_work else f"{name}: no turn was running"
    return Answer({**seen_data(seen), "was_at_work": was_at_work}, lambda: print_lines([text]))


def _agree(named: NamedSession, *, is_agreed: bool) -> None:
    from remote_dispatch.cli.screen import confirm, is_interactive

    if is_agreed:
        return
    question = f"Delete `{named.name}` on {named.host} with all its messages?"
    if not is_interactive():
        raise AnswerNeededError(
            f"deleting `{named.name}` has to be agreed to", hint=f"`remote-dispatch session delete {named.name} --yes`"
        )
    if not confirm(question):
        raise UsageError("nothing was deleted")


async def _delete(desk: SessionDesk, named: NamedSession) -> Answer:
    from remote_dispatch.sessions.manage import delete

    try:
        async with desk.servers() as servers:
            api = await servers.api(desk.host(named.host))
            was_there = await delete(api, named, desk.sessions)
    except HostNotReadyError as error:
        error.hint = f"{error.hint}; `remote-dispatch session forget {named.name}` only forgets the name"
        raise
    text = f"{named.name} is deleted" if was_there else f"{named.name} was gone on {named.host}; its name is forgotten"
    return Answer({**_named(named), "was_there": was_there}, lambda: print_lines([text]))


def _named(named: NamedSession) -> dict[str, Any]:
    from remote_dispatch.cli.session.data import named_data

    return named_data(named)


def _render_made(made: Made) -> None:
    named = made.named
    model = made.model or "OpenCode's default"
    print_lines(
        [
            f"{named.name} is a new session on {named.host}, in {named.directory}",
            f"  agent {made.agent}, model {model}, permissions {made.permissions}",
        ]
    )
    _render_next(named)


def _render_named(named: NamedSession, words: str) -> None:
    print_lines([f"{named.name} {words} “{named.title}” on {named.host}, in {named.directory}"])
    _render_next(named)


def _render_next(named: NamedSession) -> None:
    print_lines([f'  remote-dispatch session send {named.name} "..."   gives it work'])
