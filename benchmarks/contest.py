"""Ways to do a dispatch, in turns at the same distances, and what each takes beside OpenCode's own commands."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from benchmarks.measure import Sample, rounds
from benchmarks.opencode import Bare, bare, sessions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.rig.world import World

    WholeTimes = tuple[float, float]

Mode = Literal["one_way", "round_trip"]
MODES: dict[Mode, str] = {"one_way": "one way", "round_trip": "round trip"}


def _handed_s(part: Bare) -> float:
    return part.handed_s


@dataclass(frozen=True, slots=True)
class Entry:
    """One way, in a world, at some distances, in the first rounds.

    `times_s` takes sessions, `sessions` of them, and returns the seconds until one was handed over, and until its
    result, or another's, was here. `handed_s` says which of OpenCode's commands the hand-over waits for.
    """

    name: str
    world: World
    times_s: Callable[..., WholeTimes]
    rtts_s: Sequence[float]
    rounds: Callable[[float], int]
    """How often, at this distance."""
    sessions: int = 1
    handed_s: Callable[[Bare], float] = _handed_s

    def is_in(self, number: int, rtt_s: float) -> bool:
        """Whether it takes part in this round at this distance."""
        return rtt_s in self.rtts_s and number < rounds(self.rounds(rtt_s))


@dataclass(slots=True)
class Times:
    """What one way took at one distance, in seconds, a value a round."""

    one_way: list[float] = field(default_factory=list)
    round_trip: list[float] = field(default_factory=list)

    def sample(self, mode: Mode) -> Sample:
        """Return those of one mode."""
        return Sample(tuple(self.one_way if mode == "one_way" else self.round_trip))


@dataclass(frozen=True, slots=True)
class Results:
    """What the rounds gave: the times of each way at each distance, and OpenCode's own commands in its world."""

    entries: dict[str, Entry]
    times: dict[tuple[str, float], Times] = field(default_factory=dict)
    bare: dict[int, list[Bare]] = field(default_factory=dict)
    """By world, of all rounds: distance is nothing to them."""

    def bare_of(self, name: str, mode: Mode) -> float:
        """Return what the commands take that this way consists of: the median."""
        entry = self.entries[name]
        part = Bare(*(statistics.median(values) for values in zip(*self.bare[id(entry.world)], strict=True)))
        return entry.handed_s(part) if mode == "one_way" else part.whole_s

    def overhead(self, name: str, rtt_s: float, mode: Mode) -> Sample:
        """Return what passed, less that."""
        return self.times[name, rtt_s].sample(mode).minus(self.bare_of(name, mode))


def play(entries: Sequence[Entry], rtts_s: Sequence[float], set_rtt: Callable[[float], None]) -> Results:
    """Have all take turns; OpenCode's commands are measured once a round in each world."""
    results = Results({entry.name: entry for entry in entries})
    for number in range(max(rounds(entry.rounds(rtt_s)) for entry in entries for rtt_s in rtts_s)):
        turns = [(rtt_s, entry) for rtt_s in rtts_s for entry in entries if entry.is_in(number, rtt_s)]
        ready = _prepared(turns, results)
        for rtt_s, entry in turns:
            set_rtt(rtt_s)
            one_way, round_trip = entry.times_s(*(ready[id(entry.world)].pop() for _ in range(entry.sessions)))
            times = results.times.setdefault((entry.name, rtt_s), Times())
            times.one_way.append(one_way)
            times.round_trip.append(round_trip)
    return results


def _prepared(turns: Sequence[tuple[float, Entry]], results: Results) -> dict[int, list[str]]:
    """Make a session for every dispatch of a round, by world, and measure OpenCode alone there."""
    ready: dict[int, list[str]] = {}
    for world in {id(entry.world): entry.world for _, entry in turns}.values():
        wanted = sum(entry.sessions for _, entry in turns if entry.world is world)
        ready[id(world)] = sessions(world, 1 + wanted)
        results.bare.setdefault(id(world), []).append(bare(world, ready[id(world)].pop()))
    return ready
