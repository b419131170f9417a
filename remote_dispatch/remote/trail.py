"""What was met on the way to a host: filled in while a connection is made, for whoever has to say where it ended.

Holds what may be shown, and beside it what may not (`target`, `link`); no repr shows the latter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import asyncssh

    from remote_dispatch.remote.ssh_config import Target


class Problem(StrEnum):
    """Why one host on the way was not passed."""

    NO_SUCH_NAME = "no-such-name"
    NO_NAME_SERVER = "no-name-server"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NOT_FORWARDED = "not-forwarded"
    """The jump host forbids it to open connections."""
    HUNG_UP = "hung-up"
    NOT_SSH = "not-ssh"
    NOTHING_IN_COMMON = "nothing-in-common"
    KEY_UNKNOWN = "unknown"
    KEY_CHANGED = "changed"
    KEY_REVOKED = "revoked"
    KEY_UNCERTIFIED = "certificate"
    NOT_ACCEPTED = "not-accepted"
    TOO_MANY_KEYS = "too-many-keys"
    SETTINGS = "settings"
    LATE = "late"
    """The time was over; how far it came says what was waited for."""


@dataclass(slots=True)
class KeyStock:
    """Which keys there were for a login: numbers only, no names of files."""

    agent: Literal["none", "silent", "answers"] = "none"
    in_agent: int = 0
    files: int = 0
    """Key files that could be used without a passphrase."""
    locked: int = 0
    """Key files that need a passphrase, or public halves, whose key is not in the agent."""
    damaged: int = 0
    """Files that hold no private key."""
    exposed: int = 0
    """Files in `files` that others than their owner may read: `ssh` itself does not use them."""
    offerable: int = 0
    """Keys that would have been offered, had the host asked for more and more."""
    most: int = 0
    """How many of them are offered at most."""


@dataclass(frozen=True, slots=True)
class Used:
    """The key that got in."""

    kind: str
    """`ED25519`, `RSA` ..."""
    is_from_agent: bool
    is_certificate: bool


@dataclass(slots=True)
class Hop:
    """One host on the way, and how far the connection to it came."""

    name: str
    is_jump_host: bool
    is_open: bool = False
    """Whether bytes could be sent to it."""
    is_ssh: bool = False
    """Whether it introduced itself as an SSH server."""
    key_kind: str | None = None
    """The kind of its host key, once that was found to be trusted."""
    is_key_certified: bool = False
    stock: KeyStock | None = None
    """Which keys there were, once the host asked for one."""
    offered: int = 0
    is_stock_spent: bool = False
    """Whether the host was told that there are no more keys."""
    used: Used | None = None
    is_in: bool = False
    hang_ups: int = 0
    problem: Problem | None = None


@dataclass(slots=True)
class Trail:
    """The hosts on the way so far, the nearest first; the last one is where it ended."""

    hops: list[Hop] = field(default_factory=list)
    target: Target | None = field(default=None, repr=False)
    link: asyncssh.SSHClientConnection | None = field(default=None, repr=False)
    """The open connection to the host itself."""
