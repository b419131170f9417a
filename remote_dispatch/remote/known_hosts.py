"""What the known_hosts files say of one host; and, on the user's word only, one more line at the end of one of them."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import re
import secrets
from typing import TYPE_CHECKING, Literal

import asyncssh

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_REVOKED = re.compile(r"^\s*@revoked\s+", re.MULTILINE)
_SALT_BYTES = 20
_USUAL_PORT = 22

Matches = tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]
Standing = Literal["known", "unknown", "changed", "revoked", "certificate"]


def match(files: Sequence[Path], host: str, address: str, port: int | None) -> Matches:
    """Return the trusted keys, the trusted authorities and the revoked keys; three empty lists trust nothing.

    Where nothing is said of a port, what is said of the host without one counts, as OpenSSH does.
    """
    text = _text(files)
    host = host.lower()
    trusted, authorities, revoked = asyncssh.match_known_hosts(text.encode(), host, address, port)[:3]
    # asyncssh 2.24 forgets `@revoked [host]:port` when no other line has that port: ask for these lines alone.
    lines = "\n".join(_REVOKED.sub("", line) for line in text.splitlines() if _REVOKED.match(line))
    here = asyncssh.match_known_hosts(lines.encode(), host, address, port)[0]
    return list(trusted), list(authorities), [*revoked, *here]


def standing(files: Sequence[Path], host: str, port: int | None, key: asyncssh.SSHKey) -> Standing:
    """Return how a key that a host presented stands.

    `changed` only when another key is known for this very name and port: another port may be another machine.
    `certificate` means that an authority should vouch for the host, and this key came without its word.
    """
    trusted, authorities, revoked = match(files, host, "", port)
    exactly = asyncssh.match_known_hosts(_text(files).encode(), listed_name(host, port), "", None)[0]
    if key in revoked:
        return "revoked"
    if key in trusted:
        return "known"
    if exactly:
        return "changed"
    return "certificate" if authorities else "unknown"


def listed_name(host: str, port: int | None) -> str:
    """Return how OpenSSH writes a host down."""
    host = host.lower()
    return host if port in (None, _USUAL_PORT) else f"[{host}]:{port}"


def add(file: Path, name: str, key: asyncssh.SSHKey, *, is_hashed: bool) -> None:
    """Append one line in OpenSSH's form; all else stays as it is. A missing file is made 0600, its directory 0700.

    `name` is a `listed_name`. Raises OSError.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    public = key.export_public_key("openssh").decode().split()[:2]
    line = " ".join([_hashed(name) if is_hashed else name, *public]).encode() + b"\n"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as stream:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        has_end = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        # One write, so that no reader and no other writer ever meets half a line.
        stream.write(line if has_end else b"\n" + line)
        os.fsync(descriptor)


def _hashed(name: str) -> str:
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return "|".join(["", "1", base64.b64encode(salt).decode(), base64.b64encode(digest).decode()])


def _text(files: Sequence[Path]) -> str:
    """Return all lines that can be read; asyncssh 2.24 refuses a whole file for one line that OpenSSH skips."""
    lines = [line for file in files for line in file.read_text(errors="replace").splitlines()]
    return "\n".join(line for line in lines if _is_readable(line))


def _is_readable(line: str) -> bool:
    words = line.split(None, 3)
    if not words or words[0].startswith("#"):
        return True
    if words[0].startswith("@"):
        return words[0] in ("@revoked", "@cert-authority") and len(words) > 2
    parts = words[0].split("|")
    return len(words) > 1 and (len(parts) == 1 or (len(parts) == 4 and parts[:2] == ["", "1"]))
