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
from remote_dispatch.remote.handshakes import turn
from remote_dispatch.remote.ssh_config import Target, resolve
from remote_dispatch.remote.ssh_connection import SshConnection
from remote_dispatch.remote.ssh_keys import KeyRing, kind_of
from remote_dispatch.remote.trail import Hop, Problem, Trail, Used

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from remote_dispatch.errors import RemoteDispatchError
    from remote_dispatch.model import Host

    Link = asyncssh.SSHClientConnection

_LOGIN_S = 30
_ATTEMPTS = 7
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.15, 2.0
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_BARE_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""Host keys without certificates, in OpenSSH 9's order: the fingerprint of the first one is what `ssh` shows."""

_NO_AGREEMENT = (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost, ConnectionResetError)
"""What follows when a host has no key of the kinds known of it, for which alone asyncssh asks: sshd just hangs up."""

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def connect(
    host: Host, *, timeout_s: float = 15, keepalive_s: float = 7.0, trail: Trail | None = None
) -> AsyncIterator[SshConnection]:
    """Open a connection, at most `timeout_s` for all hops and attempts together, and close it at the end.

    A host that says nothing is asked every `keepalive_s` for a sign of life; after three without an answer, so after
    four times as long, the connection counts as lost, and with it every hop on the way. A `trail` is filled with how
    far it came.
    Nothing is ever asked: a key that needs a passphrase must be in the agent, an unknown host key is refused.
    Raises ConfigurationError, HostUnreachableError, AuthenticationError, HostKeyError, LoginError.
    """
    trail = trail or Trail()
    target = await resolved(host)
    trail.target = target
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout_s):
                trail.link = await _through_jumps(target, stack, trail)
        except TimeoutError as error:
            raise ssh_errors.late(host.name) from error
        yield await stack.enter_async_context(SshConnection(host.name, trail.link, keepalive_s))


async def resolved(host: Host) -> Target:
    """Return how to reach a host; from now on no log shows it. Raises ConfigurationError."""
    ssh_errors.quieten()
    target = await resolve(host)
    ssh_errors.REDACTION.hide(target)
    return target


async def _through_jumps(target: Target, stack: contextlib.AsyncExitStack, trail: Trail) -> Link:
    tunnel: Link | None = None
    for hop in (*target.jumps, target):
        trail.hops.append(Hop(hop.name, is_jump_host=hop is not target))
        tunnel = await log_in(hop, tunnel, trail.hops[-1])
        stack.push_async_callback(close, tunnel)
    assert tunnel is not None
    return tunnel


async def log_in(target: Target, tunnel: Link | None, hop: Hop) -> Link:
    """Connect to one host on the way, through the one before it; `hop` is filled with how far it came.

    Raises HostUnreachableError, AuthenticationError, HostKeyError, LoginError; TimeoutError when its own
    `ConnectTimeout` passed.
    """
    client = _Client(target, hop)
    hop.problem = Problem.LATE
    try:
        link = await _by_any_host_key(client, tunnel)
    except TimeoutError:
        raise
    except (asyncssh.Error, OSError, ValueError) as error:
        hop.problem = client.problem(error)
        raise _error(target.name, hop.problem, error) from error
    hop.problem, hop.is_in = None, True
    return link


async def presented_key(target: Target, tunnel: Link | None) -> asyncssh.SSHKey:
    """Return the host key that `ssh` would show of one host on the way. The connection ends before any login.

    Raises HostUnreachableError, LoginError, TimeoutError.
    """
    witness = _Witness(target, Hop(target.name, is_jump_host=False))
    try:
        await _patiently(witness, tunnel, _BARE_KEYS)
    except asyncssh.HostKeyNotVerifiable:
        if witness.refused is not None:
            return witness.refused
        raise
    except TimeoutError:
        raise
    except (asyncssh.Error, OSError, ValueError) as error:
        raise ssh_errors.connect_error(target.name, error) from error
    raise AssertionError


async def close(link: Link) -> None:
    """Close a connection, within two seconds."""
    link.close()
    with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(2):
            await link.wait_closed()
            return
    link.abort()


def _error(name: str, problem: Problem, error: Exception) -> RemoteDispatchError:
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        return ssh_errors.host_key_error(name, problem)
    return ssh_errors.connect_error(name, error)


async def _by_any_host_key(client: _Client, tunnel: Link | None) -> Link:
    """Connect; where a host certificate was no proof, the bare key may be one, as it is for OpenSSH."""
    try:
        return await _patiently(client, tunnel, ())
    except (asyncssh.HostKeyNotVerifiable, *_NO_AGREEMENT) as error:
        algorithms = client.other_algorithms(error)
        if not algorithms:
            raise
    return await _patiently(client, tunnel, algorithms)


async def _patiently(client: _Client, tunnel: Link | None, algorithms: Sequence[str]) -> Link:
    """Connect; a server that hangs up before the login (sshd's MaxStartups) is tried again."""
    for attempt in range(1, _ATTEMPTS):
        try:
            return await _in_turn(client, tunnel, algorithms)
        except (asyncssh.ConnectionLost, ConnectionResetError) as error:
            if client.is_logged_in or (not algorithms and client.other_algorithms(error)):
                raise
            client.hop.hang_ups += 1
            logger.debug("%s: hung up before the login, attempt %d", client.target.name, attempt)
            pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1))
            await asyncio.sleep(random.uniform(0.5, 1) * pause_s)  # noqa: S311 - jitter, no secret
    return await _in_turn(client, tunnel, algorithms)


async def _in_turn(client: _Client, tunnel: Link | None, algorithms: Sequence[str]) -> Link:
    async with turn(client.target.host, client.target.port):
        return await _once(client, tunnel, algorithms)


async def _once(client: _Client, tunnel: Link | None, algorithms: Sequence[str]) -> Link:
    target = client.target
    try:
        return await asyncssh.connect(
            target.host,
            target.port,
            config=None,
            tunnel=tunnel,
            client_factory=lambda: client,
            username=target.user,
            known_hosts=client.known_hosts,
            host_key_alias=target.host_key_alias,
            server_host_key_algs=list(algorithms) or (),
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
    finally:
        await client.end()


def _proxy_argv(command: str) -> list[str]:
    """Keep stderr open and silent: asyncssh 2.24 takes it for data, and its end for the end of the connection."""
    return ["/bin/sh", "-c", f"exec 9>&2 2>/dev/null; exec {command}"]


class _Client(asyncssh.SSHClient):
    """Answers asyncssh's questions during a login, and notes in `hop` what happens: one for all attempts."""

    def __init__(self, target: Target, hop: Hop) -> None:
        self.target = target
        self.hop = hop
        self.is_logged_in = False
        self.refused: asyncssh.SSHKey | None = None
        self._listed: known_hosts.Matches = ([], [], [])
        self._link: Link | None = None
        self._ring = KeyRing(target)
        self._keys: list[asyncssh.SSHKeyPair] | None = None
        self._offered: asyncssh.SSHKeyPair | None = None

    def connection_made(self, conn: Link) -> None:
        """Note that bytes can be sent."""
        self._link = conn
        self.hop.is_open = True

    async def end(self) -> None:
        """Note how far this attempt came, and let go of the agent."""
        if self._link is not None:
            self._note(self._link)
        self._link = self._keys = None
        await self._ring.close()

    def _note(self, link: Link) -> None:
        self.hop.is_ssh |= link.get_extra_info("server_version") is not None
        key = link.get_server_host_key()
        if key is not None:
            self.hop.key_kind = kind_of(key.get_algorithm())
            self.hop.is_key_certified = key not in self._listed[0]

    def known_hosts(self, host: str, address: str, port: int | None) -> known_hosts.Matches:
        """Return what the known_hosts files say: trusted keys, trusted authorities, revoked keys."""
        self.refused = None
        self._listed = known_hosts.match(self.target.known_hosts, host, address, port)
        return self._listed

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002 - asyncssh calls it by position
        """Refuse: only the known_hosts files decide. Remember what was asked, for the error's sake."""
        self.refused = key
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002 - asyncssh calls it by position
        """Refuse an authority that the known_hosts files do not name."""
        return False

    def problem(self, error: Exception) -> Problem:
        """Return why it failed, in one word."""
        if not isinstance(error, asyncssh.HostKeyNotVerifiable):
            return ssh_errors.problem_of(error)
        if self.refused is None:
            return Problem.KEY_REVOKED if "revoked" in str(error) else Problem.KEY_UNCERTIFIED
        return Problem(standing(self.target, self.refused))

    def other_algorithms(self, error: Exception) -> Sequence[str]:
        """Return the host key algorithms with which to try once more; none where that would change nothing."""
        trusted, authorities, _ = self._listed
        if isinstance(error, _NO_AGREEMENT):
            if not self.hop.is_ssh or self.hop.key_kind or not (trusted or authorities):
                return ()
        elif self.refused is not None or self.problem(error) is not Problem.KEY_UNCERTIFIED:
            return ()
        # What is known comes first: a host that has such a key presents it.
        known = [algorithm.decode() for key in trusted for algorithm in key.sig_algorithms]
        return [*known, *(algorithm for algorithm in _BARE_KEYS if algorithm not in known)]

    async def public_key_auth_requested(self) -> asyncssh.SSHKeyPair | None:
        """Return the next key to offer."""
        if self._keys is None:
            self._keys = await self._ring.keys()
            self.hop.stock, self.hop.offered = self._ring.stock, 0
        if not self._keys:
            self.hop.is_stock_spent = True
            return None
        self.hop.offered += 1
        self._offered = self._keys.pop(0)
        return self._offered

    def auth_completed(self) -> None:
        """Note that the login is done: what breaks from here on is not tried again."""
        self.is_logged_in = True
        if self._offered is not None:
            self.hop.used = Used(
                kind=kind_of(self._offered.get_algorithm()),
                is_from_agent=self._offered.get_key_type() == "agent",
                is_certificate=self._offered.has_cert,
            )


class _Witness(_Client):
    """Trusts nothing, so that the host key is seen and no login follows."""

    def known_hosts(self, host: str, address: str, port: int | None) -> known_hosts.Matches:  # noqa: ARG002 - asyncssh calls it by position
        """Return that nothing is known."""
        return [], [], []


def standing(target: Target, key: asyncssh.SSHKey) -> known_hosts.Standing:
    """Return how a bare key that this host presented stands in its known_hosts files."""
    name, port = target.host_key_alias or target.host, None if target.host_key_alias else target.port
    return known_hosts.standing(target.known_hosts, name, port, key)
