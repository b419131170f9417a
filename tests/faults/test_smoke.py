"""A part of the matrix in every run of the suite; `make faults` plays all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.__main__ import main
from tests.faults.matrix import is_long, matrix, smoke
from tests.faults.play import play
from tests.faults.real import is_real
from tests.faults.scenario import CODE_TASKS, Scenario
from tests.rig.real import VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.zygote import Zygote

ON_REAL = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]
"""For `make slow`: the stub plays the same, and each start of the real OpenCode costs seconds."""


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(one, marks=ON_REAL if is_real(one) else [], id=one.name) for one in smoke()],
)
def test_nothing_is_lost_and_nothing_runs_twice(scenario: Scenario, tmp_path: Path, zygote: Zygote | None) -> None:
    result = play(scenario, tmp_path / "world", zygote)
    if result.skipped:
        pytest.skip(result.skipped)
    assert not result.broken, "\n".join([scenario.name, *map(str, result.broken)])


def test_the_matrix_holds_a_thousand_scenarios_and_each_name_once() -> None:
    names = [one.name for one in matrix()]
    assert len(set(names)) == len(names) >= 1000


def test_a_scenario_is_known_by_its_name() -> None:
    assert all(Scenario.parse(one.name) == one for one in matrix())


def test_the_smoke_set_has_some_of_every_kind_that_is_quick_on_the_stub() -> None:
    quick = {one.kind for one in matrix() if not (is_long(one) or is_real(one) or one.has_code)}
    on_the_stub = [one for one in smoke() if not (is_real(one) or one.has_code)]
    assert {one.kind for one in on_the_stub} == quick
    assert len(on_the_stub) >= 100


def test_the_smoke_set_has_a_scenario_on_the_real_opencode() -> None:
    assert [one for one in smoke() if is_real(one)]
    assert len([one for one in matrix() if is_real(one)]) >= 20


def test_the_smoke_set_has_code_that_travels_both_ways() -> None:
    assert {one.task for one in smoke() if one.has_code} == set(CODE_TASKS)
    assert len([one for one in matrix() if one.has_code]) >= 80


def test_the_matrix_is_not_begun_where_the_real_opencode_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/opencode")
    assert main([]) == 2
    assert "OpenCode is missing" in capsys.readouterr().err


def test_another_seed_plays_the_same_matrix_with_other_chances() -> None:
    first, second = matrix(1), matrix(2)
    assert [one.point for one in first] == [one.point for one in second]
    assert not {one.seed for one in first} & {one.seed for one in second}


def test_a_fault_that_does_not_happen_is_no_success(tmp_path: Path, zygote: Zygote | None) -> None:
    result = play(Scenario("kill-local", "nowhere.before"), tmp_path / "world", zygote)
    assert [one.invariant for one in result.broken] == ["void"]
