"""Which OpenCode a host has, the newest one that the host knows of, and the host's own upgrade when it is asked for.

Nothing is downloaded or asked by us: the host's own package tool names the newest version, where it has one, and
`opencode upgrade` does the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.resources import files
from typing import TYPE_CHECKING

from remote_dispatch.errors import CommandError, HostNotReadyError, RemoteDispatchError
from remote_dispatch.opencode.probe import probe_functions, read_answer
from remote_dispatch.opencode.wire import api_through
from remote_dispatch.servers import on_host
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.servers.on_host import Running

LOOK_TIMEOUT_S = 150.0
VERSION_TIMEOUT_S = 60.0
UPGRADE_TIMEOUT_S = 1200.0
RECENT_MS = 86_400_000
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(?:[-+.][0-9A-Za-z.+-]{1,40})?")
_AGENT = re.compile(r"([0-9A-Za-z_-]{1,64}) ([0-9]{1,10}) ([0-9]{1,5}|-) (\S{1,200})")
_LOG_LINES = 4
_LOG_LENGTH = 400


class Standing(StrEnum):
    """How a version stands to the newest one."""

    CURRENT = "current"
    BEHIND = "behind"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Working:
    """An agent of ours that runs on a host, whoever talks with it. Neither port nor password may be shown."""

    owner: str
    pid: int
    port: int | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Installed:
    """What a host has. Versions are None where they cannot be learned."""

    version: str | None
    newest: str | None = None
    source: str | None = None
    """The tool of the host that knows the newest one: `npm`, `pnpm`, `brew`."""
    opencode: str = ""
    """Where it is there."""
    agents: tuple[Working, ...] = ()

    @property
    def standing(self) -> Standing:
        """Whether there is a newer one."""
        if self.version is None or self.newest is None:
            return Standing.UNKNOWN
        return Standing.BEHIND if _order(self.version) < _order(self.newest) else Standing.CURRENT

    def but(self, version: str | None) -> Installed:
        """Return the same with another version."""
        return replace(self, version=version)


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update did. `warnings` tell what could not be put back."""

    before: str | None
    after: str
    ended_agents: int = 0
    is_server_restarted: bool = False
    warnings: tuple[str, ...] = ()


async def installed(connection: Connection, host: Host) -> Installed:
    """Look at the OpenCode of a host. Raises HostNotReadyError when there is none."""
    script = f"{probe_functions()}\n{_text('version.sh')}"
    done = await connection.run(script, host.opencode or "", *_pairs(host), timeout_s=LOOK_TIMEOUT_S)
    values, blobs = read_answer(done.stdout)
    _check(host.name, values)
    return Installed(
        version=number_in(values.get("version", "")),
        newest=number_in(values.get("newest", "")),
        source=clean(values.get("source", ""), 20) or None,
        opencode=values.get("opencode", ""),
        agents=_agents(blobs.get("agents", b"")),
    )


async def update(connection: Connection, host: Host, there: Installed) -> Updated:
    """Run the host's own upgrade and verify it; idle agents and an idle server of ours are ended first.

    The server is started again afterwards; agents are started again by whoever needs one. Raises HostNotReadyError when
    one of them works, and nothing was done then; CommandError when the upgrade failed, with what it said.
    """
    server = await on_host.find(connection) if host.server is None else None
    await _check_idle(connection, host, there, server)
    if server is not None:
        async with _api(connection, server.port, server.password) as api:
            await on_host.stop(connection, server, api)
    try:
        after = await _upgrade(connection, host, there)
    finally:
        warning = await _restarted(connection, host, server)
    return Updated(
        before=there.version,
        after=after,
        ended_agents=len(there.agents),
        is_server_restarted=server is not None and warning is None,
        warnings=(warning,) if warning else (),
    )


async def version_of(connection: Connection, opencode: str) -> str | None:
    """Return the version of one OpenCode binary; None for what is none."""
    done = await connection.run('"$1" --version </dev/null 2>/dev/null', opencode, timeout_s=VERSION_TIMEOUT_S)
    return number_in(done.stdout.decode(errors="replace"))


def number_in(words: str) -> str | None:
    """Return the version in `1.18.33`, `opencode v2.0.9` and the like; None where there is none."""
    found = _VERSION.search(words)
    return found[0] if found else None


async def _check_idle(connection: Connection, host: Host, there: Installed, server: Running | None) -> None:
    """Ask every process of ours whether it works; one that cannot be asked counts as one that does."""
    busy = 0
    for one in there.agents:
        busy += await _is_busy(connection, one.port, one.password, 0)
    if server is not None:
        busy += await _is_busy(connection, server.port, server.password, int(server.started.timestamp() * 1000) - 1000)
    if busy:
        what = "an agent or server of ours works there" if busy == 1 else f"{busy} agents or servers of ours work there"
        raise HostNotReadyError(host.name, f"{what}; nothing was changed", hint="try again when its turn has ended")


async def _is_busy(connection: Connection, port: int | None, password: str | None, since_ms: int) -> bool:
    if port is None or password is None:
        return True
    async with _api(connection, port, password) as api:
        try:
            return bool((await on_host.activity(api, since_ms=since_ms)).busy)
        except RemoteDispatchError:
            # It is being started, or is stuck: it may work all the same.
            return True


async def _upgrade(connection: Connection, host: Host, there: Installed) -> str:
    script = f"usual_mask=$(umask)\n{probe_functions()}\n{_text('upgrade.sh')}"
    owners = " ".join(one.owner for one in there.agents)
    done = await connection.run(script, there.opencode, owners, *_pairs(host), timeout_s=UPGRADE_TIMEOUT_S)
    values, blobs = read_answer(done.stdout)
    _check(host.name, values)
    after, status = number_in(values.get("version", "")), values.get("status", "")
    said = _last_words(blobs.get("said", b""))
    if after is None:
        raise CommandError(
            host.name,
            "opencode upgrade",
            _status(status),
            f"{said}; and OpenCode no longer answers there".lstrip("; "),
            hint=f"install it anew, or see what is wrong with `remote-dispatch doctor {host.name}`",
        )
    if status != "0" or (after == there.version and there.standing is Standing.BEHIND):
        stays = f"it is {after} as before" if after == there.version else f"it is {after} now"
        raise CommandError(
            host.name,
            "opencode upgrade",
            _status(status),
            "; ".join(filter(None, (said, stays))),
            hint="run `opencode upgrade` on the host to see all that it says",
        )
    return after


async def _restarted(connection: Connection, host: Host, server: Running | None) -> str | None:
    """Start our server again; return what went wrong."""
    if server is None:
        return None
    try:
        await on_host.start(connection, host, idle_stop_s=server.idle_stop_s)
    except RemoteDispatchError as error:
        return f"the server there was stopped and did not start again: {error.message}"
    return None


def _api(connection: Connection, port: int, password: str) -> Api:
    return api_through(connection, connection.name, port, password, user=on_host.USER)


def _agents(listed: bytes) -> tuple[Working, ...]:
    """Untrusted: lines that make no sense are passed over."""
    found = (_AGENT.fullmatch(line) for line in listed.decode(errors="replace").splitlines())
    return tuple(
        Working(one[1], int(one[2]), int(one[3]) if one[3] != "-" else None, one[4] if one[4] != "-" else None)
        for one in found
        if one
    )


def _check(host: str, values: Mapping[str, str]) -> None:
    match values.get("state"):
        case "known" | "finished":
            return
        case "missing":
            raise HostNotReadyError(
                host,
                "OpenCode was not found there",
                hint=f"put it there with `remote-dispatch hosts setup {host}`, or say where it is with "
                f"`remote-dispatch hosts set {host} opencode PATH`",
            )
        case _:
            raise HostNotReadyError(
                host,
                "the script that looks at its OpenCode did not end well",
                hint=f"try `remote-dispatch doctor {host}`",
            )


def _order(version: str) -> tuple[int, int, int, bool]:
    """A release comes after its own previews."""
    first, second, third = re.findall(r"[0-9]+", version)[:3]
    return int(first), int(second), int(third), "-" not in version


def _pairs(host: Host) -> list[str]:
    return [f"{name}={value}" for name, value in (host.env or {}).items()]


def _status(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _last_words(said: bytes) -> str:
    lines: Sequence[str] = clean(said.decode(errors="replace"), 8000).splitlines()
    shown = [line.strip() for line in lines if re.search(r"[A-Za-z]{2}", line)][-_LOG_LINES:]
    return clean(mask_addresses(" / ".join(shown)), _LOG_LENGTH)


def _text(name: str) -> str:
    return files("remote_dispatch.acp").joinpath(name).read_text(encoding="utf-8")
