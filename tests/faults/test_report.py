"""The table of a matrix, and its place in the docs."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from tests.faults.play import Result
from tests.faults.report import BEGIN, END, page, write_page
from tests.faults.scenario import Scenario
from tests.rig.oracle import Broken

if TYPE_CHECKING:
    from pathlib import Path

KILL = Scenario("kill-local", "stage.before")


def test_the_table_counts_what_passed_what_broke_and_what_hung() -> None:
    results = [
        Result(KILL, settled_s=1.0),
        Result(KILL, settled_s=3.0),
        Result(KILL, (Broken("I1 nothing lost", "gone"),)),
        Result(KILL, (Broken("hang", "still runs"),), is_hang=True),
        Result(KILL, skipped="no mount here"),
    ]
    text = page(results, seed=7, day=date(2026, 11, 21), duration_s=120, jobs=4)
    assert "| our command killed (-9) | 5 | 2 | 1 | 1 | 1 | 2.0 | 3.0 |" in text
    assert "Seed 7, 2026-11-21, 2 minutes on 4 cores." in text
    assert "Skipped: no mount here." in text


def test_the_table_replaces_only_what_stands_between_the_markers(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    write_page(path, "new\n")
    write_page(path, "newer\n")
    assert path.read_text() == f"above\n{BEGIN}\nnewer\n{END}\nbelow\n"


def test_a_page_without_the_markers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("nothing\n")
    with pytest.raises(ValueError, match="no place"):
        write_page(path, "new\n")
    assert path.read_text() == "nothing\n"
