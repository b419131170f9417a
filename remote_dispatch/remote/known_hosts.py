"""What the known_hosts files say of one host. Read only: nothing is ever added to them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_REVOKED = re.compile(r"^\s*@revoked\s+", re.MULTILINE)

Matches = tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]


def match(files: Sequence[Path], host: str, address: str, port: int | None) -> Matches:
    """Return the trusted keys, the trusted authorities and the revoked keys; three empty lists trust nothing."""
    text = "\n".join(file.read_text(errors="replace") for file in files)
    trusted, authorities, revoked = asyncssh.match_known_hosts(text.encode(), host, address, port)[:3]
    # asyncssh 2.24 forgets `@revoked [host]:port` when no other line has that port: ask for these lines alone.
    lines = "\n".join(_REVOKED.sub("", line) for line in text.splitlines() if _REVOKED.match(line))
    here = asyncssh.match_known_hosts(lines.encode(), host, address, port)[0]
    return list(trusted), list(authorities), [*revoked, *here]
