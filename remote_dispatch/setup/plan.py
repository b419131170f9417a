"""Decide what becomes of OpenCode on a host: keep what is there, or send which program of this machine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from remote_dispatch.errors import DeadlinePassedError, HostNotReadyError
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.setup.build import runs_without_avx2
from remote_dispatch.setup.fit import cure, misfit
from remote_dispatch.setup.here import candidates
from remote_dispatch.setup.survey import VERSION, Survey, survey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.setup.here import Candidate

VERSION_TIMEOUT_S = 60.0
_VERSION_OF = '"$1" --version </dev/null'


class Action(StrEnum):
    """What becomes of OpenCode on a host."""

    INSTALL = "install"
    REPLACE = "replace"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for: a program file of the user's choice, and whether one that is there is replaced."""

    binary: Candidate | None = None
    is_forced: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be done on one host."""

    host: Host
    survey: Survey
    action: Action
    candidate: Candidate | None = None
    """What is sent; None where OpenCode is kept."""
    version: str | None = None
    """The version that is sent, as far as it can be asked here, or the one that is kept."""


async def make_plan(connection: Connection, host: Host, environment: Mapping[str, str], wishes: Wishes) -> Plan:
    """Look at the host and at this machine, and choose. Changes nothing.

    Raises HostNotReadyError where no build of this machine suits, there is no room, or what is there does not answer.
    """
    found = await survey(connection, host)
    if not wishes.is_forced and found.opencode_version:
        return Plan(host, found, Action.KEEP, version=found.opencode_version)
    if not wishes.is_forced and (found.opencode or found.is_in_place):
        raise HostNotReadyError(
            host.name,
            f"an OpenCode is there that does not answer (`{found.shown}`)",
            hint=f"`remote-dispatch hosts setup {host.name} --force` puts one that does into `~/.opencode/bin`",
        )
    candidate = await asyncio.to_thread(_chosen, host, found, environment, wishes)
    _check_room(host, found, candidate)
    action = Action.REPLACE if found.is_in_place else Action.INSTALL
    return Plan(host, found, action, candidate, await _version_here(candidate))


def _chosen(host: Host, found: Survey, environment: Mapping[str, str], wishes: Wishes) -> Candidate:
    if not found.can_check:
        raise HostNotReadyError(
            host.name, "nothing there computes a SHA-256, so no copy can be checked", hint=cure(host.name, found.system)
        )
    try:
        here = (wishes.binary,) if wishes.binary else candidates(environment)
    except HostNotReadyError as error:
        error.hint = f"name a program file with `--binary FILE`; or {cure(host.name, found.system)}"
        raise
    reasons = [misfit(candidate.build, found.system) for candidate in here]
    fitting = [candidate for candidate, reason in zip(here, reasons, strict=True) if reason is None]
    if not fitting:
        raise HostNotReadyError(
            host.name,
            f"the OpenCode of this machine cannot run there: {reasons[0]}"
            if wishes.binary is None
            else f"`{wishes.binary.path.name}` cannot run there: {reasons[0]}",
            hint=cure(host.name, found.system),
        )
    return _without_avx2(host, found, fitting) if wishes.binary is None else fitting[0]


def _without_avx2(host: Host, found: Survey, fitting: list[Candidate]) -> Candidate:
    """The first that runs there; a named file is left to the proof on the host."""
    if found.system.has_avx2 is not False or fitting[0].build.machine != "x64":
        return fitting[0]
    for candidate in fitting:
        if runs_without_avx2(candidate.path):
            return candidate
    raise HostNotReadyError(
        host.name,
        "the OpenCode of this machine cannot run there: it may need AVX2, which the host's processor lacks",
        hint=f"get the baseline build (`{fitting[0].build.baseline_package}`), and send it with "
        f"`remote-dispatch hosts setup {host.name} --binary FILE`",
    )


def _check_room(host: Host, found: Survey, candidate: Candidate) -> None:
    """The program, and half of that again for its packed form."""
    needed = candidate.size + (candidate.size // 2 if found.has_gzip else 0)
    if found.free_bytes is not None and found.free_bytes < needed:
        raise HostNotReadyError(
            host.name,
            f"{_mib(needed)} MiB are needed in the home directory, and {_mib(found.free_bytes)} are free",
            hint="make room there, and try again",
        )


async def _version_here(candidate: Candidate) -> str | None:
    """Ask it, where it runs here; one for another machine does not."""
    try:
        done = await LocalConnection().run(_VERSION_OF, str(candidate.path), timeout_s=VERSION_TIMEOUT_S)
    except DeadlinePassedError:
        return None
    said = done.stdout.decode(errors="replace").strip()
    return said if done.exit_status == 0 and VERSION.fullmatch(said) else None


def _mib(size: int) -> int:
    return -(-size // 2**20)
