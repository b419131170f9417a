"""OpenCode is closed while the host works: the next start in that directory goes on, brings it home and wakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.conftest import call_tool
from tests.real.conftest import heard
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from tests.plugin.conftest import Place, Terminal, Terminals

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def leave(place: Place, terminals: Terminals, *, seconds: int) -> Terminal:
    """Ask for a round trip and see the turn end."""
    terminal = terminals.open(place)
    task = f"!sleep {seconds}\n!say it is forty-two"
    terminal.say("Look into it on pi.", call_tool(mode="round-trip", task=task), "!say it is on its way")
    terminal.wait_for(r"^ +it is on its way\n\n +▣ ")
    return terminal


@pytest.mark.slow
def test_one_of_two_new_starts_goes_on_for_an_opencode_that_was_killed(place: Place, terminals: Terminals) -> None:
    leave(place, terminals, seconds=10).kill()
    place.run("!say a small command in between", arguments=("--title", "another"))
    assert len(place.waited_for()) == 1
    one = terminals.open(place, "-s", place.session)
    two = terminals.open(place, "-s", place.session)
    one.wait_for(r"has finished `[a-z]{4}`; 2 messages came home[^$]*I see")
    two.wait_for(r"You are in|I see|it is on its way")
    assert place.waited_for() == []
    one.quit()
    two.quit()
    assert len([call for call in place.calls if "has finished" in heard(call)]) == 1


@pytest.mark.slow
def test_what_was_resumed_by_hand_is_told_nobody(place: Place, terminals: Terminals) -> None:
    leave(place, terminals, seconds=1).quit()
    (name,) = place.waited_for()
    ran = place.machines.command("resume", name)
    assert (ran.exit_code, ran.data["dispatches"][0]["collected"]) == (0, "whole")
    terminal = terminals.open(place, "-s", place.session)
    wait_until(lambda: place.waited_for() == [], "nobody looked at what was waited for", timeout_s=30)
    assert "it is forty-two" in terminal.wait_for(r"it is forty-two")
    assert len(place.calls) == 2
    terminal.quit()
