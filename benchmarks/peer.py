"""Dispatches beside those of the closest peer, near and far, with the same sessions on the same rig.

With the real OpenCode (measured with all other dispatches) both sides have its starts in common, so their overhead is
compared: what is left without the bare OpenCode commands. Here it is the stand-in, whose starts cost next to nothing:
connections, files and waiting are left.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.contest import MODES, Entry, play
from benchmarks.links import RTTS_S, DelayProxy, reach_through
from benchmarks.measure import Figure, Omission, at_most, is_quick
from benchmarks.opencode import a_session, find_opencode, sent_s
from benchmarks.remote_login import PeerAlone, PeerMissingError, find_peer
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.contest import Mode, Results
    from benchmarks.opencode import Bare
    from benchmarks.remote_login import Peer

GROUP = "less the bare commands, beside the npm package `opencode-remote-login`"
GROUP_ALONE = "round trip, beside the steps of the npm package, with a stand-in for OpenCode"
PEER = "the peer"
ROUNDS = 2
"""At each distance: a call takes up to half a minute."""
RTTS_ALONE_S = RTTS_S[::2]
TARGET = at_most(1 / 7, "ratio")
MENDED = "the package's export is mended: as it is it fails above 64 KiB"
BELOW_ZERO = "below zero: OpenCode starts less often than in the bare commands"


def figures(directory: Path) -> Iterator[Figure | Omission]:
    """Measure round trips with the stand-in."""
    try:
        find_peer()
    except PeerMissingError as error:
        yield Omission(GROUP_ALONE, str(error))
        return
    rtts_s = RTTS_ALONE_S[:1] if is_quick() else RTTS_ALONE_S
    with ExitStack() as stack:
        world = stack.enter_context(World(directory))
        alone = stack.enter_context(PeerAlone(world, find_opencode()))
        proxy = stack.enter_context(DelayProxy(world.sshd.port))
        reach_through(world, proxy.port)

        def ours(session: str) -> tuple[float, float]:
            taken_s = sent_s(world, session, "--mode", "round-trip")
            return taken_s, taken_s

        def set_rtt(rtt_s: float) -> None:
            proxy.rtt_s = rtt_s

        # The first dispatch to a host is not counted: it puts more there than the later ones.
        ours(a_session(world))
        entries = [Entry("ours", world, ours, rtts_s, lambda _: ROUNDS), entry(world, alone, rtts_s)]
        results = play(entries, rtts_s, set_rtt)
    for rtt_s in rtts_s:
        yield _overhead(GROUP_ALONE, results, "ours", rtt_s, "round_trip")


def entry(world: World, peer: Peer, rtts_s: Sequence[float]) -> Entry:
    """Return how the peer takes part: its hand-over waits for the run and the export there."""
    return Entry(PEER, world, peer.times_s, rtts_s, lambda _: ROUNDS, handed_s=_exported_s)


def overheads(results: Results, ours: str, rtts_s: Sequence[float]) -> Iterator[Figure]:
    """Yield both ways at each distance, ours beside the peer's."""
    for rtt_s in rtts_s:
        for mode in MODES:
            yield _overhead(GROUP, results, ours, rtt_s, mode)


def _overhead(group: str, results: Results, ours: str, rtt_s: float, mode: Mode) -> Figure:
    sample, beside = (results.overhead(name, rtt_s, mode) for name in (ours, PEER))
    note = BELOW_ZERO if sample.median < 0 else MENDED if not rtt_s else ""
    name = f"{MODES[mode]}, RTT {rtt_s * 1000:.0f} ms"
    return Figure.of(group, name, sample, "s", beside, target=TARGET, note=note)


def _exported_s(part: Bare) -> float:
    return part.exported_s
