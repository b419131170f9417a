"""`session requests` and `session reply`: what sessions and their sub-agents ask, and the answers to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.output import Answer, JsonFlag, note, print_lines, run_async, run_command
from remote_dispatch.cli.session.app import SessionDesk, SessionName, SessionNames, session_app
from remote_dispatch.cli.session.asking import (
    Ask,
    answer_data,
    answer_here,
    answer_on_terminal,
    commands_for,
    print_foreign,
    read_line,
    replied_lines,
    request_data,
    request_lines,
)
from remote_dispatch.errors import DivergedError, RemoteDispatchError, UsageError
from remote_dispatch.sessions.requests import (
    Waiting,
    ends_turn,
    matching,
    open_requests,
    pick,
    reply,
    short_ids,
    understand,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from remote_dispatch.servers.reach import Servers
    from remote_dispatch.sessions.requests import Replied
    from remote_dispatch.sessions.values import NamedSession

__all__ = ["Ask", "answer_here", "answer_on_terminal", "read_line", "request_data", "request_lines"]

_ID_BEGINNINGS = ("per_", "que_")

Survey = list[tuple["NamedSession", "tuple[Waiting, ...] | str"]]
"""What each session asks, or why that is not known."""


@session_app.command("requests")
def requests(names: SessionNames = None, *, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Show in full what sessions and their sub-agents ask: permissions and questions, on all hosts."""
    run_command("session requests", lambda: run_async(_requests(names or [], SessionDesk(hosts_file))), is_json=is_json)


@session_app.command("reply")
def reply_to(
    name: SessionName,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[ID] ANSWER…",
            help="The request (left out when only one waits) and the answer: once, always or reject; to a question the "
            "number or the words of an option, or text of your own, one for each question.",
        ),
    ],
    *,
    message: Annotated[
        str | None,
        typer.Option("--message", metavar="TEXT", help="With `reject`: what to do instead. The turn goes on then."),
    ] = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Answer what a session or one of its sub-agents asks, exactly once.

    `reject` ends the turn, unless a message says what to do instead. `always` holds in that directory of that host
    until its server stops.
    """
    run_command(
        "session reply", lambda: run_async(_reply(name, words, message, SessionDesk(hosts_file))), is_json=is_json
    )


# --- session requests


async def _requests(names: Sequence[str], desk: SessionDesk) -> Answer:
    sessions = desk.sessions.several(names)
    async with desk.servers() as servers:
        survey = list(zip(sessions, await asyncio.gather(*(_ask(desk, servers, one) for one in sessions)), strict=True))
    found = [(named, one) for named, waiting in survey if not isinstance(waiting, str) for one in waiting]
    short = short_ids(one.id for _, one in found)
    unseen = [(named, remark) for named, remark in survey if isinstance(remark, str)]
    return Answer(
        data={
            "requests": [request_data(named, one, short[one.id]) for named, one in found],
            "unseen": [{"name": named.name, "host": named.host, "remark": remark} for named, remark in unseen],
        },
        render=lambda: _print(survey, short),
        warnings=tuple(_remarks(unseen)),
    )


async def _ask(desk: SessionDesk, servers: Servers, named: NamedSession) -> tuple[Waiting, ...] | str:
    try:
        api = await servers.api(desk.host(named.host))
        return await open_requests(api, named.session_id, named.directory)
    except RemoteDispatchError as error:
        return error.message


def _remarks(unseen: Iterable[tuple[NamedSession, str]]) -> Iterable[str]:
    """Say each thing once, with all the names that it concerns."""
    names: dict[str, list[str]] = {}
    for named, remark in unseen:
        names.setdefault(remark, []).append(named.name)
    return (f"{remark} (so nothing is known of {', '.join(concerned)})" for remark, concerned in names.items())


def _print(survey: Survey, short: dict[str, str]) -> None:
    asking = [(named, waiting) for named, waiting in survey if waiting and not isinstance(waiting, str)]
    if not asking:
        print_lines(["nothing waits for an answer"] if survey else ["there are no named sessions"])
    for place, (named, waiting) in enumerate(asking):
        print_lines([""] * bool(place))
        print_foreign(
            [f"{named.name} on {named.host}: {named.title}" if named.title else f"{named.name} on {named.host}"]
        )
        for one in waiting:
            print_lines([""])
            print_foreign(f"  {line}" for line in request_lines(one))
            print_lines(f"  {line}" for line in commands_for(named.name, short[one.id], one))


# --- session reply


async def _reply(name: str, words: Sequence[str], message: str | None, desk: SessionDesk) -> Answer:
    named = desk.sessions.load(name)
    async with desk.servers() as servers:
        api = await servers.api(desk.host(named.host))
        waiting = await open_requests(api, named.session_id, named.directory)
        meant, said = _meant(named, waiting, words)
        answer = understand(meant.request, said, message)
        if ends_turn(answer):
            note(
                f"a rejection ends the sub-agent that asks; {named.name} goes on without it"
                if meant.is_sub_agent
                else f"a rejection ends the turn of {named.name}; with `--message` it would go on"
            )
        replied = await reply(api, named.session_id, meant, answer)
    return _answer(named, replied, short_ids(one.id for one in waiting)[meant.id])


def _meant(named: NamedSession, waiting: Sequence[Waiting], words: Sequence[str]) -> tuple[Waiting, Sequence[str]]:
    """Tell the request from its answer. One word alone answers the only request; otherwise the first names it.

    So an answer to a request that is gone never reaches another one.
    """
    if len(words) > 1:
        return pick(waiting, words[0]), words[1:]
    if not waiting:
        raise DivergedError(
            f"{named.name} asks nothing (any more); nothing was changed",
            hint=f"see how it is with `remote-dispatch session show {named.name}`",
        )
    named_one = [pick(waiting, words[0])] if words[0].startswith(_ID_BEGINNINGS) else matching(waiting, words[0])
    if named_one:
        raise UsageError("the answer is missing", hint=commands_for(named.name, words[0], named_one[0])[-1])
    if len(waiting) > 1:
        shown = ", ".join(f"`{one}`" for one in short_ids(one.id for one in waiting).values())
        raise UsageError(f"{len(waiting)} requests wait in {named.name}: say which", hint=f"one of {shown}")
    return waiting[0], words


def _answer(named: NamedSession, replied: Replied, short: str) -> Answer:
    remaining = short_ids(one.id for one in replied.remaining)
    return Answer(
        data={
            "name": named.name,
            "host": named.host,
            "id": replied.waiting.id,
            "short": short,
            "kind": replied.waiting.kind,
            "answer": answer_data(replied.answer),
            "busy": replied.is_busy,
            "certain": replied.is_certain,
            "requests": [request_data(named, one, remaining[one.id]) for one in replied.remaining],
        },
        render=lambda: print_foreign(replied_lines(named, replied, short)),
        warnings=()
        if replied.is_certain
        else ("the connection broke meanwhile: the request is answered, by this or by somebody else",),
    )
