"""The code that leaves with a session: which, how much, and packed for the host."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.files import make_private
from remote_dispatch.errors import AnswerNeededError, CommandError, HostNotReadyError, UsageError
from remote_dispatch.model import Carried, Code
from remote_dispatch.runner.directory import work_tree
from remote_dispatch.runner.job import Code as CodeJob
from remote_dispatch.runner.job import Payload
from remote_dispatch.text import clean
from remote_dispatch.workspace.git import find_git
from remote_dispatch.workspace.parcel import make_archive, make_bundle
from remote_dispatch.workspace.repository import adopt_directory, find_repository
from remote_dispatch.workspace.snapshot import take_snapshot
from remote_dispatch.workspace.survey import history_bytes, survey

if TYPE_CHECKING:
    from remote_dispatch.dispatch.store import Folder
    from remote_dispatch.model import Dispatch, DispatchRequest, Host, RemoteFacts
    from remote_dispatch.opencode.probe import Probed
    from remote_dispatch.workspace.git import Git
    from remote_dispatch.workspace.parcel import Parcel
    from remote_dispatch.workspace.repository import Repository
    from remote_dispatch.workspace.snapshot import Snapshot
    from remote_dispatch.workspace.survey import LeftOut, Survey

LIMIT_BYTES = 200_000_000
"""More than this does not travel unasked."""
NAMED_LEFT_OUT = 100
_OLDEST_GIT_THERE = {"sha1": (2, 20), "sha256": (2, 29)}
"""An older one gets an archive: it does not know all that the runner asks of it."""


Agree = Callable[[str], bool]
"""Asks the user a question; True is a yes."""


def nobody_agrees(question: str) -> bool:
    """Say that a yes is needed where nobody can be asked. Raises AnswerNeededError."""
    raise AnswerNeededError(question, hint="say yes with `--yes`, or leave the code behind with `--code none`")


@dataclass(frozen=True, slots=True)
class Baggage:
    """The working tree that is to travel, as it was looked at."""

    git: Git
    repository: Repository
    survey: Survey
    is_bundle: bool
    history_bytes: int
    """What of the history the host does not have, packed."""

    @property
    def is_repository(self) -> bool:
        """Whether the code is in a repository of the user's."""
        return not self.repository.is_adopted

    @property
    def total_bytes(self) -> int:
        """About how much is to be sent."""
        return self.history_bytes + self.survey.total_bytes

    @property
    def left_out(self) -> tuple[str, ...]:
        """What does not travel and why, a line each."""
        return tuple(map(_described, self.survey.left_out))


def code_choice(request: DispatchRequest, host: Host) -> Code | None:
    """Return what was asked for; None leaves it to whether there is a repository here.

    Raises UsageError for a directory there together with code that travels, and for code there without a directory.
    """
    if request.code is Code.CARRY and request.directory:
        raise UsageError(
            "`--code carry` makes a directory of its own on the host",
            hint="leave out `--directory`, or use the code there with `--code existing`",
        )
    choice = _chosen(request, host)
    if request.include and choice not in (Code.CARRY, None):
        raise UsageError("`--include` is for code that travels", hint="use it with `--code carry`")
    if choice is Code.EXISTING and not (request.directory or host.directory):
        raise UsageError(
            f"nothing says in which directory the code is on {host.name}",
            hint=f"name it with `--directory`, or with `remote-dispatch hosts set {host.name} directory DIRECTORY`",
        )
    return choice


def _chosen(request: DispatchRequest, host: Host) -> Code | None:
    if request.code is not None:
        return request.code
    if request.directory:
        return Code.EXISTING if host.code == "existing" else Code.NONE
    if host.code is not None:
        return Code(host.code)
    return Code.NONE if host.directory else None


async def find_code(request: DispatchRequest, host: Host, folder: Folder) -> Repository | None:
    """Return the repository whose working tree travels; None when none does.

    Without a word from the user a repository that holds the whole home, or the whole machine, stays where it is.
    """
    choice = code_choice(request, host)
    if choice in (Code.EXISTING, Code.NONE):
        return None
    try:
        git = await find_git()
    except HostNotReadyError:
        if choice is None:
            return None
        raise
    directory = request.local_directory
    is_there = await asyncio.to_thread(directory.is_dir)
    if choice is Code.CARRY and not is_there:
        raise UsageError(
            f"`{clean(str(directory), 200)}`, where the session was held, is not there any more",
            hint="`--code none` sends the conversation alone",
        )
    repository = await find_repository(git, directory) if is_there else None
    if repository is not None:
        is_everything = repository.top in (Path.home(), Path("/"))
        return None if choice is None and is_everything else repository
    if request.include and choice is None:
        raise UsageError("`--include` is for code that travels: this directory is in no git repository")
    if choice is not Code.CARRY:
        return None
    make_private(folder.code)
    return await adopt_directory(git, directory, folder.code)


async def look_through(request: DispatchRequest, repository: Repository, private: Path) -> Survey:
    """List what travels beside the history, and what does not; nothing below `private` does."""
    return await survey(repository, request.include, private=private)


async def weigh(repository: Repository, found: Survey, probed: Probed) -> Baggage:
    """Decide how it travels, and how much that is."""
    is_bundle = can_unpack_bundle(probed.facts.git_version, repository) and not repository.is_adopted
    history = await history_bytes(repository, probed.code_known) if is_bundle else 0
    return Baggage(repository.git, repository, found, is_bundle, history)


def can_unpack_bundle(version: str | None, repository: Repository) -> bool:
    """Whether the host's git, as it names its version, can work with this repository; None where there is none."""
    found = re.match(r"(\d+)\.(\d+)", version or "")
    oldest = _OLDEST_GIT_THERE[repository.object_format]
    return found is not None and (int(found[1]), int(found[2])) >= oldest


def check_size(baggage: Baggage, probed: Probed, host: str, agree: Agree) -> None:
    """Have the user agree to much code. Raises UsageError after a no, HostNotReadyError without room for it there."""
    total = baggage.total_bytes
    free = probed.facts.free_bytes
    if free is not None and free < total * 3:
        raise HostNotReadyError(
            host, "too little space is left on the disk there for the code", hint="`df -h ~` on the host shows it"
        )
    if total > LIMIT_BYTES and not agree(f"send about {total // 1_000_000} MB of code to {host}?"):
        raise UsageError(
            "nothing was sent", hint="`--code none` leaves the code behind, `--dry-run` lists what travels"
        )


def place_there(facts: RemoteFacts, dispatch_id: str, repository: Repository) -> PurePosixPath:
    """Return the top of the working tree on the host; the session works at the same place in it as here."""
    return work_tree(facts.state_directory, dispatch_id, _name(repository))


def branch_there(record: Dispatch) -> str:
    """Return the branch that is checked out on the host."""
    return f"dispatch/{record.name}"


def code_job(baggage: Baggage, packed: Packed, record: Dispatch) -> CodeJob:
    """Return what the runner is told of the code."""
    repository, snapshot = baggage.repository, packed.snapshot
    return CodeJob(
        kind=packed.parcel.kind,
        payload=Payload(packed.parcel.path, packed.parcel.sha256),
        project=repository.project,
        snapshot=snapshot.commit,
        base=snapshot.base,
        branch=branch_there(record),
        name=_name(repository),
        prefix=repository.prefix,
        shallow=snapshot.shallow,
        author=f"OpenCode on {record.host}",
    )


def _name(repository: Repository) -> str:
    """What the directory is called there: the name here, without what shells and people trip over."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", repository.name).lstrip(".-")[:100] or "code"


@dataclass(frozen=True, slots=True)
class Packed:
    """The code as it leaves."""

    snapshot: Snapshot
    parcel: Parcel


async def pack(baggage: Baggage, probed: Probed, folder: Folder) -> Packed:
    """Take the snapshot and pack it. The user's repository is only read."""
    try:
        return await _pack(baggage, probed, folder)
    except CommandError as error:
        error.hint = error.hint or "nothing was sent; `--code none` leaves the code behind"
        raise


async def _pack(baggage: Baggage, probed: Probed, folder: Folder) -> Packed:
    make_private(folder.code)
    snapshot = await take_snapshot(baggage.repository, baggage.survey, folder.code)
    if baggage.is_bundle:
        parcel = await make_bundle(baggage.git, snapshot, folder.code / "code.bundle", probed.code_known)
    else:
        parcel = await make_archive(baggage.git, snapshot, folder.code / "code.tar.gz")
    return Packed(snapshot, parcel)


def carried(baggage: Baggage, packed: Packed, directory: PurePosixPath) -> Carried:
    """Return what the record keeps of it."""
    repository = baggage.repository
    return Carried(
        is_bundle=baggage.is_bundle,
        top=str(repository.top),
        is_repository=not repository.is_adopted,
        prefix="" if repository.prefix == PurePosixPath(".") else str(repository.prefix),
        project=repository.project,
        base=packed.snapshot.base,
        snapshot=packed.snapshot.commit,
        directory=str(directory),
        sent_bytes=packed.parcel.bytes,
        left_out=baggage.left_out[:NAMED_LEFT_OUT],
    )


def _described(one: LeftOut) -> str:
    return clean(f"{one.path}: {one.reason}", 400)
