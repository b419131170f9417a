"""TCP connections through an SSH connection: a channel each (`direct-tcpip`), or a port of ours that forwards."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING

import asyncssh

from remote_dispatch.errors import ConnectionLostError, HostNotReadyError
from remote_dispatch.remote import ssh_errors
from remote_dispatch.remote.stream import LOOPBACK, OPEN_S, ByteStream, NothingListensError, OpenStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    _Ends = tuple[asyncssh.SSHReader[bytes], asyncssh.SSHWriter[bytes]]

_FORBIDDEN = "its SSH server lets no connection through to its ports"
_ALLOW = "ask for `AllowTcpForwarding local` in its sshd_config (and no `PermitOpen` against it)"
_REFUSED = re.compile(r"refused", re.IGNORECASE)
"""strerror's word, which sshd passes on; its code says no more than that it failed."""

logger = logging.getLogger(__name__)


async def open_stream(name: str, link: asyncssh.SSHClientConnection, port: int) -> ByteStream:
    """Connect to a port of the host's loopback. Raises as `Connection.stream`."""
    try:
        reader, writer = await _opened(link, port)
    except TimeoutError as error:
        raise ConnectionLostError(name, "it does not answer any more", hint="what runs there goes on") from error
    except asyncssh.ChannelOpenError as error:
        raise _refusal(name, link, error) from error
    except (asyncssh.Error, OSError) as error:
        raise ssh_errors.lost(name) from error
    return OpenStream(reader, writer, writer.channel.abort, lambda: ssh_errors.translated(name, link))


@contextlib.asynccontextmanager
async def forwarded(name: str, link: asyncssh.SSHClientConnection, port: int) -> AsyncIterator[int]:
    """Listen on a free port of our loopback, and carry what connects there to the host's. Raises as `open_stream`."""
    (await open_stream(name, link, port)).close()
    with ssh_errors.translated(name, link):
        listener = await link.forward_local_port(LOOPBACK, 0, LOOPBACK, port)
    try:
        yield listener.get_port()
    finally:
        listener.close()
        await listener.wait_closed()


async def _opened(link: asyncssh.SSHClientConnection, port: int) -> _Ends:
    """Open a channel. One that opens after its caller was cancelled is closed: asyncssh 2.24 would keep it."""
    opening = asyncio.ensure_future(link.open_connection(LOOPBACK, port, encoding=None))
    try:
        async with asyncio.timeout(OPEN_S):
            return await asyncio.shield(opening)
    except (asyncio.CancelledError, TimeoutError):
        opening.add_done_callback(_let_go)
        raise


def _let_go(opening: asyncio.Future[_Ends]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[1].channel.abort()


def _refusal(name: str, link: asyncssh.SSHClientConnection, error: asyncssh.ChannelOpenError) -> HostNotReadyError:
    if link.is_closed():
        raise ssh_errors.lost(name) from error
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return HostNotReadyError(name, _FORBIDDEN, hint=_ALLOW)
    if _REFUSED.search(error.reason):
        return NothingListensError(name)
    logger.debug("%s: a channel was not opened, code %d", name, error.code)
    return HostNotReadyError(name, "its SSH server could not reach a port there")
