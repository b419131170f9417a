"""Look at a host before anything is sent: its system, its tools, its OpenCode. Changes nothing there."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.errors import HostNotReadyError
from remote_dispatch.opencode.probe import probe_functions
from remote_dispatch.setup.fit import HostSystem
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.setup.build import Libc

SURVEY_TIMEOUT_S = 150.0
BIN = PurePosixPath(".opencode/bin")
"""Where OpenCode's own installer puts it, below the home directory."""
_LINE = re.compile(r"([a-z0-9_]{1,20}) (.*)")
_NUMBER = re.compile(r"[0-9]{1,18}")
VERSION = re.compile(r"\d{1,4}(?:\.\d{1,6}){1,3}[\w.+-]{0,40}")


@dataclass(frozen=True, slots=True)
class Survey:
    """What a host has. Paths are absolute."""

    system: HostSystem
    home: PurePosixPath
    config: PurePosixPath
    """OpenCode's directory of configuration there."""
    data: PurePosixPath
    """OpenCode's directory of data there, with the credentials."""
    free_bytes: int | None
    has_gzip: bool
    can_check: bool
    """Whether something there computes a SHA-256."""
    is_in_place: bool
    """Whether something stands at `~/.opencode/bin/opencode`."""
    has_leftovers: bool
    """Whether an earlier setup was interrupted."""
    opencode: PurePosixPath | None
    """What the probe would use."""
    opencode_version: str | None
    """What it answered; None when there is none, or it does not answer."""

    @property
    def bin(self) -> PurePosixPath:
        """Where OpenCode goes."""
        return self.home / BIN

    @property
    def target(self) -> PurePosixPath:
        """The file that OpenCode becomes."""
        return self.bin / "opencode"

    @property
    def shown(self) -> str:
        """The OpenCode that is there; with `~` for the home, which holds the name of the user there."""
        path = self.opencode or self.target
        if path.is_relative_to(self.home):
            return _shown(f"~/{path.relative_to(self.home)}", 200)
        return _shown(str(path), 200)


async def survey(connection: Connection, host: Host) -> Survey:
    """Look at a host. Raises HostNotReadyError when its answer makes no sense."""
    pairs = [f"{name}={value}" for name, value in (host.env or {}).items()]
    done = await connection.run(survey_script(), host.opencode or "", *pairs, timeout_s=SURVEY_TIMEOUT_S)
    return read_survey(host.name, done.stdout)


def survey_script() -> str:
    """Return the script: the functions of the probe, and what is done with them here."""
    functions = probe_functions()
    return f"{functions}\n{files('remote_dispatch.setup').joinpath('survey.sh').read_text(encoding='utf-8')}"


def read_survey(name: str, answer: bytes) -> Survey:
    """Read what survey.sh prints. Untrusted."""
    said: defaultdict[str, list[str]] = defaultdict(list)
    for line in answer.decode(errors="replace").splitlines():
        if match := _LINE.fullmatch(line):
            said[match[1]].append(match[2])
    one = {key: values[0] for key, values in said.items()}
    if "surveyed" not in one or not all(one.get(key, "").startswith("/") for key in ("home", "config", "data")):
        raise HostNotReadyError(name, "its shell did not say what it has", hint=f"see `remote-dispatch doctor {name}`")
    free_kib, version = one.get("free_kib", ""), one.get("version", "")
    is_answering = one.get("status") == "0" and VERSION.fullmatch(version)
    return Survey(
        system=_system(one, said),
        home=PurePosixPath(one["home"]),
        config=PurePosixPath(one["config"]),
        data=PurePosixPath(one["data"]),
        free_bytes=int(free_kib) * 1024 if _NUMBER.fullmatch(free_kib) else None,
        has_gzip="gzip" in one,
        can_check="checker" in one,
        is_in_place="in_place" in one,
        has_leftovers="leftover" in one,
        opencode=PurePosixPath(one["opencode"]) if one.get("opencode") else None,
        opencode_version=_shown(version, 60) if is_answering else None,
    )


def _shown(text: str, limit: int) -> str:
    return mask_addresses(clean(text, limit))


def _system(one: dict[str, str], said: dict[str, list[str]]) -> HostSystem:
    libc: Libc | None = "musl" if "musl" in one else "glibc" if "glibc" in one else None
    version = re.match(r"([0-9]{1,3})\.(\d{1,3})", one.get("glibc", ""))
    return HostSystem(
        system=_shown(one.get("system", ""), 40),
        machine=_shown(one.get("machine", ""), 40),
        libc=libc,
        glibc=(int(version[1]), int(version[2])) if version else None,
        loaders=frozenset(said.get("loader", ())),
        has_avx2={"yes": True, "no": False}.get(one.get("avx2", "")),
        installers=tuple(said.get("installer", ())),
    )
