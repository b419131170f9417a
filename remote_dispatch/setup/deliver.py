"""Bring a few files into a directory of a host: nothing there is overwritten, what differs is set aside first."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files as resources
from typing import TYPE_CHECKING

from remote_dispatch.errors import HostNotReadyError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import PurePosixPath

    from remote_dispatch.remote.connection import Connection

STAGING = ".remote-dispatch-setup"
COMPARE_TIMEOUT_S = 60.0
DELIVER_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is going to happen with each of the files, by name."""

    directory: PurePosixPath
    files: Mapping[str, bytes]
    send: tuple[str, ...]
    """Those that are not there yet."""
    replace: tuple[str, ...]
    """Those that are there with another content: it is kept as NAME.before-setup."""
    same: tuple[str, ...]


async def plan_delivery(connection: Connection, directory: PurePosixPath, files: Mapping[str, bytes]) -> Delivery:
    """Compare with what the host has. Changes nothing. Raises HostNotReadyError."""
    lines = await _ask(connection, "compare", directory, files)
    found = {word: tuple(name for one, name in lines if one == word and name in files) for word in _WORDS}
    if sum(map(len, found.values())) != len(files):
        raise HostNotReadyError(
            connection.name, "its configuration could not be looked at", hint="is the home directory there readable?"
        )
    return Delivery(directory, files, found["missing"], found["differs"], found["same"])


async def deliver(connection: Connection, delivery: Delivery) -> tuple[str, ...]:
    """Send what is missing or differs, mode 0600; return the names under which earlier files were set aside.

    Raises HostNotReadyError; every file there is then either as it was or as it was to be.
    """
    files = {name: delivery.files[name] for name in (*delivery.send, *delivery.replace)}
    if not files:
        return ()
    await connection.upload(delivery.directory / STAGING, files, timeout_s=DELIVER_TIMEOUT_S)
    lines = await _ask(connection, "put", delivery.directory, files)
    if ("result", "done") not in lines:
        raise HostNotReadyError(
            connection.name,
            "not all files could be put into OpenCode's directory there",
            hint="is it writable, and is there room? Then set up again",
        )
    return tuple(
        name for word, name in lines if word == "kept" and (kept := _KEPT.fullmatch(name)) and kept[1] in files
    )


_WORDS = ("missing", "differs", "same")
_KEPT = re.compile(r"(.+)\.before-setup(?:-[0-9]{1,6})?")


async def _ask(
    connection: Connection, verb: str, directory: PurePosixPath, files: Mapping[str, bytes]
) -> list[tuple[str, str]]:
    script = resources("remote_dispatch.setup").joinpath("deliver.sh").read_text(encoding="utf-8")
    pairs = [word for name, content in files.items() for word in (name, hashlib.sha256(content).hexdigest())]
    done = await connection.run(script, verb, str(directory), *pairs, timeout_s=COMPARE_TIMEOUT_S)
    lines = done.stdout.decode(errors="replace").splitlines()
    return [(word, name) for word, space, name in (line.partition(" ") for line in lines) if space]
