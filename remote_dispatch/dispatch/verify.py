"""Say, message by message, where each copy of a dispatched conversation is. Reads both ends, changes neither."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch.files import read_sealed
from remote_dispatch.dispatch.packing import read_back, read_export
from remote_dispatch.dispatch.settle import is_collected
from remote_dispatch.dispatch.stages import look
from remote_dispatch.dispatch.tasks import together
from remote_dispatch.errors import IntegrityError, RemoteDispatchError, UnknownNameError
from remote_dispatch.model import Dispatch, State
from remote_dispatch.opencode.far import Far, export_far

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.store import Folder, Store
    from remote_dispatch.opencode.program import Program
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.transcript import Message, Transcript

DIGEST_TIMEOUT_S = 600.0

_DIGEST = """cd -- "$1" && [ -f back.json.gz ] || exit 1
unpacked() { gzip -dc back.json.gz 2>/dev/null; }
{ unpacked | sha256sum 2>/dev/null || unpacked | shasum -a 256 2>/dev/null ||
  unpacked | openssl dgst -sha256 -r; } | sed -n 's/^\\([0-9a-f]\\{64\\}\\).*/digest \\1/p'"""
_STEM = 16
"""Prefix and time of an id: fresh ids keep them."""


class Copy(StrEnum):
    """How one copy of a message stands."""

    EQUAL = "equal"
    DIFFERENT = "different"
    MISSING = "missing"
    UNKNOWN = "unknown"
    """It could not be looked at."""


class RunFile(StrEnum):
    """How the result in the run directory stands, by its own hash."""

    NONE = "none"
    INTACT = "intact"
    DAMAGED = "damaged"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Traced:
    """One message under the id that it has here, and its copies. The first of them in time counts as the source."""

    id: str
    role: str
    here: Copy
    """In the session of this machine: the local one, or the copy that holds the result."""
    kept: Copy
    """In the files that are kept here: the session as it left, and the result as it came."""
    host: Copy
    """In the host's OpenCode."""

    @property
    def is_different(self) -> bool:
        """Whether one of the copies differs."""
        return Copy.DIFFERENT in (self.here, self.kept, self.host)


@dataclass(frozen=True, slots=True)
class TracedSession:
    """The dispatched session, or one of its sub-agents' sessions, under the id that it has here."""

    id: str
    messages: tuple[Traced, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found. `problems` are sentences; nothing in them means that nothing is amiss as far as could be seen."""

    sessions: tuple[TracedSession, ...]
    run_file: RunFile
    problems: tuple[str, ...] = ()
    trouble: RemoteDispatchError | None = None
    """Why the host could not be looked at."""

    @property
    def messages(self) -> list[Traced]:
        """All messages, the dispatched session's first."""
        return [message for session in self.sessions for message in session.messages]


Family = dict[str, "Transcript"]
"""Sessions by the id that they have here, the dispatched one first."""


@dataclass(slots=True)
class _Kept:
    """What is kept here: as it left, and as it came. `damaged` has sentences."""

    ids: dict[str, str] = field(default_factory=dict)
    """From the ids on the host to those here, as it was decided when the result came."""
    copies: list[Transcript] = field(default_factory=list)
    """The copies that a merge made, under their fresh ids."""
    left: Family = field(default_factory=dict)
    back: Family = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)
    is_left_proven: bool = True

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """Go on without a file that cannot be read."""
        try:
            yield
        except (IntegrityError, ValueError):
            self.damaged.append(f"{what}, kept here, is damaged")


@dataclass(frozen=True, slots=True)
class _There:
    """What the host has; `family` is None where it could not be asked, `unreadable` has ids as they are here."""

    family: Family | None
    unreadable: frozenset[str] = frozenset()
    run_file: RunFile = RunFile.NONE
    trouble: RemoteDispatchError | None = None


async def verify(record: Dispatch, link_to: Callable[[], Link], store: Store, program: Program) -> Verified:
    """Compare every copy there is.

    An error of the host, or of `link_to`, is in the answer, with what could be said without it. Raises the errors of
    OpenCode here.
    """
    folder = store.folder(record.id)
    kept = await asyncio.to_thread(_read_kept, record, folder)
    here, there = await together(_read_here(record, folder, kept, program), _read_there(record, kept, link_to))
    return await asyncio.to_thread(_compared, record, kept, here, there)


# --- the copies


def _read_kept(record: Dispatch, folder: Folder) -> _Kept:
    kept = _Kept()
    with kept.noting("the list of ids"):
        kept.ids = _ids_at_home(record, folder)
    with kept.noting("the copy that was made"):
        kept.copies = _copies_made(folder)
    left = [folder.session, *(folder.child(one) for one in (record.travel.children if record.travel else ()))]
    for path in (path for path in left if path.exists()):
        with kept.noting("a session as it left"):
            _take_left(kept, record, path)
    for path in folder.back_files():
        with kept.noting("a result as it came"):
            back = read_back(path, None, each=transcripts.alike(*kept.left.values()))
            session = transcripts.rename(back, kept.ids)
            kept.back[session["info"]["id"]] = session
    return kept


def _take_left(kept: _Kept, record: Dispatch, path: Path) -> None:
    session = read_export(path)
    is_root = session["info"]["id"] == record.request.session_id
    if is_root and record.origin and transcripts.digest(session) != record.origin.digest:
        kept.damaged.append("the session as it left, kept here, was changed")
        kept.is_left_proven = False
    kept.left[session["info"]["id"]] = transcripts.without_reverted(session)


def _ids_at_home(record: Dispatch, folder: Folder) -> dict[str, str]:
    travelling = transcripts.inverted(record.travel.id_map) if record.travel else {}
    if not (travelling and folder.home_ids.exists()):
        return travelling
    decided: dict[str, str] = _sealed(folder.home_ids)
    return decided


def _copies_made(folder: Folder) -> list[Transcript]:
    if not folder.copy.exists():
        return []
    return [transcripts.checked(one) for one in _sealed(folder.copy)]


def _sealed(path: Path) -> Any:
    if (value := read_sealed(path)) is None:
        raise IntegrityError(f"`{path.name}` is damaged")
    return value


async def _read_here(record: Dispatch, folder: Folder, kept: _Kept, program: Program) -> Family:
    root = record.copy_session_id or record.session_id
    if root is None:
        return {}
    found = await program.surroundings(root)
    # Not among the scratch files of the folder, which another command may clear. With the record this goes, too.
    with tempfile.TemporaryDirectory(prefix="verify-", dir=folder.path) as place:
        target, like = Path(place) / "export.json", (*kept.left.values(), *kept.back.values())
        exports = [await _exported(program, one, target, like) for one in (root, *found.children)]
    family = [one for one in exports if one]
    if record.copy_session_id is None:
        return _by_id(family)
    ids = _ids_of_copy(kept)
    return _by_id(transcripts.rename(one, ids) for one in family)


async def _exported(program: Program, session_id: str, target: Path, like: Iterable[Transcript]) -> Transcript | None:
    try:
        return await program.export(session_id, target, each=transcripts.alike(*like))
    except UnknownNameError:
        return None


def _by_id(family: Iterable[Transcript]) -> Family:
    return {one["info"]["id"]: one for one in family}


def _ids_of_copy(kept: _Kept) -> dict[str, str]:
    """From the ids of the copy to those of what it is a copy of: fresh ids keep their stem, and the order in it."""
    sources = _stems([*kept.left.values(), *kept.back.values()])
    pairs = ((ids, sources.get(stem, [])) for stem, ids in _stems(kept.copies).items())
    return {new: old for ids, olds in pairs if len(ids) == len(olds) for new, old in zip(ids, olds, strict=True)}


def _stems(family: Iterable[Transcript]) -> dict[str, list[str]]:
    stems: defaultdict[str, set[str]] = defaultdict(set)
    for one in family:
        for owned in (one["info"]["id"], *transcripts.message_ids(one), *transcripts.part_ids(one)):
            stems[owned[:_STEM]].add(owned)
    return {stem: sorted(ids) for stem, ids in stems.items()}


async def _read_there(record: Dispatch, kept: _Kept, link_to: Callable[[], Link]) -> _There:
    """A dispatch that never left has nothing there, whatever else the host may hold."""
    if record.travel is None or record.reached(State.STAGING) is None:
        return _There({})
    run_file = RunFile.UNKNOWN
    try:
        async with link_to() as link:
            connection = await link.connection()
            run_file = await _check_run_file(connection, record)
            far = await export_far(connection, binary_of(record, link), record.travel.session_id, link.host.env or {})
    except RemoteDispatchError as error:
        return _There(None, run_file=run_file, trouble=error)
    return await asyncio.to_thread(_at_home, kept.ids, far, run_file)


def binary_of(record: Dispatch, link: Link) -> str:
    """The OpenCode that works on a dispatch: the one that was chosen when it left."""
    return (record.travel.opencode if record.travel else None) or link.host.opencode or "opencode"


def _at_home(ids: Mapping[str, str], far: Far, run_file: RunFile) -> _There:
    family = _by_id(transcripts.rename(one, ids) for one in far.exports.values())
    return _There(family, frozenset(ids.get(one, one) for one in far.unreadable), run_file)


async def _check_run_file(connection: Connection, record: Dispatch) -> RunFile:
    """Hash the result in the run directory once more, there."""
    status = await look(connection, record)
    if status.outcome is None or status.outcome.back_sha256 is None:
        return RunFile.NONE
    completed = await connection.run(_DIGEST, str(record.run_directory), timeout_s=DIGEST_TIMEOUT_S)
    found = re.search(rb"^digest ([0-9a-f]{64})$", completed.stdout, re.MULTILINE)
    return RunFile.INTACT if found and found[1].decode() == status.outcome.back_sha256 else RunFile.DAMAGED


# --- the comparison


def _compared(record: Dispatch, kept: _Kept, here: Family, there: _There) -> Verified:
    families = (kept.left, kept.back, here, there.family or {})
    ids = dict.fromkeys(one for family in families for one in family)
    sessions = tuple(_traced(one, kept, here, there) for one in ids)
    problems = (*kept.damaged, *_problems(record, sessions, kept, there))
    return Verified(sessions, there.run_file, tuple(dict.fromkeys(problems)), there.trouble)


def _traced(session_id: str, kept: _Kept, here: Family, there: _There) -> TracedSession:
    copies = [family.get(session_id) for family in (kept.left, kept.back, here, there.family or {})]
    source = _source(copies if kept.is_left_proven else [*copies[1:], copies[0]])
    left, back, local, far = (_standings(source, copy) for copy in copies)
    is_unknown = there.family is None or session_id in there.unreadable
    return TracedSession(
        session_id,
        tuple(
            Traced(
                one,
                role,
                here=local.get(one, Copy.MISSING),
                kept=_worse(left.get(one, Copy.MISSING), back.get(one, Copy.MISSING)),
                host=Copy.UNKNOWN if is_unknown else far.get(one, Copy.MISSING),
            )
            for one, role in _roles(source).items()
        ),
    )


def _source(copies: list[Transcript | None]) -> Transcript:
    """Every message once, from the first of the copies that has it."""
    present = [copy for copy in copies if copy is not None]
    messages: dict[str, Message] = {}
    for copy in present:
        for message in copy["messages"]:
            messages.setdefault(message["info"]["id"], message)
    return transcripts.additions(present[0], messages.values())


def _roles(source: Transcript) -> dict[str, str]:
    return {message["info"]["id"]: message["info"]["role"] for message in source["messages"]}


def _standings(source: Transcript, copy: Transcript | None) -> Mapping[str, Copy]:
    """How each message of this copy stands; those it lacks are left out."""
    if copy is None:
        return {}
    words = {transcripts.Standing.EQUAL: Copy.EQUAL, transcripts.Standing.DIFFERENT: Copy.DIFFERENT}
    compared = transcripts.compare(source, copy)
    return {one.id: words[one.standing] for one in compared if one.standing in words}


def _worse(one: Copy, other: Copy) -> Copy:
    """Two files of one kind: a difference shows, and one copy is enough."""
    return next(word for word in (Copy.DIFFERENT, Copy.EQUAL, Copy.MISSING) if word in (one, other))


def _problems(record: Dispatch, sessions: tuple[TracedSession, ...], kept: _Kept, there: _There) -> list[str]:
    problems = []
    different = [message for session in sessions for message in session.messages if message.is_different]
    if different:
        problems.append(f"{_counted(len(different))} not the same in every copy")
    missing = _missing_here(sessions, kept) if is_collected(record) else 0
    if missing:
        problems.append(f"{_counted(missing)} not here, although the result came home")
    if there.run_file is RunFile.DAMAGED:
        problems.append(f"the result in the run directory on {record.host} is damaged")
    return problems


def _missing_here(sessions: tuple[TracedSession, ...], kept: _Kept) -> int:
    """What came back and is not in a session here. What was taken back on the host was left out on purpose."""
    came = {
        session_id: frozenset(transcripts.message_ids(transcripts.without_reverted(one)))
        for session_id, one in kept.back.items()
    }
    return sum(
        message.here is Copy.MISSING and message.id in came.get(session.id, frozenset())
        for session in sessions
        for message in session.messages
    )


def _counted(count: int) -> str:
    return "1 message is" if count == 1 else f"{count} messages are"
