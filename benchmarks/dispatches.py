"""Whole dispatches with the real OpenCode over a real sshd, near and far, beside the closest peer and ssh and scp.

What is compared is the overhead: all the time that passes, less that of the bare OpenCode commands in the same rounds.
Those who work by hand do one thing after the other, so that theirs is the same with the stand-in for OpenCode, which
is quicker.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks import peer
from benchmarks.by_hand import ByHand
from benchmarks.contest import MODES, Entry, play
from benchmarks.latency import OutcomeWatch
from benchmarks.links import HOST_ADDRESS, RTTS_S, DelayProxy, LinkUnavailableError, PacketLink, reach_through
from benchmarks.measure import Figure, Omission, Sample, at_most, is_quick
from benchmarks.opencode import DEADLINE_S, PROMPT, a_session, find_opencode, sent_s
from benchmarks.remote_login import Peer, PeerMissingError, find_peer
from remote_dispatch.demo.provider import ScriptedModel
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from benchmarks.contest import Mode, Results

PACKET_RTTS_S = (0.100,)
PACKET_RATE_BITS = 100e6
BY_HAND_RTTS_S = RTTS_S[::2]
"""The other distances would tell little more for a minute and a half."""
FAR_S = 0.1
"""From this distance on there is a round less: distance is most of the time there, and does not vary."""
PROXIED, PACKETS = "delay proxy", "real packets"
OURS, PLAIN, SHARED = "ours", "ssh and scp", "ssh and scp over one connection"


@dataclass(slots=True)
class Ours:
    """Our own command at the laptop of a world, and the return latencies, in seconds, that its round trips showed."""

    world: World
    at_the_laptop: Callable[[], AbstractContextManager[None]]
    latencies: dict[float, list[float]] = field(default_factory=dict)
    rtt_s: float = 0.0

    def times_s(self, session: str, another: str) -> tuple[float, float]:
        """Send one session one way and another for a round trip."""
        one_way = self.one_way_s(session)
        with OutcomeWatch(self.world) as watch:
            round_trip = self._sent_s(another, "--mode", "round-trip")
        latency = watch.latency_s(self.world.dispatch_folders()[-1])
        self.latencies.setdefault(self.rtt_s, []).append(latency)
        return one_way, round_trip

    def one_way_s(self, session: str) -> float:
        """Send it; the work on the host has ended before anything else is measured."""
        taken_s = self._sent_s(session)
        self.world.await_end(timeout_s=DEADLINE_S)
        return taken_s

    def warm(self) -> None:
        """Do one that is not counted: the first dispatch to a host puts more there than the later ones."""
        self.one_way_s(a_session(self.world))

    def entry(self, rtts_s: Sequence[float], rounds: Callable[[float], int]) -> Entry:
        """Return how it takes part."""
        return Entry(OURS, self.world, self.times_s, rtts_s, rounds, sessions=2)

    def _sent_s(self, session: str, *options: str) -> float:
        with self.at_the_laptop():
            return sent_s(self.world, session, *options)


def figures(directory: Path) -> Iterator[Figure | Omission]:
    """Measure through the proxy, then over packets."""
    rtts_s = RTTS_S[1:2] if is_quick() else RTTS_S
    yield from _through_the_proxy(directory / "proxied", rtts_s)
    try:
        yield from _over_packets(directory / "packets", PACKET_RTTS_S)
    except LinkUnavailableError as error:
        yield Omission(f"dispatches over {PACKETS}", str(error))


def _through_the_proxy(directory: Path, rtts_s: Sequence[float]) -> Iterator[Figure | Omission]:
    missing = ""
    with ExitStack() as stack:
        model = stack.enter_context(ScriptedModel())
        world = stack.enter_context(World(_made(directory), find_opencode(), model.url))
        links = [_proxied(stack, world)]
        ours = Ours(world, nullcontext)
        entries = [ours.entry(rtts_s, lambda rtt_s: 2 if rtt_s >= FAR_S else 3)]
        try:
            find_peer()
        except PeerMissingError as error:
            missing = str(error)
        else:
            entries.append(peer.entry(world, stack.enter_context(Peer(world)), rtts_s))
        # The peer puts its own `opencode` there, whose catalogue is asked for once.
        ours.warm()
        other = stack.enter_context(World(_made(directory / "by-hand")))
        links.append(_proxied(stack, other))
        entries += _hands(stack, other, links[-1].port)

        def set_rtt(rtt_s: float) -> None:
            ours.rtt_s = rtt_s
            for link in links:
                link.rtt_s = rtt_s

        results = play(entries, rtts_s, set_rtt)
    yield from _figures(results, rtts_s, PROXIED, ours)
    yield from [Omission(peer.GROUP, missing)] if missing else peer.overheads(results, OURS, rtts_s)


def _over_packets(directory: Path, rtts_s: Sequence[float]) -> Iterator[Figure]:
    """The model is the host's; at the laptop no command asks one."""
    with ExitStack() as stack:
        link = stack.enter_context(PacketLink(rate_bits=PACKET_RATE_BITS))
        stack.enter_context(link.host())
        model = stack.enter_context(ScriptedModel())
        world = stack.enter_context(World(_made(directory), find_opencode(), model.url, listen=HOST_ADDRESS))
        ours = Ours(world, link.laptop)
        ours.warm()

        def set_rtt(rtt_s: float) -> None:
            ours.rtt_s = link.rtt_s = rtt_s

        results = play([ours.entry(rtts_s, lambda _: 2)], rtts_s, set_rtt)
    yield from _figures(results, rtts_s, PACKETS, ours)


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


def _proxied(stack: ExitStack, world: World) -> DelayProxy:
    proxy = stack.enter_context(DelayProxy(world.sshd.port))
    reach_through(world, proxy.port)
    return proxy


def _hands(stack: ExitStack, world: World, port: int) -> Iterator[Entry]:
    for name, is_shared in ((PLAIN, False), (SHARED, True)):
        hand = stack.enter_context(ByHand(world, port, PROMPT, is_shared=is_shared))
        yield Entry(name, world, hand.times_s, BY_HAND_RTTS_S, lambda _: 2)


def _figures(results: Results, rtts_s: Sequence[float], link: str, ours: Ours) -> Iterator[Figure]:
    for mode, words in MODES.items():
        yield from _overheads(results, rtts_s, f"{words} less the bare commands, {link}", mode)
    for rtt_s in rtts_s:
        latency = Sample(tuple(ours.latencies[rtt_s]))
        yield Figure.of(f"return latency, {link}", _at(rtt_s), latency, "s", target=at_most(0.2 + 2 * rtt_s))
    for mode, words in MODES.items():
        for rtt_s in rtts_s:
            name, taken = f"{words}, {_at(rtt_s)}", results.times[OURS, rtt_s].sample(mode)
            group = f"in all, beside the bare commands, {link}"
            yield Figure.of(group, name, taken, "s", results.bare_of(OURS, mode))


def _overheads(results: Results, rtts_s: Sequence[float], group: str, mode: Mode) -> Iterator[Figure]:
    """The target stands once at each distance."""
    for rtt_s in rtts_s:
        ours = results.overhead(OURS, rtt_s, mode)
        target = at_most(0.5 + 12 * rtt_s) if mode == "one_way" else None
        others = [who for who in (PLAIN, SHARED) if (who, rtt_s) in results.times]
        for who in others:
            theirs = results.overhead(who, rtt_s, mode)
            yield Figure.of(group, f"{_at(rtt_s)}, beside {who}", ours, "s", theirs, target=target)
            target = None
        if not others:
            yield Figure.of(group, _at(rtt_s), ours, "s", target=target)


def _at(rtt_s: float) -> str:
    return f"RTT {rtt_s * 1000:.0f} ms"
