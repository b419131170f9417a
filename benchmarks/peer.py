"""Dispatches beside those of the closest peer, near and far, with the same sessions on the same rig.

With the real OpenCode both sides have its starts in common, so their overhead is compared: what is left without the
bare OpenCode commands. With the stand-in, whose starts cost next to nothing, connections, files and waiting are left.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.links import RTTS_S, DelayProxy, reach_through
from benchmarks.measure import Figure, Omission, Sample, at_most, is_quick, rounds
from benchmarks.opencode import DEADLINE_S, Bare, a_session, bare, find_opencode, sent_s
from benchmarks.remote_login import Peer, PeerAlone, PeerMissingError, find_peer
from remote_dispatch.demo.provider import ScriptedModel
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

GROUP = "less the bare commands, beside the npm package `opencode-remote-login`"
GROUP_ALONE = "round trip, beside the steps of the npm package, with a stand-in for OpenCode"
ROUNDS = 1
"""At each distance: a call takes up to half a minute; the bare commands, which vary most, are measured at each."""
RTTS_ALONE_S = RTTS_S[::2]
TARGET = at_most(1 / 7, "ratio")
MENDED = "the package's export is mended: as it is it fails above 64 KiB"
BELOW_ZERO = "below zero: OpenCode starts less often than in the bare commands"


@dataclass(slots=True)
class Times:
    """Of both at one distance, in seconds, a value a round; of the steps alone only round trips are measured."""

    one_way: list[float] = field(default_factory=list)
    round_trip: list[float] = field(default_factory=list)
    peer_launched: list[float] = field(default_factory=list)
    peer_returned: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Results:
    """What all rounds gave: OpenCode alone, which knows no distance, and the times at each distance in seconds."""

    bare: list[Bare] = field(default_factory=list)
    times: dict[float, Times] = field(default_factory=dict)

    def bare_median(self) -> Bare:
        """Return the median of each part."""
        return Bare(*(statistics.median(values) for values in zip(*self.bare, strict=True)))


def figures(directory: Path) -> Iterator[Figure | Omission]:
    """Measure with the real OpenCode, then with the stand-in; every dispatch has a session of its own."""
    try:
        find_peer()
    except PeerMissingError as error:
        yield Omission(GROUP, str(error))
        return
    for group, name in ((GROUP, "real"), (GROUP_ALONE, "alone")):
        (place := directory / name).mkdir()
        with ExitStack() as stack:
            peer, world = _entered(stack, place, is_real=group == GROUP)
            results = _measured(stack, world, peer, RTTS_S if group == GROUP else RTTS_ALONE_S)
        bare = results.bare_median()
        for rtt_s, times in results.times.items():
            yield from figures_of(group, rtt_s, times, bare)


def figures_of(group: str, rtt_s: float, times: Times, bare: Bare) -> Iterator[Figure]:
    """Yield the overheads at one distance."""
    pairs = (
        ("one way", times.one_way, bare.handed_s, times.peer_launched, bare.exported_s),
        ("round trip", times.round_trip, bare.whole_s, times.peer_returned, bare.whole_s),
    )
    for name, ours, our_part_s, theirs, their_part_s in pairs:
        if ours:
            sample, beside = Sample(tuple(ours)).minus(our_part_s), Sample(tuple(theirs)).minus(their_part_s)
            note = BELOW_ZERO if sample.median < 0 else MENDED if not rtt_s else ""
            at = f"{name}, RTT {rtt_s * 1000:.0f} ms"
            yield Figure.of(group, at, sample, "s", beside, target=TARGET, note=note)


def _entered(stack: ExitStack, directory: Path, *, is_real: bool) -> tuple[Peer, World]:
    if is_real:
        model = stack.enter_context(ScriptedModel())
        world = stack.enter_context(World(directory, find_opencode(), model.url))
        return stack.enter_context(Peer(world)), world
    world = stack.enter_context(World(directory))
    return stack.enter_context(PeerAlone(world, find_opencode())), world


def _measured(stack: ExitStack, world: World, peer: Peer, rtts_s: Sequence[float]) -> Results:
    """The first dispatch to a host is not counted: it puts more there than the later ones."""
    proxy = stack.enter_context(DelayProxy(world.sshd.port))
    reach_through(world, proxy.port)
    _one_way_s(world)
    results = Results()
    for rtt_s in rtts_s[:1] if is_quick() else rtts_s:
        proxy.rtt_s = rtt_s
        times = results.times.setdefault(rtt_s, Times())
        for _ in range(rounds(ROUNDS)):
            results.bare.append(bare(world, a_session(world)))
            _add(times, world, peer)
    return results


def _add(times: Times, world: World, peer: Peer) -> None:
    if not isinstance(peer, PeerAlone):
        times.one_way.append(_one_way_s(world))
    times.round_trip.append(sent_s(world, a_session(world), "--mode", "round-trip"))
    launched_s, returned_s = peer.times_s(a_session(world))
    times.peer_launched.append(launched_s)
    times.peer_returned.append(returned_s)


def _one_way_s(world: World) -> float:
    """The work on the host has ended before anything else is measured."""
    taken_s = sent_s(world, a_session(world))
    world.await_end(timeout_s=DEADLINE_S)
    return taken_s
