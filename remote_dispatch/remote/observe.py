"""A connection made for the doctor: how far it came, and what the login shell and SFTP do. Facts, no judgement."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import asyncssh

from remote_dispatch.errors import RemoteDispatchError
from remote_dispatch.remote import ssh_errors
from remote_dispatch.remote.bootstrap import command_line, opening
from remote_dispatch.remote.ssh import connect
from remote_dispatch.remote.ssh_sessions import Sessions
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.remote.trail import Trail

_NOISE_LIMIT_BYTES = 1_000_000
_SFTP_S = 10.0
_PAUSES_S = (0.05, 0.2, 0.5, 1.0)
_WORDS = 200
_SCRIPT = """
printf '%s\\n' "${SHELL:-}"
for tool in cat chmod dd mkdir mv rm wc; do command -v "$tool" >/dev/null || printf '%s\\n' "$tool"; done
"""
"""The login shell, then those programs that are missing and without which files do not pass through it."""


@dataclass(frozen=True, slots=True)
class FirstWords:
    """What one command brought, from the login shell's first byte on."""

    has_started: bool
    noise: bytes
    """What came on stdout before the command, or instead of it."""
    noise_on_stderr: bytes
    output: list[str]
    ending: Literal["ended", "late", "too-loud", "no-session"] = "ended"
    exit_status: int | None = None

    @property
    def last_words(self) -> str:
        """The last line of the noise, cleaned of control characters and addresses."""
        lines = [
            line for line in (self.noise or self.noise_on_stderr).decode(errors="replace").splitlines() if line.strip()
        ]
        return mask_addresses(ssh_errors.REDACTION.clean(clean(lines[-1], _WORDS).strip())) if lines else ""


@dataclass(slots=True)
class Observation:
    """How far it came. `error` is what ended it before a login; `connection` is open while the caller's stack is."""

    trail: Trail
    error: RemoteDispatchError | None = None
    connection: Connection | None = None
    words: FirstWords | None = None
    has_sftp: bool | None = None


async def observe(host: Host, stack: AsyncExitStack, trail: Trail, *, timeout_s: float) -> Observation:
    """Connect, run one command, start SFTP and end it: each at most `timeout_s`, SFTP ten seconds. Raises nothing.

    How far the connection came so far can be seen in `trail` meanwhile.
    """
    seen = Observation(trail)
    try:
        seen.connection = await stack.enter_async_context(connect(host, timeout_s=timeout_s, trail=seen.trail))
    except RemoteDispatchError as error:
        seen.error = error
        return seen
    assert seen.trail.link is not None
    seen.words = await _first_words(seen.trail.link, timeout_s)
    seen.has_sftp = await _starts_sftp(seen.trail.link, min(timeout_s, _SFTP_S))
    return seen


async def _first_words(link: asyncssh.SSHClientConnection, timeout_s: float) -> FirstWords:
    marker = secrets.token_hex(12)
    out, error = bytearray(), bytearray()
    ending: Literal["ended", "late", "too-loud", "no-session"] = "ended"
    status = None
    try:
        async with (
            asyncio.timeout(timeout_s),
            Sessions(link, _nothing_to_give).start(
                command_line(marker, _SCRIPT, ()), opening(marker, _SCRIPT, ())
            ) as process,
        ):
            # A shell that ends at once has closed it by now; what it said is still to be read.
            with contextlib.suppress(asyncssh.Error, OSError):
                process.stdin.write_eof()
            try:
                await asyncio.gather(_collect(process.stdout, out), _collect(process.stderr, error))
                await process.wait_closed()
                status = process.returncode
            finally:
                process.close()
    except TimeoutError:
        ending = "late"
    except _TooLoudError:
        ending = "too-loud"
    except (asyncssh.Error, OSError):
        ending = "no-session"
    if link.is_closed():
        ending = "no-session"
    noise, has_started, output = bytes(out).partition(marker.encode() + b"\n")
    return FirstWords(
        has_started=bool(has_started),
        noise=noise,
        noise_on_stderr=bytes(error).partition(marker.encode() + b"\n")[0],
        output=output.decode(errors="replace").splitlines(),
        ending=ending,
        exit_status=status,
    )


class _TooLoudError(Exception):
    pass


async def _collect(stream: asyncssh.SSHReader[bytes], into: bytearray) -> None:
    while chunk := await stream.read(65536):
        into += chunk
        if len(into) > _NOISE_LIMIT_BYTES:
            raise _TooLoudError


async def _nothing_to_give() -> bool:
    return False


async def _starts_sftp(link: asyncssh.SSHClientConnection, timeout_s: float) -> bool:
    """Start SFTP and end it. A refused session is asked for again: sshd frees the last one a moment after its end."""
    try:
        async with asyncio.timeout(timeout_s):
            for pause_s in _PAUSES_S:
                try:
                    return await _opens_sftp(link)
                except asyncssh.ChannelOpenError as error:
                    if link.is_closed() or error.code == asyncssh.OPEN_REQUEST_SESSION_FAILED:
                        return False
                await asyncio.sleep(pause_s)
    except (asyncssh.Error, OSError):
        pass
    return False


async def _opens_sftp(link: asyncssh.SSHClientConnection) -> bool:
    sftp = await link.start_sftp_client()
    try:
        await sftp.realpath(".")
    finally:
        sftp.exit()
        with contextlib.suppress(asyncssh.Error, OSError):
            await sftp.wait_closed()
    return True
