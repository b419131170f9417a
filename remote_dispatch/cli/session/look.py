"""`session list` and `session show`: how sessions stand, on all hosts at once."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.completion import complete_host
from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.output import (
    Answer,
    JsonFlag,
    note,
    print_fields,
    print_lines,
    print_table,
    run_async,
    run_command,
    say,
)
from remote_dispatch.cli.session.app import SessionDesk, SessionName, session_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.model import Host
    from remote_dispatch.opencode.served import Served
    from remote_dispatch.sessions.live import DispatchRow
    from remote_dispatch.sessions.looks import Stranger, Strangers, Unseen
    from remote_dispatch.sessions.report import SessionReport
    from remote_dispatch.sessions.values import Look, NamedSession

_HEADINGS = ("NAME", "HOST", "STATE", "TODO", "TASK", "ACTIVITY", "TOKENS", "COST", "ASKS", "ABOUT")
_LONGEST_CELL = 40


@session_app.command("list")
def list_sessions(
    *,
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="HOST", help="Of this host alone.", autocompletion=complete_host),
    ] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Also what is on the hosts' servers and has no name.")] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """List the named sessions of all hosts, which are asked at the same time, and the dispatches under way."""
    run_command("session list", lambda: run_async(_list(SessionDesk(hosts_file), host, is_all=is_all)), is_json=is_json)


@session_app.command("show")
def show(name: SessionName, *, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Show one session: how it stands, what it asks, what it used, and the next command."""
    run_command("session show", lambda: run_async(_show(SessionDesk(hosts_file), name)), is_json=is_json)


async def _list(desk: SessionDesk, host_name: str | None, *, is_all: bool) -> Answer:
    from remote_dispatch.cli.session.data import by_urgency, seen_data, stranger_data
    from remote_dispatch.sessions.live import dispatch_rows

    hosts = _hosts(desk, host_name)
    named = [one for one in desk.sessions.all() if host_name in (None, one.host)]
    seen, strange = await _ask(desk, named, hosts if is_all else [])
    seen.sort(key=by_urgency)
    rows = [row for row in dispatch_rows(desk.store.all(), named) if host_name in (None, row.host)]
    remarks = _remarks(seen, strange)
    for text in remarks:
        note(text)
    data = {
        "sessions": [seen_data(one) for one in seen],
        "dispatches": [asdict(row) for row in rows],
        "unnamed": [stranger_data(one) for some in strange for one in some.found],
        "remarks": remarks,
    }
    warnings = tuple(
        f"the record of session `{name}` cannot be read; it was left alone" for name in desk.sessions.unreadable()
    )
    return Answer(data, lambda: _render_list(seen, rows, strange), warnings)


def _hosts(desk: SessionDesk, name: str | None) -> list[Host]:
    """The hosts to ask for sessions without a name: all of the registry, or one."""
    from remote_dispatch.servers.reach import url_host

    if name is not None:
        return [desk.host(name)]
    registry = desk.registry
    found = [registry[one] for one in registry.names]
    extra = url_host(desk.environment)
    return found + ([extra] if extra is not None and extra.name not in registry else [])


async def _ask(
    desk: SessionDesk, named: Sequence[NamedSession], hosts: Sequence[Host]
) -> tuple[list[Look | Unseen], list[Strangers]]:
    from remote_dispatch.sessions.looks import look, strangers

    known = {(one.host, one.session_id) for one in named}
    async with desk.servers() as servers:
        seen, strange = await asyncio.gather(
            look(servers, desk.registry, named, environment=desk.environment), strangers(servers, hosts, known)
        )
    return seen, strange


def _remarks(seen: Sequence[Look | Unseen], strange: Sequence[Strangers]) -> list[str]:
    """Each reason once: a host that does not answer has several sessions."""
    from remote_dispatch.sessions.looks import Missing, Unseen

    unseen = [one for one in seen if isinstance(one, Unseen)]
    told = [f"{one.named.name}: {one.remark}" if one.state is Missing.GONE else one.remark for one in unseen]
    return list(dict.fromkeys([*told, *(one.remark for one in strange if one.remark)]))


async def _show(desk: SessionDesk, name: str) -> Answer:
    from remote_dispatch.cli.session.data import seen_data
    from remote_dispatch.sessions.looks import Unseen, look
    from remote_dispatch.sessions.report import end_data, report_of

    named = desk.sessions.load(name)
    async with desk.servers() as servers:
        [seen] = await look(servers, desk.registry, [named], environment=desk.environment)
    data = seen_data(seen)
    if isinstance(seen, Unseen):
        note(f"{seen.remark}; this is what was known")
        return Answer({**data, "hint": seen.hint}, lambda: _render_unseen(seen))
    report = report_of(seen)
    if report.end is not None:
        data = {**end_data(report), **data}
    data["sub_agents"] = [_child(one) for one in seen.reading.descendants]
    return Answer(data, lambda: _render_one(seen, report))


def _child(session: Served) -> dict[str, Any]:
    return {"session_id": session.id, "title": session.title, "agent": session.agent}


def _render_list(seen: Sequence[Look | Unseen], rows: Sequence[DispatchRow], strange: Sequence[Strangers]) -> None:
    from remote_dispatch.cli.session.data import ago

    lines = [_row(one) for one in seen]
    for row in rows:
        kind = f"{row.state} ({'live' if row.is_live else 'dispatch'})"
        lines.append([row.name, row.host, kind, None, None, ago(row.since), None, None, None, _cell(row.title)])
    if lines:
        _print_needed(lines)
    else:
        say("no named sessions: begin one with `remote-dispatch session new HOST`")
    unnamed = [one for some in strange for one in some.found]
    if unnamed:
        _render_strangers(unnamed)


def _print_needed(lines: Sequence[Sequence[str | None]]) -> None:
    """A column that nobody has anything in is left out."""
    needed = [place for place in range(len(_HEADINGS)) if place < 3 or any(line[place] for line in lines)]
    print_table([_HEADINGS[place] for place in needed], [[line[place] for place in needed] for line in lines])


def _render_strangers(unnamed: Sequence[Stranger]) -> None:
    from remote_dispatch.cli.session.data import ago, moment, state_of_stranger

    typer.echo("")
    rows = [
        (
            one.session.id,
            one.host,
            state_of_stranger(one),
            ago(moment(one.session.updated_ms)),
            str(one.session.usage.total),
            _cell(one.session.title),
        )
        for one in unnamed
    ]
    print_table(("WITHOUT A NAME", "HOST", "STATE", "ACTIVITY", "TOKENS", "TITLE"), rows)
    first = unnamed[0]
    say(f"give one a name with `remote-dispatch session adopt {first.host} {first.session.id}`")


def _row(seen: Look | Unseen) -> list[str | None]:
    from remote_dispatch.cli.session.data import ago, state_in_brief
    from remote_dispatch.sessions.looks import Unseen
    from remote_dispatch.sessions.report import report_of

    named = seen.named
    if isinstance(seen, Unseen):
        return [named.name, named.host, str(seen.state), *[None] * 6, _cell(named.works_on or named.title)]
    report = report_of(seen)
    return [
        report.name,
        report.host,
        state_in_brief(report),
        f"{report.todo.done}/{report.todo.total}" if report.todo.total else None,
        _cell(report.todo.task) if report.todo.task else None,
        ago(report.last_sign),
        str(report.usage.total),
        f"${report.usage.cost:.2f}" if report.usage.cost else None,
        str(len(report.asked)) if report.asked else None,
        _cell(named.works_on or report.title),
    ]


def _cell(text: str) -> str:
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"


def _render_unseen(seen: Unseen) -> None:
    from remote_dispatch.cli.session.data import ago

    named = seen.named
    print_fields(
        {
            "name": named.name,
            "host": named.host,
            "state": str(seen.state),
            "title": named.title or None,
            "works on": named.works_on or None,
            "session": named.session_id,
            "directory": named.directory,
            "created": f"{ago(named.created)} ago",
            "next": seen.hint,
        }
    )


def _render_one(seen: Look, report: SessionReport) -> None:
    from remote_dispatch.cli.session.data import ago
    from remote_dispatch.sessions.report import next_command, state_words, todo_words, usage_words

    named, session = seen.named, seen.reading.session
    print_fields(
        {
            "name": named.name,
            "host": named.host,
            "state": state_words(report),
            "title": report.title,
            "works on": named.works_on or None,
            "session": named.session_id,
            "directory": named.directory,
            "agent": session.agent,
            "model": str(session.model) if session.model else None,
            "todo": todo_words(report.todo) if report.todo.total else None,
            "task": report.todo.task,
            "tool": report.tool,
            "sub-agents": str(len(seen.reading.descendants)) if seen.reading.descendants else None,
            "used": usage_words(report.usage),
            "created": f"{ago(named.created)} ago",
            "activity": f"{ago(report.last_sign)} ago" if report.last_sign else None,
            "said": report.last_message,
            "dispatch": named.dispatch,
            "next": next_command(report),
        }
    )
    for one in report.asked:
        print_lines([f"asks  {one.kind}: {one.text}", f"      {one.command}"])
