"""Opening an SSH connection: resolve, verify the host key, log in with keys only, through jump hosts where needed.

Callers import this module inside functions: asyncssh takes 300 ms to import.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from typing import TYPE_CHECKING

import asyncssh

from remote_dispatch.remote import known_hosts, ssh_errors
from remote_dispatch.remote.ssh_config import Target, resolve
from remote_dispatch.remote.ssh_connection import SshConnection
from remote_dispatch.remote.ssh_keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from remote_dispatch.errors import RemoteDispatchError
    from remote_dispatch.model import Host

_KEEPALIVE_COUNT = 3
_LOGIN_S = 30
_ATTEMPTS = 7
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.15, 2.0
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def connect(host: Host, *, timeout_s: float = 15, keepalive_s: float = 7.0) -> AsyncIterator[SshConnection]:
    """Open a connection, at most `timeout_s` for all hops and attempts together, and close it at the end.

    A host that says nothing is asked every `keepalive_s` for a sign of life; after three without an answer, so after
    four times as long, the connection counts as lost.
    Nothing is ever asked: a key that needs a passphrase must be in the agent, an unknown host key is refused.
    Raises ConfigurationError, HostUnreachableError, AuthenticationError, HostKeyError, LoginError.
    """
    ssh_errors.quieten()
    target = await resolve(host)
    ssh_errors.REDACTION.hide(target)
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout_s):
                link = await _through_jumps(target, stack, keepalive_s)
        except TimeoutError as error:
            raise ssh_errors.late(host.name) from error
        yield await stack.enter_async_context(SshConnection(host.name, link))


async def _through_jumps(
    target: Target, stack: contextlib.AsyncExitStack, keepalive_s: float
) -> asyncssh.SSHClientConnection:
    tunnel: asyncssh.SSHClientConnection | None = None
    for hop in (*target.jumps, target):
        tunnel = await _patiently(hop, tunnel)
        tunnel.set_keepalive(keepalive_s, _KEEPALIVE_COUNT)
        stack.push_async_callback(_close, tunnel)
    assert tunnel is not None
    return tunnel


async def _patiently(target: Target, tunnel: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
    """Connect; a server that hangs up before the login (sshd's MaxStartups) is tried again."""
    for attempt in range(1, _ATTEMPTS + 1):
        client = _Client(target)
        try:
            return await _once(target, client, tunnel)
        except (asyncssh.ConnectionLost, ConnectionResetError) as error:
            if attempt == _ATTEMPTS or client.is_logged_in:
                raise ssh_errors.connect_error(target.name, error) from error
            logger.debug("%s: hung up before the login, attempt %d", target.name, attempt)
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1))
            await asyncio.sleep(random.uniform(0.5, 1) * pause_s)  # noqa: S311 - jitter, no secret
        except asyncssh.HostKeyNotVerifiable as error:
            raise client.key_error() from error
        except TimeoutError:
            raise
        except (asyncssh.Error, OSError, ValueError) as error:
            raise ssh_errors.connect_error(target.name, error) from error
        finally:
            await client.ring.close()
    raise AssertionError


async def _once(
    target: Target, client: _Client, tunnel: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        target.host,
        target.port,
        config=None,
        tunnel=tunnel,
        client_factory=lambda: client,
        username=target.user,
        known_hosts=client.known_hosts,
        host_key_alias=target.host_key_alias,
        client_keys=None,
        agent_path=None,
        public_key_auth=True,
        password_auth=False,
        kbdint_auth=False,
        host_based_auth=False,
        proxy_command=_proxy_argv(target.proxy_command) if target.proxy_command else None,
        family=_FAMILIES.get(target.address_family, socket.AF_UNSPEC),
        connect_timeout=target.connect_timeout_s,
        login_timeout=_LOGIN_S,
    )


def _proxy_argv(command: str) -> list[str]:
    """Keep stderr open and silent: asyncssh 2.24 takes it for data, and its end for the end of the connection."""
    return ["/bin/sh", "-c", f"exec 9>&2 2>/dev/null; exec {command}"]


async def _close(link: asyncssh.SSHClientConnection) -> None:
    link.close()
    with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(2):
            await link.wait_closed()
            return
    link.abort()


class _Client(asyncssh.SSHClient):
    """Answers asyncssh's questions during one login: which keys to offer, and what it thought of the host key."""

    def __init__(self, target: Target) -> None:
        self.ring = KeyRing(target)
        self.is_logged_in = False
        self._target = target
        self._keys: list[asyncssh.SSHKeyPair] | None = None
        self._refused: tuple[str, str, int] | None = None

    def known_hosts(self, host: str, address: str, port: int | None) -> known_hosts.Matches:
        """Return what the known_hosts files say: trusted keys, trusted authorities, revoked keys."""
        return known_hosts.match(self._target.known_hosts, host, address, port)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002 - asyncssh calls it by position
        """Refuse: only the known_hosts files decide. Remember what was asked, for the error's sake."""
        self._refused = host, addr, port
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Refuse an authority that the known_hosts files do not name."""
        return self.validate_host_public_key(host, addr, port, key)

    def key_error(self) -> RemoteDispatchError:
        """Return whether the refused key was unknown, changed or revoked."""
        if self._refused is None:
            return ssh_errors.host_key_error(self._target.name, "revoked")
        trusted = self.known_hosts(*self._refused)[0]
        return ssh_errors.host_key_error(self._target.name, "changed" if trusted else "unknown")

    async def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        """Return the next key to offer."""
        if self._keys is None:
            self._keys = await self.ring.keys()
        return self._keys.pop(0) if self._keys else None

    def auth_completed(self) -> None:
        """Note that the login is done: what breaks from here on is not tried again."""
        self.is_logged_in = True
