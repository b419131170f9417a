"""Lines 10 and 11 of the main path: bring the result into the local session, and prove that it is there.

The local session is never edited: new messages are appended; where it moved on meanwhile, the result becomes a copy.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch.store import write_whole
from remote_dispatch.errors import IntegrityError, UnknownNameError
from remote_dispatch.model import Origin
from remote_dispatch.text import clean

if TYPE_CHECKING:
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
    warnings: tuple[str, ...] = ()


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

    Doing it again changes nothing. Raises IntegrityError when the result is not what was sent plus new messages, or
    when the read-back differs; the local session then holds at most additional messages, and every file is kept.
    """
    origin = record.origin or await _usual_origin(record, program)
    merging = _Merge(record, back, folder, program, int(time.time() * 1000), origin)
    base = await asyncio.to_thread(_base, folder, back)
    sent = transcripts.message_ids(base)
    transcripts.check_back(back.session, session_id=base["info"]["id"], base_ids=sent)
    verdict = transcripts.judge(back.session, sent_ids=sent, brief=None)
    fresh = transcripts.new_messages(sent, back.session)
    current = await _local(program, base["info"]["id"], folder)
    if current is None:
        whole = await _import_whole(merging, base, fresh)
        session_id, is_copy = whole["info"]["id"], False
    elif transcripts.moved_on(base, _without(current, fresh)):
        session_id, is_copy = await _import_copy(merging, base, current, fresh), True
        merging.warnings.append("the local session moved on meanwhile: the result is in a session of its own")
    else:
        await _append(merging, current, fresh)
        session_id, is_copy = base["info"]["id"], False
    for child in back.missing:
        merging.warnings.append(f"a sub-agent's session stays on {record.host}: it could not be exported ({child})")
    if back.tool_outputs or back.todos:
        surroundings = await program.surroundings(session_id)
        await _place_tool_outputs(back, surroundings.data_directory)
        await _place_todos(merging, session_id, surroundings.todos)
    return Homecoming(session_id, is_copy, len(fresh), verdict, tuple(merging.warnings))


async def _usual_origin(record: Dispatch, program: Program) -> Origin:
    """A session that began on the host goes on here with what was used here last: the host's model may be unknown."""
    agent, model = await program.usual_choice()
    return Origin(agent=agent, model=model, directory=str(record.request.local_directory))


def _base(folder: Folder, back: Back) -> Transcript:
    """The session as it left; for a new one, what came back without its messages."""
    if folder.session.exists():
        return transcripts.without_reverted(transcripts.parse(folder.session.read_bytes()))
    return {**back.session, "messages": []}


async def _local(program: Program, session_id: str, folder: Folder) -> Transcript | None:
    try:
        return await program.export(session_id, folder.scratch("local.json"))
    except UnknownNameError:
        return None


def _without(current: Transcript, fresh: list[Message]) -> Transcript:
    """The local session without what an earlier, broken merge of this result already brought."""
    brought = {message["info"]["id"] for message in fresh}
    return {**current, "messages": [one for one in current["messages"] if one["info"]["id"] not in brought]}


async def _append(merging: _Merge, current: Transcript, fresh: list[Message]) -> None:
    """Sub-agents' sessions first: once the parent shows the result, everything it points to is there."""
    for child, one in merging.back.children.items():
        await _bring_child(merging, child, one, current["info"]["directory"])
    known = set(transcripts.message_ids(current))
    missing = [message for message in fresh if message["info"]["id"] not in known]
    if not missing:
        return
    placed = _placed(merging, missing, transcripts.newest_ms(current))
    await _import(merging, transcripts.additions(current, placed), Path(current["info"]["directory"]))
    await _prove(merging, transcripts.additions(current, placed), current)


async def _bring_child(merging: _Merge, child: str, one: Transcript, directory: str) -> None:
    """Add what is new to a sub-agent's session; a session that was made on the host comes whole."""
    current = await _local(merging.program, child, merging.folder)
    known = set(transcripts.message_ids(current)) if current else set()
    missing = [message for message in one["messages"] if message["info"]["id"] not in known]
    if not missing:
        return
    newest = transcripts.newest_ms(current) if current else 0
    shifted = transcripts.shift(_clean_info(one), merging.delta_ms)
    placed = transcripts.additions(current or shifted, _placed(merging, missing, newest, is_child=True))
    await _import(merging, placed, Path(directory))
    await _prove(merging, placed, current)


async def _import_whole(merging: _Merge, base: Transcript, fresh: list[Message]) -> Transcript:
    """The session exists nowhere at home: it was new, or was deleted. It is imported as it should look."""
    home = merging.origin.directory
    shifted = base if base["messages"] else transcripts.shift(_clean_info(base), merging.delta_ms)
    newest = transcripts.newest_ms(shifted) if base["messages"] else 0
    whole = transcripts.additions(shifted, [*merging.closed(base)["messages"], *_placed(merging, fresh, newest)])
    for child, one in merging.back.children.items():
        await _bring_child(merging, child, one, home)
    await _import(merging, whole, Path(home))
    await _prove(merging, whole, None)
    return whole


async def _import_copy(merging: _Merge, base: Transcript, current: Transcript, fresh: list[Message]) -> str:
    """The ids are decided once: a merge that is tried again makes no second copy."""
    plan = merging.folder.copy
    if not plan.exists():
        copies = await asyncio.to_thread(_copies, merging, base, fresh)
        await asyncio.to_thread(lambda: write_whole(plan, json.dumps(copies).encode()))
    parent, *children = await asyncio.to_thread(lambda: json.loads(plan.read_bytes()))
    for one in (*children, parent):
        await _import(merging, one, Path(current["info"]["directory"]))
        await _prove(merging, one, None)
    return str(parent["info"]["id"])


def _copies(merging: _Merge, base: Transcript, fresh: list[Message]) -> list[Transcript]:
    placed = _placed(merging, fresh, transcripts.newest_ms(base))
    children = [transcripts.shift(_clean_info(one), merging.delta_ms) for one in merging.back.children.values()]
    closed = merging.closed(base)
    return transcripts.as_copy(closed, placed, children, host=merging.record.host, now_ms=merging.now_ms)


def _placed(merging: _Merge, messages: list[Message], newest_ms: int, *, is_child: bool = False) -> list[Message]:
    """Move the times between the newest local message and now; user messages name the local agent and model.

    A sub-agent's session keeps its own agent.
    """
    fitted = transcripts.fit(messages, delta_ms=merging.delta_ms, after_ms=newest_ms, before_ms=merging.now_ms)
    origin = merging.origin.model_copy(update={"agent": None}) if is_child else merging.origin
    return transcripts.restore(fitted, origin)


def _clean_info(one: Transcript) -> Transcript:
    """Leave on the host what was made for the host: its permissions, agent and model."""
    left_behind = ("permission", "agent", "model", "workspaceID", "share", "revert")
    return {**one, "info": {key: value for key, value in one["info"].items() if key not in left_behind}}


async def _import(merging: _Merge, transcript: Transcript, directory: Path) -> None:
    source = merging.folder.scratch("import.json")
    await asyncio.to_thread(lambda: write_whole(source, transcripts.dump(transcript)))
    await merging.program.import_(source, transcript["info"]["id"], directory)


async def _prove(merging: _Merge, expected: Transcript, before: Transcript | None) -> None:
    """Read back and compare: everything new is there and equal, and nothing that was there is gone or changed."""
    actual = await _local(merging.program, expected["info"]["id"], merging.folder)
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
            await asyncio.to_thread(shutil.copyfile, path, place / name)


async def _place_todos(merging: _Merge, session_id: str, present: tuple[Todo, ...]) -> None:
    """OpenCode has no import for todos: they are written to its database, in a shape that its own tool writes."""
    todos = merging.back.todos
    if todos and todos != present:
        await merging.program.put_todos(session_id, todos, merging.now_ms)


def describe_refusals(verdict: Verdict) -> tuple[str, ...]:
    """One warning for every tool call that the host refused."""
    return tuple(f"a permission was refused on the host: {clean(call, 200)}" for call in verdict.refused)
