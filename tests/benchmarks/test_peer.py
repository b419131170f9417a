"""The peer in the benchmark: what is read of it, and what happens where it cannot be had."""

import json
from pathlib import Path

import pytest

from benchmarks.measure import Omission
from benchmarks.opencode import Bare
from benchmarks.peer import GROUP, Results, Times, figures, figures_of
from benchmarks.remote_login import VARIABLE, PeerFailedError, Report

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


def test_a_seventh_of_the_peer_s_overhead_is_the_target_of_each_figure() -> None:
    times = Times(one_way=[3.0], round_trip=[8.5], peer_launched=[13.0], peer_returned=[14.0])
    one_way, round_trip = figures_of(GROUP, 0.1, times, BARE)
    assert (one_way.value, one_way.baseline, one_way.is_met) == (1.0, 7.0, True)
    assert (round_trip.value, round_trip.baseline, round_trip.is_met) == (1.5, 7.0, False)


def test_of_the_steps_alone_only_round_trips_are_shown() -> None:
    shown = figures_of(GROUP, 0.1, Times(round_trip=[8.0], peer_launched=[9.0], peer_returned=[10.0]), BARE)
    assert [one.name for one in shown] == ["round trip, RTT 100 ms"]


def test_one_slow_round_of_the_bare_commands_does_not_count() -> None:
    assert Results(bare=[BARE, Bare(20.0, 60.0, 70.0), BARE]).bare_median() == BARE
