"""Line 9 of the main path: bring the result to this machine, check it, keep it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch.delivery import Delivery
from remote_dispatch.dispatch.event_log import LIMIT_BYTES as LOG_LIMIT_BYTES
from remote_dispatch.dispatch.files import make_private, read_sealed, write_sealed, write_whole
from remote_dispatch.dispatch.packing import read_back
from remote_dispatch.dispatch.stages import path_of
from remote_dispatch.errors import IntegrityError
from remote_dispatch.model import SESSION_ID, Todo
from remote_dispatch.runner import directory as names
from remote_dispatch.runner.scripts import script
from remote_dispatch.runner.status import RunStatus
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from remote_dispatch.dispatch.store import Folder
    from remote_dispatch.model import Dispatch
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.runner.outcome import Outcome
    from remote_dispatch.transcript import Transcript

PACKED_LIMIT_BYTES = 1024 * 1024 * 1024
SMALL_LIMIT_BYTES = 16 * 1024 * 1024
DOWNLOAD_TIMEOUT_S = 3600.0
LISTED_LIMIT = 3000

_SUM = re.compile(r"sum ([0-9a-f]{64})  (.+)")
_CODE = frozenset({names.BACK_CODE, names.BACK_BUNDLE, names.BACK_ARCHIVE})
"""Brought by a step of its own: see code_home."""
_TOOL_OUTPUT = re.compile(r"tool_[A-Za-z0-9]{1,80}")


@dataclass(frozen=True, slots=True)
class Back:
    """The result as it came, with the ids that the session has at home."""

    session: Transcript
    children: dict[str, Transcript] = field(default_factory=dict)
    todos: tuple[Todo, ...] = ()
    tool_outputs: dict[str, Path] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    """Sub-agents' sessions that the host could not export."""
    is_family_known: bool = True
    """Whether the host could say which sub-agents' sessions there are."""


async def fetch(
    connection: Connection, record: Dispatch, folder: Folder, outcome: Outcome, delivery: Delivery | None = None
) -> Back:
    """Bring back-file, sub-agents' sessions, todos and tool outputs; check and read them.

    What the host has delivered already is used, the rest is downloaded. All of it is untrusted: bounded, hashed,
    parsed, its ids checked. Raises IntegrityError; the host keeps its copy.
    """
    run = PurePosixPath(path_of(record))
    sent = delivery or Delivery(RunStatus(exists=True))
    try:
        present = sent.listing or await _listed(connection, run)
        if present[-1:] != ("listed",) or len(present) > LISTED_LIMIT:
            raise IntegrityError(
                f"{record.host}: the list of what came of it makes no sense",
                hint="collect it again: the host keeps it all",
            )
        sums = {found[2]: found[1] for line in present if (found := _SUM.fullmatch(line)) and found[2] not in _CODE}
        return await _fetched(_Way(connection, run, sent.files, sums), record, folder, outcome, present)
    except FileNotFoundError as error:
        raise IntegrityError(
            f"{record.host}: a file of the result is missing there", hint="was something removed there by hand?"
        ) from error


async def _listed(connection: Connection, run: PurePosixPath) -> tuple[str, ...]:
    """Ask for the list alone."""
    listing = await connection.run(script("list"), str(run), timeout_s=60.0)
    return tuple(listing.stdout.decode(errors="replace").splitlines())


@dataclass(frozen=True, slots=True)
class _Way:
    """How files of the result come here: from what was delivered, else by a download."""

    connection: Connection
    run: PurePosixPath
    files: Mapping[str, bytes]
    sums: Mapping[str, str]

    async def bring(self, name: str, target: Path, *, limit_bytes: int, timeout_s: float) -> None:
        """Bring one file, whole."""
        if not await self.deliver(name, target):
            await self.connection.download(self.run / name, target, limit_bytes=limit_bytes, timeout_s=timeout_s)

    async def deliver(self, name: str, target: Path) -> bool:
        """Put what was delivered in its place; False where nothing was, or something else than was written there."""
        data = self.files.get(name)
        if data is None or (name in self.sums and hashlib.sha256(data).hexdigest() != self.sums[name]):
            return False
        make_private(target.parent)
        await asyncio.to_thread(write_whole, target, data)
        return True


async def _fetched(way: _Way, record: Dispatch, folder: Folder, outcome: Outcome, present: tuple[str, ...]) -> Back:
    session = await _brought(way, names.BACK_PACKED, folder.back, outcome.back_sha256)
    children = await _fetch_children(way, folder, present)
    missing = tuple(child for child in _ids(present, "expected ", "") if child not in children)
    todos = await _fetch_todos(way, folder, present, session["info"]["id"])
    outputs = await _fetch_tool_outputs(way, folder, present)
    brought = {f"{names.BACK_CHILDREN}/{child}.json.gz": folder.back_child(child) for child in children}
    brought |= {f"{names.BACK_TOOL_OUTPUT}/{name}": path for name, path in outputs.items()}
    brought |= {names.BACK_TODOS: folder.scratch("todos.json")} if names.BACK_TODOS in present else {}
    await asyncio.to_thread(_check_sums, record.host, way.sums, brought)
    return _as_at_home(record, Back(session, children, todos, outputs, missing, "family" in present), folder)


def _check_sums(host: str, sums: Mapping[str, str], brought: dict[str, Path]) -> None:
    """Runners of earlier versions wrote none. With them, every file has one, and every one its file."""
    for name, path in brought.items() if sums else ():
        if hashlib.sha256(path.read_bytes()).hexdigest() != sums.get(name):
            path.unlink()
            raise IntegrityError(
                f"{host}: `{name}` differs from what was written there",
                hint="collect it again: the host keeps its copy",
            )
    if gone := sums.keys() - brought.keys():
        raise IntegrityError(f"{host}: `{min(gone)}` is missing there", hint="was something removed there by hand?")


async def _brought(way: _Way, name: str, target: Path, sha256: str | None) -> Transcript:
    """Bring and read a back-file. What an earlier try brought is used; where it turns out wrong, all comes anew."""
    if sha256 is not None:
        with suppress(IntegrityError):
            return await asyncio.to_thread(read_back, target, sha256)
    if await way.deliver(name, target):
        with suppress(IntegrityError):
            return await asyncio.to_thread(read_back, target, sha256)
    for is_resumed in (True, False):
        await way.connection.download(
            way.run / name,
            target,
            limit_bytes=PACKED_LIMIT_BYTES,
            timeout_s=DOWNLOAD_TIMEOUT_S,
            is_resumed=is_resumed,
        )
        try:
            return await asyncio.to_thread(read_back, target, sha256)
        except IntegrityError:
            if not is_resumed:
                raise
    raise AssertionError("unreachable")


async def fetch_log(connection: Connection, record: Dispatch, folder: Folder, delivery: Delivery | None) -> None:
    """Keep the events, so that `logs` works after the run directory is gone. Missing or huge ones are no loss."""
    if folder.events.exists():
        return
    if delivery is not None and names.EVENTS in delivery.files:
        await asyncio.to_thread(write_whole, folder.events, delivery.files[names.EVENTS])
        return
    source = PurePosixPath(path_of(record)) / names.EVENTS
    try:
        await connection.download(
            source, folder.events, limit_bytes=LOG_LIMIT_BYTES, timeout_s=DOWNLOAD_TIMEOUT_S, is_resumed=True
        )
    except (FileNotFoundError, IntegrityError):
        return


def read_todos(data: bytes, session_id: str) -> tuple[Todo, ...]:
    """Read the host's todos of this session; odd rows are left out."""
    try:
        rows = json.loads(data or b"[]")
    except (ValueError, RecursionError):
        return ()
    if not isinstance(rows, list):
        return ()
    return tuple(
        Todo(*(clean(str(row.get(key, "")), 2000) for key in ("content", "status", "priority")))
        for row in rows[:200]
        if isinstance(row, dict) and row.get("session_id", session_id) == session_id
    )


def _ids(present: tuple[str, ...], prefix: str, suffix: str) -> list[str]:
    lines = [line for line in present if line.startswith(prefix) and line.endswith(suffix)]
    ids = [line.removeprefix(prefix).removesuffix(suffix) for line in lines]
    return [one for one in dict.fromkeys(ids) if SESSION_ID.fullmatch(one)]


async def _fetch_children(way: _Way, folder: Folder, present: tuple[str, ...]) -> dict[str, Transcript]:
    children: dict[str, Transcript] = {}
    for child in _ids(present, f"{names.BACK_CHILDREN}/", ".json.gz"):
        one = await _brought(way, f"{names.BACK_CHILDREN}/{child}.json.gz", folder.back_child(child), None)
        transcripts.check_back(one, session_id=child, base_ids=())
        children[child] = one
    return children


async def _fetch_todos(way: _Way, folder: Folder, present: tuple[str, ...], session_id: str) -> tuple[Todo, ...]:
    if names.BACK_TODOS not in present:
        return ()
    target = folder.scratch("todos.json")
    await way.bring(names.BACK_TODOS, target, limit_bytes=SMALL_LIMIT_BYTES, timeout_s=60.0)
    return read_todos(target.read_bytes(), session_id)


async def _fetch_tool_outputs(way: _Way, folder: Folder, present: tuple[str, ...]) -> dict[str, Path]:
    prefix = f"{names.BACK_TOOL_OUTPUT}/"
    found = [line.removeprefix(prefix) for line in present if line.startswith(prefix)]
    outputs: dict[str, Path] = {}
    for name in [one for one in found if _TOOL_OUTPUT.fullmatch(one)][:64]:
        target = folder.scratch(name)
        await way.bring(f"{prefix}{name}", target, limit_bytes=SMALL_LIMIT_BYTES, timeout_s=600.0)
        outputs[name] = target
    return outputs


def _as_at_home(record: Dispatch, back: Back, folder: Folder) -> Back:
    """Give everything that left under fresh ids its own ids again, and what was made there ids of its own.

    The host keeps that session. Were its new messages here under the same ids, the session could never be sent there
    again: ids are unique over all sessions of an OpenCode (1.18). They are decided once.
    """
    id_map = record.travel.id_map if record.travel else {}
    if not id_map:
        return back
    home = read_sealed(folder.home_ids)
    if home is None:
        made_there = transcripts.fresh_ids([back.session, *back.children.values()], int(time.time() * 1000))
        home = made_there | transcripts.inverted(id_map)
        write_sealed(folder.home_ids, home)
    children = {home.get(child, child): transcripts.rename(one, home) for child, one in back.children.items()}
    return replace(back, session=transcripts.rename(back.session, home), children=children)
