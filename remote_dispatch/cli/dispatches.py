"""The commands for dispatches that were sent: list, show, logs, wait, collect, cancel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remote_dispatch.cli.completion import complete_dispatch
from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.live import life
from remote_dispatch.cli.options import ServerOption, Timeout
from remote_dispatch.cli.output import Answer, JsonFlag, print_fields, print_lines, print_table, run_async, run_command
from remote_dispatch.cli.words import age, duration_s
from remote_dispatch.errors import HostUnreachableError, RemoteDispatchError, TaskFailedError, UsageError
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from remote_dispatch.cli.desk import Desk
    from remote_dispatch.cli.screen import Screen
    from remote_dispatch.dispatch import Goal, Link
    from remote_dispatch.model import Dispatch

LOGINS_APART_S = 0.1
ANSWER_LIMIT = 1_000_000


Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of a dispatch.", autocompletion=complete_dispatch)]
Names = Annotated[
    list[str], typer.Argument(metavar="NAME…", help="Names of dispatches.", autocompletion=complete_dispatch)
]


def list_dispatches(
    *,
    is_refreshed: Annotated[
        bool, typer.Option("--refresh", help="Ask the hosts how the unfinished ones stand.")
    ] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """List what was sent, newest last."""
    run_command("list", lambda: _list(_desk(hosts_file), is_refreshed=is_refreshed), is_json=is_json)


def show(name: Name, *, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Show one dispatch; its host is asked, ten seconds at most."""
    run_command("show", lambda: run_async(_show(name, _desk(hosts_file))), is_json=is_json)


def logs(
    name: Name,
    *,
    is_followed: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run ends.")] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Print what OpenCode did on the host: text, tools, todos, errors."""
    from remote_dispatch.cli import events

    run_command(
        "logs",
        lambda: run_async(events.show(name, _desk(hosts_file), is_followed=is_followed, is_json=is_json)),
        is_json=is_json,
    )


def wait(
    names: Names,
    *,
    timeout: Timeout = None,
    server: ServerOption = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Wait until dispatches end; round trips are brought home."""
    run_command(
        "wait",
        lambda: run_async(_wait(names, _desk(hosts_file), _screen(is_json=is_json), duration_s(timeout), server)),
        is_json=is_json,
        interrupted_hint="the work goes on; wait again whenever you like",
    )


def collect(
    name: Name,
    *,
    is_waiting: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end where it still runs.")] = True,
    is_partial: Annotated[
        bool, typer.Option("--partial", help="Bring the code alone, as it is now, while the work goes on.")
    ] = False,
    timeout: Timeout = None,
    server: ServerOption = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Bring a dispatch home: merged into the local session, read back, and only then removed from the host."""
    run_command(
        "collect",
        lambda: run_async(
            _collect(
                name, _desk(hosts_file), _screen(is_json=is_json), duration_s(timeout), server, is_waiting=is_waiting
            )
            if not is_partial
            else _collect_partial(name, _desk(hosts_file), _screen(is_json=is_json))
        ),
        is_json=is_json,
        interrupted_hint="nothing is lost; collect it again whenever you like",
    )


def resume(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME…]", help="Names of dispatches; without: all unfinished.", autocompletion=complete_dispatch
        ),
    ] = None,
    *,
    timeout: Timeout = None,
    server: ServerOption = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Carry on with dispatches from wherever they stopped: one-way until the host works, round trips until home."""
    run_command(
        "resume",
        lambda: run_async(
            _resume(names or [], _desk(hosts_file), _screen(is_json=is_json), duration_s(timeout), server)
        ),
        is_json=is_json,
        interrupted_hint="nothing is lost; resume whenever you like",
    )


def cancel(name: Name, *, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Stop a dispatch with all its processes, and bring home what was done so far."""
    run_command(
        "cancel", lambda: run_async(_cancel(name, _desk(hosts_file), _screen(is_json=is_json))), is_json=is_json
    )


def answer_of(record: Dispatch) -> Answer:
    """What a command says of a dispatch whose end was waited for."""
    from remote_dispatch.cli.desk import data_of
    from remote_dispatch.model import State

    is_bad = record.state in (State.FAILED, State.CANCELLED, State.LOST)
    is_doubtful = record.state is State.FINISHED and record.detail is not None
    doubt = (f"{record.detail}; `remote-dispatch collect {record.name}` brings home what there is",)
    return Answer(
        data=data_of(record),
        render=lambda: _render_end(record),
        warnings=(*record.warnings, *(doubt if is_doubtful else ())),
        error=failure_of(record) if is_bad else None,
    )


def failure_of(record: Dispatch) -> TaskFailedError:
    """The error for a dispatch that ended badly."""
    verb = {"failed": "failed", "cancelled": "was cancelled", "lost": "was lost"}[record.state]
    detail = f": {record.detail}" if record.detail else ""
    look = "session messages" if record.request.is_live else "logs"
    return TaskFailedError(
        f"dispatch `{record.name}` {verb} on {record.host}{detail}",
        hint=f"see what happened there with `remote-dispatch {look} {record.name}`",
    )


def _list(desk: Desk, *, is_refreshed: bool) -> Answer:
    from remote_dispatch.cli.desk import data_of

    survey = desk.store.survey()
    records = run_async(_refreshed(survey.records, desk)) if is_refreshed else survey.records
    listed = [(record, _attention(record)) for record in records]
    return Answer(
        data={"dispatches": [{**data_of(record), "attention": attention} for record, attention in listed]},
        render=lambda: _render_list(listed),
        warnings=tuple(
            f"the record of dispatch `{one}` cannot be read; it was left alone" for one in survey.unreadable
        ),
    )


async def _refreshed(records: list[Dispatch], desk: Desk) -> list[Dispatch]:
    """A dispatch that cannot be asked about stays as it is stored: a list must not fail over one of its lines."""
    from remote_dispatch.dispatch.manage import ask_hosts

    registry = desk.registry
    await ask_hosts(records, lambda host: desk.link(registry[host]), desk.store)
    return desk.store.all()


async def _show(name: str, desk: Desk) -> Answer:
    from remote_dispatch.cli.desk import data_of
    from remote_dispatch.dispatch import ask

    record = desk.store.load(name)
    remark = None
    try:
        async with desk.link_of(record) as link:
            record = await ask(record, link, desk.store)
    except RemoteDispatchError as error:
        record = desk.store.load(record.id)
        remark = f"the host was not asked: {error.message}"
    if record.unreachable_since:
        remark = f"{record.host} does not answer, since {age(record.unreachable_since)}; this is what was known last"
    data = {
        **data_of(record),
        "remark": remark,
        "attention": _attention(record),
        "stopped_in": record.stopped_in,
        "journal": [entry.model_dump() for entry in record.journal],
    }
    return Answer(data=data, render=lambda: _render_one(record, remark))


def _attention(record: Dispatch) -> dict[str, str] | None:
    from remote_dispatch.dispatch.attention import attention

    needed = attention(record)
    return {"reason": needed.reason, "command": needed.command} if needed else None


async def _resume(names: list[str], desk: Desk, screen: Screen, timeout_s: float | None, server: str | None) -> Answer:
    """Without names, everything that its sender would not have left as it is."""
    from remote_dispatch.dispatch import goal_of, next_step

    records = [desk.store.load(name) for name in names]
    if not names:
        records = [record for record in desk.store.all() if next_step(record, goal_of(record)) is not None]

    async def go_on(record: Dispatch) -> Answer:
        return await answered(
            record, desk, lambda link: to(goal_of(record), record, link, desk, screen, timeout_s), server
        )

    with screen.live():
        answers = await _few_at_once(go_on, records)
    return _answer_for(answers, nothing="nothing to resume: every dispatch is where it should be")


async def _wait(names: list[str], desk: Desk, screen: Screen, timeout_s: float | None, server: str | None) -> Answer:
    """Wait for all; the first that ended badly gives the exit code."""
    records = [desk.store.load(name) for name in names]
    with screen.live():
        answers = await _few_at_once(lambda record: _wait_for(record, desk, screen, timeout_s, server), records)
    return _answer_for(answers)


async def _few_at_once(do: Callable[[Dispatch], Awaitable[Answer]], records: list[Dispatch]) -> list[Answer]:
    """Begin one after the other: sshd refuses many logins at the same moment."""
    import asyncio

    async def begin(place: int, record: Dispatch) -> Answer:
        await asyncio.sleep(place * LOGINS_APART_S)
        return await do(record)

    return await asyncio.gather(*(begin(place, record) for place, record in enumerate(records)))


def _answer_for(answers: list[Answer], *, nothing: str = "") -> Answer:
    """Several dispatches in one answer; the first that ended badly gives the exit code."""
    return Answer(
        data={"dispatches": [answer.data for answer in answers]},
        render=lambda: _render_all(answers) if answers else typer.echo(nothing),
        warnings=tuple(text for answer in answers for text in answer.warnings),
        error=next((answer.error for answer in answers if answer.error), None),
    )


async def _wait_for(
    record: Dispatch, desk: Desk, screen: Screen, timeout_s: float | None, server: str | None
) -> Answer:
    from remote_dispatch.dispatch import Goal
    from remote_dispatch.model import Mode

    goal = Goal.HOME if record.mode is Mode.ROUND_TRIP else Goal.ENDED
    return await answered(record, desk, lambda link: to(goal, record, link, desk, screen, timeout_s), server)


async def _collect(
    name: str, desk: Desk, screen: Screen, timeout_s: float | None, server: str | None, *, is_waiting: bool
) -> Answer:
    from remote_dispatch.dispatch import Goal

    record = desk.store.load(name)

    async def go(link: Link) -> Dispatch:
        return await to(Goal.HOME, record, link, desk, screen, timeout_s, is_waiting=is_waiting)

    with screen.live():
        return await answered(record, desk, go, server)


async def _collect_partial(name: str, desk: Desk, screen: Screen) -> Answer:
    """Only the code: the conversation is whole when the run has ended."""
    from remote_dispatch.cli.code import code_lines
    from remote_dispatch.cli.desk import data_of
    from remote_dispatch.dispatch.code_home import bring_partial

    record = desk.store.load(name)
    if record.code is None:
        raise UsageError(f"no code went along with `{record.name}`")
    with screen.live():
        async with desk.link_of(record) as link:
            record = await bring_partial(record, link, desk.store)
    return Answer(data=data_of(record), render=lambda: print_lines(code_lines(record)), warnings=record.warnings)


async def _cancel(name: str, desk: Desk, screen: Screen) -> Answer:
    from remote_dispatch.cli.desk import data_of
    from remote_dispatch.dispatch import Goal
    from remote_dispatch.dispatch import cancel as stop
    from remote_dispatch.dispatch.manage import is_over

    record = desk.store.load(name)
    if is_over(record) and record.state.is_end:
        return Answer(data=data_of(record), render=lambda: typer.echo(f"{record.name} had ended: {record.state}"))

    async def go(link: Link) -> Dispatch:
        async with life(desk, is_live=record.request.is_live) as turns:
            stopped = await stop(record, link, desk.store, turns)
        return stopped if stopped.is_cleaned_up else await to(Goal.HOME, stopped, link, desk, screen, None)

    with screen.live():
        answer = await answered(record, desk, go, None)
    is_cancelled = answer.data is not None and answer.data["state"] == "cancelled"
    return Answer(answer.data, answer.render, answer.warnings) if is_cancelled else answer


async def answered(
    record: Dispatch, desk: Desk, go: Callable[[Link], Awaitable[Dispatch]], server: str | None
) -> Answer:
    """Do something with the link of a dispatch; an error still has the record as it is then."""
    from remote_dispatch.cli.desk import data_of
    from remote_dispatch.dispatch import is_home

    if is_home(record):
        return answer_of(record)
    try:
        async with desk.link_of(record) as link:
            ended = await go(link)
    except RemoteDispatchError as error:
        stored = desk.store.load(record.id)
        if isinstance(error, HostUnreachableError):
            told = f"`{record.name}` was {stored.state} when last heard of"
            error.hint = error.hint or f"{told}; `remote-dispatch show {record.name}` asks again"
        return Answer(data=data_of(stored), error=error)
    return answer_of(await announced(record, ended, server))


async def announced(before: Dispatch, ended: Dispatch, server: str | None) -> Dispatch:
    """Tell the local server of a result that this command brought home. What it does not hear is a warning."""
    from remote_dispatch.cli.desk import tell
    from remote_dispatch.dispatch import is_collected

    if is_collected(before) or not is_collected(ended):
        return ended
    return ended.but(warnings=(*ended.warnings, *await tell(ended, server)))


async def to(
    goal: Goal,
    record: Dispatch,
    link: Link,
    desk: Desk,
    screen: Screen,
    timeout_s: float | None,
    *,
    is_waiting: bool = True,
) -> Dispatch:
    """Take a dispatch to a goal; only to bring it home OpenCode is needed on this machine."""
    from remote_dispatch.dispatch.carry_on import Goal, carry_on

    program = desk.program if goal is Goal.HOME else None
    async with life(desk, is_live=record.request.is_live) as turns:
        return await carry_on(
            record, link, desk.store, program, screen,
            goal=goal, is_waiting=is_waiting, timeout_s=timeout_s, life=turns,
        )  # fmt: skip


def _desk(hosts_file: Path | None) -> Desk:
    from remote_dispatch.cli.desk import Desk

    return Desk(hosts_file)


def _screen(*, is_json: bool) -> Screen:
    from remote_dispatch.cli.screen import Screen

    return Screen(is_json=is_json)


def _render_list(listed: list[tuple[Dispatch, dict[str, str] | None]]) -> None:
    if not listed:
        typer.echo("nothing was sent yet; send the newest session here with `remote-dispatch send HOST`")
        return
    records, steps = [record for record, _ in listed], [step for _, step in listed]
    columns: dict[str, list[str | None]] = {
        "NAME": [record.name for record in records],
        "HOST": [record.host for record in records],
        "MODE": [record.mode for record in records],
        "STATE": [_state(record) for record in records],
        "AGE": [age(record.history[0].at) for record in records],
    }
    if any(steps):
        columns["NEXT"] = [step["command"].removeprefix("remote-dispatch ") if step else None for step in steps]
    columns["SESSION"] = [record.origin.title if record.origin else None for record in records]
    print_table(list(columns), list(zip(*columns.values(), strict=True)))


def _state(record: Dispatch) -> str:
    words = [str(record.state)]
    if record.unreachable_since and not record.state.is_end:
        words.append(f"(unreachable for {age(record.unreachable_since)})")
    return " ".join(words)


def _render_one(record: Dispatch, remark: str | None) -> None:
    travel, origin, step = record.travel, record.origin, _attention(record)
    print_fields(
        {
            "name": record.name,
            "host": record.host,
            "mode": str(record.mode),
            "state": str(record.state),
            "reason": record.detail,
            "remark": remark,
            "stopped in": record.stopped_in,
            "next": f"{step['command']} ({step['reason']})" if step else None,
            "session": record.session_id,
            "title": origin.title if origin else None,
            "copy": record.copy_session_id,
            "collected": str(record.collected),
            "new messages": None if record.new_messages is None else str(record.new_messages),
            "agent": travel.agent if travel else None,
            "model": travel.model if travel else None,
            "directory there": record.remote_directory,
            "directory here": str(record.request.local_directory),
            **{f"code {number}": line for number, line in enumerate(_code_shown(record), start=1)},
            **{f"{moment.state} at": f"{moment.at.astimezone():%Y-%m-%d %H:%M:%S}" for moment in record.history},
            **{f"warning {number}": text for number, text in enumerate(record.warnings, start=1)},
        }
    )


def _code_shown(record: Dispatch) -> list[str]:
    from remote_dispatch.cli.code import code_lines

    code = record.code
    if code is None:
        return []
    return [*code.stat.splitlines()[:-1], *(line.strip() for line in code_lines(record))] or [f"is on {record.host}"]


def _render_all(answers: Iterable[Answer]) -> None:
    for answer in answers:
        if answer.render:
            answer.render()


def _render_end(record: Dispatch) -> None:
    """The host's last answer, and where the whole conversation is."""
    from remote_dispatch.cli.code import code_lines

    if record.answer:
        typer.echo(clean(record.answer, ANSWER_LIMIT))
        typer.echo("")
    if record.copy_session_id or record.new_messages is not None:
        count = "1 new message" if record.new_messages == 1 else f"{record.new_messages} new messages"
        ending = "was cancelled; what was done is home" if record.state == "cancelled" else "is home"
        typer.echo(f"{record.name} {ending} from {record.host}: {count}")
        typer.echo(f"  opencode -s {record.copy_session_id or record.session_id}")
        print_lines(code_lines(record))
    else:
        typer.echo(f"{record.name} on {record.host}: {record.state}")
        if not record.state.is_end:
            typer.echo(f"  remote-dispatch collect {record.name}")
