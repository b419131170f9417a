"""In `opencode run`: the process ends with its turn, so a round trip is waited for inside the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import TOOL, call_tool, in_order
from tests.real.conftest import answers, heard, spoken

if TYPE_CHECKING:
    from tests.plugin.conftest import Place

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]
"""Slow: test_in_tui.py shows a round trip with the plugin, and test_errors.py the tool in a run."""


def test_a_session_is_handed_over_and_goes_on_there_alone(place: Place) -> None:
    said = place.run("Finish it there.", call_tool(task="!bash pwd\n!say finished there"), "!say it is on its way")
    assert said.strip().endswith("it is on its way")
    (state,) = place.tool_states
    (name,) = [one["name"] for one in place.dispatches()]
    assert state["status"] == "completed"
    assert state["input"] == {"host": "pi", "task": "!bash pwd\n!say finished there"}
    assert f"handed over to pi as `{name}` and goes on there" in state["output"]
    assert f"`remote-dispatch collect {name}`" in state["output"]
    assert all(TOOL in call.tools for call in place.calls)
    assert place.waited_for() == []

    place.machines.world.await_end(timeout_s=60)
    assert not any(TOOL in call.tools for call in place.calls_there)
    first = heard(place.calls_there[0])
    assert "This session was handed over to the host `pi` (one-way)." in first
    assert "[Tool execution was interrupted]" not in first
    assert "status" not in first.partition("This conversation was handed over to another machine")[0]

    ran = place.machines.command("collect", name)
    assert (ran.exit_code, ran.data["collected"], ran.data["copy_session_id"]) == (0, "whole", None)
    assert answers(place.stored) == ["it is on its way", "finished there"]


def test_a_round_trip_is_home_within_the_turn_and_the_model_goes_on_with_it(place: Place) -> None:
    task = "!todo measure;report\n!bash echo forty-two\n!say it is forty-two"
    said = place.run("Look into it there.", call_tool(mode="round-trip", task=task), "!say it came home")
    assert "I see" in said
    (state,) = place.tool_states
    assert state["input"] == {"host": "pi", "mode": "round-trip", "task": task}
    assert state["output"].endswith("what was done there follows.")
    assert [call.directory == str(place.directory) for call in place.machines.calls(place.session)] == [
        True, False, False, False, True,
    ]  # fmt: skip
    assert in_order(
        heard(place.calls[-1]),
        "Look into it there", "what was done there follows", "You are now on the host", "echo forty-two", "measure",
        "it is forty-two", "has finished", "Go on with what came home",
    )  # fmt: skip
    assert len([text for text in spoken(place.stored) if text.startswith("pi has finished")]) == 1
    assert place.waited_for() == []
