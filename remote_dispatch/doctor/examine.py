"""Examines this machine and any number of hosts at the same time; each report is told as soon as it is finished."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
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

HOSTS_AT_ONCE = 16
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
    gate = asyncio.Semaphore(HOSTS_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        local = group.create_task(_this_machine(means, asked, audience))

        async def host(name: str, entry: Host | ConfigurationError) -> Report:
            async with gate:
                return await _report(name, entry, local, means.environment, audience)

        tasks = [group.create_task(host(name, entry)) for name, entry in hosts.items()]
    return (local.result().report, *(task.result() for task in tasks))


async def _this_machine(means: Means, asked: Collection[str], audience: Audience) -> Local:
    audience.is_at(None, "asking OpenCode here")
    local = await look_here(means, asked)
    audience.finished(local.report)
    return local


async def _report(
    name: str,
    entry: Host | ConfigurationError,
    local: Awaitable[Local],
    environment: Mapping[str, str],
    audience: Audience,
) -> Report:
    if isinstance(entry, ConfigurationError):
        findings = (_bad_entry(entry), *skipped("its entry is wrong"))
    else:
        findings = tuple(map(discreet, await _findings(entry, local, environment, audience)))
    report = Report(name, tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.check))))
    audience.finished(report)
    return report


async def _findings(
    host: Host, local: Awaitable[Local], environment: Mapping[str, str], audience: Audience
) -> tuple[Finding, ...]:
    """A host that cannot be reached costs REACH_TIMEOUT_S; one whose OpenCode answers slowly is waited for."""
    async with AsyncExitStack() as stack:
        audience.is_at(host.name, "connecting")
        reached = await reach(host, stack, timeout_s=REACH_TIMEOUT_S)
        if reached.connection is None:
            served = await judge_server(host, None, environment) if host.host is None else ()
            return (*_with_reason(reached.findings), *served, *skipped(_NOT_REACHED))
        audience.is_at(host.name, "asking OpenCode there, whose first answer may take a minute")
        try:
            found = await look(reached.connection, host)
        except ConnectionLostError:
            return (*reached.findings, _lost(host), *skipped("the connection was lost"))
        is_served = found.is_served or host.server is not None
        served = await judge_server(host, reached.connection, environment, _installed(found)) if is_served else ()
    return (*reached.findings, *served, *judge(host, found, (await local).here))


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
