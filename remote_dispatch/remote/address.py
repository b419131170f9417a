"""The grammar of an address: `[user@]host[:port]`, `[user@][v6]:port`, an IPv6 literal, an alias of ~/.ssh/config.

Stricter than OpenSSH on purpose: what passes here can stand in any argv and any ProxyCommand without being anything but
a word (CVE-2023-51385, CVE-2026-106583).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}(?:@[A-Za-z0-9][A-Za-z0-9.-]{0,252})?")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?\.?")
_PORT = re.compile(r"[0-9]{1,5}")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,32}")
_LONGEST = 400


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Where a host is. `user` and `port` are None where ~/.ssh/config decides. Its repr shows nothing of it."""

    user: str | None
    host: str
    port: int | None

    def __repr__(self) -> str:
        return "Address(...)"


def parse_address(text: str) -> Address:
    """Read an address. Raises ValueError, whose text names the faulty part and never repeats it."""
    if not text or len(text) > _LONGEST:
        raise ValueError("the address is empty" if not text else "the address is too long")
    user, at, rest = text.rpartition("@")
    if at and not _USER.fullmatch(user):
        raise ValueError("the user name of the address is not valid")
    host, port = _split_port(rest)
    return Address(user if at else None, _checked_host(host), port)


def _split_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError("the address has brackets that are not those of `[IPv6]:port`")
        return host, _port(rest[1:]) if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, _port(port) if colon else None


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise ValueError("the port of the address is not a number from 1 to 65535")
    return int(text)


def _checked_host(host: str) -> str:
    if ":" in host:
        return _checked_ipv6(host)
    if not _NAME.fullmatch(host):
        raise ValueError("the host of the address is not a host name, an IP address or an alias of ~/.ssh/config")
    return host


def _checked_ipv6(host: str) -> str:
    literal, percent, zone = host.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        raise ValueError("the zone of the IPv6 address is not valid")
    try:
        ipaddress.IPv6Address(literal)
    except ValueError:
        raise ValueError("the address has more than one `:` and is not an IPv6 address") from None
    return host
