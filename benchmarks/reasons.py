"""Why a target is missed, and what was tried: by the figure's "GROUP: NAME", or by its group alone.

A reason is printed below the table only while its target is missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peer import GROUP, GROUP_ALONE

if TYPE_CHECKING:
    from benchmarks.measure import Figure

_SLOW_START = (
    "over real packets a result of some 0.3 MB needs TCP's slow start: five round trips after a pause, which no "
    "order of ours saves; through the proxy, which knows no slow start, the same result is here in time. Only what "
    "is new could be sent, in the place of the whole session; that is not built"
)
_SLOW_START_UP = (
    "over real packets the session's 0.3 MB needs TCP's slow start, three to four round trips more than through the "
    "proxy, which knows none: there the same dispatch is well within the target"
)
_STAND_IN = (
    "the stand-in's starts cost next to nothing, so what is left is mostly Python: the start of our command and of "
    "asyncssh, some 0.4 s, where the peer is measured inside a process that runs already; each further round trip "
    "costs us less than a fifth of the peer's. With the real OpenCode, above, most of this happens while OpenCode "
    "starts"
)
_ONE_WAY_FAR = (
    "a login takes 7.4 round trips, the probe 3, files and launch 2: OpenSSH's own waiting for acknowledgements is "
    "2 of them, and a channel takes no input before its command was accepted. Of the peer's calls here the run and "
    "the export, which hold its channel, are taken off; it waits for both"
)
_NO_NETWORK = (
    "without a network `scp` only copies, while ours also dumps, packs, hashes and unpacks, and parses what came "
    "home; on any real line the bytes decide: see 100 Mbit/s. Packing in several threads was tried and is in; a "
    "level below `gzip -1`, or none, would win here and lose there"
)

REASONS: dict[str, str] = {
    "one way less the bare commands, real packets": _SLOW_START_UP,
    "return latency, real packets": _SLOW_START,
    f"{GROUP}: one way, RTT 200 ms": _ONE_WAY_FAR,
    f"{GROUP}: one way, RTT 100 ms": _ONE_WAY_FAR,
    GROUP_ALONE: _STAND_IN,
    "transfer of 100 MB, no network": _NO_NETWORK,
}


def reason_for(figure: Figure) -> str:
    """Return the reason; empty where none is known."""
    return REASONS.get(f"{figure.group}: {figure.name}", REASONS.get(figure.group, ""))
