"""From the local session to what travels: read it whole, decide ids and times, and make the outgoing copies."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch.packing import packed, read_back
from remote_dispatch.dispatch.tasks import as_itself, together
from remote_dispatch.errors import IntegrityError, UsageError
from remote_dispatch.model import Origin, Travel
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from remote_dispatch.dispatch.choose import Choice
    from remote_dispatch.dispatch.permissions import Permit
    from remote_dispatch.dispatch.store import Folder, Store
    from remote_dispatch.model import DispatchRequest, Todo
    from remote_dispatch.opencode.probe import Probed
    from remote_dispatch.opencode.program import Program, Surroundings
    from remote_dispatch.runner.job import SessionFile
    from remote_dispatch.transcript import Message, Transcript

EXPORTS_AT_ONCE = 2
TOOL_OUTPUT_FILES = 64
TOOL_OUTPUT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """The local session as it is now, with what an export leaves out."""

    session: Transcript
    children: dict[str, Transcript] = field(default_factory=dict)
    todos: tuple[Todo, ...] = ()
    tool_outputs: dict[str, Path] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    is_new: bool = False
    changed_ms: int = 0
    """When the session was last written to, by the clock of this machine."""
    database: str | None = None
    """Which database it is in: see opencode/identity.sh."""
    origin: Origin | None = None
    """What the session was; None where nothing was made of it yet."""

    @property
    def family(self) -> tuple[Transcript, ...]:
        """The session and its sub-agents' sessions."""
        return (self.session, *self.children.values())


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What leaves: packed transcripts under their travelling ids, and how to undo the changes."""

    session: SessionFile
    children: tuple[SessionFile, ...]
    permit: Permit
    travel: Travel


async def read_source(program: Program, session_id: str, folder: Folder) -> Source:
    """Export the session and its children into the folder, and find todos and tool outputs."""

    async def around() -> tuple[Surroundings, dict[str, Transcript]]:
        found = await program.surroundings(session_id)
        return found, await _export_children(program, found.children, folder)

    session, (surroundings, children) = await together(program.export(session_id, folder.session), around())
    family = (session, *children.values())
    outputs, warnings = await asyncio.to_thread(_tool_outputs, family, surroundings.data_directory)
    return Source(
        session,
        children,
        surroundings.todos,
        outputs,
        warnings,
        changed_ms=surroundings.changed_ms,
        database=surroundings.database_identity,
        origin=await asyncio.to_thread(transcripts.origin_of, session),
    )


async def _export_children(program: Program, ids: Collection[str], folder: Folder) -> dict[str, Transcript]:
    """Few at once: each process takes seconds and several hundred megabytes."""
    gate = asyncio.Semaphore(EXPORTS_AT_ONCE)

    async def export(child: str) -> Transcript:
        async with gate:
            return await program.export(child, folder.child(child))

    with as_itself():
        async with asyncio.TaskGroup() as group:
            tasks = {child: group.create_task(export(child)) for child in ids}
    return {child: task.result() for child, task in tasks.items()}


def new_source(request: DispatchRequest, version: str, now_ms: int) -> Source:
    """A fresh, empty session that exists nowhere yet; its title is the prompt's first line."""
    words = (request.prompt or "").strip()
    if not words:
        raise UsageError("a new session needs a prompt", hint='say what to do: `remote-dispatch send HOST "..."`')
    session_id = transcripts.new_session_id(now_ms)
    info = {
        "id": session_id,
        "slug": "remote-dispatch",
        "projectID": "global",
        "directory": str(request.local_directory),
        "title": clean(words.splitlines()[0], 80),
        "version": version,
        "time": {"created": now_ms, "updated": now_ms},
    }
    return Source({"info": info, "messages": []}, is_new=True)


def make_outgoing(
    source: Source,
    request: DispatchRequest,
    probed: Probed,
    choice: Choice,
    permitted: Permit,
    *,
    now_ms: int,
    kept: Collection[str],
    place: Callable[[str], Path] | None = None,
) -> Outgoing:
    """Make the copies that travel. `kept` has the ids that are in back-files of earlier dispatches of this session.

    `place` names files for the large ones; without it they stay in memory.
    """
    is_held, replaces = (True, False) if request.is_copy else _host_copy(source, probed, kept)
    id_map = transcripts.fresh_ids(source.family, now_ms) if is_held and not replaces else {}
    newest = max(transcripts.newest_ms(one) for one in source.family)
    shift_ms = transcripts.outward_shift_ms(newest, now_ms + probed.facts.clock_offset_ms)

    def prepare(one: Transcript) -> Transcript:
        closed = transcripts.close_open_calls(one, host=request.host, mode=request.mode, now_ms=now_ms)
        shifted = transcripts.shift(transcripts.without_workspace(transcripts.without_reverted(closed)), shift_ms)
        return transcripts.rename(
            transcripts.with_permissions(shifted, permitted.session_rules, permitted.policy, can_ask=request.is_live),
            id_map,
        )

    def pack(one: Transcript) -> SessionFile:
        return packed(one, place(f"{one['info']['id']}.json.gz") if place else None)

    session = transcripts.retarget(
        prepare(source.session), agent=choice.agent, model=choice.model, variant=choice.variant
    )
    own_id = source.session["info"]["id"]
    return Outgoing(
        session=pack(session),
        children=tuple(pack(prepare(one)) for one in source.children.values()),
        permit=permitted,
        travel=Travel(
            session_id=id_map.get(own_id, own_id),
            agent=choice.agent,
            model=str(choice.model),
            variant=choice.variant,
            shift_ms=shift_ms,
            clock_offset_ms=probed.facts.clock_offset_ms,
            id_map=id_map,
            replaces=replaces,
            held_messages=len(probed.held.get("message", ())) if replaces else None,
            children=tuple(source.children),
            opencode=None if probed.facts.opencode is None else str(probed.facts.opencode),
        ),
    )


def kept_ids(store: Store, session_id: str | None) -> frozenset[str]:
    """Return every id in the back-files that this machine keeps of earlier dispatches of the session.

    What a damaged one held counts as not kept: then the host's copy stays.
    """
    ids: set[str] = set()
    for record in store.all() if session_id is None else store.mentioning(session_id):
        if record.session_id == session_id:
            for path in store.folder(record.id).back_files():
                with suppress(IntegrityError):
                    ids |= ids_of([read_back(path, None, each=_bare)])
    return frozenset(ids)


def _bare(message: Message) -> Message:
    """The ids alone."""
    return {"info": {"id": message["info"]["id"]}, "parts": [{"id": part["id"]} for part in message["parts"]]}


def ids_of(family: Collection[Transcript]) -> set[str]:
    """Return every session, message and part id of these transcripts."""
    ids: set[str] = set()
    for one in family:
        ids |= {one["info"]["id"], *transcripts.message_ids(one), *transcripts.part_ids(one)}
    return ids


def _host_copy(source: Source, probed: Probed, kept: Collection[str]) -> tuple[bool, bool]:
    """Whether the host has an old copy of the session, and whether all of it is home or kept, so that it may go."""
    if not probed.holds_session:
        return False, False
    home = ids_of(source.family)
    held = frozenset[str]().union(*probed.held.values())
    return True, all(one in home or one in kept for one in held)


def _tool_outputs(family: tuple[Transcript, ...], data: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Find the tool-output files that the texts refer to, within bounds; what stays behind becomes a warning."""
    names = dict.fromkeys(name for one in family for name in transcripts.tool_outputs(one))
    found: dict[str, Path] = {}
    total = 0
    for name in names:
        path = data / "tool-output" / name
        if path.is_symlink() or not path.is_file():
            continue
        total += path.stat().st_size
        if len(found) >= TOOL_OUTPUT_FILES or total > TOOL_OUTPUT_BYTES:
            return found, (
                f"only {len(found)} of {len(names)} tool-output files travel: the others are too many or too large",
            )
        found[name] = path
    return found, ()


def origin_of(source: Source) -> Origin | None:
    """What the local session was; None for one that exists nowhere yet."""
    return None if source.is_new else source.origin or transcripts.origin_of(source.session)
