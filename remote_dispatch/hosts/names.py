"""What a host may be called."""

from __future__ import annotations

import ipaddress
import re

HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RESERVED = frozenset({"all", "auto", "constructor", "local", "none", "prototype"})
"""Words that mean something else on a command line or in the plugin's JavaScript."""


def check_name(name: str) -> None:
    """Raise ValueError when a host cannot be called so. The text repeats only names that are no address."""
    if not HOST_NAME.fullmatch(name):
        raise ValueError("a host's name is 1 to 64 letters, digits, `.`, `_` or `-`, and starts with a letter or digit")
    if name.lower() in RESERVED:
        raise ValueError(f"a host cannot be named `{name}`: the word has another meaning here")
    if is_address(name):
        raise ValueError("a host's name cannot be an IP address: names are public, addresses are not")


def is_speakable(name: str) -> bool:
    """Whether the name may be repeated in a message: it is a name by its form, and no IP address."""
    return bool(HOST_NAME.fullmatch(name)) and not is_address(name)


def is_address(name: str) -> bool:
    """Whether the name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
