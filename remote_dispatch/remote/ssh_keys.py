"""Which keys are offered, in which order: the configured ones first, then the agent's, and never many.

sshd counts every key that it refuses: after five or six it hangs up, and the right key would come too late.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from remote_dispatch.remote.ssh_config import Target

MOST_KEYS = 5

logger = logging.getLogger(__name__)


class KeyRing:
    """The keys for one target. `opened_agent` must be closed by `close` after the login."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._agent: asyncssh.SSHAgentClient | None = None

    async def keys(self) -> list[asyncssh.SSHKeyPair]:
        """Return the keys to offer, best first. A file that cannot be used without a passphrase is left out."""
        certificates = list(_certificates(self._target.certificates))
        in_agent = {pair.key_public_data: pair for pair in await self._agent_keys()}
        chosen: list[asyncssh.SSHKeyPair] = []
        for file in self._target.identities:
            chosen += _from_file(file, certificates) or _from_agent(file, in_agent, certificates)
        if not self._target.is_identities_only:
            offered = {pair.key_public_data for pair in chosen}
            rest = [pair for data, pair in in_agent.items() if data not in offered]
            chosen += asyncssh.load_keypairs(rest, certlist=certificates)
        return chosen[:MOST_KEYS]

    async def _agent_keys(self) -> Sequence[asyncssh.SSHKeyPair]:
        if self._target.agent is None:
            return []
        try:
            self._agent = await asyncssh.connect_agent(self._target.agent)
            return await self._agent.get_keys()
        except (OSError, ValueError, asyncssh.Error):
            logger.debug("%s: the agent does not answer", self._target.name)
            return []

    async def close(self) -> None:
        """Let go of the agent."""
        if self._agent is not None:
            self._agent.close()
            await self._agent.wait_closed()
            self._agent = None


def _from_file(file: Path, certificates: list[asyncssh.SSHCertificate]) -> list[asyncssh.SSHKeyPair]:
    try:
        # OpenSSL's check of an RSA key costs 180 ms a connection; these are the user's own keys.
        return list(asyncssh.load_keypairs(str(file), certlist=certificates, unsafe_skip_rsa_key_validation=True))
    except (OSError, ValueError):
        return []


def _from_agent(
    file: Path, in_agent: dict[bytes, asyncssh.SSHKeyPair], certificates: list[asyncssh.SSHCertificate]
) -> list[asyncssh.SSHKeyPair]:
    for candidate in (file, file.with_name(file.name + ".pub")):
        try:
            pair = in_agent.get(asyncssh.read_public_key(str(candidate)).public_data)
        except (OSError, ValueError):
            continue
        if pair is not None:
            return list(asyncssh.load_keypairs([pair], certlist=certificates))
    return []


def _certificates(files: Sequence[Path]) -> Iterator[asyncssh.SSHCertificate]:
    for file in files:
        try:
            yield from asyncssh.load_certificates(str(file))
        except (OSError, ValueError):
            logger.debug("a certificate file is not readable")
