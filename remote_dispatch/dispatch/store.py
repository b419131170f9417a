"""Where dispatches are recorded on this machine: one directory each, 0700, its files written whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pydantic import ValidationError

from remote_dispatch.dispatch.files import alone_in, flush, make_private, read_regular_file, write_private, write_whole
from remote_dispatch.dispatch.names import new_id, new_name
from remote_dispatch.errors import ConfigurationError, DeadlinePassedError, UnknownNameError, UsageError
from remote_dispatch.model import DISPATCH_ID, DISPATCH_NAME, Dispatch
from remote_dispatch.runner.directory import MANIFEST
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
    from datetime import datetime

_RECORD = "record.json"
_PLANNING = "planning"
HELD_POLL_S = 0.2
NEW_S = 60.0
HELD_LIMIT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Folder:
    """The local directory of one dispatch, and the files in it."""

    path: Path

    @property
    def session(self) -> Path:
        """The local session as it was exported before it left."""
        return self.path / "session.json"

    @property
    def back(self) -> Path:
        """The back-file as it came, packed."""
        return self.path / "back.json.gz"

    @property
    def events(self) -> Path:
        """The host's events, once collected."""
        return self.path / "events.jsonl"

    @property
    def outgoing(self) -> Path:
        """The files of the run directory as they leave, until the host is seen to work on them."""
        return self.path / "outgoing"

    def outgoing_files(self) -> dict[str, Path]:
        """Every file of the run directory by its name there, the manifest last; nothing once they are gone."""
        files = sorted(path for path in self.outgoing.rglob("*") if path.is_file())
        names = {path.relative_to(self.outgoing).as_posix(): path for path in files}
        return {name: names[name] for name in sorted(names, key=lambda name: (name == MANIFEST, name))}

    def keep_outgoing(self, files: Mapping[str, bytes | Path]) -> None:
        """Keep what is to leave; files that are here already are moved. Without a record, stored later, it is nothing.

        The conversation is flushed; what a power cut makes of the small files, the host's check of the manifest finds.
        """
        for name, content in files.items():
            target = self.outgoing / name
            make_private(target.parent)
            if isinstance(content, Path):
                content.replace(target)
                flush(target)
            else:
                write_private(target, content, is_flushed=name.endswith(".gz"))
        flush(self.outgoing)

    def drop_outgoing(self) -> None:
        """Remove what has arrived."""
        shutil.rmtree(self.outgoing, ignore_errors=True)

    def child(self, session_id: str) -> Path:
        """A sub-agent's session as it was before it left."""
        return self.path / "children" / f"{session_id}.json"

    def back_child(self, session_id: str) -> Path:
        """A sub-agent's session as it came back, packed."""
        return self.path / "back-children" / f"{session_id}.json.gz"

    def back_files(self) -> list[Path]:
        """Every back-file that is here."""
        return [path for path in (self.back, *sorted((self.path / "back-children").glob("*.json.gz"))) if path.exists()]

    @property
    def home_ids(self) -> Path:
        """The ids at home of what travelled under others, or was made on the host beside them."""
        return self.path / "home-ids.json"

    @property
    def copy(self) -> Path:
        """The copies that a merge decided on, so that a second attempt imports the same ones."""
        return self.path / "copy.json"

    @property
    def code(self) -> Path:
        """What belongs to the code that travels: its snapshot, and what came back."""
        return self.path / "code"

    def scratch(self, name: str) -> Path:
        """A file that serves one step only."""
        return self.path / f"scratch-{name}"

    def clear_scratch(self) -> None:
        """Remove the files that served one step; another command may be removing its own."""
        for path in self.path.glob("scratch-*"):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Survey:
    """Every record that was found: those that can be read, oldest first, and the ids of the others.

    Those are broken, or of a newer remote-dispatch.
    """

    records: list[Dispatch]
    unreadable: list[str]


class Store:
    """All dispatches of this user on this machine."""

    def __init__(self, root: Path, *, also_taken: Callable[[], Collection[str]] = tuple) -> None:
        """`also_taken` returns names that something else has: no dispatch gets one of those."""
        self.root = root
        self._also_taken = also_taken

    def folder(self, dispatch_id: str) -> Folder:
        """The directory of one dispatch; it need not exist."""
        return Folder(self.root / dispatch_id)

    @contextmanager
    def reserved(self, now: datetime) -> Iterator[Folder]:
        """Make the directory of a dispatch to come; its name is the id. Without a record at the end it is removed."""
        folder = self.folder(new_id(now))
        for name in ("children", "back-children"):
            make_private(folder.path / name)
        for directory in (self.root, folder.path):
            directory.chmod(0o700)
        # A sweep sees it only once it is held.
        beside = folder.path / f".{_PLANNING}"
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
            _is_taken(lock)
            beside.rename(folder.path / _PLANNING)
            try:
                yield folder
            finally:
                if (folder.path / _RECORD).exists():
                    (folder.path / _PLANNING).unlink(missing_ok=True)
                else:
                    shutil.rmtree(folder.path, ignore_errors=True)

    def sweep(self) -> list[str]:
        """Remove what ended senders left without a record, and locks that nobody holds; returns what was removed."""
        gone = [path.name for path in self._folders() if not (path / _RECORD).exists() and _clear(path)]
        return gone + [path.name for path in self._locks.glob("*") if _unlink_free(path)]

    def remove(self, record: Dispatch) -> None:
        """Remove everything that is kept of a dispatch; its record goes first."""
        folder = self.folder(record.id)
        # Another command may be removing it, or changing its record.
        with suppress(FileNotFoundError), alone_in(folder.path):
            (folder.path / _RECORD).unlink(missing_ok=True)
            shutil.rmtree(folder.path)

    def check_name(self, name: str | None) -> None:
        """Raise UsageError when a dispatch cannot be called so. None is fine: a name is made up then."""
        if name is None:
            return
        if not DISPATCH_NAME.fullmatch(name):
            raise UsageError(
                f"`{clean(name, 60)}` is not a name: 2 to 31 of a-z, 0-9 and `-`, a letter first",
                hint="leave `--name` out, and a name is made up",
            )
        self._free_name(name)

    def create(self, asked: str | None, complete: Callable[[str], Dispatch]) -> Dispatch:
        """Record a dispatch under the asked name, or a new one. Raises UsageError when the name is taken or odd.

        `complete` gets the name, keeps whatever must not be missing once the record is there, and returns the record.
        """
        self.check_name(asked)
        with alone_in(self.root):
            return self.save(complete(self._free_name(asked)))

    def save(self, record: Dispatch) -> Dispatch:
        """Write the record, durably, and return it."""
        write_whole(self.folder(record.id).path / _RECORD, record.model_dump_json(indent=1).encode())
        return record

    def update(self, dispatch_id: str, change: Callable[[Dispatch], Dispatch]) -> Dispatch:
        """Change the record as it is now, with no other process in between; `change` may be called with a newer one.

        Every change after the first save goes this way: several commands may look after one dispatch.
        """
        folder = self.folder(dispatch_id)
        try:
            with alone_in(folder.path):
                return self.save(change(self._read(folder.path / _RECORD)))
        except FileNotFoundError as error:
            raise UnknownNameError(
                "the dispatch was removed by another command", hint="see what is left with `remote-dispatch list`"
            ) from error

    def load(self, name: str) -> Dispatch:
        """Read a dispatch by name or id. Raises UnknownNameError with the known names."""
        if DISPATCH_ID.fullmatch(name):
            with suppress(FileNotFoundError):
                return self._read(self.folder(name).path / _RECORD)
        is_name = DISPATCH_NAME.fullmatch(name) is not None
        for record in self.mentioning(name) if is_name else ():
            if name == record.name:
                return record
        known = ", ".join(record.name for record in self.all()[-10:])
        called = f"called `{name}`" if is_name or DISPATCH_ID.fullmatch(name) else "called so"
        raise UnknownNameError(
            f"no dispatch is {called}" + (f"; the latest are {known}" if known else ""),
            hint="see all with `remote-dispatch list`",
        )

    @asynccontextmanager
    async def held(self, key: str) -> AsyncIterator[None]:
        """Be the only process that sends or merges this local session (its id); wait for another one to end first."""
        import asyncio  # noqa: PLC0415 - 30 ms that commands which only read do not pay

        make_private(self._locks)
        try:
            async with asyncio.timeout(HELD_LIMIT_S):
                while (lock := _lock(self._locks / key)) is None:  # noqa: ASYNC110 - another process sets no event
                    await asyncio.sleep(HELD_POLL_S)
        except TimeoutError as error:
            raise DeadlinePassedError(
                "another command still sends or merges this session", hint="try again later"
            ) from error
        with lock:
            yield

    @contextmanager
    def held_if_free(self, key: str) -> Iterator[bool]:
        """The same without waiting: whether this process is alone with it now."""
        make_private(self._locks)
        lock = _lock(self._locks / key)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.close()

    def all(self) -> list[Dispatch]:
        """Read every dispatch that can be read, oldest first."""
        return self.survey().records

    def unreadable(self) -> list[str]:
        """Return the ids of the dispatches whose records cannot be read: broken, or of a newer remote-dispatch."""
        return self.survey().unreadable

    def survey(self) -> Survey:
        """Read every record, each file once."""
        survey = Survey([], [])
        for path in self._folders():
            try:
                survey.records.append(self._read(path / _RECORD))
            except FileNotFoundError:
                continue
            except ConfigurationError:
                survey.unreadable.append(path.name)
        return survey

    def mentioning(self, word: str) -> list[Dispatch]:
        """Read the dispatches in whose records this name or id stands, wherever it is; oldest first.

        Much cheaper than `all`: a record without the word is not parsed.
        """
        found = (_parsed(data) for data in self._contents() if word.encode() in data)
        return [record for record in found if record is not None]

    def names(self) -> set[str]:
        """Return the name of every dispatch whose record is JSON, those of a newer remote-dispatch too."""
        return {name for data in self._contents() if (name := _name_in(data)) is not None}

    @property
    def _locks(self) -> Path:
        return self.root.parent / "locks"

    def _folders(self) -> list[Path]:
        if not self.root.is_dir():
            return []
        return sorted(path for path in self.root.iterdir() if DISPATCH_ID.fullmatch(path.name))

    def _contents(self) -> Iterator[bytes]:
        """The bytes of every record that there is; a file that is no record is left out."""
        for path in self._folders():
            with suppress(OSError):
                yield read_regular_file(path / _RECORD)

    def _free_name(self, asked: str | None) -> str:
        taken, elsewhere = self.names(), set(self._also_taken())
        if asked in taken:
            raise UsageError(f"the name `{asked}` is taken", hint=f"see it with `remote-dispatch show {asked}`")
        if asked in elsewhere:
            raise UsageError(
                f"a named session is called `{asked}`", hint=f"see it with `remote-dispatch session show {asked}`"
            )
        return asked or new_name(taken | elsewhere)

    def _read(self, path: Path) -> Dispatch:
        try:
            return Dispatch.model_validate_json(read_regular_file(path))
        except FileNotFoundError:
            raise
        except (OSError, ValidationError) as error:
            raise ConfigurationError(
                f"the record of dispatch `{path.parent.name}` cannot be read",
                hint="was it written by a newer remote-dispatch? It was not changed",
            ) from error


def _parsed(data: bytes) -> Dispatch | None:
    try:
        return Dispatch.model_validate_json(data)
    except ValidationError:
        return None


def _name_in(data: bytes) -> str | None:
    try:
        name = json.loads(data)["name"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _is_taken(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(path: Path) -> BinaryIO | None:
    """Take a lock file; None when it is held. It counts only under its name: a sweep may have removed it meanwhile."""
    try:
        lock = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600), "wb")
    except OSError as error:
        raise ConfigurationError(
            f"the lock `{path.name}` in the state directory is no file that can be locked",
            hint="remove it while no command runs; `docs/dispatch.md` says where it is",
        ) from error
    try:
        if _is_taken(lock) and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
            return lock
    except FileNotFoundError:
        pass
    lock.close()
    return None


def _unlink_free(path: Path) -> bool:
    """Remove a lock file that nobody holds, while holding it: whoever waits for it sees that its name is gone."""
    try:
        lock = _lock(path)
    except ConfigurationError:
        return False
    if lock is None:
        return False
    with lock:
        path.unlink()
    return True


def _clear(folder: Path) -> bool:
    """Remove a directory without a record, unless its sender lives, or has only just made it."""
    planning = folder / _PLANNING
    try:
        is_new = time.time() - folder.stat().st_mtime < NEW_S
        is_free = _unlink_free(planning) if planning.exists() else not is_new
    except FileNotFoundError:
        return False
    # Its sender may have ended well meanwhile: the record is there before the lock goes.
    if not is_free or (folder / _RECORD).exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def default_store(environment: Mapping[str, str]) -> Store:
    """The store of this user: REMOTE_DISPATCH_STATE, or the platform's state directory."""
    if asked := environment.get("REMOTE_DISPATCH_STATE"):
        return Store(Path(asked) / "dispatches")
    import platformdirs  # noqa: PLC0415 - 40 ms that commands without a store do not pay

    return Store(platformdirs.user_state_path("remote-dispatch") / "dispatches")
