"""The key of a host that is not known yet: shown first, and accepted on the user's word.

One unverified host at a time, the nearest first: through verified ones, with no login on the unverified one. A key that
changed, is revoked, or lacks its authority's word is never accepted here.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.errors import ConfigurationError, HostKeyError, RemoteDispatchError
from remote_dispatch.remote import known_hosts, ssh_errors
from remote_dispatch.remote.address import Address
from remote_dispatch.remote.ssh import close, log_in, presented_key, resolved, standing
from remote_dispatch.remote.ssh_config import ask_asyncssh, ask_ssh, in_our_home
from remote_dispatch.remote.ssh_keys import kind_of
from remote_dispatch.remote.trail import Hop, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncssh

    from remote_dispatch.model import Host
    from remote_dispatch.remote.ssh_config import Options, Target


@dataclass(frozen=True, slots=True)
class OfferedKey:
    """A key that nobody vouches for yet."""

    name: str
    """Whose it is: `pi`, or `pi (jump host)`."""
    kind: str
    """`ED25519`, `RSA` ..."""
    fingerprint: str
    """As `ssh` shows it: `SHA256:...`."""
    public_key: bytes = field(repr=False)


async def offered_key(host: Host, *, timeout_s: float = 15) -> OfferedKey | None:
    """Return the key of the first host on the way, the nearest first, whose key is unknown; None when all are known.

    Raises ConfigurationError, HostKeyError (changed, revoked, without its authority's word), HostUnreachableError,
    and LoginError of a jump host that lets nobody through.
    """
    async with _at_unknown(host, timeout_s) as found:
        return _offered(*found) if found else None


async def accept_host_key(host: Host, key: OfferedKey, *, timeout_s: float = 15) -> None:
    """Ask the host again, and write the key to the user's known_hosts file if it is still the one that was shown.

    In the form that `ssh` would use: hashed where `HashKnownHosts` says so, under `HostKeyAlias` where there is one.
    A key that has become known meanwhile is left alone.
    Raises what `offered_key` raises, and HostKeyError when the host presents another key now.
    """
    async with _at_unknown(host, timeout_s) as found:
        if found is None:
            return
        target, presented = found
        if _offered(target, presented) != key:
            raise HostKeyError(
                host.name,
                Problem.KEY_CHANGED,
                "it now presents another host key than the one that was shown",
                hint="nothing was accepted; stop, and ask the owner of the host for its fingerprint",
            )
        await _write(host, target, presented)


@contextlib.asynccontextmanager
async def _at_unknown(host: Host, timeout_s: float) -> AsyncIterator[tuple[Target, asyncssh.SSHKey] | None]:
    target = await resolved(host)
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout_s):
                found = await _first_unknown(target, stack)
        except TimeoutError as error:
            raise ssh_errors.late(host.name) from error
        yield found


async def _first_unknown(target: Target, stack: contextlib.AsyncExitStack) -> tuple[Target, asyncssh.SSHKey] | None:
    tunnel: asyncssh.SSHClientConnection | None = None
    for stop in (*target.jumps, target):
        hop = Hop(stop.name, is_jump_host=stop is not target)
        try:
            tunnel = await log_in(stop, tunnel, hop)
        except RemoteDispatchError:
            if hop.problem is Problem.KEY_UNKNOWN:
                return stop, await _unknown_key(stop, tunnel)
            if stop is target and hop.key_kind:
                return None  # the key is known; what failed came after it
            raise
        stack.push_async_callback(close, tunnel)
    return None


async def _unknown_key(target: Target, tunnel: asyncssh.SSHClientConnection | None) -> asyncssh.SSHKey:
    key = await presented_key(target, tunnel)
    verdict = Problem.KEY_CHANGED if (said := standing(target, key)) == "known" else Problem(said)
    if verdict is not Problem.KEY_UNKNOWN:
        raise ssh_errors.host_key_error(target.name, verdict)
    return key


def _offered(target: Target, key: asyncssh.SSHKey) -> OfferedKey:
    return OfferedKey(target.name, kind_of(key.get_algorithm()), key.get_fingerprint(), key.public_data)


async def _write(host: Host, target: Target, key: asyncssh.SSHKey) -> None:
    options = await _options(target)
    file = _place(host, options)
    name = known_hosts.listed_name(target.host_key_alias or target.host, None if target.host_key_alias else target.port)
    try:
        known_hosts.add(file, name, key, is_hashed=options.get("hashknownhosts") == ["yes"])
    except OSError as error:
        raise ConfigurationError(
            f"{host.name}: its key could not be written to your known_hosts file ({(error.strerror or '').lower()})",
            hint="see who may write to ~/.ssh and to the files in it",
        ) from error


async def _options(target: Target) -> Options:
    """Return what ~/.ssh/config says of a host on the way, once more: where new keys go is no part of a target."""
    address = Address(target.user, target.alias, target.port)
    program = shutil.which("ssh")
    if program is None:
        return ask_asyncssh(target.name, address)
    return await ask_ssh(program, target.name, address)


def _place(host: Host, options: Options) -> Path:
    """Return the file to which `ssh` would write: the first of UserKnownHostsFile, whose names come without quotes."""
    words = (options.get("userknownhostsfile") or ["~/.ssh/known_hosts"])[-1].split()
    paths = [in_our_home(Path(" ".join(words[:count])).expanduser()) for count in range(len(words), 0, -1)]
    path = next((path for path in paths if path.is_file()), paths[-1])
    if words == ["none"] or "%" in str(path) or (path.exists() and not path.is_file()):
        raise ConfigurationError(
            f"{host.name}: `UserKnownHostsFile` in ~/.ssh/config names no file that a key could be written to",
            hint="name a file there, or take the line out",
        )
    return path
