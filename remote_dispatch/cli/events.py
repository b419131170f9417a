"""What OpenCode did on a host, as `logs` prints it: kept here, asked there, or followed to the end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from remote_dispatch.cli.output import Answer, note, stream
from remote_dispatch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remote_dispatch.cli.desk import Desk
    from remote_dispatch.dispatch import Link
    from remote_dispatch.model import Dispatch


async def show(name: str, desk: Desk, *, is_followed: bool, is_json: bool) -> Answer:
    """Print what was done so far; follow it to the end where asked."""
    from remote_dispatch.dispatch.stages import events_of
    from remote_dispatch.runner.events import EventReader

    record = desk.store.load(name)
    kept = desk.store.folder(record.id).events
    if kept.exists():
        _print_events(EventReader().feed(kept.read_bytes()), is_json=is_json)
        return Answer(data={"name": record.name})
    if record.request.is_live:
        raise UsageError(
            f"dispatch `{record.name}` lives on an OpenCode server, which keeps no log of it",
            hint=f"look on with `remote-dispatch session watch {record.name}`, read it with "
            f"`remote-dispatch session messages {record.name}`",
        )
    async with desk.link_of(record) as link:
        if is_followed:
            await _follow_events(record, link, is_json=is_json)
        else:
            _print_events(EventReader().feed(await events_of(await link.connection(), record)), is_json=is_json)
    return Answer(data={"name": record.name})


async def _follow_events(record: Dispatch, link: Link, *, is_json: bool) -> None:
    from remote_dispatch.dispatch.follow import watch_events
    from remote_dispatch.dispatch.passage import FOLLOWING_PATIENCE_S
    from remote_dispatch.errors import ConnectionLostError
    from remote_dispatch.runner.events import EventReader

    offset = 0
    while True:
        reader = EventReader(offset=offset)
        try:
            connection = await link.connection()
            await watch_events(connection, record, reader, lambda event: _print_events([event], is_json=is_json))
        except ConnectionLostError:
            offset = reader.offset
            await link.again(lambda error: note(error.message), patience_s=FOLLOWING_PATIENCE_S)
        else:
            return


def _print_events(events: Iterable[dict[str, Any]], *, is_json: bool) -> None:
    from remote_dispatch.cli.screen import line_of, marks_for
    from remote_dispatch.runner.events import describe

    for event in events:
        progress = describe(event)
        if is_json:
            stream({"type": "event", "event": event})
        elif progress is not None and (line := line_of(progress, marks_for(sys.stdout))):
            typer.echo(line)
