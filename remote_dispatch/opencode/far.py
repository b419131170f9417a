"""Read a session out of the OpenCode of a host, in one remote command that changes nothing there."""

from __future__ import annotations

import asyncio
import gzip
import io
import re
import zlib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING

from remote_dispatch import transcript as transcripts
from remote_dispatch.errors import DeadlinePassedError, HostNotReadyError, IntegrityError
from remote_dispatch.model import SESSION_ID
from remote_dispatch.opencode.program import checked_id
from remote_dispatch.reader import reader_script
from remote_dispatch.text import bare_script

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.transcript import Transcript

LISTING_TIMEOUT_S = 180.0
EXPORT_TIMEOUT_S = 1800.0
PACKED_LIMIT_BYTES = 256 * 1024 * 1024
UNPACKED_LIMIT_BYTES = 2 * 1024 * 1024 * 1024

_LINE = re.compile(rb"far (begin|end|missing|failed)|(session|export) (\S{1,80}) (\d{1,12})")
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Far:
    """What a host's OpenCode has of a session and of all below it. Ids are those it has there."""

    messages: dict[str, int]
    """How many messages each of the sessions has; nothing at all where the session is not there."""
    exports: dict[str, Transcript] = field(default_factory=dict)
    """The sessions themselves, as far as they were asked for and could be read."""

    @property
    def unreadable(self) -> frozenset[str]:
        """The sessions that are there and could not be exported."""
        return frozenset(self.messages) - frozenset(self.exports)


async def list_far(connection: Connection, binary: str, session_id: str, environment: Mapping[str, str]) -> Far:
    """Count what a host's OpenCode has of a session: seconds. `binary` is a path there, or a name in its PATH.

    Raises HostNotReadyError when OpenCode is not there or cannot read its database, DeadlinePassedError.
    """
    return read_far(connection.name, await _ask(connection, binary, session_id, "", environment, LISTING_TIMEOUT_S))


async def export_far(connection: Connection, binary: str, session_id: str, environment: Mapping[str, str]) -> Far:
    """Export a session and all below it: some seconds each. What arrives is bounded, parsed, its ids checked.

    Raises what `list_far` raises. A session that cannot be exported or read is in `unreadable`.
    """
    answer = await _ask(connection, binary, session_id, "export", environment, EXPORT_TIMEOUT_S)
    return await asyncio.to_thread(read_far, connection.name, answer)


def read_far(host: str, answer: bytes) -> Far:
    """Read what far.sh prints. Untrusted. Raises HostNotReadyError when it did not end well."""
    messages: dict[str, int] = {}
    exports: dict[str, Transcript] = {}
    end = ""
    for word, session_id, number, content in _lines(answer):
        if word == "session":
            messages[session_id] = number
        elif word == "export":
            exports |= _export(session_id, content)
        else:
            end = word
    _check_end(host, end)
    return Far(messages, {one: export for one, export in exports.items() if one in messages})


async def _ask(
    connection: Connection,
    binary: str,
    session_id: str,
    wanted: str,
    environment: Mapping[str, str],
    timeout_s: float,
) -> bytes:
    pairs = [f"{name}={value}" for name, value in environment.items()]
    output = bytearray()
    try:
        async with (
            asyncio.timeout(timeout_s),
            connection.open(_script(), binary, checked_id(session_id), wanted, *pairs) as channel,
        ):
            async for chunk in channel.stdout():
                output += chunk
                if len(output) > PACKED_LIMIT_BYTES:
                    raise HostNotReadyError(connection.name, "the session there is too large to be compared")
    except TimeoutError as error:
        raise DeadlinePassedError(
            f"{connection.name}: OpenCode there did not show the session within {timeout_s:.0f} s",
            hint="see whether `opencode session list` ends on the host when you run it there",
        ) from error
    return bytes(output)


def _script() -> str:
    texts = (
        files("remote_dispatch.opencode").joinpath(name).read_text(encoding="utf-8") for name in ("select.sh", "far.sh")
    )
    return bare_script("\n".join((reader_script(), *texts)))


def _lines(answer: bytes) -> Iterator[tuple[str, str, int, bytes]]:
    """Yield word, session id, number and content of each line; what a login shell says before is skipped."""
    position = answer.find(b"\nfar begin\n") + 1
    while 0 < position < len(answer):
        end = answer.find(b"\n", position)
        line = answer[position : end if end >= 0 else len(answer)]
        position = end + 1
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        size = int(match[4] or 0)
        session_id = (match[3] or b"").decode(errors="replace")
        content = b""
        if match[2] == b"export":
            content = answer[position : position + size]
            position += size + 1
        if match[1] or SESSION_ID.fullmatch(session_id):
            yield (match[1] or match[2]).decode(), session_id, size, content


def _check_end(host: str, end: str) -> None:
    if end == "missing":
        raise HostNotReadyError(
            host,
            "OpenCode was not found there",
            hint=f"put it there with `remote-dispatch hosts setup {host}`, or say where it is with "
            f"`remote-dispatch hosts set {host} opencode PATH`",
        )
    if end != "end":
        raise HostNotReadyError(
            host, "OpenCode there could not show its sessions", hint="run `opencode session list` on the host"
        )


def _export(session_id: str, packed: bytes) -> dict[str, Transcript]:
    """The transcript under its id; nothing where it is not whole, or not what it should be."""
    try:
        transcript = transcripts.parse(_unpacked(packed))
        transcripts.check_back(transcript, session_id=session_id, base_ids=())
    except (EOFError, OSError, zlib.error, IntegrityError):
        return {}
    return {session_id: transcript}


def _unpacked(packed: bytes) -> bytes:
    """Unpack all gzip members. Raises EOFError, OSError or zlib.error for what is cut, damaged or too large."""
    data = bytearray()
    with gzip.open(io.BytesIO(packed)) as file:
        while piece := file.read(_PIECE_BYTES):
            data += piece
            if len(data) > UNPACKED_LIMIT_BYTES:
                raise OSError("too large")
    return bytes(data)
