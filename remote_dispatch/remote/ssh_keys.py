"""Which keys are offered, in which order: the configured ones first, then the agent's, and never many.

sshd counts every key that it refuses: after five or six it hangs up, and the right key would come too late.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import asyncssh

from remote_dispatch.remote.trail import KeyStock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from remote_dispatch.remote.ssh_config import Target

MOST_KEYS = 5
_IS_ENCRYPTED = "Passphrase must be specified"
"""How asyncssh 2.24 begins its error for such a file; its type is that of a damaged one."""
_OTHERS = 0o077
_KINDS = {"ssh-ed25519": "ED25519", "ssh-rsa": "RSA", "rsa-sha2": "RSA", "ecdsa-sha2": "ECDSA", "ssh-ed448": "ED448",
          "sk-ssh-ed25519": "ED25519-SK", "sk-ecdsa": "ECDSA-SK", "ssh-dss": "DSA"}  # fmt: skip

logger = logging.getLogger(__name__)


def kind_of(algorithm: str) -> str:
    """Return what `ssh` calls keys of an algorithm: `ED25519`, `RSA` ..."""
    return next((kind for start, kind in _KINDS.items() if algorithm.startswith(start)), "key")


class KeyRing:
    """The keys for one target; `stock` counts them. `opened_agent` must be closed by `close` after the login."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._agent: asyncssh.SSHAgentClient | None = None
        self.stock = KeyStock(most=MOST_KEYS)

    async def keys(self) -> list[asyncssh.SSHKeyPair]:
        """Return the keys to offer, best first. A file that cannot be used without a passphrase is left out."""
        certificates = list(_certificates(self._target.certificates))
        in_agent = {pair.key_public_data: pair for pair in await self._agent_keys()}
        chosen: list[asyncssh.SSHKeyPair] = []
        for file in self._target.identities:
            chosen += self._from_file(file, in_agent, certificates)
        if not self._target.is_identities_only:
            offered = {pair.key_public_data for pair in chosen}
            rest = [pair for data, pair in in_agent.items() if data not in offered]
            chosen += asyncssh.load_keypairs(rest, certlist=certificates)
        self.stock.in_agent, self.stock.offerable = len(in_agent), len(chosen)
        return chosen[:MOST_KEYS]

    def _from_file(
        self, file: Path, in_agent: dict[bytes, asyncssh.SSHKeyPair], certificates: list[asyncssh.SSHCertificate]
    ) -> list[asyncssh.SSHKeyPair]:
        """Return the key of a file, or the same one from the agent, and count it."""
        try:
            # OpenSSL's check of an RSA key costs 180 ms a connection; these are the user's own keys.
            pairs = asyncssh.load_keypairs(str(file), certlist=certificates, unsafe_skip_rsa_key_validation=True)
        except (OSError, ValueError) as error:
            if pair := _from_agent(file, in_agent, certificates):
                return pair
            if str(error).startswith(_IS_ENCRYPTED) or file.suffix == ".pub":
                self.stock.locked += 1
            else:
                self.stock.damaged += 1
            return []
        self.stock.files += 1
        self.stock.exposed += bool(file.stat().st_mode & _OTHERS)
        return list(pairs)

    async def _agent_keys(self) -> Sequence[asyncssh.SSHKeyPair]:
        if self._target.agent is None:
            return []
        try:
            self._agent = await asyncssh.connect_agent(self._target.agent)
            keys = await self._agent.get_keys()
        except (OSError, ValueError, asyncssh.Error):
            logger.debug("%s: the agent does not answer", self._target.name)
            self.stock.agent = "silent"
            return []
        self.stock.agent = "answers"
        return keys

    async def close(self) -> None:
        """Let go of the agent."""
        if self._agent is not None:
            self._agent.close()
            await self._agent.wait_closed()
            self._agent = None


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
