"""`remote-dispatch send`: hand a session to a host, and in a round trip bring it home."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.completion import complete_host, complete_session
from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.live import life, live_commands
from remote_dispatch.cli.options import (
    AgreedFlag,
    CodeOption,
    IncludeOption,
    LiveFlag,
    ModeOption,
    PermissionRulesOption,
    PermissionsOption,
    ServerOption,
    Timeout,
)
from remote_dispatch.cli.output import Answer, JsonFlag, note, run_async, run_command
from remote_dispatch.cli.words import age, duration_s
from remote_dispatch.errors import ConfigurationError, RemoteDispatchError, StoppedWaitingError, UsageError
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from remote_dispatch.cli.desk import Desk
    from remote_dispatch.cli.screen import Screen
    from remote_dispatch.dispatch import Link, Plan
    from remote_dispatch.dispatch.code_out import Agree
    from remote_dispatch.model import Dispatch, DispatchRequest
    from remote_dispatch.opencode.program import Program, SessionSummary

OLD_S = 3600
RULES_LIMIT_BYTES = 1024 * 1024
_REASONS = {
    "string_pattern_mismatch": "it holds control characters",
    "string_too_short": "it is empty",
    "string_too_long": "it is too long",
}


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of `send`, as it was typed."""

    host: str
    prompt: str | None
    session: str | None
    is_last: bool
    is_new: bool
    mode: str
    directory: str | None
    agent: str | None
    model: str | None
    variant: str | None
    permissions: str | None
    permission_rules: Path | None
    name: str | None
    timeout: str | None
    is_live: bool
    is_copy: bool
    is_forced: bool
    is_detached: bool
    is_dry_run: bool
    code: str | None
    include: list[str] | None
    is_agreed: bool
    server: str | None
    hosts_file: Path | None
    is_json: bool


def send(
    host: Annotated[str, typer.Argument(metavar="HOST", help="The name of a host.", autocompletion=complete_host)],
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What to do there; `-` reads it from stdin. Without: continue."),
    ] = None,
    *,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="The session to send.", autocompletion=complete_session)
    ] = None,
    is_last: Annotated[
        bool, typer.Option("--last", help="Send the newest session of this directory (the default).")
    ] = False,
    is_new: Annotated[bool, typer.Option("--new", help="Begin a fresh session on the host.")] = False,
    mode: ModeOption = "one-way",
    directory: Annotated[str | None, typer.Option(help="The working directory there; quote a leading `~`.")] = None,
    agent: Annotated[str | None, typer.Option(help="The agent to run there.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to run there: `provider/id`.")] = None,
    variant: Annotated[str | None, typer.Option(help="The variant of the model.")] = None,
    permissions: PermissionsOption = None,
    permission_rules: PermissionRulesOption = None,
    name: Annotated[
        str | None, typer.Option(help="The name of the dispatch; four letters are made up otherwise.")
    ] = None,
    timeout: Timeout = None,
    is_live: LiveFlag = False,
    is_copy: Annotated[
        bool, typer.Option("--copy", help="Send an independent copy; its result becomes a session of its own.")
    ] = False,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Send the session although a turn of it seems to be open here.")
    ] = False,
    is_detached: Annotated[bool, typer.Option("--detach", help="Do not wait for a round trip to end.")] = False,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, change nothing, say what would happen.")
    ] = False,
    code: CodeOption = None,
    include: IncludeOption = None,
    is_agreed: AgreedFlag = False,
    server: ServerOption = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Hand an OpenCode session to a host; in a round trip wait for it and bring it home.

    For example: `remote-dispatch send pi "why does it leak?" --mode round-trip`
    """
    options = Options(
        host, prompt, session, is_last, is_new, mode, directory, agent, model, variant, permissions, permission_rules,
        name, timeout, is_live, is_copy, is_forced, is_detached, is_dry_run, code, include, is_agreed, server,
        hosts_file, is_json,
    )  # fmt: skip
    run_command(
        "send",
        lambda: _send(options),
        is_json=is_json,
        interrupted_hint="what was launched goes on; `remote-dispatch list` names it, `collect` brings it home",
    )


def _send(options: Options) -> Answer:
    from remote_dispatch.cli.desk import Desk
    from remote_dispatch.cli.screen import Screen

    if os.environ.get("REMOTE_DISPATCH_DEPTH"):
        raise UsageError("this is a dispatched session already: it cannot be handed over again from its host")
    if options.is_new + options.is_last + (options.session is not None) > 1:
        raise UsageError("choose one of `--session`, `--last` and `--new`")
    desk, screen = Desk(options.hosts_file), Screen(is_json=options.is_json)
    try:
        return run_async(_run(options, desk, screen))
    except RemoteDispatchError as error:
        if error.dispatch is None:
            raise
        return Answer(data=_data(desk.store.load(error.dispatch)), error=error)
    except KeyboardInterrupt:
        if screen.dispatch is None:
            raise
        return _interrupted(desk.store.load(screen.dispatch))


def _interrupted(record: Dispatch) -> Answer:
    name = record.name
    look_on = "session watch" if record.request.is_live else "logs -f"
    error = StoppedWaitingError(
        f"interrupted; what was launched on {record.host} goes on as `{name}`",
        hint=f"look on with `remote-dispatch {look_on} {name}`, bring it home with `remote-dispatch collect {name}`",
    )
    return Answer(data=_data(record), error=error)


async def _run(options: Options, desk: Desk, screen: Screen) -> Answer:
    from remote_dispatch.cli.desk import REMOTE, importing

    timeout_s = duration_s(options.timeout)
    registry = desk.registry
    host = registry[options.host]
    request = _request(options)
    desk.store.check_name(options.name)
    is_round_trip = request.mode == "round-trip"
    program = None if options.is_new and not is_round_trip else desk.program
    async with desk.link(host) as link, importing(REMOTE):
        # Nothing is contacted before it is known that there is something to send.
        request = await _with_session(options, request, program, screen)
        link.begin()
        for text in registry.notes:
            note(text)
        if options.is_dry_run:
            with screen.live():
                return await _planned_with(request, link, desk, program, screen)
        return await _dispatch(options, request, link, desk, program, screen, timeout_s)


async def _dispatch(
    options: Options,
    request: DispatchRequest,
    link: Link,
    desk: Desk,
    program: Program | None,
    screen: Screen,
    timeout_s: float | None,
) -> Answer:
    """Hand over, and in a round trip wait, bring it home and tell a local server."""
    from remote_dispatch.cli.dispatches import announced, answer_of
    from remote_dispatch.dispatch import Step, record_dispatch
    from remote_dispatch.dispatch.carry_on import Goal, carry_on, goal_of

    with screen.live():
        async with life(desk, is_live=request.is_live) as turns:
            if turns is not None:
                screen(Step("connect", f"an OpenCode server is wanted on {request.host}"))
                await turns.prepare(link.host)
            new = await record_dispatch(request, link, desk.store, program, screen, agree=_agreement(options, screen))
            goal = Goal.LAUNCHED if options.is_detached else goal_of(new)
            sent = await carry_on(
                new, link, desk.store, program, screen, goal=goal, is_fresh=True, timeout_s=timeout_s, life=turns
            )
    if goal is Goal.HOME or sent.state.is_end:
        return answer_of(await announced(new, sent, options.server))
    return Answer(data=_data(sent), render=lambda: _render_sent(sent), warnings=sent.warnings)


def _agreement(options: Options, screen: Screen) -> Agree:
    """Who answers when much is to be sent: the option, the user, or nobody."""
    from remote_dispatch.cli.screen import is_interactive
    from remote_dispatch.dispatch.code_out import nobody_agrees

    if options.is_agreed:
        return lambda _: True
    return screen.ask if is_interactive() else nobody_agrees


async def _planned_with(
    request: DispatchRequest, link: Link, desk: Desk, program: Program | None, screen: Screen
) -> Answer:
    """Describe the plan while the files that it names are still there."""
    from remote_dispatch.dispatch import make_plan

    with desk.store.reserved(datetime.now(UTC)) as folder:
        return _planned(await make_plan(request, link, desk.store, program, folder, screen))


def _request(options: Options) -> DispatchRequest:
    from pydantic import ValidationError

    from remote_dispatch.model import DispatchRequest, Model

    prompt = _prompt(options.prompt)
    here = Path.cwd()
    if not _is_text(str(here)):
        raise UsageError("the name of this directory is not text: it holds bytes that are not UTF-8")
    rules = read_rules(options.permission_rules)
    try:
        if options.model is not None:
            Model.parse(options.model)
        return DispatchRequest.model_validate(
            {
                "host": options.host,
                "mode": options.mode,
                "prompt": prompt,
                "local_directory": here,
                "directory": options.directory,
                "agent": options.agent,
                "model": options.model,
                "variant": options.variant,
                "permissions": options.permissions,
                "permission_rules": rules,
                "name": options.name,
                "is_live": options.is_live,
                "is_copy": options.is_copy,
                "is_forced": options.is_forced,
                "code": options.code,
                "include": options.include or (),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]).replace("_", "-")
        reason = _REASONS.get(first["type"], first["msg"].lower())
        raise UsageError(f"`--{field}`: {reason}", hint="see `remote-dispatch send --help`") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: names of files and arguments may hold other bytes."""
    try:
        return b"\0" not in text.encode()
    except UnicodeError:
        return False


def _prompt(text: str | None) -> str | None:
    """The user's own words, byte for byte. Raises UsageError for what is no text."""
    words = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if text == "-" else text
    if words is not None and not _is_text(words):
        raise UsageError("the prompt is not text: it holds a NUL byte, or bytes that are not UTF-8")
    return words


def read_rules(path: Path | None) -> Any:
    """Read a file of permission rules, unchecked. Raises ConfigurationError when it is no JSON."""
    if path is None:
        return None
    try:
        if not path.is_file():
            # A pipe would keep the command waiting for whoever writes to it.
            raise FileNotFoundError(path)
        with path.open("rb") as file:
            return json.loads(file.read(RULES_LIMIT_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"the permission rules in `{path.name}` cannot be read as JSON",
            hint='they look like `{"bash": {"*": "deny", "git *": "allow"}}`',
        ) from error


async def _with_session(
    options: Options, request: DispatchRequest, program: Program | None, screen: Screen
) -> DispatchRequest:
    """Name the session that goes, first of all; on a terminal an old one is confirmed."""
    from remote_dispatch.dispatch import Step

    if options.is_new or program is None:
        if not (request.prompt or "").strip():
            raise UsageError(
                "a new session needs a prompt",
                hint=f'say what to do: `remote-dispatch send {options.host} --new "..."`',
            )
        screen(Step("session", f"a new session goes to {options.host}"))
        return request
    is_named = options.session is not None
    summary = await program.session(options.session or "") if is_named else await _newest(options, program)
    if summary is None:
        screen(Step("session", f"no session in this directory: a new one goes to {options.host}"))
        return request
    screen(Step("session", _described(summary, options.host)))
    if options.session is None:
        _confirm_if_old(summary)
    return request.model_copy(update={"session_id": summary.id, "local_directory": summary.directory})


async def _newest(options: Options, program: Program) -> SessionSummary | None:
    found = await program.sessions(Path.cwd())
    if found:
        return found[0]
    if options.is_last or not options.prompt:
        raise UsageError(
            "there is no session in this directory",
            hint=f'name one with `--session ID`, or begin one there: `remote-dispatch send {options.host} --new "..."`',
        )
    return None


def _described(summary: SessionSummary, host: str) -> str:
    messages = "1 message" if summary.messages == 1 else f"{summary.messages} messages"
    return f"“{summary.title}” goes to {host}: {messages}, last used {age(summary.updated)} ago ({summary.id})"


def _confirm_if_old(summary: SessionSummary) -> None:
    from remote_dispatch.cli.screen import confirm, is_interactive

    is_old = (datetime.now(UTC) - summary.updated).total_seconds() > OLD_S
    if is_old and is_interactive() and not confirm("Send this session?"):
        raise UsageError("nothing was sent", hint="name another session with `--session ID`")


def _data(record: Dispatch) -> dict[str, Any]:
    from remote_dispatch.cli.desk import data_of

    return data_of(record)


def _render_sent(record: Dispatch) -> None:
    name = record.name
    doing = "has finished already" if record.state == "finished" else "is at work"
    typer.echo(clean(f"{name} {doing} on {record.host}, in {record.remote_directory}", 4096))
    ordinary = (
        (f"remote-dispatch logs -f {name}", "look on"),
        (f"remote-dispatch collect {name}", "bring it home"),
        (f"remote-dispatch cancel {name}", "stop it"),
    )
    commands = live_commands(name) if record.request.is_live else ordinary
    width = max(34, *(len(command) for command, _ in commands))
    for command, what in commands:
        typer.echo(f"  {command:<{width}} {what}")


def _planned(plan: Plan) -> Answer:
    from remote_dispatch.remote.files import size_of

    outgoing, facts = plan.outgoing, plan.probed.facts
    files = (outgoing.session, *outgoing.children)
    size = sum(size_of(one.packed.content) for one in files)
    data = {
        "messages": outgoing.session.messages,
        "sub_agent_sessions": len(outgoing.children),
        "todos": len(plan.source.todos),
        "tool_outputs": len(plan.source.tool_outputs),
        "bytes": size,
        "agent": plan.choice.agent,
        "model": str(plan.choice.model),
        "variant": plan.choice.variant,
        "permissions": outgoing.permit.policy or "ask",
        "remote_directory": None if plan.baggage else str(facts.directory),
        "is_directory_there": None if plan.baggage else facts.is_directory_there,
        "opencode_version": facts.opencode_version,
        "clock_offset_s": round(facts.clock_offset_ms / 1000, 1),
        "replaces_an_old_copy": outgoing.travel.replaces,
        "travels_under_fresh_ids": bool(outgoing.travel.id_map),
    }
    from remote_dispatch.cli.code import planned_code, render_planned_code

    code = planned_code(plan.baggage)

    def render() -> None:
        _render_plan(data)
        render_planned_code(code)

    return Answer(data={**data, "code": code}, render=render, warnings=plan.source.warnings)


def _render_plan(data: dict[str, Any]) -> None:
    from remote_dispatch.cli.output import print_fields

    typer.echo("nothing was changed; this is what would happen:")
    print_fields({key.replace("_", " "): None if value is None else str(value) for key, value in data.items()})
