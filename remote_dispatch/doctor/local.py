"""The doctor's look at this machine: hosts files, OpenCode, its database, the plugin. Changes nothing."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.attention import attention
from remote_dispatch.dispatch.prune import reason_to_keep
from remote_dispatch.doctor.finding import Check, Finding, Fix, Report, Severity
from remote_dispatch.doctor.judge import Here, Known
from remote_dispatch.errors import CommandError, ConfigurationError, RemoteDispatchError
from remote_dispatch.hosts import LayerKind
from remote_dispatch.opencode.program import THIS_MACHINE, find_binary, identity_script
from remote_dispatch.plugin import PlaceKind, problem_of, read_status
from remote_dispatch.plugin.status import version_of
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from remote_dispatch.dispatch import Store
    from remote_dispatch.hosts import Layer, Problem, Registry
    from remote_dispatch.opencode.program import Program
    from remote_dispatch.plugin import Status

OLDEST_VERSION = (1, 18)
"""Older ones lack what a conversation needs to travel."""
DATABASE_TIMEOUT_S = 60.0
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_DATABASE = "select file, (select count(*) from session) as sessions from pragma_database_list where name = 'main'"
_EDIT = "remote-dispatch hosts edit"
"""Opens the user's own file, and keeps it only without a fault."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the doctor works with: the hosts, the dispatches and the programs of this user.

    `registry` reads the hosts anew at each call, `program` raises when OpenCode is not here; `directory` is that of the
    project whose files count.
    """

    registry: Callable[[], Registry]
    store: Store
    program: Callable[[], Program]
    environment: Mapping[str, str]
    directory: Path


@dataclass(frozen=True, slots=True)
class Local:
    """What was learnt here: the findings, and what each host is compared with."""

    report: Report
    here: Here


async def look_here(means: Means, asked: Collection[str] = ()) -> Local:
    """Look at everything on this machine. `asked` are the hosts that are meant; without any, all of them."""
    registry = means.registry()
    plugin, (database, identity) = await asyncio.gather(
        asyncio.to_thread(_plugin_status, means, registry), _look_at_database(means)
    )
    opencode, version = await asyncio.to_thread(_look_at_opencode, means, plugin)
    findings = (
        *hosts_file_findings(registry, asked),
        opencode,
        database if opencode.severity is not Severity.ERROR else _unseen(Check.DATABASE_HERE),
        *plugin_findings(plugin),
    )
    known = await asyncio.to_thread(known_dispatches, means.store)
    return Local(Report(None, findings), Here(version, identity, known))


def known_dispatches(store: Store) -> dict[str, Known]:
    """Return what this machine knows of each dispatch, by its id."""
    known = {}
    for record in store.all():
        next_one = attention(record)
        is_home = reason_to_keep(record, None) is None
        known[record.id] = Known(record.name, is_home, next_one.command if next_one else None)
    return known


# --- hosts files


def hosts_file_findings(registry: Registry, asked: Collection[str] = ()) -> tuple[Finding, ...]:
    """Judge the hosts files. What is wrong with an entry that nobody asked for is a note."""
    faults = [_of_problem(problem, asked, registry.places.target) for problem in registry.problems]
    modes = [finding for layer in registry.places.layers if (finding := _of_mode(layer, registry))]
    notes = [_of_note(text) for text in registry.notes]
    return tuple([*faults, *modes, *notes] if faults or modes else [_of_files(registry), *notes])


def _of_files(registry: Registry) -> Finding:
    if not registry.names:
        return Finding(
            Check.HOSTS_FILE,
            Severity.NOTE,
            "no hosts are configured yet",
            "take them from ~/.ssh/config, or add one with `remote-dispatch hosts add NAME ADDRESS`",
            "remote-dispatch hosts import",
        )
    files = dict.fromkeys(str(registry.origin(name).file) for name in registry.names)
    count = f"{len(registry.names)} host{'s' if len(registry.names) > 1 else ''}"
    return Finding(Check.HOSTS_FILE, Severity.OK, f"{count} in {', '.join(files)}")


def _of_problem(problem: Problem, asked: Collection[str], own: Path) -> Finding:
    is_meant = not asked or problem.host is None or problem.host in asked
    severity = Severity.ERROR if is_meant else Severity.NOTE
    file = {"file": str(problem.file), "line": str(problem.line or "")}
    command = _EDIT if problem.file == own else None
    return Finding(Check.HOSTS_FILE, severity, str(problem), "correct it in that file", command, detail=file)


def _of_note(text: str) -> Finding:
    if " is ignored" not in text:
        return Finding(Check.HOSTS_FILE, Severity.NOTE, text)
    cure = "see what it would change, and trust it if you want that"
    return Finding(Check.HOSTS_FILE, Severity.NOTE, text, cure, "remote-dispatch hosts trust")


def _of_mode(layer: Layer, registry: Registry) -> Finding | None:
    """A file with values for the environment, which may be secrets, is nobody else's to read."""
    if layer.ignored or layer.kind is LayerKind.PROJECT or not _has_values(layer.path, registry):
        return None
    try:
        status = layer.path.stat()
    except OSError:
        return None
    if not status.st_mode & _OTHERS:
        return None
    fix = Fix.FILE_MODE if status.st_uid == os.geteuid() else None
    return Finding(
        Check.HOSTS_FILE,
        Severity.WARNING,
        f"{layer.path} holds values of `env`, and others on this machine may read it",
        "take it from everybody but you",
        f"chmod 600 {_quoted(str(layer.path))}",
        fix=fix,
        detail={"file": str(layer.path)},
    )


def _has_values(path: Path, registry: Registry) -> bool:
    return any(registry.origin(name).file == path and registry[name].env for name in registry.names)


def _quoted(path: str) -> str:
    return path if re.fullmatch(r"[\w./@+-]+", path) else "'" + path.replace("'", "'\\''") + "'"


# --- OpenCode


def _look_at_opencode(means: Means, status: Status | ConfigurationError) -> tuple[Finding, str | None]:
    try:
        binary = find_binary(means.environment)
    except ConfigurationError as error:
        return Finding(Check.OPENCODE_HERE, Severity.ERROR, error.message, "name OpenCode's program, or unset it"), None
    except RemoteDispatchError:
        return _MISSING, None
    if isinstance(status, ConfigurationError):
        version = version_of((str(binary),), means.environment, means.directory)
    else:
        version = status.opencode_version
    return opencode_finding(str(binary), version), version


_MISSING = Finding(
    Check.OPENCODE_HERE,
    Severity.ERROR,
    "OpenCode was not found",
    "install it, or name it in the variable `REMOTE_DISPATCH_OPENCODE`",
    "npm install -g opencode-ai",
)


def opencode_finding(binary: str, version: str | None) -> Finding:
    """Judge the OpenCode that was found here; `version` is what `opencode --version` printed."""
    numbers = re.match(r"v?(\d{1,6})\.(\d{1,6})", version or "")
    if version is None or numbers is None:
        seen = f"{binary} does not say its version"
        cure = "see what it says instead; perhaps it must be installed again"
        return Finding(Check.OPENCODE_HERE, Severity.ERROR, seen, cure, f"{_quoted(binary)} --version")
    seen = f"OpenCode {version} at {binary}"
    if (int(numbers[1]), int(numbers[2])) < OLDEST_VERSION:
        cure = "bring it up to date: 1.18 is the oldest that works"
        return Finding(Check.OPENCODE_HERE, Severity.ERROR, seen, cure, "opencode upgrade")
    return Finding(Check.OPENCODE_HERE, Severity.OK, seen)


# --- its database


async def _look_at_database(means: Means) -> tuple[Finding, str | None]:
    try:
        program = means.program()
        async with asyncio.timeout(DATABASE_TIMEOUT_S):
            row = (await program.query(_DATABASE))[0]
            identity = await program.connection.run(identity_script(), str(row["file"]), timeout_s=DATABASE_TIMEOUT_S)
            count = int(row["sessions"])
    except TimeoutError:
        return _unreadable(f"`opencode db` did not answer within {DATABASE_TIMEOUT_S:.0f} s"), None
    except CommandError as error:
        said = mask_addresses(clean(error.output, 200)).strip().rpartition("\n")[2]
        return _unreadable("OpenCode cannot open its database" + (f": {said}" if said else "")), None
    except RemoteDispatchError as error:
        return _unreadable(error.message.removeprefix(f"{THIS_MACHINE}: ")), None
    except (IndexError, KeyError, TypeError, ValueError):
        return _unreadable("OpenCode's database has another shape than that of 1.18"), None
    database = identity.stdout.decode(errors="replace").strip() or None
    return Finding(Check.DATABASE_HERE, Severity.OK, f"readable, with {count} sessions"), database


def _unreadable(seen: str) -> Finding:
    cure = "see that the file is there, yours, and that its disk is not full"
    return Finding(Check.DATABASE_HERE, Severity.ERROR, seen, cure, "opencode db path")


def _unseen(check: Check) -> Finding:
    return Finding(check, Severity.SKIPPED, "not looked at")


# --- the plugin


def _plugin_status(means: Means, registry: Registry) -> Status | ConfigurationError:
    try:
        return read_status(means.environment, means.directory, registry)
    except ConfigurationError as error:
        return error


def plugin_findings(status: Status | ConfigurationError) -> tuple[Finding, ...]:
    """Judge the plugin; an error is what kept it from being looked at."""
    if isinstance(status, ConfigurationError):
        return (Finding(Check.PLUGIN, Severity.WARNING, status.message, "correct OpenCode's configuration"),)
    remarks = [Finding(Check.PLUGIN, Severity.NOTE, text) for text in status.remarks]
    if not status.standings:
        seen = "the plugin is not installed: models cannot ask for your hosts"
        cure = "install it, if you want to ask for a host inside OpenCode"
        return (Finding(Check.PLUGIN, Severity.NOTE, seen, cure, "remote-dispatch plugin install"), *remarks)
    faults = tuple(_plugin_faults(status))
    return (*(faults or (Finding(Check.PLUGIN, Severity.OK, "the plugin is installed and current"),)), *remarks)


def _plugin_faults(status: Status) -> Iterator[Finding]:
    for one in status.standings:
        if error := problem_of(status, one.kind):
            is_project = one.kind is PlaceKind.PROJECT
            yield Finding(
                Check.PLUGIN,
                Severity.WARNING,
                error.message,
                "install it again",
                "remote-dispatch plugin install" + (" --project" if is_project else ""),
                # The project's file is committed: it changes for others, too.
                fix=None if is_project else Fix.PLUGIN,
            )
