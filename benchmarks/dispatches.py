"""Whole dispatches with the real OpenCode over a real sshd, near and far, beside the same work by ssh and scp.

What is compared is the overhead: all the time that passes, less that of the bare OpenCode commands in the same rounds.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from benchmarks.by_hand import ByHand
from benchmarks.latency import OutcomeWatch
from benchmarks.links import HOST_ADDRESS, RTTS_S, DelayProxy, LinkUnavailableError, PacketLink, reach_through
from benchmarks.measure import Figure, Omission, Sample, at_most, is_quick, rounds
from benchmarks.opencode import DEADLINE_S, PROMPT, Bare, a_session, bare, find_opencode, sent_s, sessions
from remote_dispatch.demo.provider import ScriptedModel
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

Mode = Literal["one_way", "round_trip"]

PACKET_RTTS_S = (0.100,)
PACKET_RATE_BITS = 100e6
BY_HAND_RTTS_S = (0.0, *RTTS_S[2:])
"""Where it is done by hand too: the second distance would tell little more for half a minute."""
FAR_S = 0.1
"""From this distance on there is a round less: distance is most of the time there, and does not vary."""
PROXIED, PACKETS = "delay proxy", "real packets"
OURS, PLAIN, SHARED = "ours", "ssh and scp", "ssh and scp over one connection"
_MODES: dict[Mode, str] = {"one_way": "one way", "round_trip": "round trip"}


@dataclass(slots=True)
class Times:
    """What one way of doing it took at one distance, in seconds; `latency` is known of ours only."""

    one_way: list[float] = field(default_factory=list)
    round_trip: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stage:
    """A world, the link between its two sides, and how a command is started at the laptop."""

    world: World
    link: DelayProxy | PacketLink
    at_the_laptop: Callable[[], AbstractContextManager[None]]
    hands: dict[str, ByHand]


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often everything is measured near by and from FAR_S on, and in how many of these rounds by hand too."""

    near: int
    far: int
    by_hand: int

    def of(self, number: int, rtts_s: Sequence[float]) -> list[float]:
        """Return the distances of one round."""
        return [rtt_s for rtt_s in rtts_s if number < (self.far if rtt_s >= FAR_S else self.near)]


@dataclass(frozen=True, slots=True)
class Results:
    """What the rounds on one stage gave: OpenCode alone, and the times of each at each distance."""

    bare: list[Bare] = field(default_factory=list)
    times: dict[tuple[str, float], Times] = field(default_factory=dict)

    def of(self, who: str, rtt_s: float) -> Times:
        """Return where to put, or find, these times."""
        return self.times.setdefault((who, rtt_s), Times())

    def sample(self, who: str, rtt_s: float, mode: Mode) -> Sample:
        """Return the times of one mode."""
        times = self.of(who, rtt_s)
        return Sample(tuple(times.one_way if mode == "one_way" else times.round_trip))


def figures(directory: Path) -> Iterator[Figure | Omission]:
    """Measure through the proxy, then over packets; every dispatch has a session of its own."""
    for name, rtts_s, play in ((PROXIED, RTTS_S, _through_the_proxy), (PACKETS, PACKET_RTTS_S, _over_packets)):
        (place := directory / name.replace(" ", "-")).mkdir()
        distances = rtts_s[1:2] if is_quick() else rtts_s
        try:
            results = play(place, distances)
        except LinkUnavailableError as error:
            yield Omission(f"dispatches over {name}", str(error))
        else:
            yield from _figures(results, distances, name)


def _through_the_proxy(directory: Path, rtts_s: Sequence[float]) -> Results:
    with ExitStack() as stack:
        model = stack.enter_context(ScriptedModel())
        world = stack.enter_context(World(directory, find_opencode(), model.url))
        proxy = stack.enter_context(DelayProxy(world.sshd.port))
        reach_through(world, proxy.port)
        stage = Stage(world, proxy, nullcontext, _hands(stack, world, proxy.port))
        return _played(stage, rtts_s, Rounds(rounds(3), rounds(2), 1))


def _over_packets(directory: Path, rtts_s: Sequence[float]) -> Results:
    """The model is the host's; at the laptop no command asks one."""
    with ExitStack() as stack:
        link = stack.enter_context(PacketLink(rate_bits=PACKET_RATE_BITS))
        stack.enter_context(link.host())
        model = stack.enter_context(ScriptedModel())
        world = stack.enter_context(World(directory, find_opencode(), model.url, listen=HOST_ADDRESS))
        stage = Stage(world, link, link.laptop, _hands(stack, world, world.sshd.port))
        return _played(stage, rtts_s, Rounds(rounds(2), rounds(2), 0))


def _hands(stack: ExitStack, world: World, port: int) -> dict[str, ByHand]:
    kinds = {PLAIN: False, SHARED: True}
    return {
        name: stack.enter_context(ByHand(world, port, PROMPT, is_shared=is_shared)) for name, is_shared in kinds.items()
    }


def _played(stage: Stage, rtts_s: Sequence[float], times: Rounds) -> Results:
    """The first dispatch to a host is not counted: it puts more there than the later ones."""
    _one_way(stage, a_session(stage.world))
    results = Results()
    for number in range(times.near):
        distances = times.of(number, rtts_s)
        by_hand = [rtt_s for rtt_s in distances if number < times.by_hand and rtt_s in BY_HAND_RTTS_S]
        ids = iter(sessions(stage.world, 1 + 2 * len(distances) + len(stage.hands) * len(by_hand)))
        results.bare.append(bare(stage.world, next(ids)))
        for rtt_s in distances:
            stage.link.rtt_s = rtt_s
            ours = results.of(OURS, rtt_s)
            ours.one_way.append(_one_way(stage, next(ids)))
            _round_trip(stage, next(ids), ours)
            if rtt_s in by_hand:
                _by_hand(stage, ids, results, rtt_s)
    return results


def _one_way(stage: Stage, session: str) -> float:
    """The work on the host has ended before anything else is measured."""
    taken_s = _sent(stage, session)
    stage.world.await_end(timeout_s=DEADLINE_S)
    return taken_s


def _round_trip(stage: Stage, session: str, times: Times) -> None:
    with OutcomeWatch(stage.world) as watch:
        times.round_trip.append(_sent(stage, session, "--mode", "round-trip"))
    times.latency.append(watch.latency_s(stage.world.dispatch_folders()[-1]))


def _by_hand(stage: Stage, ids: Iterator[str], results: Results, rtt_s: float) -> None:
    for name, hand in stage.hands.items():
        with stage.at_the_laptop():
            one_way_s, round_trip_s = hand.times_s(next(ids))
        results.of(name, rtt_s).one_way.append(one_way_s)
        results.of(name, rtt_s).round_trip.append(round_trip_s)


def _sent(stage: Stage, session: str, *options: str) -> float:
    with stage.at_the_laptop():
        return sent_s(stage.world, session, *options)


def _figures(results: Results, rtts_s: Sequence[float], link: str) -> Iterator[Figure]:
    handed = Sample(tuple(one.handed_s for one in results.bare)).median
    whole = Sample(tuple(one.whole_s for one in results.bare)).median
    bare_times: tuple[tuple[Mode, float], ...] = (("one_way", handed), ("round_trip", whole))
    for mode, bare_s in bare_times:
        yield from _overheads(results, rtts_s, f"less the bare commands, {link}", mode, bare_s)
    for rtt_s in rtts_s:
        latency = Sample(tuple(results.of(OURS, rtt_s).latency))
        yield Figure.of(f"return latency, {link}", _at(rtt_s), latency, "s", target=at_most(0.2 + 2 * rtt_s))
    for mode, bare_s in bare_times:
        for rtt_s in rtts_s:
            name = f"{_MODES[mode]}, {_at(rtt_s)}"
            group = f"in all, beside the bare commands, {link}"
            yield Figure.of(group, name, results.sample(OURS, rtt_s, mode), "s", bare_s)


def _overheads(results: Results, rtts_s: Sequence[float], group: str, mode: Mode, bare_s: float) -> Iterator[Figure]:
    """The target stands once at each distance."""
    group = f"{_MODES[mode]} {group}"
    for rtt_s in rtts_s:
        ours = results.sample(OURS, rtt_s, mode).minus(bare_s)
        target = at_most(0.5 + 12 * rtt_s) if mode == "one_way" else None
        others = [who for who in (PLAIN, SHARED) if (who, rtt_s) in results.times]
        for who in others:
            theirs = results.sample(who, rtt_s, mode).minus(bare_s)
            yield Figure.of(group, f"{_at(rtt_s)}, beside {who}", ours, "s", theirs, target=target)
            target = None
        if not others:
            yield Figure.of(group, _at(rtt_s), ours, "s", target=target)


def _at(rtt_s: float) -> str:
    return f"RTT {rtt_s * 1000:.0f} ms"
