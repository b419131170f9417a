"""In the TUI: the turn ends while the host works, and the conversation wakes with what came home."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import call_tool, configured, in_order
from tests.real.conftest import heard, spoken, tool_parts
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from tests.plugin.conftest import Place, Terminals

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def round_trip(place: Place, terminals: Terminals, *, seconds: int) -> None:
    """Ask for a round trip, watch it, and check what the user and the model see of it."""
    terminal = terminals.open(place)
    task = f"!bash echo forty-two\n!todo measure;report\n!sleep {seconds}\n!say it is forty-two"
    terminal.say("Look into it on pi.", call_tool(mode="round-trip", task=task), "!say it is on its way")

    terminal.wait_for(r"status=(exporting|asking|copying|pi imports)")
    screen = terminal.wait_for(r"^ +it is on its way\n\n +▣ ")
    assert "status=" not in screen
    assert "has finished" not in screen
    (state,) = place.tool_states
    assert "comes back by itself" in state["output"]
    assert state["input"] == {"host": "pi", "mode": "round-trip", "task": task}
    assert len(place.waited_for()) == 1

    screen = terminal.wait_for(r"^ +I see \d+ messages", timeout_s=seconds + 60)
    assert in_order(
        screen, "You are now on the host", "$ echo forty-two", "measure", "it is forty-two", "has finished", "I see"
    )
    assert re.search(r"pi has finished `[a-z]{4}`; 4 messages came home\.$", screen, re.MULTILINE), screen

    assert in_order(
        heard(place.calls[-1]),
        "Look into it on pi", "comes back by itself", "it is on its way", "You are now on the host", "echo forty-two",
        "measure", "it is forty-two", "has finished", "You are in",
    )  # fmt: skip
    assert len(place.calls) == 3
    assert place.waited_for() == []
    terminal.quit()


def test_a_round_trip_comes_home_into_the_open_conversation_and_wakes_it(place: Place, terminals: Terminals) -> None:
    round_trip(place, terminals, seconds=4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_host_that_works_for_five_minutes_wakes_the_conversation(place: Place, terminals: Terminals) -> None:
    round_trip(place, terminals, seconds=300)


@pytest.mark.slow
def test_after_an_abort_the_work_goes_on_and_its_result_wakes_nobody(place: Place, terminals: Terminals) -> None:
    with configured(place.machines.laptop, permission={"remote_dispatch": "ask"}):
        terminal = terminals.open(place)
    terminal.say("Try it on pi.", call_tool(mode="round-trip", wait=True, task="!sleep 3\n!say tried there"))
    terminal.wait_for(r"Permission required")
    terminal.press("Enter")
    terminal.wait_for(r"status=.*will work on it")
    terminal.press("Escape")
    terminal.wait_for(r"esc again")
    terminal.press("Escape")
    terminal.wait_for(r"The turn was stopped here; the hand-over to pi goes on")
    (state,) = place.tool_states
    (name,) = [one["name"] for one in place.dispatches()]
    assert f"`remote-dispatch cancel {name}` stops it" in state["output"]
    assert "status" not in state["input"]

    screen = terminal.wait_for(r"has finished `[a-z]{4}`; 2 messages came home")
    assert "tried there" in screen
    assert len(place.calls) == 1
    assert [one["copy_session_id"] for one in place.dispatches()] == [None]
    terminal.say("What was that?")
    last = heard(place.await_calls(2))
    assert "tried there" in last
    assert "The turn was stopped here; the hand-over to pi goes on: `" in last
    assert "came home" not in last
    wait_until(lambda: len(spoken(place.stored)) > 5, "no answer", timeout_s=20)
    assert tool_parts(place.stored, "remote_dispatch")[0]["state"]["status"] == "completed"
    terminal.quit()
