"""From a host's name to an open SFTP channel: each step as a finding, the open connection for the checks behind it.

The address is used here and shown nowhere. Name and port are asked for by themselves only where a login failed and
that says more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.doctor.finding import Check, Finding, Severity
from remote_dispatch.doctor.way_in import Look, View, findings_until_an_error, set_command
from remote_dispatch.errors import ConfigurationError
from remote_dispatch.remote.address import parse_address
from remote_dispatch.remote.trail import Problem, Trail

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.remote.observe import Observation
    from remote_dispatch.remote.ssh_config import Target

CHECKS = (Check.ENTRY, Check.NAME, Check.PORT, Check.HOST_KEY, Check.LOGIN, Check.SHELL_NOISE, Check.SHELL, Check.SFTP)
"""What is found out here, in order."""

_LOOK_S = 3.0
_ANSWER_BYTES = 256


@dataclass(frozen=True, slots=True)
class Reached:
    """What was found on the way, and the connection, open until the caller's stack closes; None where nothing runs."""

    findings: tuple[Finding, ...]
    connection: Connection | None


async def reach(host: Host, stack: AsyncExitStack, *, timeout_s: float) -> Reached:
    """Find out how far one gets on the way to a host. Raises nothing of ours.

    Each of login, first command and SFTP has `timeout_s`. A host that falls silent is looked at more closely in the
    last seconds of that already: a dead one costs no more than it.
    """
    if unfit := _unfit(host):
        return Reached(_with_the_rest([unfit]), None)
    from remote_dispatch.remote.observe import observe  # noqa: PLC0415 - asyncssh takes 300 ms

    trail = Trail()
    early = _EarlyLook(trail, timeout_s - _LOOK_S)
    try:
        seen = await observe(host, stack, trail, timeout_s=timeout_s)
        if trail.target is None or not trail.hops:
            return Reached(_with_the_rest([_bad_entry(host, seen)]), None)
        look = await early.found()
    finally:
        early.end()
    view = View(host.name, seen, trail.target, look)
    findings = _with_the_rest(list(findings_until_an_error(view)))
    usable = view.seen.words is not None and view.seen.words.has_started
    return Reached(findings, seen.connection if usable else None)


def _unfit(host: Host) -> Finding | None:
    if host.host is None:
        seen = "an OpenCode server reached by its URL: for named sessions, not for dispatches"
        return Finding(Check.ENTRY, Severity.NOTE, seen)
    if host.os == "windows":
        return Finding(
            Check.ENTRY,
            Severity.ERROR,
            "its entry says that it runs Windows, where no dispatch can run",
            cure="if it runs something else, take `os` out of the entry",
            command=f"remote-dispatch hosts unset {host.name} os",
        )
    return None


def _bad_entry(host: Host, seen: Observation) -> Finding:
    error = seen.error or ConfigurationError("the address could not be read")
    text = error.message.removeprefix(f"{host.name}: ")
    command = None if _is_address(host.host) else set_command(host.name, "host ADDRESS")
    return Finding(Check.ENTRY, Severity.ERROR, text, cure=error.hint, command=command)


def _is_address(text: str | None) -> bool:
    try:
        parse_address(text or "")
    except ValueError:
        return False
    return True


def _with_the_rest(findings: list[Finding]) -> tuple[Finding, ...]:
    """Add what was not looked at."""
    there = {finding.check for finding in findings}
    rest = [Finding(check, Severity.SKIPPED, "not looked at") for check in CHECKS if check not in there]
    return (*findings, *rest)


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked for by itself, at the nearest host."""

    stop: Target
    is_open: bool
    """Whether its port is open, and what it answers is asked for; else whether its name resolves."""

    async def asked(self) -> Look:
        return await _answer(self.stop) if self.is_open else Look(resolves=await _resolves(self.stop))


def _question(trail: Trail) -> _Question | None:
    """Return what a closer look may tell, as far as the connection came by now; None for nothing."""
    if trail.target is None or len(trail.hops) != 1:
        return None
    hop, stop = trail.hops[0], (*trail.target.jumps, trail.target)[0]
    if stop.proxy_command or hop.is_ssh or hop.is_in or not (hop.is_open or hop.problem is Problem.LATE):
        return None
    return _Question(stop, hop.is_open)


class _EarlyLook:
    """A closer look that begins while the connection is still being waited for."""

    def __init__(self, trail: Trail, after_s: float) -> None:
        self._trail = trail
        self._question: _Question | None = None
        self._task = asyncio.create_task(self._look(max(0.0, after_s)))

    async def _look(self, after_s: float) -> Look:
        await asyncio.sleep(after_s)
        self._question = _question(self._trail)
        return Look() if self._question is None else await self._question.asked()

    async def found(self) -> Look:
        """Ask for name and port by themselves, where the nearest host failed and that may say more."""
        question = _question(self._trail)
        if question is None:
            return Look()
        return await (self._task if question == self._question else question.asked())

    def end(self) -> None:
        """Look no more."""
        self._task.cancel()


async def _resolves(stop: Target) -> bool:
    try:
        async with asyncio.timeout(_LOOK_S):
            await asyncio.get_running_loop().getaddrinfo(stop.host, stop.port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return True


async def _answer(stop: Target) -> Look:
    """Introduce ourselves as a client of SSH would, and hear what comes back."""
    try:
        async with asyncio.timeout(_LOOK_S):
            reader, writer = await asyncio.open_connection(stop.host, stop.port)
            try:
                writer.write(b"SSH-2.0-remote-dispatch\r\n\r\n")
                return Look(answer=await reader.read(_ANSWER_BYTES))
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        return Look(is_silent=True)
    except OSError:
        return Look(answer=b"")
