"""Our OpenCode server on a host: found, started and stopped by scripts there.

It listens on the loopback only, with a random password that is made there, stands in no command line and is readable
by its owner alone. One user has one on each machine, whoever starts it from wherever.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from remote_dispatch.errors import (
    CommandError,
    DivergedError,
    HostNotReadyError,
    RemoteDispatchError,
)
from remote_dispatch.opencode.probe import probe_functions, read_answer
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from remote_dispatch.model import Host
    from remote_dispatch.opencode.api import Api
    from remote_dispatch.remote.connection import Connection

FIND_TIMEOUT_S = 60.0
START_TIMEOUT_S = 480.0
"""Waiting for somebody else's start, and then a start on a small board right after an upgrade."""
STOP_TIMEOUT_S = 120.0
DISPOSE_TIMEOUT_S = 12.0
"""Half a second, usually (OpenCode 1.18)."""
USER = "opencode"
"""The user name of our servers, whatever the environment there says."""

_PASSWORD = re.compile(r"[0-9a-f]{48}")
_NUMBER = re.compile(r"[0-9]{1,12}")
_VERSION = re.compile(r"[0-9A-Za-z.+-]{1,60}")
_USUAL_MASK = "usual_mask=$(umask)"
"""Before the scripts set one of their own."""
_LOG_LINES = 5
_LOG_LENGTH = 600
_DIRECTORIES = 50

ScriptName = Literal["find", "start", "stop", "watch"]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that we started on a host and that lives. Neither port nor password may be shown."""

    port: int = field(repr=False)
    password: str = field(repr=False)
    pid: int
    version: str
    """Empty where it could not be learned at the start."""
    directory: str
    """Where it was started, absolute."""
    home: str
    started: datetime
    """When it first answered, on the host's clock."""
    idle_stop_s: float | None = None
    """After how many seconds of idleness it is stopped; None: never."""
    is_loopback_only: bool | None = None
    """Whether nobody but the host itself can reach it; None where that cannot be seen."""
    is_new: bool = field(default=False, compare=False)
    """Whether the very call that returned this started it."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What a server is at."""

    busy: tuple[str, ...]
    """The ids of the sessions with a turn, sub-agents' too."""
    waiting: int
    """Open permission requests and questions of those."""


async def find(connection: Connection) -> Running | None:
    """Return our server on a host, proved to be the process that we started there; what a dead one left is removed.

    One remote command. Raises HostNotReadyError when its answer makes no sense.
    """
    done = await connection.run(server_script("find"), timeout_s=FIND_TIMEOUT_S)
    return _running(connection.name, _values(connection.name, done.stdout)[0])


async def start(connection: Connection, host: Host, *, idle_stop_s: float | None = None) -> Running:
    """Return our server on a host, which answers; start it first where none lives.

    Ever so many starts at once make one. `idle_stop_s` (whole seconds; 0: never) is set for one that runs already, too;
    None leaves it as it is. It works in the host's `directory`, or in the home where that is not there; it has the
    host's `env` and what a login shell finds. Nothing lives on after a failure.
    Raises HostNotReadyError: no OpenCode, no place for its files, or it does not come up.
    """
    texts = (_text("ask.js"), server_script("watch"))
    pairs = [f"{name}={value}" for name, value in (host.env or {}).items()]
    values = (host.opencode or "", host.directory or "", _idle_word(idle_stop_s), *texts, *pairs)
    done = await connection.run(server_script("start"), *values, timeout_s=START_TIMEOUT_S)
    said, blobs = _values(host.name, done.stdout)
    running = _running(host.name, said)
    if running is None:
        raise _not_started(host.name, said.get("state", ""), blobs)
    return running


async def stop(connection: Connection, running: Running | None, api: Api | None) -> bool:
    """Stop a server: turns are ended cleanly first, then its processes, all of them. False when there was none.

    With `running` another one that was started meanwhile is left alone; with None whatever is there is stopped.
    Raises CommandError when a process could not be ended, DivergedError when somebody else is at it.
    """
    if api is not None:
        # Without this the messages stay unfinished for ever (OpenCode 1.18); a server that hangs is stopped anyhow.
        with contextlib.suppress(RemoteDispatchError, TimeoutError):
            async with asyncio.timeout(DISPOSE_TIMEOUT_S):
                await api.dispose()
    pid = str(running.pid) if running else ""
    done = await connection.run(server_script("stop"), pid, timeout_s=STOP_TIMEOUT_S)
    said, _ = _values(connection.name, done.stdout)
    match said.get("state"):
        case "stopped" | "none" as state:
            return state == "stopped"
        case "busy":
            raise _in_use(connection.name)
        case _:
            left = clean(said.get("left", ""), 100)
            raise CommandError(connection.name, "stop the server", 1, f"processes that did not end: {left}")


async def activity(api: Api, *, since_ms: int = 0) -> Activity:
    """Learn which sessions work. Asks in the directories of sessions that were changed since then (the server's clock).

    Asking in a directory makes the server open it, so `since_ms` is best the server's start. Raises what Api raises.
    """
    recent = [one for one in await api.sessions() if one.updated_ms >= since_ms]
    directories = list(dict.fromkeys(one.directory for one in recent))[:_DIRECTORIES]
    found = await asyncio.gather(*(_activity_in(api, directory) for directory in directories))
    return Activity(tuple(one for part in found for one in part.busy), sum(part.waiting for part in found))


def server_script(name: ScriptName) -> str:
    """Return a script as one POSIX sh text; its values stand at the head of its file."""
    if name in ("start", "watch"):
        return "\n".join((_USUAL_MASK, probe_functions(), _text("place.sh"), _text(f"{name}.sh")))
    common = files("remote_dispatch.runner").joinpath("common.sh").read_text(encoding="utf-8")
    return "\n".join((common, _text("place.sh"), _text(f"{name}.sh")))


async def _activity_in(api: Api, directory: str) -> Activity:
    statuses = await api.statuses(directory)
    if not statuses:
        return Activity((), 0)
    permissions, questions = await asyncio.gather(api.permissions(directory), api.questions(directory))
    # What an aborted or deleted session asked stays listed (OpenCode 1.18).
    asking = [one.session_id for one in permissions] + [one.session_id for one in questions]
    return Activity(tuple(statuses), sum(one in statuses for one in asking))


def _idle_word(idle_stop_s: float | None) -> str:
    if idle_stop_s is None:
        return ""
    return str(max(1, round(idle_stop_s))) if idle_stop_s > 0 else "never"


def _values(host: str, output: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    values, blobs = read_answer(output)
    if "state" not in values:
        raise HostNotReadyError(
            host, "the script that looks after its server did not end well", hint=f"try `remote-dispatch doctor {host}`"
        )
    return values, blobs


def _running(host: str, said: Mapping[str, str]) -> Running | None:
    """Untrusted: what makes no sense is an error, and never shown."""
    if said.get("state") != "running":
        return None
    port, password = said.get("port", ""), said.get("password", "")
    numbers = [said.get(key, "") for key in ("pid", "started")]
    is_sound = all(map(_NUMBER.fullmatch, (port, *numbers))) and _PASSWORD.fullmatch(password) and "whole" in said
    if not is_sound or not 0 < int(port) < 65536:
        raise HostNotReadyError(
            host,
            "what is written there about its server makes no sense",
            hint=f"make a new one with `remote-dispatch session server restart {host} --force`",
        )
    version, idle = said.get("version", ""), said.get("idle_stop", "")
    return Running(
        port=int(port),
        password=password,
        pid=int(numbers[0]),
        version=version if _VERSION.fullmatch(version) else "",
        directory=clean(said.get("directory", ""), 4000),
        home=clean(said.get("home", ""), 4000),
        started=datetime.fromtimestamp(int(numbers[1]), UTC),
        idle_stop_s=float(idle) if _NUMBER.fullmatch(idle) else None,
        is_loopback_only={"yes": True, "no": False}.get(said.get("loopback", "")),
        is_new="new" in said,
    )


def _not_started(host: str, state: str, blobs: Mapping[str, bytes]) -> RemoteDispatchError:
    match state:
        case "missing":
            return HostNotReadyError(
                host,
                "OpenCode was not found there",
                hint=f"put it there with `remote-dispatch hosts setup {host}`, or say where it is with "
                f"`remote-dispatch hosts set {host} opencode PATH`",
            )
        case "unwritable":
            return HostNotReadyError(
                host,
                "the directory for its server's files cannot be written there",
                hint=f"see why with `remote-dispatch doctor {host}`",
            )
        case "busy":
            return _in_use(host)
        case _:
            words = _last_words(blobs.get("log", b""))
            return HostNotReadyError(
                host,
                f"its OpenCode server did not start{f': {words}' if words else ''}",
                hint=f"see what is wrong with `remote-dispatch doctor {host}`, or run `opencode serve` on the host",
            )


def _in_use(host: str) -> DivergedError:
    return DivergedError(
        f"{host}: its server is being started or stopped by somebody else", hint="try again in a minute"
    )


def _last_words(log: bytes) -> str:
    lines = clean(log.decode(errors="replace"), 8000).splitlines()
    shown = [line.strip() for line in lines if line.strip()][-_LOG_LINES:]
    return clean(mask_addresses(" / ".join(shown)), _LOG_LENGTH)


def _text(name: str) -> str:
    return files("remote_dispatch.servers").joinpath(name).read_text(encoding="utf-8")
