"""Lines 10 and 11 of the main path: bring the result into the local session, and prove that it is there.

The local session is never edited: new messages are appended; where it moved on meanwhile, the result becomes a copy.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch.files import read_sealed, write_sealed_pieces, write_whole
from remote_dispatch.dispatch.packing import read_export
from remote_dispatch.errors import IntegrityError, UnknownNameError
from remote_dispatch.failpoints import reach
from remote_dispatch.model import Origin
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from remote_dispatch.dispatch.collect import Back
    from remote_dispatch.dispatch.store import Folder
    from remote_dispatch.model import Dispatch, Todo
    from remote_dispatch.opencode.program import Program
    from remote_dispatch.transcript import Message, Transcript, Verdict


@dataclass(frozen=True, slots=True)
class Homecoming:
    """What came home, and where it is."""

    session_id: str
    """The session that holds the result: the local one, or the copy."""
    is_copy: bool
    new_messages: int
    verdict: Verdict
    last_message_id: str | None = None
    """The newest message that came home, by its id here."""
    warnings: tuple[str, ...] = ()
    is_partial: bool = False
    """Whether a sub-agent's session stays on the host."""


@dataclass(slots=True)
class _Merge:
    """One merge under way."""

    record: Dispatch
    back: Back
    folder: Folder
    program: Program
    now_ms: int
    origin: Origin
    warnings: list[str] = field(default_factory=list)

    @property
    def delta_ms(self) -> int:
        """From the host's clock to ours."""
        return -(self.record.travel.clock_offset_ms if self.record.travel else 0)

    def closed(self, base: Transcript) -> Transcript:
        """The session as it left, its open call closed: where it is imported anew, nobody will close it."""
        request = self.record.request
        return transcripts.close_open_calls(base, host=request.host, mode=request.mode, now_ms=self.now_ms)


async def merge(record: Dispatch, back: Back, folder: Folder, program: Program) -> Homecoming:
    """Put the new messages into the local session, its sub-agents' sessions, todos and tool outputs beside them.

    Doing it again changes nothing. Raises IntegrityError when what came back is not this session, or when the
    read-back differs; the local session then holds at most additional messages, and every file is kept.
    """
    origin = record.origin or await _usual_origin(record, program)
    merging = _Merge(record, back, folder, program, int(time.time() * 1000), origin)
    parent = await _journey(merging, folder.session, back.session, record.origin.digest if record.origin else "")
    sent = transcripts.message_ids(parent.sent) if parent.sent else ()
    own_id = parent.sent["info"]["id"] if parent.sent else back.session["info"]["id"]
    transcripts.check_back(back.session, session_id=own_id, base_ids=sent)
    children = [await _journey(merging, folder.child(child), one) for child, one in back.children.items()]
    arrival = transcripts.decide(parent, children, wants_copy=record.request.is_copy)
    merging.warnings += arrival.warnings
    session_id, last_message_id = await _bring(merging, arrival.way, parent, children)
    for child in back.missing:
        merging.warnings.append(f"a sub-agent's session stays on {record.host}: it could not be exported ({child})")
    if not back.is_family_known:
        merging.warnings.append(f"{record.host} could not say which sub-agents' sessions there are: none came home")
    if back.tool_outputs or back.todos:
        surroundings = await program.surroundings(session_id)
        await _place_tool_outputs(back, surroundings.data_directory)
        await _place_todos(merging, session_id, surroundings.todos)
    verdict = transcripts.judge(transcripts.without_reverted(back.session), sent_ids=sent, brief=None)
    is_copy = arrival.way is transcripts.Way.COPY
    return Homecoming(
        session_id,
        is_copy,
        len(parent.fresh),
        verdict,
        last_message_id,
        tuple(merging.warnings),
        bool(back.missing) or not back.is_family_known,
    )


async def _bring(
    merging: _Merge, way: transcripts.Way, parent: transcripts.Journey, children: list[transcripts.Journey]
) -> tuple[str, str | None]:
    """Sub-agents' sessions first: once the parent shows the result, everything it points to is there.

    Returns the session that holds it, and the newest message of it there.
    """
    if way is transcripts.Way.COPY:
        return await _import_copies(merging, parent, children)
    if way is not transcripts.Way.NOTHING:
        directory = parent.current["info"]["directory"] if parent.current else merging.origin.directory
        stayed = await _stayed(merging, children) if way is transcripts.Way.WHOLE else []
        for child in (*stayed, *children):
            await _bring_one(merging, child, directory, is_child=True)
        await reach("merge.children")
        await _bring_one(merging, parent, directory)
    return str(parent.back["info"]["id"]), _last_id(parent.fresh)


async def _usual_origin(record: Dispatch, program: Program) -> Origin:
    """A session that began on the host goes on here with what was used here last: the host's model may be unknown."""
    agent, model = await program.usual_choice()
    return Origin(agent=agent, model=model, directory=str(record.request.local_directory))


async def _journey(merging: _Merge, sent: Path, back: Transcript, digest: str = "") -> transcripts.Journey:
    """A session as it left, as it came back, and as it is here now.

    Where the kept file was damaged, what came back, which holds all of it, stands for what left.
    """
    try:
        left = await asyncio.to_thread(_left, sent, digest, back)
    except IntegrityError:
        left = None
        merging.warnings.append("the session as it left, kept here, was damaged: what came back was taken for it")
    return transcripts.Journey(left, back, await _local(merging, back["info"]["id"], left, back))


def _left(path: Path, digest: str = "", back: Transcript | None = None) -> Transcript | None:
    """What is equal in `back` is shared with it."""
    if not path.exists():
        return None
    left = read_export(path, each=transcripts.alike(back))
    if digest and transcripts.digest(left) != digest:
        raise IntegrityError("the session as it left was changed since")
    return transcripts.without_reverted(left)


async def _stayed(merging: _Merge, changed: list[transcripts.Journey]) -> list[transcripts.Journey]:
    """The sub-agents' sessions that travelled and for which nothing came back, as they left."""
    travel = merging.record.travel
    known = {one.back["info"]["id"] for one in changed}
    files = [merging.folder.child(child) for child in (travel.children if travel else ()) if child not in known]
    return [await _journey(merging, file, one) for file in files if (one := _left(file)) is not None]


async def _local(merging: _Merge, session_id: str, *others: Transcript | None) -> Transcript | None:
    """The session as it is here now; what is equal in the others is shared with them."""
    target = merging.folder.scratch("local.json")
    try:
        return await merging.program.export(session_id, target, each=transcripts.alike(*others))
    except UnknownNameError:
        return None


async def _bring_one(merging: _Merge, journey: transcripts.Journey, directory: str, *, is_child: bool = False) -> None:
    """Add what is new; a session that is not here comes whole."""
    current = journey.current
    if current is None:
        addition = _whole(merging, journey, is_child=is_child)
    elif journey.missing:
        newest = transcripts.newest_ms(transcripts.without(current, journey.fresh))
        placed = _placed(merging, journey.missing, newest, is_child=is_child)
        addition = transcripts.additions(current, transcripts.continued(current, placed))
    else:
        return
    await _import(merging, addition, Path(directory))
    await _prove(merging, addition, current)


def _whole(merging: _Merge, journey: transcripts.Journey, *, is_child: bool = False) -> Transcript:
    """The session as it should look: what left, its open call closed, and what is new behind it."""
    if journey.sent is None:
        base = transcripts.shift(_clean_info(journey.left), merging.delta_ms)
    else:
        base = merging.closed(journey.left)
    newest = transcripts.newest_ms(base) if base["messages"] else 0
    placed = _placed(merging, journey.fresh, newest, is_child=is_child)
    return transcripts.additions(base, [*base["messages"], *placed])


async def _import_copies(
    merging: _Merge, parent: transcripts.Journey, children: list[transcripts.Journey]
) -> tuple[str, str | None]:
    """The ids are decided once: a merge that is tried again makes no second copy, unless the decision was damaged."""
    copies = await asyncio.to_thread(read_sealed, merging.folder.copy)
    if copies is None:
        stayed = await _stayed(merging, children)
        copies = await asyncio.to_thread(_copies, merging, parent, [*stayed, *children])
        await asyncio.to_thread(write_sealed_pieces, merging.folder.copy, lambda: _listed(copies))
    first, *others = copies
    for one in (*others, first):
        await _import(merging, one, Path(merging.origin.directory))
        await _prove(merging, one, None)
    return str(first["info"]["id"]), _last_id(first["messages"])


def _listed(family: Sequence[Transcript]) -> Iterator[bytes]:
    """The JSON of a list of transcripts."""
    for number, one in enumerate(family):
        yield b"," if number else b"["
        yield from transcripts.dumped(one)
    yield b"]"


def _last_id(messages: Sequence[Message]) -> str | None:
    return str(messages[-1]["info"]["id"]) if messages else None


def _copies(merging: _Merge, parent: transcripts.Journey, children: list[transcripts.Journey]) -> list[Transcript]:
    whole = _whole(merging, parent)
    left = len(parent.left["messages"])
    family = [_whole(merging, child, is_child=True) for child in children]
    base = transcripts.additions(whole, whole["messages"][:left])
    return transcripts.as_copy(base, whole["messages"][left:], family, host=merging.record.host, now_ms=merging.now_ms)


def _placed(merging: _Merge, messages: list[Message], newest_ms: int, *, is_child: bool = False) -> list[Message]:
    """Move the times between the newest local message and now; user messages name the local agent and model.

    A sub-agent's session keeps its own agent. The turn that asked may have written since the merge began.
    """
    now_ms = int(time.time() * 1000)
    fitted = transcripts.fit(
        transcripts.in_order(messages), delta_ms=merging.delta_ms, after_ms=newest_ms, before_ms=now_ms
    )
    origin = merging.origin.model_copy(update={"agent": None}) if is_child else merging.origin
    return transcripts.restore(fitted, origin)


def _clean_info(one: Transcript) -> Transcript:
    """Leave on the host what was made for the host: its permissions, agent and model."""
    left_behind = ("permission", "agent", "model", "workspaceID", "share", "revert")
    return {**one, "info": {key: value for key, value in one["info"].items() if key not in left_behind}}


async def _import(merging: _Merge, transcript: Transcript, directory: Path) -> None:
    source = merging.folder.scratch("import.json")
    await asyncio.to_thread(lambda: write_whole(source, transcripts.dumped(transcript)))
    await merging.program.import_(source, transcript["info"]["id"], directory)
    await reach("merge.imported")


async def _prove(merging: _Merge, expected: Transcript, before: Transcript | None) -> None:
    """Read back and compare: everything new is there and equal, and nothing that was there is gone or changed."""
    actual = await _local(merging, expected["info"]["id"], expected, before)
    if actual is None:
        raise IntegrityError("the session is not on this machine after its import", hint="nothing was removed")
    problems = await asyncio.to_thread(transcripts.read_back_problems, expected, actual)
    if before is not None:
        gone = set(transcripts.message_ids(before)) - set(transcripts.message_ids(actual))
        problems += [f"message {one} is gone" for one in gone]
        problems += [
            f"the session's {key} changed" for key in ("agent", "model", "directory") if _differs(before, actual, key)
        ]
    if problems:
        raise IntegrityError(
            f"the local session is not what it should be after the import: {problems[0]}"
            + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""),
            hint=f"nothing was removed, here or on the host; see `remote-dispatch show {merging.record.name}`",
        )


def _differs(before: Transcript, after: Transcript, key: str) -> bool:
    was: Any = before["info"].get(key)
    return bool(was != after["info"].get(key))


async def _place_tool_outputs(back: Back, data_directory: Path) -> None:
    """Beside those that are there; none is ever overwritten."""
    place = data_directory / "tool-output"
    place.mkdir(mode=0o700, exist_ok=True)
    for name, path in back.tool_outputs.items():
        if not (place / name).exists():
            await asyncio.to_thread(_place, path, place / name)


def _place(source: Path, target: Path) -> None:
    """Whole or not at all: what is there is never overwritten, so a cut one would stay."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


async def _place_todos(merging: _Merge, session_id: str, present: tuple[Todo, ...]) -> None:
    """OpenCode has no import for todos: they are written to its database, in a shape that its own tool writes."""
    todos = merging.back.todos
    if todos and todos != present:
        await merging.program.put_todos(session_id, todos, merging.now_ms)


def describe_refusals(verdict: Verdict) -> tuple[str, ...]:
    """One warning for every tool call that the host refused."""
    return tuple(f"a permission was refused on the host: {clean(call, 200)}" for call in verdict.refused)
