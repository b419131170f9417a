"""The peer in the benchmark: what is read of it, and what happens where it cannot be had."""

import json
from pathlib import Path

import pytest

from benchmarks.contest import Entry, Times, play
from benchmarks.measure import Omission
from benchmarks.opencode import Bare
from benchmarks.peer import PEER, entry, figures, overheads
from benchmarks.remote_login import VARIABLE, Peer, PeerFailedError, Report
from tests.rig.world import World

BARE = Bare(handed_s=2.0, exported_s=6.0, whole_s=7.0)


def test_without_the_package_its_figures_are_left_out_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    [omission] = figures(tmp_path)
    assert isinstance(omission, Omission)
    assert "run `sh tools/ensure-peer.sh" in omission.reason


def test_a_refusal_of_the_peer_is_no_time_and_shows_no_address() -> None:
    refusal = {
        "began_s": 1.0,
        "seconds": 0.1,
        "output": "Remote import failed: Command failed: ssh me@box.lan opencode",
    }
    with pytest.raises(PeerFailedError) as caught:
        Report.read(json.dumps(refusal))
    assert "Remote import failed" in str(caught.value)
    assert "box.lan" not in str(caught.value)


def test_a_call_that_went_well_tells_when_it_began_and_its_own_time() -> None:
    report = Report.read(json.dumps({"began_s": 1.0, "seconds": 0.1, "title": "Task handed off to pi", "output": "ok"}))
    assert (report.began_s, report.seconds) == (1.0, 0.1)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """Ours and the peer, in worlds where everything takes a time that is known, and the second round is slow."""
    numbers = iter(range(1000))
    bares = iter([BARE, Bare(20.0, 60.0, 70.0), BARE])
    monkeypatch.setattr("benchmarks.contest.sessions", lambda _, count: [str(next(numbers)) for _ in range(count)])
    monkeypatch.setattr("benchmarks.contest.bare", lambda _, __: next(bares))
    world = object.__new__(World)
    peer = object.__new__(Peer)
    monkeypatch.setattr(peer, "times_s", lambda _: (13.0, 14.0))
    ours = Entry("ours", world, lambda one, another: (3.0, 8.5) if one != another else (0, 0), [0.1], lambda _: 3, 2)
    return [ours, entry(world, peer, [0.1])]


def test_a_seventh_of_the_peer_s_overhead_is_the_target_of_each_figure(entries: list[Entry]) -> None:
    one_way, round_trip = overheads(play(entries, [0.1], lambda _: None), "ours", [0.1])
    assert (one_way.value, one_way.baseline, one_way.is_met) == (1.0, 7.0, True)
    assert (round_trip.value, round_trip.baseline, round_trip.is_met) == (1.5, 7.0, False)


def test_all_take_turns_at_each_distance_as_often_as_they_want(entries: list[Entry]) -> None:
    distances: list[float] = []
    results = play(entries, [0.1, 0.2], distances.append)
    assert distances == [0.1] * 5
    assert results.times == {
        ("ours", 0.1): Times([3.0] * 3, [8.5] * 3),
        (PEER, 0.1): Times([13.0] * 2, [14.0] * 2),
    }


def test_one_slow_round_of_the_bare_commands_does_not_count(entries: list[Entry]) -> None:
    results = play(entries, [0.1], lambda _: None)
    assert (results.bare_of("ours", "one_way"), results.bare_of("ours", "round_trip")) == (2.0, 7.0)
