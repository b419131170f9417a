"""`session messages`, `session todo` and `session diff`: what is in one session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.output import Answer, JsonFlag, print_lines, print_table, run_async, run_command, say
from remote_dispatch.cli.session.app import SessionDesk, SessionName, session_app
from remote_dispatch.errors import UnknownNameError
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remote_dispatch.model import Todo
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.opencode.served import Raw
    from remote_dispatch.sessions.values import NamedSession

_TEXT_LIMIT = 1_000_000
_PATCH_LIMIT = 50_000_000


@session_app.command("messages")
def messages(
    name: SessionName,
    *,
    count: Annotated[int, typer.Option("-n", min=1, help="How many, the newest.")] = 20,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Print the newest messages: texts in full, tools in a line."""
    run_command("session messages", lambda: run_async(_messages(SessionDesk(hosts_file), name, count)), is_json=is_json)


@session_app.command("todo")
def todo(name: SessionName, *, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Print the todos."""
    run_command("session todo", lambda: run_async(_todo(SessionDesk(hosts_file), name)), is_json=is_json)


@session_app.command("diff")
def diff(
    name: SessionName,
    *,
    since: Annotated[
        str | None, typer.Option("--since", metavar="MESSAGE", help="From this prompt on; all otherwise.")
    ] = None,
    is_last: Annotated[bool, typer.Option("--last", help="What the last prompt changed.")] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Print what each prompt changed in the files there, as unified diffs."""
    run_command(
        "session diff",
        lambda: run_async(_diff(SessionDesk(hosts_file), name, since, is_last=is_last)),
        is_json=is_json,
    )


async def _messages(desk: SessionDesk, name: str, count: int) -> Answer:
    named = desk.sessions.load(name)
    async with desk.servers() as servers:
        api = await servers.api(desk.host(named.host))
        found = await api.messages(named.session_id, limit=count)
    shown = [_message(one) for one in found]
    return Answer({"name": name, "host": named.host, "messages": shown}, lambda: _render_messages(shown))


async def _todo(desk: SessionDesk, name: str) -> Answer:
    named = desk.sessions.load(name)
    async with desk.servers() as servers:
        todos = await (await servers.api(desk.host(named.host))).todos(named.session_id)
    data = [{"content": one.content, "status": one.status, "priority": one.priority} for one in todos]
    return Answer({"name": name, "host": named.host, "todos": data}, lambda: _render_todos(todos))


async def _diff(desk: SessionDesk, name: str, since: str | None, *, is_last: bool) -> Answer:
    named = desk.sessions.load(name)
    async with desk.servers() as servers:
        api = await servers.api(desk.host(named.host))
        prompts = _prompts(await api.messages(named.session_id), named, since, is_last=is_last)
        changes = await asyncio.gather(*(_changes(api, named, one) for one in prompts))
    turns = [one for one in changes if one["files"]]
    return Answer({"name": name, "host": named.host, "turns": turns}, lambda: _render_diff(turns))


def _prompts(found: Sequence[Raw], named: NamedSession, since: str | None, *, is_last: bool) -> list[Raw]:
    """The user messages whose changes are wanted, oldest first. Raises UnknownNameError."""
    from remote_dispatch.cli.session.data import info_of

    prompts = [one for one in found if info_of(one).get("role") == "user"]
    if since is None:
        return prompts[-1:] if is_last else prompts
    places = [place for place, one in enumerate(prompts) if info_of(one).get("id") == since]
    if not places:
        raise UnknownNameError(
            f"`{named.name}` has no prompt `{clean(since, 60)}`",
            hint=f"see their ids with `remote-dispatch session messages {named.name}`",
        )
    return prompts[places[0] :]


async def _changes(api: Api, named: NamedSession, prompt: Raw) -> dict[str, Any]:
    from remote_dispatch.cli.session.data import info_of

    message_id = str(info_of(prompt).get("id"))
    files = [
        {
            "file": clean(str(one.get("file") or ""), 4096),
            "status": one.get("status"),
            "additions": one.get("additions"),
            "deletions": one.get("deletions"),
            "patch": clean(str(one.get("patch") or ""), _PATCH_LIMIT),
        }
        for one in await api.diff(named.session_id, message_id)
    ]
    return {"message_id": message_id, "prompt": _text_of(prompt)[:200], "files": files}


def _message(message: Raw) -> dict[str, Any]:
    from remote_dispatch.cli.session.data import info_of, moment, parts_of
    from remote_dispatch.opencode.served import read_usage
    from remote_dispatch.sessions.classify import words

    info = info_of(message)
    times, error, model = info.get("time"), info.get("error"), info.get("model")
    times = times if isinstance(times, dict) else {}
    model = model if isinstance(model, dict) else info
    usage = read_usage(info)
    named = model.get("providerID") and model.get("modelID")
    return {
        "id": info.get("id"),
        "role": info.get("role"),
        "created": moment(_number(times.get("created"))),
        "completed": moment(_number(times.get("completed"))),
        "agent": info.get("agent"),
        "model": f"{model['providerID']}/{model['modelID']}" if named else None,
        "finish": info.get("finish"),
        "error": words(error) if isinstance(error, dict) else None,
        "text": _text_of(message),
        "tools": [_tool(one) for one in parts_of(message) if one.get("type") == "tool"],
        "tokens": usage.total,
        "cost": usage.cost,
    }


def _tool(part: Raw) -> dict[str, Any]:
    from remote_dispatch.sessions.report import tool_words

    state = part.get("state")
    state = state if isinstance(state, dict) else {}
    error = state.get("error")
    return {
        "tool": part.get("tool"),
        "status": state.get("status"),
        "about": tool_words(str(part.get("tool") or "tool"), state),
        "error": clean(error, 500) if isinstance(error, str) else None,
    }


def _text_of(message: Raw) -> str:
    """The words of a message; what OpenCode put in by itself is left out."""
    from remote_dispatch.cli.session.data import parts_of

    texts = [
        one["text"]
        for one in parts_of(message)
        if one.get("type") == "text" and isinstance(one.get("text"), str) and not one.get("synthetic")
    ]
    return clean("\n".join(texts), _TEXT_LIMIT)


def _number(value: object) -> int:
    from remote_dispatch.opencode.served import amount

    return int(amount(value))


def _render_messages(shown: Sequence[dict[str, Any]]) -> None:
    from remote_dispatch.cli.session.data import ago

    if not shown:
        say("no messages yet")
    for place, one in enumerate(shown):
        by = f" by {one['agent']}" if one["role"] == "assistant" and one["agent"] else ""
        head = f"{one['role']}{by}, {ago(one['created'])} ago  {one['id']}"
        print_lines(["", head] if place else [head])
        body = [*one["text"].rstrip("\n").split("\n")] if one["text"].strip() else []
        body += [f"[{tool['status']}] {tool['about']}" for tool in one["tools"]]
        body += [f"error: {one['error']}"] if one["error"] else []
        print_lines((f"  {line}" for line in body), limit=_TEXT_LIMIT)


def _render_todos(todos: Sequence[Todo]) -> None:
    if not todos:
        return say("no todos")
    return print_table(("STATUS", "PRIORITY", "TODO"), [(one.status, one.priority, one.content) for one in todos])


def _render_diff(turns: Sequence[dict[str, Any]]) -> None:
    if not turns:
        say("no changes are recorded; OpenCode records them in git repositories, and without `snapshot: false` only")
    for turn in turns:
        first, *_ = turn["prompt"].splitlines() or [""]
        print_lines([f"# {turn['message_id']}: {first}"])
        for file in turn["files"]:
            for line in file["patch"].rstrip("\n").split("\n"):
                typer.echo(line)
