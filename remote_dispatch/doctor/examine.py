"""Examines this machine and any number of hosts at the same time; each report is told as soon as it is finished."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from remote_dispatch.doctor.discreet import discreet
from remote_dispatch.doctor.finding import Check, Finding, Report, Severity
from remote_dispatch.doctor.judge import judge, skipped
from remote_dispatch.doctor.local import look_here
from remote_dispatch.doctor.on_host import look
from remote_dispatch.doctor.reach import reach
from remote_dispatch.doctor.served import judge_server
from remote_dispatch.errors import ConfigurationError, ConnectionLostError
from remote_dispatch.servers.reach import host_named

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterable, Iterator, Mapping, Sequence

    from remote_dispatch.doctor.local import Local, Means
    from remote_dispatch.doctor.on_host import OnHost
    from remote_dispatch.hosts import Registry
    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection

REACHED_AT_ONCE = 64
"""A dead host holds its place for fifteen seconds, and costs nothing meanwhile."""
LOOKS_AT_ONCE = 32
"""Of those that were reached."""
REACH_TIMEOUT_S = 15.0
"""For a host that is silent from the start; `reach` gives one that falls silent half-way up to three times as long."""
_ORDER = list(Check)
_NOT_REACHED = "the host was not reached"


class Audience(Protocol):
    """Who is told what the doctor does; `host` is None for this machine."""

    def is_at(self, host: str | None, what: str) -> None:
        """Hear what is being waited for."""

    def finished(self, report: Report) -> None:
        """Hear what was found."""


async def examine(
    names: Sequence[str] | None, means: Means, audience: Audience, *, asked: Collection[str] = ()
) -> tuple[Report, ...]:
    """Examine this machine and these hosts; None stands for all whose entries are right.

    `asked` are the hosts that the user named: what is wrong with other entries matters less then. Reports are told as
    they are finished, and returned in the order of the names, that of this machine first. Raises UnknownNameError
    before anything is looked at.
    """
    registry = means.registry()
    hosts = {name: _entry(means, registry, name) for name in (registry.names if names is None else names)}
    async with asyncio.TaskGroup() as group:
        local = group.create_task(_this_machine(means, asked, audience))
        together = _Round(local, means.environment, audience)
        tasks = [group.create_task(_report(name, entry, together)) for name, entry in hosts.items()]
    return (local.result().report, *(task.result() for task in tasks))


@dataclass(frozen=True, slots=True)
class _Round:
    """What all hosts of one examination share."""

    local: Awaitable[Local]
    environment: Mapping[str, str]
    audience: Audience
    reaching: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(REACHED_AT_ONCE))
    looking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKS_AT_ONCE))


async def _this_machine(means: Means, asked: Collection[str], audience: Audience) -> Local:
    audience.is_at(None, "asking OpenCode here")
    local = await look_here(means, asked)
    audience.finished(local.report)
    return local


async def _report(name: str, entry: Host | ConfigurationError, together: _Round) -> Report:
    if isinstance(entry, ConfigurationError):
        findings = (_bad_entry(entry), *skipped("its entry is wrong"))
    else:
        findings = tuple(map(discreet, await _findings(entry, together)))
    report = Report(name, tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.check))))
    together.audience.finished(report)
    return report


async def _findings(host: Host, together: _Round) -> tuple[Finding, ...]:
    """A host that cannot be reached costs REACH_TIMEOUT_S; one whose OpenCode answers slowly is waited for."""
    async with AsyncExitStack() as stack:
        async with together.reaching:
            together.audience.is_at(host.name, "connecting")
            reached = await reach(host, stack, timeout_s=REACH_TIMEOUT_S)
        if reached.connection is None:
            served = await judge_server(host, None, together.environment) if host.host is None else ()
            return (*_with_reason(reached.findings), *served, *skipped(_NOT_REACHED))
        async with together.looking:
            return (*reached.findings, *await _looked(host, reached.connection, together))


async def _looked(host: Host, connection: Connection, together: _Round) -> tuple[Finding, ...]:
    together.audience.is_at(host.name, "asking OpenCode there, whose first answer may take a minute")
    try:
        found = await look(connection, host)
    except ConnectionLostError:
        return (_lost(host), *skipped("the connection was lost"))
    is_served = found.is_served or host.server is not None
    environment = together.environment
    served = await judge_server(host, connection, environment, _installed(found)) if is_served else ()
    return (*served, *judge(host, found, (await together.local).here))


def _installed(found: OnHost) -> str | None:
    return found.opencode.version if found.opencode else None


def _with_reason(findings: Iterable[Finding]) -> Iterator[Finding]:
    for finding in findings:
        yield replace(finding, seen=_NOT_REACHED) if finding.severity is Severity.SKIPPED else finding


def _entry(means: Means, registry: Registry, name: str) -> Host | ConfigurationError:
    """An entry that is wrong is a finding; a name that nobody knows ends the call."""
    try:
        return host_named(registry, means.environment, name)
    except ConfigurationError as error:
        if name not in registry:
            raise
        return error


def _bad_entry(error: ConfigurationError) -> Finding:
    return Finding(Check.ENTRY, Severity.ERROR, error.message, "correct the entry", "remote-dispatch hosts edit")


def _lost(host: Host) -> Finding:
    seen = "the connection was lost while the host was looked at"
    cure = "look again; when it breaks again, its SSH server's log has the reason"
    return Finding(Check.PORT, Severity.ERROR, seen, cure, f"remote-dispatch doctor {host.name}")
