"""How many logins to one address go on at once: sshd refuses some of more than ten (MaxStartups 10:30:100).

Many hosts behind one jump host, or many entries for one machine, would each be refused and try again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from weakref import WeakKeyDictionary

AT_ONCE = 8
"""Ten at once pass (measured with OpenSSH 9.2's defaults); the rest is for others."""

_Gates = defaultdict[tuple[str, int], asyncio.Semaphore]
_gates: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gates] = WeakKeyDictionary()


def turn(host: str, port: int) -> asyncio.Semaphore:
    """Return the gate of an address, to be held during a handshake. The wait counts as part of the login."""
    loop = asyncio.get_running_loop()
    return _gates.setdefault(loop, defaultdict(lambda: asyncio.Semaphore(AT_ONCE)))[host, port]
