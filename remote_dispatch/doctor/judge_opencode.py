"""From what was seen on a host to findings: its OpenCode, and whether the entry fits it. Pure."""

from __future__ import annotations

import difflib
import re
import shlex
from typing import TYPE_CHECKING

from remote_dispatch import transcript as transcripts
from remote_dispatch.doctor.finding import Check, Finding, Fix, Severity
from remote_dispatch.model import Model
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from remote_dispatch.doctor.on_host import Binary, OnHost
    from remote_dispatch.model import Host
    from remote_dispatch.opencode.catalogue import Catalogue, Rule

OLDEST = (1, 18)
"""Older ones keep conversations in another way."""
USUAL_ASKS = frozenset({"doom_loop", "external_directory", "read"})
"""What OpenCode asks for unless it is told otherwise: a loop, a file outside of the project, `.env` (OpenCode 1.18)."""

_NEEDS_OPENCODE = (Check.VERSION, Check.CREDENTIALS, Check.MODEL, Check.AGENT, Check.PERMISSIONS)
_NEEDS_LISTINGS = _NEEDS_OPENCODE[1:]
_UNWRITABLE = "the host takes no files, without which OpenCode says nothing"
_NAMED = 5
_COMPARED = 5_000
"""Names among which the nearest is looked for; each takes some 60 microseconds."""
_NOT_RUN, _NOT_FOUND = 126, 127
_TROUBLES = {
    124: ("did not tell its version in time", "run it there and see what it waits for"),
    132: (
        "needs instructions that the processor there does not have",
        "put the `baseline` build of OpenCode there, which needs less of the processor",
    ),
    137: ("was killed at its start", "see whether there is enough memory"),
}
"""By exit status of `timeout`, and of a shell for SIGILL and SIGKILL: what is seen, and its cure."""


def judge_opencode(host: Host, found: OnHost, version_here: str | None) -> Iterator[Finding]:
    """Yield findings from OPENCODE to PERMISSIONS; what cannot be known because of another is skipped."""
    binary = found.opencode
    if binary is None:
        yield _missing(host)
        yield from _skipped(_NEEDS_OPENCODE, "there is no OpenCode")
        return
    yield from _entry(host, found, binary)
    if binary.version is None and not found.is_writable:
        yield from _skipped((Check.OPENCODE, *_NEEDS_OPENCODE), _UNWRITABLE)
        return
    if binary.version is None:
        yield _does_not_start(host, found, binary)
        yield from _skipped(_NEEDS_OPENCODE, "OpenCode does not start")
        return
    yield from _found(host, found, binary)
    yield _version(binary.version, version_here)
    if _minor(binary.version) < OLDEST:
        yield from _skipped(_NEEDS_LISTINGS, "OpenCode is too old")
        return
    if found.catalogue is None:
        yield from _unlisted(found)
        return
    yield _credentials(host, found, found.catalogue)
    yield _model(host, found.catalogue)
    yield _agent(host, found.catalogue)
    yield _permissions(host, found.catalogue)


def _skipped(checks: Sequence[Check], why: str) -> Iterator[Finding]:
    yield from (Finding(check, Severity.SKIPPED, why) for check in checks)


# --- the program


def _missing(host: Host) -> Finding:
    seen = "OpenCode was not found there"
    if host.opencode is not None:
        seen = "OpenCode was not found there, neither where the entry says nor where it usually is"
    return _to_set_up(host, seen, "put OpenCode there")


def _to_set_up(host: Host, seen: str, cure: str) -> Finding:
    return Finding(
        Check.OPENCODE,
        Severity.ERROR,
        seen,
        cure=cure,
        command=f"remote-dispatch hosts setup {host.name}",
        fix=Fix.SETUP,
    )


def _entry(host: Host, found: OnHost, binary: Binary) -> Iterator[Finding]:
    if found.is_asked_missing:
        yield Finding(
            Check.OPENCODE,
            Severity.ERROR,
            f"the entry's `opencode` names no program there; OpenCode is `{clean(binary.path, 200)}`",
            cure="name it in the entry",
            command=f"remote-dispatch hosts set {host.name} opencode {shlex.quote(clean(binary.path, 400))}",
            fix=Fix.OPENCODE_FIELD,
            detail={"opencode": binary.path},
        )


def _does_not_start(host: Host, found: OnHost, binary: Binary) -> Finding:
    name = f"`{clean(binary.path, 200)}`"
    if binary.status in _TROUBLES:
        seen, cure = _TROUBLES[binary.status]
        return _to_try(f"{name} {seen}", cure, binary)
    if reason := _misbuilt(found, binary):
        return _to_set_up(host, f"{name} {reason}", "put an OpenCode there that was built for this host")
    if binary.status in (_NOT_RUN, _NOT_FOUND) and "node" in binary.said:
        cure = "put the program itself there instead of the one that npm starts"
        return _to_set_up(host, f"{name} needs `node`, which a command over SSH does not find there", cure)
    said = f": {binary.said.removeprefix('timeout: ')}" if binary.said else ""
    if binary.status == 0:
        seen = f"{name} tells no version: does a program there stand in for `opencode`?{said}"
        return _to_try(seen, "see what it is", binary)
    return _to_set_up(host, f"{name} does not start{said}", "put an OpenCode there that does")


def _misbuilt(found: OnHost, binary: Binary) -> str | None:
    if binary.built_for is not None and _machine(found.machine) != binary.built_for:
        return f"was built for {binary.built_for}, and this is {clean(found.machine, 40)}"
    if binary.missing_loader is not None:
        library = "musl" if "musl" in binary.missing_loader else "glibc"
        return f"was built for another C library, {library}: its loader `{binary.missing_loader}` is not there"
    return None


def _machine(name: str) -> str:
    names = {"amd64": "x86_64", "arm64": "aarch64", "i386": "i686", "i586": "i686"}
    return "arm" if name.startswith("armv") else names.get(name, name)


def _to_try(seen: str, cure: str, binary: Binary) -> Finding:
    command = f"{_typed(binary.path)} --version"
    return Finding(Check.OPENCODE, Severity.ERROR, seen, cure=cure, command=command, is_there=True)


def _typed(path: str) -> str:
    """A path for a shell on the host, whose `~` must stay bare."""
    tilde, quoted = ("~/", path[2:]) if path.startswith("~/") else ("", path)
    return tilde + shlex.quote(clean(quoted, 400))


def _found(host: Host, found: OnHost, binary: Binary) -> Iterator[Finding]:
    name = f"OpenCode {binary.version} in `{clean(binary.path, 200)}`"
    if found.other is not None and host.opencode is None:
        yield _another(host, name, found.other)
    elif not found.is_asked_missing:
        seen = name if binary.is_on_path else f"{name}; a command over SSH would miss it by its name alone, we do not"
        yield Finding(Check.OPENCODE, Severity.OK if binary.is_on_path else Severity.NOTE, seen)


def _another(host: Host, name: str, other: Binary) -> Finding:
    path = clean(other.path, 200)
    version = f" {other.version}" if other.version else ""
    return Finding(
        Check.OPENCODE,
        Severity.NOTE,
        f"{name} is the one that runs; the user's own shell there starts another{version}, `{path}`",
        cure="if that is the one you mean, name it in the entry",
        command=f"remote-dispatch hosts set {host.name} opencode {shlex.quote(clean(other.path, 400))}",
    )


def _version(there: str, here: str | None) -> Finding:
    number = _minor(there)
    if number < OLDEST:
        return _to_upgrade(Severity.ERROR, f"OpenCode {there} is too old: 1.18 is the oldest that works")
    if here is None or _minor(here) == number:
        return Finding(Check.VERSION, Severity.OK, there if here is None else f"{there}, and {here} here")
    if number < _minor(here):
        return _to_upgrade(Severity.WARNING, f"OpenCode {there} is older than {here} here")
    return Finding(
        Check.VERSION,
        Severity.WARNING if number[0] > _minor(here)[0] else Severity.NOTE,
        f"OpenCode {there} is newer than {here} here, which is to read what comes home",
        cure="upgrade the one here",
        command="opencode upgrade",
    )


def _to_upgrade(severity: Severity, seen: str) -> Finding:
    cure, command = "upgrade it there", "opencode upgrade"
    return Finding(Check.VERSION, severity, seen, cure=cure, command=command, is_there=True)


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


# --- what it offers


def _unlisted(found: OnHost) -> Iterator[Finding]:
    if found.trouble is None:
        yield from _skipped(_NEEDS_LISTINGS, _UNWRITABLE)
        return
    command = re.search(r"`(opencode [a-z ]+)`", found.trouble_hint or "")
    yield Finding(
        Check.OPENCODE,
        Severity.ERROR,
        found.trouble,
        cure=found.trouble_hint,
        command=command[1] if command else None,
        is_there=command is not None,
    )
    yield from _skipped(_NEEDS_LISTINGS, "OpenCode does not list what it has")


def _credentials(host: Host, found: OnHost, catalogue: Catalogue) -> Finding:
    providers = list(dict.fromkeys(Model.parse(model).provider for model in catalogue.own_models))
    if providers:
        return Finding(Check.CREDENTIALS, Severity.OK, f"providers: {_listed(providers)}")
    if host.model in catalogue.models:
        return Finding(Check.CREDENTIALS, Severity.OK, "OpenCode's own hosted models, one of which the entry names")
    if found.login_keys:
        seen = f"no provider is configured for a run: {_listed(found.login_keys)} is set in login shells only"
        cure = "log in there, so that OpenCode keeps the key itself"
    else:
        seen = "no provider is configured there"
        cure = (
            "log in there, or send this machine's configuration and logins with "
            f"`remote-dispatch hosts setup {host.name} --with-config --with-credentials`"
        )
    command = "opencode auth login"
    return Finding(Check.CREDENTIALS, Severity.ERROR, seen, cure=cure, command=command, is_there=True)


def _model(host: Host, catalogue: Catalogue) -> Finding:
    if host.model in catalogue.models:
        return Finding(Check.MODEL, Severity.OK, f"`{host.model}` is there")
    if not catalogue.own_models:
        return Finding(Check.MODEL, Severity.SKIPPED, "no provider is configured there")
    if host.model is not None:
        return _unknown(host, Check.MODEL, host.model, catalogue.models, "opencode models")
    if catalogue.default_model in catalogue.models:
        return Finding(Check.MODEL, Severity.OK, f"the default there is `{clean(str(catalogue.default_model), 100)}`")
    return Finding(
        Check.MODEL,
        Severity.NOTE,
        "neither the entry nor OpenCode there names a model: only a session whose own is there needs no `--model`",
        cure=f"name one in the entry; it has {_listed(catalogue.own_models)}",
    )


def _agent(host: Host, catalogue: Catalogue) -> Finding:
    usual = _usual_agent(host, catalogue)
    if host.agent is None:
        return Finding(Check.AGENT, Severity.OK, f"a session keeps its own where that is there; else `{usual}`")
    if host.agent in catalogue.primary_agents:
        return Finding(Check.AGENT, Severity.OK, f"`{host.agent}` is there")
    is_sub_agent = host.agent in catalogue.agents
    seen = f"`{host.agent}` is a sub-agent there and cannot lead a session" if is_sub_agent else None
    return _unknown(host, Check.AGENT, host.agent, catalogue.primary_agents, "opencode agent list", seen)


def _unknown(
    host: Host, check: Check, asked: str, names: Sequence[str], listing: str, seen: str | None = None
) -> Finding:
    """The nearest name can be typed as it stands; without one the host's own listing helps."""
    nearest = difflib.get_close_matches(asked, names[:_COMPARED], n=1, cutoff=0.4)
    if not nearest and check is Check.AGENT:
        nearest = [name for name in names if name == "build"]
    command = f"remote-dispatch hosts set {host.name} {check} {shlex.quote(clean(nearest[0], 200))}" if nearest else ""
    return Finding(
        check,
        Severity.ERROR,
        seen or f"{check} `{asked}` is not there",
        cure=f"name one that is; it has {_listed([*nearest, *(name for name in names if name not in nearest)])}",
        command=command or listing,
        is_there=not nearest,
    )


def _usual_agent(host: Host, catalogue: Catalogue) -> str:
    wanted = (host.agent, catalogue.default_agent, "build", *catalogue.primary_agents)
    return next((clean(str(name), 100) for name in wanted if name in catalogue.primary_agents), "none")


def _permissions(host: Host, catalogue: Catalogue) -> Finding:
    name = _usual_agent(host, catalogue)
    agent = catalogue.agents.get(name)
    rules = (*(agent.rules if agent else ()), *transcripts.rules_from(host.permission_rules or {}))
    asked = _asked(rules)
    if not asked:
        return Finding(Check.PERMISSIONS, Severity.OK, f"`{name}` asks for nothing")
    if host.permissions == "auto":
        return Finding(Check.PERMISSIONS, Severity.OK, f"what `{name}` asks for is granted: {_listed(asked)}")
    if USUAL_ASKS.issuperset(asked):
        return Finding(Check.PERMISSIONS, Severity.OK, f"`{name}` asks for no more than usual, which is refused")
    unusual = [one for one in asked if one not in USUAL_ASKS]
    return Finding(
        Check.PERMISSIONS,
        Severity.NOTE,
        f"`{name}` asks for {_listed(unusual)}: a run is refused that, because nobody is there to answer",
        cure="let runs there have it, all that is asked for, or by `permission_rules` in the entry",
        command=f"remote-dispatch hosts set {host.name} permissions auto",
    )


def _asked(rules: Sequence[Rule]) -> tuple[str, ...]:
    """The permissions with a rule that asks, and that no later rule for all of it makes void."""
    asked: dict[str, None] = {}
    for rule in rules:
        name = clean(rule["permission"], 60)
        if rule["action"] == "ask":
            asked[name] = None
        elif rule["pattern"] == "*":
            asked = {} if name == "*" else {one: None for one in asked if one != name}
    return tuple(asked)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{clean(name, 100)}`" for name in names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown or "none"
