"""The commands that look after what was sent: verify, prune, remove."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remote_dispatch.cli.dispatches import Name
from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.output import Answer, JsonFlag, note, print_fields, print_table, run_async, run_command, say
from remote_dispatch.cli.words import duration_s
from remote_dispatch.errors import AnswerNeededError, IntegrityError, RemoteDispatchError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from remote_dispatch.cli.desk import Desk
    from remote_dispatch.dispatch.prune import Pruned
    from remote_dispatch.dispatch.remove import Loss
    from remote_dispatch.dispatch.verify import Verified
    from remote_dispatch.model import Dispatch


def verify(name: Name, *, hosts_file: HostsFile = None, is_json: JsonFlag = False) -> None:
    """Say, message by message, where each copy of a dispatched conversation is; all of them are read and compared."""
    run_command("verify", lambda: run_async(_verify(name, _desk(hosts_file))), is_json=is_json)


def prune(
    *,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Only what ended so long ago, such as `7d`.")
    ] = None,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, say what would happen.")] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Remove records, files and run directories of dispatches that are proved to be home, or of which nothing ran."""
    run_command(
        "prune",
        lambda: run_async(_prune(_desk(hosts_file), duration_s(older_than), is_dry_run=is_dry_run)),
        is_json=is_json,
        interrupted_hint="prune again whenever you like",
    )


def remove(
    name: Name,
    *,
    is_agreed: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    is_local: Annotated[
        bool, typer.Option("--local", help="Remove only what is here, when the host is gone for good.")
    ] = False,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Forget one dispatch, here and on its host; it says what would be lost, and asks."""
    run_command(
        "remove",
        lambda: _remove(name, _desk(hosts_file), is_agreed=is_agreed, is_local=is_local),
        is_json=is_json,
        interrupted_hint="`remote-dispatch list` shows whether it is still there",
    )


# --- verify


async def _verify(name: str, desk: Desk) -> Answer:
    from remote_dispatch.dispatch.verify import verify as compare

    record = desk.store.load(name)
    found = await compare(record, lambda: desk.link_of(record), desk.store, desk.program)
    data = _verified_data(record, found)
    return Answer(data=data, render=lambda: _render_verified(data), error=_verified_error(record, found))


def _verified_error(record: Dispatch, found: Verified) -> RemoteDispatchError | None:
    if not found.problems:
        return found.trouble
    more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
    return IntegrityError(
        f"dispatch `{record.name}`: {found.problems[0]}{more}",
        hint=f"nothing was changed; `remote-dispatch show {record.name}` says where the session is, here and there",
    )


def _verified_data(record: Dispatch, found: Verified) -> dict[str, Any]:
    return {
        "name": record.name,
        "id": record.id,
        "host": record.host,
        "state": record.state,
        "collected": record.collected,
        "session_id": record.copy_session_id or record.session_id,
        "sessions": [
            {
                "session_id": session.id,
                "messages": [
                    {"id": one.id, "role": one.role, "here": one.here, "kept": one.kept, "host": one.host}
                    for one in session.messages
                ],
            }
            for session in found.sessions
        ],
        "counts": _counts(found),
        "run_directory": found.run_file,
        "problems": list(found.problems),
    }


def _counts(found: Verified) -> dict[str, int]:
    """How many messages there are, and how many of them are whole in each place."""
    places = ("here", "kept", "host")
    equal = {place: sum(getattr(one, place) == "equal" for one in found.messages) for place in places}
    return {"messages": len(found.messages), **equal, "different": sum(one.is_different for one in found.messages)}


def _render_verified(data: dict[str, Any]) -> None:
    """The session that was sent needs no heading."""
    for number, session in enumerate(data["sessions"]):
        if number:
            typer.echo(f"\nsub-agent's session {session['session_id']}")
        columns = ("id", "role", "here", "kept", "host")
        if session["messages"]:
            rows = [[one[column] for column in columns] for one in session["messages"]]
            print_table([column.upper() for column in columns], rows)
    counts = data["counts"]
    typer.echo(
        f"{counts['messages']} messages: {counts['here']} here, {counts['kept']} in the files kept here, "
        f"{counts['host']} in OpenCode on {data['host']}; {counts['different']} different"
    )
    for problem in data["problems"]:
        typer.echo(f"! {problem}")


# --- prune


async def _prune(desk: Desk, older_than_s: float | None, *, is_dry_run: bool) -> Answer:
    from remote_dispatch.dispatch.prune import prune as clear

    before = None if older_than_s is None else datetime.now(UTC) - timedelta(seconds=older_than_s)
    registry = desk.registry
    pruned = await clear(desk.store, lambda host: desk.link(registry[host]), before=before, is_dry_run=is_dry_run)
    unreadable = (
        f"the record of dispatch `{one}` cannot be read; it was left alone" for one in desk.store.unreadable()
    )
    troubles = (f"`{one.name}` was kept: {one.why}" for one in pruned.kept if one.is_trouble)
    data = {
        "is_dry_run": is_dry_run,
        "removed": sorted(pruned.removed),
        "kept": [{"name": one.name, "why": one.why, "command": one.command} for one in pruned.kept],
        "orphans": pruned.orphans,
        "leftovers": pruned.leftovers,
    }
    return Answer(
        data=data,
        render=lambda: _render_pruned(pruned, is_dry_run=is_dry_run),
        warnings=(*troubles, *unreadable),
    )


def _render_pruned(pruned: Pruned, *, is_dry_run: bool) -> None:
    verb = "would be removed" if is_dry_run else "removed"
    names = f": {', '.join(sorted(pruned.removed))}" if pruned.removed else ""
    typer.echo(f"{len(pruned.removed)} {verb}{names}")
    leftovers = len(pruned.orphans) + sum(pruned.leftovers.values())
    if leftovers:
        typer.echo(f"leftovers of killed commands removed: {leftovers}")
    if pruned.kept:
        typer.echo(f"{len(pruned.kept)} kept:")
        print_fields({one.name: one.why + (f": `{one.command}`" if one.command else "") for one in pruned.kept})


# --- remove


def _remove(name: str, desk: Desk, *, is_agreed: bool, is_local: bool) -> Answer:
    record = desk.store.load(name)
    loss = run_async(_loss(record, desk, is_local=is_local))
    data = _loss_data(record, loss)
    if not is_agreed:
        try:
            _ask(record, loss)
        except AnswerNeededError as error:
            return Answer(data=data, error=error)
    run_async(_forget(record, desk, is_local=is_local))
    return Answer(data={**data, "is_removed": True}, render=lambda: typer.echo(f"{record.name} is removed"))


async def _loss(record: Dispatch, desk: Desk, *, is_local: bool) -> Loss:
    from remote_dispatch.dispatch.remove import is_on_host, loss_of, loss_without_host

    if is_local or not is_on_host(record):
        return loss_without_host(record)
    try:
        link = desk.link_of(record)
    except UnknownNameError as error:
        error.hint = f"`remote-dispatch remove {record.name} --local` removes what is here"
        raise
    async with link:
        return await loss_of(record, link, desk.store)


async def _forget(record: Dispatch, desk: Desk, *, is_local: bool) -> None:
    from remote_dispatch.dispatch.remove import is_on_host
    from remote_dispatch.dispatch.remove import remove as forget

    if is_local or not is_on_host(record):
        return await forget(record, None, desk.store)
    async with desk.link_of(record) as link:
        return await forget(record, link, desk.store)


def _ask(record: Dispatch, loss: Loss) -> None:
    from remote_dispatch.cli.screen import confirm, is_interactive

    said = f"would be lost: {'; '.join(loss.lines)}" if loss.lines else "nothing would be lost"
    if not is_interactive():
        raise AnswerNeededError(
            f"removing `{record.name}` needs a yes, and there is no terminal to ask on; {said}",
            hint=f"`remote-dispatch remove {record.name} --yes` removes it",
        )
    say(said)
    for line in loss.stays:
        note(line)
    if not confirm(f"Remove {record.name}?"):
        raise UsageError("nothing was removed", hint=f"see it with `remote-dispatch show {record.name}`")


def _loss_data(record: Dispatch, loss: Loss) -> dict[str, Any]:
    return {
        "name": record.name,
        "id": record.id,
        "host": record.host,
        "is_removed": False,
        "lost": list(loss.lines),
        "stays": list(loss.stays),
        "new_messages": loss.new_messages,
        "session_there": loss.session_there,
        "directory_there": loss.directory_there,
    }


def _desk(hosts_file: Path | None) -> Desk:
    from remote_dispatch.cli.desk import Desk

    return Desk(hosts_file)
