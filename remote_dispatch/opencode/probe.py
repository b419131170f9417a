"""Learn what a host has in one remote command: system, clock, OpenCode, its catalogue, an old copy of the session."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.errors import DeadlinePassedError, HostNotReadyError
from remote_dispatch.model import RemoteFacts
from remote_dispatch.opencode.catalogue import Catalogue, parse_agents, parse_defaults, parse_models
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection

PROBE_TIMEOUT_S = 360.0
"""OpenCode may wait two minutes for a package registry at each start before it answers (OpenCode 1.18)."""
ANSWER_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Probed:
    """What the probe found. `held` has the ids that the host has of the session and its children, by kind."""

    facts: RemoteFacts
    catalogue: Catalogue
    held: dict[str, frozenset[str]]

    @property
    def holds_session(self) -> bool:
        """Whether the host's OpenCode already has the session."""
        return bool(self.held.get("session"))


async def probe(
    connection: Connection, host: Host, *, directory: str | None, session_id: str | None, fresh: bool = False
) -> Probed:
    """Probe a host; `session_id` is looked for in its OpenCode. Changes nothing but our cache there.

    Raises HostNotReadyError when OpenCode is missing, or its listings fail, or the directory cannot be one.
    """
    pairs = [f"{name}={value}" for name, value in (host.env or {}).items()]
    parameters = (host.opencode or "", directory or "", session_id or "", "fresh" if fresh else "", *pairs)
    output, heard_at = await _listen(connection, parameters)
    values, blobs = read_answer(output)
    _check(host.name, values, blobs)
    try:
        return Probed(_facts(values, blobs, heard_at), _catalogue(values, blobs), _held(host.name, values, blobs))
    except (KeyError, TypeError, ValueError) as error:
        raise HostNotReadyError(
            host.name, "the answer to the probe makes no sense", hint="does a program there stand in for `opencode`?"
        ) from error


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
    script = files("remote_dispatch.opencode").joinpath("probe.sh").read_text()
    output = bytearray()
    heard_at = None
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S), connection.open(script, *parameters) as channel:
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
            hint=f"install it on the host, or name the binary in the `opencode` field of `{host}` in your hosts file",
        )
    if "no_cache" in values or "probed" not in values:
        raise HostNotReadyError(host, "the probe did not end well", hint="is the home directory there writable?")
    if "is_directory_a_file" in values:
        raise HostNotReadyError(host, f"`{clean(values['directory'], 200)}` is not a directory there")
    for listing, command in (("models", "models"), ("agents", "agent list")):
        if blobs.get(f"{listing}.status", b"0").strip() != b"0":
            raise HostNotReadyError(
                host, f"OpenCode there could not list its {listing}", hint=f"run `opencode {command}` on the host"
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


def _held(host: str, values: dict[str, str], blobs: dict[str, bytes]) -> dict[str, frozenset[str]]:
    if values.get("held_status", "0") != "0":
        raise HostNotReadyError(
            host, "OpenCode's database there could not be read", hint="run `opencode db path` on the host"
        )
    rows = json.loads(blobs.get("held", b"") or b"[]")
    kinds = ("session", "message", "part")
    return {kind: frozenset(row["id"] for row in rows if row["kind"] == kind) for kind in kinds}
