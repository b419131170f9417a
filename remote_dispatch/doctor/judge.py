"""From what was seen on a host to findings: the machine itself. Pure. What OpenCode is like, `judge_opencode` says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from remote_dispatch.doctor.finding import Check, Finding, Severity
from remote_dispatch.doctor.judge_opencode import judge_opencode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from remote_dispatch.doctor.on_host import OnHost, Place
    from remote_dispatch.model import Host

CHECKS = (
    Check.RUN_DIRECTORY,
    Check.DISK_SPACE,
    Check.OPENCODE,
    Check.VERSION,
    Check.CREDENTIALS,
    Check.MODEL,
    Check.AGENT,
    Check.PERMISSIONS,
    Check.DIRECTORY,
    Check.GIT,
    Check.CLOCK,
    Check.LOGOUT,
    Check.LEFTOVERS,
    Check.SAME_MACHINE,
)
"""What is judged here, in the order in which it is shown."""

LITTLE_BYTES = 200 * 1024**2
SCARCE_BYTES = 1024**3
EVEN_CLOCK_MS = 2_000
WRONG_CLOCK_MS = 300_000
_PLACES = {
    "state": "the directory of our runs",
    "cache": "the directory of our cache",
    "data": "the directory of OpenCode's conversations",
}
_FULL = ("no-space", "quota")
_LISTED = 5
_KEEP_PROCESSES = (
    "sudo mkdir -p /etc/systemd/logind.conf.d "
    r"&& printf '[Login]\nKillUserProcesses=no\n' | sudo tee /etc/systemd/logind.conf.d/50-keep.conf "
    "&& sudo systemctl restart systemd-logind"
)
_PACKAGES = {"awk": "gawk", "find": "findutils", "grep": "grep", "gzip": "gzip", "sed": "sed", "tar": "tar"}
_INSTALL = {
    "apt-get": "sudo apt-get install {}",
    "dnf": "sudo dnf install {}",
    "yum": "sudo yum install {}",
    "apk": "sudo apk add {}",
    "pacman": "sudo pacman -S {}",
    "zypper": "sudo zypper install {}",
    "brew": "brew install {}",
}


@dataclass(frozen=True, slots=True)
class Known:
    """A dispatch that this machine's store knows."""

    name: str
    is_home: bool
    """Whether all of it is proved to be here, or nothing of it ever ran: then `prune` takes it."""
    command: str | None = None
    """What to type next where it is not."""


@dataclass(frozen=True, slots=True)
class Here:
    """What is known of this machine; all of it may be unknown."""

    opencode_version: str | None = None
    database: str | None = None
    """Identity of OpenCode's database here: see opencode/identity.sh."""
    dispatches: Mapping[str, Known] = field(default_factory=dict)
    """By dispatch id."""


def judge(host: Host, found: OnHost, here: Here) -> tuple[Finding, ...]:
    """Return what a host's facts mean: one finding or more for each of CHECKS, in their order."""
    if found.problem is not None:
        return (_broken(found.problem), *skipped("nothing could be learned there"))
    findings = [
        *_programs(found),
        *_writing(found),
        _space(found),
        *judge_opencode(host, found, here.opencode_version),
        _directory(host, found),
        _git(found),
        _clock(found),
        _logout(found),
        *_leftovers(found, here),
        _same_machine(host, found, here),
    ]
    order = list(Check)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.check)))


def skipped(why: str) -> tuple[Finding, ...]:
    """Return every check of CHECKS as not looked at."""
    return tuple(Finding(check, Severity.SKIPPED, why) for check in CHECKS)


def _broken(problem: str) -> Finding:
    return Finding(
        Check.SHELL,
        Severity.ERROR,
        problem,
        cure="see whether start-up files of the shell there end it, or read what it is given",
        command="sh -c 'echo ready'",
        is_there=True,
    )


def _programs(found: OnHost) -> Iterator[Finding]:
    if not found.missing:
        return
    packages = dict.fromkeys(_PACKAGES.get(name, "coreutils") for name in found.missing)
    yield Finding(
        Check.SHELL,
        Severity.ERROR,
        f"programs that a run needs are not there: {', '.join(f'`{name}`' for name in found.missing)}",
        cure="install them there",
        command=_install(found, " ".join(packages)),
        is_there=True,
    )


def _install(found: OnHost, package: str) -> str | None:
    command = _INSTALL.get(found.packages or "")
    return command.format(package) if command else None


# --- the disk


def _writing(found: OnHost) -> Iterator[Finding]:
    """One finding for each way in which it fails: `no space` is the disk's, told once."""
    told: set[str] = set()
    for name, place in found.places.items():
        if place.writing not in {"yes", *_FULL, *told}:
            told.add(place.writing)
            yield _unwritable(_PLACES[name], place.writing)
    if not told:
        full = any(place.writing in _FULL for place in found.places.values())
        yield (
            Finding(Check.RUN_DIRECTORY, Severity.SKIPPED, "the disk is full")
            if full
            else Finding(Check.RUN_DIRECTORY, Severity.OK, "files can be made and removed there")
        )


def _unwritable(place: str, how: str) -> Finding:
    if how == "read-only":
        seen = f"{place} is on a file system that is read-only"
        cure, command = (
            "have it mounted for writing there; a disk with faults is mounted so by the system",
            "findmnt -T ~",
        )
    elif how == "forbidden":
        seen = f"{place} cannot be written to by the user who logs in"
        cure, command = "give it to that user there", "ls -ld ~ ~/.local ~/.local/state ~/.local/share ~/.cache"
    else:
        seen = f"no file can be made in {place}"
        cure, command = "see what the home directory is there", "ls -ld ~ && touch ~/.remote-dispatch-trial"
    return Finding(Check.RUN_DIRECTORY, Severity.ERROR, seen, cure=cure, command=command, is_there=True)


def _space(found: OnHost) -> Finding:
    if used_up := _used_up(found.places.values()):
        return _no_space(Severity.ERROR, *used_up)
    usable = [one.free_bytes for one in found.places.values() if one.writing == "yes" and one.free_bytes is not None]
    free = min(usable, default=SCARCE_BYTES)
    if free >= SCARCE_BYTES:
        return Finding(Check.DISK_SPACE, Severity.OK, "there is room on the disk")
    severity = Severity.ERROR if free < LITTLE_BYTES else Severity.WARNING
    return _no_space(severity, f"only {free // 1024**2} MB are free there", "df -h ~")


def _used_up(places: Iterable[Place]) -> tuple[str, str] | None:
    """What there is no more of, and the command that shows it."""
    full = [place for place in places if place.writing in _FULL]
    if any(place.writing == "quota" for place in full):
        return "the quota of the user who logs in is used up", "quota -s"
    if any(place.free_files == 0 and place.free_bytes for place in full):
        return "the disk there takes no more files: it has no inodes left", "df -i ~"
    return ("the disk there is full", "df -h ~") if full else None


def _no_space(severity: Severity, seen: str, command: str) -> Finding:
    return Finding(Check.DISK_SPACE, severity, seen, cure="make room there", command=command, is_there=True)


# --- what surrounds the work


def _directory(host: Host, found: OnHost) -> Finding:
    if host.directory is None:
        return Finding(Check.DIRECTORY, Severity.OK, "the entry names none: work begins in the home directory")
    name = f"`{host.directory}`"
    if found.directory == "file":
        return _bad_directory(host, f"{name} is a file there, or lies below one")
    if found.directory == "forbidden":
        return _bad_directory(host, f"{name} cannot be entered or written to by the user who logs in")
    if found.directory == "absent":
        return Finding(Check.DIRECTORY, Severity.NOTE, f"{name} is not there yet: the first run makes it")
    return Finding(Check.DIRECTORY, Severity.OK, f"{name} is there")


def _bad_directory(host: Host, seen: str) -> Finding:
    return Finding(
        Check.DIRECTORY,
        Severity.ERROR,
        seen,
        cure="name another directory in the entry, or leave the choice to `--directory`",
        command=f"remote-dispatch hosts unset {host.name} directory",
    )


def _git(found: OnHost) -> Finding:
    if found.git is not None:
        return Finding(Check.GIT, Severity.OK, f"git {found.git}")
    return Finding(
        Check.GIT,
        Severity.WARNING,
        "git is not there: OpenCode keeps no snapshots to go back to, and code goes there and comes back as an archive",
        cure="install git there",
        command=_install(found, "git"),
        is_there=True,
    )


def _clock(found: OnHost) -> Finding:
    offset_ms = found.clock_offset_ms
    if abs(offset_ms) <= EVEN_CLOCK_MS:
        return Finding(Check.CLOCK, Severity.OK, "its clock agrees with this one")
    word = "ahead of" if offset_ms > 0 else "behind"
    seen = f"its clock is {_duration(abs(offset_ms) // 1000)} {word} this one"
    if abs(offset_ms) <= WRONG_CLOCK_MS:
        return Finding(Check.CLOCK, Severity.NOTE, f"{seen}, which is evened out")
    return Finding(
        Check.CLOCK,
        Severity.WARNING,
        seen,
        cure="set the one that is wrong; programs there that check certificates may fail",
        command="sudo timedatectl set-ntp true",
        is_there=True,
    )


def _duration(seconds: int) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"


def _logout(found: OnHost) -> Finding:
    if not found.ends_at_logout:
        return Finding(Check.LOGOUT, Severity.OK, "what runs there outlives the connection")
    return Finding(
        Check.LOGOUT,
        Severity.ERROR,
        "systemd ends what a user started once the connection is closed (`KillUserProcesses=yes`): a run would be lost",
        cure="its administrator can allow it, for all with `no`, or with `KillExcludeUsers`; lingering does not help",
        command=_KEEP_PROCESSES,
        is_there=True,
    )


# --- earlier dispatches, and this machine itself


def _leftovers(found: OnHost, here: Here) -> Iterator[Finding]:
    """What of earlier dispatches lies there; what is at work is no leftover."""
    known = {one: here.dispatches[one] for one in found.runs if one in here.dispatches}
    resting = [dispatch for one, dispatch in known.items() if found.runs[one] != "alive"]
    strange = [state for one, state in found.runs.items() if one not in known]
    if home := [dispatch.name for dispatch in resting if dispatch.is_home]:
        yield _home_already(home)
    yield from [_not_home(dispatch) for dispatch in resting if not dispatch.is_home][:_LISTED]
    if strange:
        yield _of_others(strange)
    if not (resting or strange):
        yield Finding(Check.LEFTOVERS, Severity.OK, _at_work(len(known)))


def _at_work(number: int) -> str:
    if number == 0:
        return "nothing of earlier dispatches is there"
    return f"{_dispatches(number)} of this machine {'is' if number == 1 else 'are'} at work there"


def _home_already(names: list[str]) -> Finding:
    listed = ", ".join(f"`{name}`" for name in names[:_LISTED]) + (" and others" if len(names) > _LISTED else "")
    return Finding(
        Check.LEFTOVERS,
        Severity.NOTE,
        f"{_dispatches(len(names))} there may go, because all of it is here: {listed}",
        cure="remove what is home",
        command="remote-dispatch prune",
        detail={"dispatches": " ".join(names)},
    )


def _not_home(known: Known) -> Finding:
    return Finding(
        Check.LEFTOVERS,
        Severity.NOTE,
        f"dispatch `{known.name}` lies there and is not home",
        cure="see to it",
        command=known.command or f"remote-dispatch show {known.name}",
    )


def _of_others(states: Sequence[str]) -> Finding:
    """They may be the only copies of somebody's work: no command here removes them."""
    alive = sum(state == "alive" for state in states)
    at_work = f", {'one' if alive == 1 else alive} of them at work" if alive else ""
    return Finding(
        Check.LEFTOVERS,
        Severity.NOTE,
        f"{_dispatches(len(states))} there of which this machine knows nothing{at_work}",
        cure=None
        if alive == len(states)
        else "whoever sent them, from another machine, brings them home or prunes them",
        detail={"unknown": str(len(states))},
    )


def _dispatches(number: int) -> str:
    return "one dispatch" if number == 1 else f"{number} dispatches"


def _same_machine(host: Host, found: OnHost, here: Here) -> Finding:
    if here.database is None:
        return Finding(Check.SAME_MACHINE, Severity.SKIPPED, "OpenCode has no conversations on this machine")
    if here.database not in found.databases:
        return Finding(Check.SAME_MACHINE, Severity.OK, "its OpenCode is not the one of this machine")
    return Finding(
        Check.SAME_MACHINE,
        Severity.ERROR,
        "it is this very machine, with the same OpenCode database: a session of it cannot be sent there",
        cure="give the entry the address of another machine, or take it out",
        command=f"remote-dispatch hosts remove {host.name}",
    )
