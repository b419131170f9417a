"""Guess from its name and beginning whether an untracked file holds a secret. A guess: it names, the user decides."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOOKED_AT_BYTES = 65_536
"""So much of a file is read."""
SMALL_BYTES = 1_000_000
"""Larger files are judged by their name only."""

_NAMES = (
    ".env*",
    "*.env",
    "*.pem",
    "*.key",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.ppk",
    ".netrc",
    "_netrc",
    ".pypirc",
    ".htpasswd",
    ".git-credentials",
    "credentials*",
    "service-account*.json",
    "service_account*.json",
    "*.tfstate",
    "*.tfstate.*",
    "*.tfvars",
)
_PROGRAMS = (
    "py",
    "js",
    "ts",
    "jsx",
    "tsx",
    "mjs",
    "go",
    "rs",
    "java",
    "kt",
    "rb",
    "php",
    "c",
    "cc",
    "cpp",
    "h",
    "cs",
    "md",
)
_HARMLESS = (
    "*.example",
    "*.sample",
    "*.template",
    "*.dist",
    "*.pub",
    # What is about credentials, and is a program or its text.
    *(f"credentials*.{suffix}" for suffix in _PROGRAMS),
)
_CONTENT = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY"
    rb"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}"
    rb"|\bgithub_pat_[A-Za-z0-9_]{60}"
    rb"|(?i:aws_secret_access_key)\s*[=:]\s*[\"']?[A-Za-z0-9/+]{40}"
)
_NPM_TOKEN = re.compile(rb"_authToken|_password|_auth\s*=")


def is_likely_secret(path: Path, size: int) -> bool:
    """Whether a regular file of this size looks like a secret. One that cannot be read is judged by its name."""
    name = path.name.lower()
    if _is_named(name):
        return True
    if not 0 < size <= SMALL_BYTES:
        return False
    beginning = _beginning(path)
    return bool(_CONTENT.search(beginning) or (name == ".npmrc" and _NPM_TOKEN.search(beginning)))


def _is_named(name: str) -> bool:
    return any(fnmatchcase(name, one) for one in _NAMES) and not any(fnmatchcase(name, one) for one in _HARMLESS)


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(LOOKED_AT_BYTES)
    except OSError:
        return b""
