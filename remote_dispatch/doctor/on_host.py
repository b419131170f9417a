"""What a host is like once it is reached: facts only, from two remote commands. What they mean, `judge` says."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field, replace
from importlib.resources import files
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConnectionLostError, RemoteDispatchError
from remote_dispatch.model import DISPATCH_ID
from remote_dispatch.opencode.probe import probe, probe_functions, read_answer
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from remote_dispatch.model import Host
    from remote_dispatch.opencode.catalogue import Catalogue
    from remote_dispatch.remote.connection import Connection

START_S = 20.0
"""How long OpenCode may take to tell its version; a small board needs five seconds."""
LOOK_TIMEOUT_S = 120.0
ANSWER_LIMIT_BYTES = 1024 * 1024

_VALUE_LIMIT = 100_000
_VERSION = re.compile(r"v?([0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}[0-9A-Za-z.+-]{0,40})")
_NUMBER = re.compile(r"[0-9]{1,18}")
_MACHINES = {"3e00": "x86_64", "b700": "aarch64", "2800": "arm", "f300": "riscv64", "0300": "i686"}
"""`e_machine` of an ELF header, as its two bytes stand there."""


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that must take files, or its nearest parent that exists."""

    writing: str = "yes"
    """How making a file went: yes, no-space, quota, read-only, forbidden, other."""
    free_bytes: int | None = None
    free_files: int | None = None


@dataclass(frozen=True, slots=True)
class Binary:
    """The OpenCode that a dispatch would start there. Paths begin with `~` where they are below the home."""

    path: str
    is_on_path: bool = False
    """Whether a command over SSH finds it by its name; we find it anyhow."""
    status: int = 0
    """The exit status of `--version`; 124 when it did not end in time."""
    said: str = ""
    """The last line of what it said, cleaned."""
    version: str | None = None
    built_for: str | None = None
    """The machine it was built for, as `uname -m` would say; None where that is unknown."""
    missing_loader: str | None = None
    """The loader (the C library's) that it wants and that is not there."""


@dataclass(frozen=True, slots=True)
class OnHost:
    """What was seen. Everything is cleaned and bounded; nothing is an address or a value of the environment."""

    problem: str | None = None
    """Why nothing at all is known; then the other fields mean nothing."""
    machine: str = ""
    missing: tuple[str, ...] = ()
    """Programs that the runner needs."""
    packages: str | None = None
    """The package manager's program."""
    git: str | None = None
    clock_offset_ms: int = 0
    """The host's clock minus ours."""
    places: dict[str, Place] = field(default_factory=dict)
    """`state` (our run directories), `cache`, `data` (OpenCode's conversations)."""
    directory: str = "there"
    """What a run finds for its working directory: there, absent (it will be made), file, forbidden."""
    ends_at_logout: bool = False
    """Whether systemd-logind ends what a session of this user left when it is closed."""
    runs: dict[str, str] = field(default_factory=dict)
    """State of each run directory, by dispatch id: alive, ended, idle (nobody works on it, and it has not ended)."""
    is_served: bool = False
    """Whether a server of ours was ever started there."""
    databases: frozenset[str] = frozenset()
    """Identities of OpenCode's databases there: see opencode/identity.sh."""
    login_keys: tuple[str, ...] = ()
    """Names of providers' keys that only a login shell has."""
    is_asked_missing: bool = False
    """Whether the entry's `opencode` names no program."""
    opencode: Binary | None = None
    other: Binary | None = None
    """The OpenCode that the user's own shell starts, when it is another one."""
    catalogue: Catalogue | None = None
    trouble: str | None = None
    """Why there is no catalogue although OpenCode starts."""
    trouble_hint: str | None = None

    @property
    def is_writable(self) -> bool:
        """Whether all places take files."""
        return all(place.writing == "yes" for place in self.places.values())


async def look(connection: Connection, host: Host, *, start_s: float = START_S) -> OnHost:
    """Look at a reached host: some seconds, most of them OpenCode's. Leaves nothing there but our cache.

    OpenCode is asked for its listings only where it starts within `start_s` and they can be kept.
    Raises ConnectionLostError; whatever else fails becomes part of what is returned.
    """
    try:
        output, heard_at = await _listen(connection, host, start_s)
        found, path = read(output, heard_at)
    except ConnectionLostError:
        raise
    except (RemoteDispatchError, TimeoutError) as error:
        return OnHost(problem=_without_name(host, error) or "the script that looks around did not end in time")
    if found.problem or path is None or found.opencode is None or found.opencode.version is None:
        return found
    return await _with_catalogue(found, connection, host, path) if found.is_writable else found


def look_script() -> str:
    """Return the script, as one POSIX sh text; its values stand at the head of on_host.sh."""
    own = files("remote_dispatch.doctor").joinpath("on_host.sh").read_text(encoding="utf-8")
    return probe_functions() + own


def read(output: bytes, heard_at: float) -> tuple[OnHost, str | None]:
    """Read what on_host.sh prints, and the path of OpenCode as it is there. Untrusted: bounded, cleaned.

    `heard_at` is when its first line arrived, in seconds since 1970.
    """
    values = {key: clean(value, _VALUE_LIMIT) for key, value in read_answer(output)[0].items()}
    now = _number(values.get("now", ""))
    if "looked" not in values or now is None:
        return OnHost(problem="the script that looks around did not end well"), None
    own_keys = values.get("own_keys", "").split()
    return OnHost(
        machine=values.get("machine", ""),
        missing=tuple(values.get("missing", "").split()),
        packages=values.get("packages") or None,
        git=values.get("git") or None,
        clock_offset_ms=now - int(heard_at * 1000),
        places={name: _place(values, name) for name in ("state", "cache", "data")},
        directory=values.get("directory_state", ""),
        ends_at_logout=values.get("ends_at_logout") == "yes",
        runs=_runs(values.get("runs", "")),
        is_served="served" in values,
        databases=frozenset(values.get("databases", "").split()),
        login_keys=tuple(key for key in values.get("login_keys", "").split() if key not in own_keys),
        is_asked_missing="asked_missing" in values,
        opencode=_binary(values),
        other=_other(values),
    ), values.get("opencode")


async def _listen(connection: Connection, host: Host, start_s: float) -> tuple[bytes, float]:
    """Return the output, and when its first line (the host's clock) arrived."""
    pairs = [f"{name}={value}" for name, value in (host.env or {}).items()]
    values = (host.opencode or "", host.directory or "", f"{start_s:.0f}", *pairs)
    output = bytearray()
    heard_at = None
    async with asyncio.timeout(LOOK_TIMEOUT_S), connection.open(look_script(), *values) as channel:
        async for chunk in channel.stdout():
            heard_at = heard_at or time.time()
            output += chunk
            if len(output) > ANSWER_LIMIT_BYTES:
                break
    return bytes(output), heard_at or time.time()


async def _with_catalogue(found: OnHost, connection: Connection, host: Host, path: str) -> OnHost:
    """Ask OpenCode itself. A directory that is none says so by its own; the listings do not need it then."""
    asked = host.model_copy(update={"opencode": path})
    directory = host.directory if found.directory in ("there", "absent") else None
    try:
        probed = await probe(connection, asked, directory=directory, session_id=None, fresh=True)
    except ConnectionLostError:
        raise
    except RemoteDispatchError as error:
        return replace(found, trouble=_without_name(host, error), trouble_hint=error.hint)
    return replace(found, catalogue=probed.catalogue)


def _without_name(host: Host, error: Exception) -> str:
    """The message without the host's name, which stands above its findings."""
    return str(error).removeprefix(f"{host.name}: ")


def _place(values: Mapping[str, str], name: str) -> Place:
    free = _number(values.get(f"free_{name}", ""))
    return Place(
        writing=values.get(f"writes_{name}", "other"),
        free_bytes=None if free is None else free * 1024,
        free_files=_number(values.get(f"files_{name}", "")),
    )


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _runs(text: str) -> dict[str, str]:
    pairs = (word.partition(":") for word in text.split())
    return {name: state for name, _, state in pairs if DISPATCH_ID.fullmatch(name)}


def _binary(values: Mapping[str, str]) -> Binary | None:
    path = values.get("opencode")
    if path is None:
        return None
    status, said = _number(values.get("start_status", "")), values.get("start_said", "")
    return Binary(
        path=_shown(path, values),
        is_on_path="is_on_path" in values,
        status=1 if status is None else status,
        said=clean(mask_addresses(_below_home(said, values)), 200),
        version=_version(said) if status == 0 else None,
        built_for=_MACHINES.get(values.get("built_for", "")),
        missing_loader=clean(values.get("loader", "").rpartition("/")[2], 60) if "no_loader" in values else None,
    )


def _other(values: Mapping[str, str]) -> Binary | None:
    path = values.get("other")
    return None if path is None else Binary(_shown(path, values), version=_version(values.get("other_version", "")))


def _version(text: str) -> str | None:
    match = _VERSION.fullmatch(text.strip())
    return match[1] if match else None


def _shown(path: str, values: Mapping[str, str]) -> str:
    """A path below the home without the home, which has the user's name in it; an entry's `opencode` may begin so."""
    home = values.get("home", "").rstrip("/")
    return f"~{path.removeprefix(home)}" if home and path.startswith(f"{home}/") else path


def _below_home(text: str, values: Mapping[str, str]) -> str:
    home = values.get("home", "").rstrip("/")
    return text.replace(f"{home}/", "~/") if home else text
