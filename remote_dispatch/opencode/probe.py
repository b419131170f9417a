"""Learn what a host has in one remote command: system, clock, OpenCode, its catalogue, an old copy of the session."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.errors import DeadlinePassedError, HostNotReadyError
from remote_dispatch.model import DISPATCH_ID, RemoteFacts
from remote_dispatch.opencode.catalogue import Catalogue, parse_agents, parse_defaults, parse_models
from remote_dispatch.reader import reader_script
from remote_dispatch.text import bare_script, clean

if TYPE_CHECKING:
    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection

PROBE_TIMEOUT_S = 360.0
"""OpenCode may wait two minutes for a package registry at each start before it answers (OpenCode 1.18)."""
ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
INTERRUPTED_AFTER_MS = 120_000
"""An open turn that has changed nothing for so long was interrupted."""
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_KNOWN_LIMIT = 200
_IDENTITY = re.compile(r"[0-9A-Za-z-]{1,160}:[0-9]{1,20}:[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Probed:
    """What the probe found. `held` has the ids that the host has of the session and its children, by kind."""

    facts: RemoteFacts
    catalogue: Catalogue
    held: dict[str, frozenset[str]]
    database: str | None = None
    """Machine, device and inode of the OpenCode database there (identity.sh); None when there is none yet."""
    is_busy: bool = False
    """Whether a turn of the session is open there, and something in it or below it changed in the last two minutes."""
    running: str | None = None
    """The dispatch id of a run there that has the session under way, whoever sent it."""
    code_known: tuple[str, ...] = ()
    """Ids of commits of the project that are there with all their history, those of the newest dispatch first."""

    @property
    def holds_session(self) -> bool:
        """Whether the host's OpenCode already has the session."""
        return bool(self.held.get("session"))


async def probe(
    connection: Connection,
    host: Host,
    *,
    directory: str | None,
    session_id: str | None,
    fresh: bool = False,
    project: str | None = None,
) -> Probed:
    """Probe a host; `session_id` is looked for in its OpenCode. Changes nothing but our cache there.

    `project` names the objects that earlier dispatches brought; see `Code` of a job.
    Raises HostNotReadyError when OpenCode is missing, or its listings fail, or the directory cannot be one.
    """
    pairs = [f"{name}={value}" for name, value in (host.env or {}).items()]
    parameters = (
        host.opencode or "",
        directory or "",
        session_id or "",
        "fresh" if fresh else "",
        project or "",
        *pairs,
    )
    output, heard_at = await _listen(connection, parameters)
    values, blobs = read_answer(output)
    _check(host.name, values, blobs)
    try:
        return _probed(host.name, values, blobs, heard_at)
    except (KeyError, TypeError, ValueError) as error:
        raise HostNotReadyError(
            host.name, "the answer to the probe makes no sense", hint="does a program there stand in for `opencode`?"
        ) from error


def probe_script() -> str:
    """Return the whole script, as one POSIX sh text without comments; its values stand at the head of probe.sh."""
    identity, common, select, probing = (
        files(f"remote_dispatch.{room}").joinpath(f"{name}.sh").read_text(encoding="utf-8")
        for room, name in (
            ("opencode", "identity"),
            ("runner", "common"),
            ("opencode", "select"),
            ("opencode", "probe"),
        )
    )
    return bare_script(f"{identity}\n{common}\n{reader_script()}\n{select}\n{probing}")


def probe_functions() -> str:
    """Return the probe's script without the call that starts it."""
    return probe_script().rpartition('main "$@"')[0]


def read_answer(data: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """Split the probe's output into its `key value` lines and its blobs. Untrusted: odd lines are skipped."""
    values: dict[str, str] = {}
    blobs: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        line = data[position:end]
        position = end + 1
        if header := re.fullmatch(rb"blob ([a-z.]+) (\d{1,9})", line):
            size = int(header[2])
            blobs[header[1].decode()] = data[position : position + size]
            position += size + 1
        elif pair := re.fullmatch(rb"([a-z_]+) (.*)", line):
            values[pair[1].decode()] = pair[2].decode(errors="replace")
    return values, blobs


async def _listen(connection: Connection, parameters: tuple[str, ...]) -> tuple[bytes, float]:
    """Return the probe's output, and when its first line (the host's clock) arrived."""
    output = bytearray()
    heard_at = None
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S), connection.open(probe_script(), *parameters) as channel:
            async for chunk in channel.stdout():
                heard_at = heard_at or time.time()
                output += chunk
                if len(output) > ANSWER_LIMIT_BYTES:
                    raise HostNotReadyError(connection.name, "the answer to the probe is absurdly large")
    except TimeoutError as error:
        raise DeadlinePassedError(
            f"{connection.name}: no answer to the probe within {PROBE_TIMEOUT_S:.0f} s",
            hint="see whether `opencode models` ends on the host when you run it there",
        ) from error
    return bytes(output), heard_at or time.time()


def _check(host: str, values: dict[str, str], blobs: dict[str, bytes]) -> None:
    if "opencode_missing" in values:
        raise HostNotReadyError(
            host,
            "OpenCode was not found there",
            hint=f"put it there with `remote-dispatch hosts setup {host}`, or say where it is with "
            f"`remote-dispatch hosts set {host} opencode PATH`",
        )
    if "no_cache" in values or "probed" not in values:
        raise HostNotReadyError(host, "the probe did not end well", hint="is the home directory there writable?")
    if "is_directory_a_file" in values:
        raise HostNotReadyError(host, f"`{clean(values.get('directory', ''), 200)}` is not a directory there")
    for listing, command in (("models", "models"), ("agents", "agent list")):
        if blobs.get(f"{listing}.status", b"0").strip() != b"0":
            raise HostNotReadyError(
                host, f"OpenCode there could not list its {listing}", hint=f"run `opencode {command}` on the host"
            )


def _probed(host: str, values: dict[str, str], blobs: dict[str, bytes], heard_at: float) -> Probed:
    rows = _rows(host, values, blobs)
    running = values.get("running", "")
    return Probed(
        facts=_facts(values, blobs, heard_at),
        catalogue=_catalogue(values, blobs),
        held={kind: rows.get(kind, frozenset()) for kind in ("session", "message", "part")},
        database=values["database"] if _IDENTITY.fullmatch(values.get("database", "")) else None,
        is_busy=_is_busy(rows, int(values["now"])),
        running=running if DISPATCH_ID.fullmatch(running) else None,
        code_known=_commits(blobs.get("code", b"")),
    )


def _facts(values: dict[str, str], blobs: dict[str, bytes], heard_at: float) -> RemoteFacts:
    home = PurePosixPath(values["home"])
    free_kib = values.get("free_kib", "")
    return RemoteFacts(
        system=clean(values.get("system", ""), 40),
        machine=clean(values.get("machine", ""), 40),
        home=home,
        shell=values.get("shell", ""),
        path=_path(blobs),
        state_directory=PurePosixPath(values["state_directory"]),
        opencode=PurePosixPath(values["opencode"]),
        opencode_version=clean(blobs.get("version", b"").decode(errors="replace").strip(), 40) or None,
        git_version=clean(values.get("git_version", ""), 40) or None,
        free_bytes=int(free_kib) * 1024 if free_kib.isdigit() else None,
        clock_offset_ms=int(values["now"]) - int(heard_at * 1000),
        directory=PurePosixPath(values["directory"]),
        is_directory_there="is_directory_there" in values,
    )


def _path(blobs: dict[str, bytes]) -> str | None:
    text = blobs.get("path", b"").decode(errors="surrogateescape").strip("\n")
    return text if text.startswith("/") and text.isprintable() else None


def _catalogue(values: dict[str, str], blobs: dict[str, bytes]) -> Catalogue:
    text = {name: blobs.get(name, b"").decode(errors="replace") for name in ("models", "agents", "defaults")}
    defaults = parse_defaults(text["defaults"])
    return Catalogue(
        models=parse_models(text["models"]),
        agents=parse_agents(text["agents"]),
        default_model=defaults.get("model"),
        default_agent=defaults.get("default_agent"),
        is_cached="cached" in values,
    )


def _rows(host: str, values: dict[str, str], blobs: dict[str, bytes]) -> dict[str, frozenset[str]]:
    """Return what the query told, by kind. Raises ValueError for what no query prints."""
    if values.get("held_status", "0") != "0":
        raise HostNotReadyError(
            host, "OpenCode's database there could not be read", hint="run `opencode db path` on the host"
        )
    rows: dict[str, set[str]] = {}
    for line in blobs.get("held", b"").decode(errors="replace").splitlines():
        kind, tab, value = line.partition("\t")
        if not tab:
            raise ValueError("a row without a value")
        rows.setdefault(kind, set()).add(value)
    return {kind: frozenset(found) for kind, found in rows.items()}


def _commits(listed: bytes) -> tuple[str, ...]:
    """Return the ids; anything else is passed over: at worst more travels."""
    lines = listed.decode(errors="replace").splitlines()[:_KNOWN_LIMIT]
    return tuple(line for line in lines if _COMMIT.fullmatch(line))


def _is_busy(rows: dict[str, frozenset[str]], now_ms: int) -> bool:
    changed = max((int(text) for text in rows.get("changed", ()) if text.isdigit()), default=0)
    return bool(rows.get("open")) and abs(now_ms - changed) < INTERRUPTED_AFTER_MS
