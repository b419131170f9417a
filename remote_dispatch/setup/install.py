"""Put OpenCode on a host: send it, and have the host prove it before it takes its place."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import platformdirs

from remote_dispatch.errors import (
    DeadlinePassedError,
    HostNotReadyError,
    HostUnreachableError,
    IntegrityError,
    RemoteDispatchError,
)
from remote_dispatch.setup.fit import cure
from remote_dispatch.setup.survey import survey
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.setup.here import Candidate
    from remote_dispatch.setup.plan import Plan

UPLOAD_TIMEOUT_S = 4 * 3600.0
"""A slow line is no fault; a dead one is noticed by the connection itself."""
INSTALL_TIMEOUT_S = 400.0
SWEEP_TIMEOUT_S = 60.0
_BLOCK_BYTES = 1_000_000
_ILLEGAL_INSTRUCTION = "132"
_GZIP = 31
_OLD_S = 24 * 3600
_SWEEP = 'cd -- "$1" && rm -rf opencode.setup-*'

Phase = Literal["pack", "send", "check", "config"]
Report = Callable[[Phase, int, int], None]
"""Is told of each step, with bytes sent and bytes in all while it sends; zeros otherwise."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What the host has now. `warnings` say why it may not use what was installed."""

    version: str
    warnings: tuple[str, ...] = ()


async def carry_out(connection: Connection, plan: Plan, cache: Path, report: Report) -> Installed:
    """Do it. `cache` is a directory of this user's for the packed program.

    Whatever interrupts it, what stands in place on the host is whole, and the next call goes on where this one broke.
    Raises HostNotReadyError, IntegrityError, HostUnreachableError.
    """
    if plan.candidate is None:
        if plan.survey.has_leftovers:
            await connection.run(_SWEEP, str(plan.survey.bin), timeout_s=SWEEP_TIMEOUT_S)
        return Installed(plan.version or "")
    with _resumable(plan.host.name):
        async with _parcel(plan, plan.candidate, cache, report) as parcel:
            version = await _delivered(connection, plan, parcel, report)
        return Installed(version, await _warnings(connection, plan))


def cache_directory() -> Path:
    """Return this user's directory for packed programs."""
    return platformdirs.user_cache_path("remote-dispatch") / "setup"


@dataclass(frozen=True, slots=True)
class _Parcel:
    source: Path
    sha256: str
    """Of the program, not of what travels."""
    is_packed: bool

    @property
    def name(self) -> str:
        return f"opencode.setup-{self.sha256[:16]}{'.gz' if self.is_packed else ''}"


@asynccontextmanager
async def _parcel(plan: Plan, candidate: Candidate, cache: Path, report: Report) -> AsyncIterator[_Parcel]:
    report("pack", 0, 0)
    stop = threading.Event()
    try:
        if not plan.survey.has_gzip:
            yield _Parcel(candidate.path, await asyncio.to_thread(_pack, candidate.path, None, stop), is_packed=False)
            return
        _make_tidy(cache)
        with tempfile.TemporaryDirectory(prefix="setup-", dir=cache) as folder:
            packed = Path(folder) / "opencode.gz"
            sha256 = await asyncio.to_thread(_pack, candidate.path, packed, stop)
            yield _Parcel(packed, sha256, is_packed=True)
    finally:
        # A thread cannot be cancelled, only asked.
        stop.set()


def _pack(source: Path, target: Path | None, stop: threading.Event) -> str:
    """Pack a file, the same bytes each time, so that a broken upload goes on; return the SHA-256 of its content."""
    digest, packer = hashlib.sha256(), zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    with source.open("rb") as stream, (target or Path("/dev/null")).open("wb") as packed:
        while not stop.is_set() and (block := stream.read(_BLOCK_BYTES)):
            digest.update(block)
            if target:
                packed.write(packer.compress(block))
        packed.write(packer.flush())
    return digest.hexdigest()


def _make_tidy(cache: Path) -> None:
    """Make the directory; what a killed command left in it goes after a day."""
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in cache.glob("setup-*"):
        if time.time() - folder.lstat().st_mtime > _OLD_S:
            for file in folder.glob("*"):
                file.unlink(missing_ok=True)
            folder.rmdir()


async def _delivered(connection: Connection, plan: Plan, parcel: _Parcel, report: Report) -> str:
    """Send it and have it installed; what an earlier upload left may be of no use, then once more from its start."""
    for is_resumed in (True, False):
        await _upload(connection, plan, parcel, report, is_resumed=is_resumed)
        report("check", 0, 0)
        said = await _install(connection, plan, parcel)
        if said.get("result") == "installed":
            return mask_addresses(clean(said.get("version", ""), 60))
        if said.get("result") != "hash":
            raise _problem(plan, said)
    raise IntegrityError(
        f"{plan.host.name}: the copy of OpenCode is not equal to the file of this machine, twice",
        hint="nothing was put in place; is the file being changed, or the disk there at fault?",
    )


async def _upload(connection: Connection, plan: Plan, parcel: _Parcel, report: Report, *, is_resumed: bool) -> None:
    total = parcel.source.stat().st_size
    sent = 0

    def tell(size: int) -> None:
        nonlocal sent
        sent = min(total, sent + size)
        report("send", sent, total)

    await connection.upload(
        plan.survey.bin,
        {parcel.name: parcel.source},
        timeout_s=UPLOAD_TIMEOUT_S,
        is_resumed=is_resumed,
        on_sent=tell,
    )


async def _install(connection: Connection, plan: Plan, parcel: _Parcel) -> dict[str, str]:
    script = files("remote_dispatch.setup").joinpath("install.sh").read_text(encoding="utf-8")
    packing = "gzip" if parcel.is_packed else ""
    values = (str(plan.survey.bin), parcel.name, packing, parcel.sha256)
    done = await connection.run(script, *values, timeout_s=INSTALL_TIMEOUT_S)
    lines = done.stdout.decode(errors="replace").splitlines()
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def _problem(plan: Plan, said: dict[str, str]) -> RemoteDispatchError:
    name, system = plan.host.name, plan.survey.system
    words = mask_addresses(clean(said.get("words", "").strip(), 200))
    because = f": {words}" if words else ""
    match said.get("result"):
        case "mute" if said.get("status") == _ILLEGAL_INSTRUCTION:
            return HostNotReadyError(
                name, "its processor cannot run this build", hint="send a baseline build, with `--binary FILE`"
            )
        case "mute":
            return HostNotReadyError(
                name, f"OpenCode was copied there and does not run{because}", hint=cure(name, system)
            )
        case "unpack":
            return HostNotReadyError(name, f"OpenCode could not be unpacked{because}", hint="is there room left there?")
        case None:
            return HostNotReadyError(
                name,
                "the work there was ended before it was done",
                hint=f"nothing half is in place; `remote-dispatch hosts setup {name}` goes on where it stopped",
            )
        case _:
            return HostNotReadyError(
                name,
                f"`~/.opencode/bin` there takes no program{because}",
                hint="see who owns it, and whether it is writable",
            )


async def _warnings(connection: Connection, plan: Plan) -> tuple[str, ...]:
    """Look again with the eyes of a dispatch: would it use what was installed."""
    found = await survey(connection, plan.host)
    if found.opencode == found.target and found.opencode_version:
        return ()
    name = plan.host.name
    if plan.host.opencode:
        cured = f"`remote-dispatch hosts unset {name} opencode` lets the new one be found"
        return (f"the entry of `{name}` names another OpenCode in its field `opencode`: {cured}",)
    cured = f"`remote-dispatch hosts set {name} opencode '~/.opencode/bin/opencode'` prefers the new one"
    return (f"another OpenCode is found first there (`{found.shown}`): {cured}",)


@contextmanager
def _resumable(host: str) -> Iterator[None]:
    """Say that what was interrupted can be continued."""
    try:
        yield
    except (HostUnreachableError, DeadlinePassedError) as error:
        error.hint = f"nothing half is in place; `remote-dispatch hosts setup {host}` goes on where it broke"
        raise
