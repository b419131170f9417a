"""Where dispatches are recorded on this machine: one directory each, 0700, its files written whole or not at all."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pydantic import ValidationError

from remote_dispatch.dispatch.names import new_id, new_name
from remote_dispatch.errors import ConfigurationError, DeadlinePassedError, UnknownNameError, UsageError
from remote_dispatch.model import DISPATCH_ID, DISPATCH_NAME, Dispatch, DispatchRequest, Moment, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from datetime import datetime

_RECORD = "record.json"
HELD_POLL_S = 0.2
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
    def copy(self) -> Path:
        """The copies that a merge decided on, so that a second attempt imports the same ones."""
        return self.path / "copy.json"

    def scratch(self, name: str) -> Path:
        """A file that serves one step only."""
        return self.path / f"scratch-{name}"

    def clear_scratch(self) -> None:
        """Remove the files that served one step."""
        for path in self.path.glob("scratch-*"):
            path.unlink()


class Store:
    """All dispatches of this user on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, dispatch_id: str) -> Folder:
        """The directory of one dispatch; it need not exist."""
        return Folder(self.root / dispatch_id)

    def reserve(self, now: datetime) -> Folder:
        """Make the directory of a dispatch to come; its name is the id."""
        folder = self.folder(new_id(now))
        for name in ("children", "back-children"):
            make_private(folder.path / name)
        for directory in (self.root, folder.path):
            directory.chmod(0o700)
        return folder

    def discard(self, folder: Folder) -> None:
        """Remove a directory whose dispatch was never recorded."""
        if not (folder.path / _RECORD).exists():
            shutil.rmtree(folder.path, ignore_errors=True)

    def create(self, folder: Folder, request: DispatchRequest, now: datetime) -> Dispatch:
        """Record a dispatch under the asked name, or a new one. Raises UsageError when the name is taken or odd."""
        if request.name is not None and not DISPATCH_NAME.fullmatch(request.name):
            raise UsageError(f"`{request.name}` is not a name: 2 to 31 of a-z, 0-9 and `-`, a letter first")
        with _alone_in(self.root):
            name = self._free_name(request.name)
            history = (Moment(state=State.NEW, at=now),)
            return self.save(Dispatch(id=folder.path.name, name=name, request=request, history=history))

    def save(self, record: Dispatch) -> Dispatch:
        """Write the record, durably, and return it."""
        write_whole(self.folder(record.id).path / _RECORD, record.model_dump_json(indent=1).encode())
        return record

    def load(self, name: str) -> Dispatch:
        """Read a dispatch by name or id. Raises UnknownNameError with the known names."""
        for record in self.all():
            if name in (record.name, record.id):
                return record
        known = ", ".join(record.name for record in self.all()[-10:])
        raise UnknownNameError(
            f"no dispatch is called `{name}`" + (f"; the latest are {known}" if known else ""),
            hint="see all with `remote-dispatch list`",
        )

    @asynccontextmanager
    async def held(self, record: Dispatch) -> AsyncIterator[None]:
        """Be the only process that merges into this local session; wait for another one to end first."""
        locks = self.root.parent / "locks"
        make_private(locks)
        name = locks / (record.session_id or record.id)
        with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as lock:
            try:
                async with asyncio.timeout(HELD_LIMIT_S):
                    while not _is_taken(lock):  # noqa: ASYNC110 - another process sets no event
                        await asyncio.sleep(HELD_POLL_S)
            except TimeoutError as error:
                raise DeadlinePassedError(
                    "another command still merges into this session", hint="try again later"
                ) from error
            yield

    def all(self) -> list[Dispatch]:
        """Read every dispatch, oldest first."""
        if not self.root.is_dir():
            return []
        folders = sorted(path for path in self.root.iterdir() if DISPATCH_ID.fullmatch(path.name))
        return [self._read(path / _RECORD) for path in folders if (path / _RECORD).exists()]

    def _free_name(self, asked: str | None) -> str:
        taken = {record.name for record in self.all()}
        if asked in taken:
            raise UsageError(f"the name `{asked}` is taken", hint=f"see it with `remote-dispatch show {asked}`")
        return asked or new_name(taken)

    def _read(self, path: Path) -> Dispatch:
        try:
            return Dispatch.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ConfigurationError(
                f"the record of dispatch `{path.parent.name}` cannot be read",
                hint="was it written by a newer remote-dispatch? It was not changed",
            ) from error


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep other processes out for the milliseconds of one step."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_taken(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def default_store(environment: Mapping[str, str]) -> Store:
    """The store of this user: REMOTE_DISPATCH_STATE, or the platform's state directory."""
    if asked := environment.get("REMOTE_DISPATCH_STATE"):
        return Store(Path(asked) / "dispatches")
    import platformdirs  # noqa: PLC0415 - 40 ms that commands without a store do not pay

    return Store(platformdirs.user_state_path("remote-dispatch") / "dispatches")


def make_private(path: Path) -> None:
    """Make a directory and what is missing above it, 0700 each: `parents=True` would give those the umask's mode."""
    for place in (*reversed(path.parents), path):
        place.mkdir(mode=0o700, exist_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place, flush it to the disk, rename it: nobody sees half of it. Mode 0600."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{re.sub('[^a-z]', '', path.name)}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
