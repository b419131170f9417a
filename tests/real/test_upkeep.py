"""What the real OpenCode gives back is recognised as the same, wherever it has been."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]


def test_every_message_of_a_result_that_came_as_a_copy_is_the_same_in_all_places(machines: Machines) -> None:
    session = machines.session("hello", "at home")
    sent = machines.send("!write a.txt x\n!todo look\n!task !say below\n!say done", "--detach", session=session)
    machines.talk("!say moved on", session)
    name = sent.data["name"]
    assert machines.command("collect", name).data["collected"] == "copy"
    ran = machines.command("verify", name)
    assert ran.exit_code == 0, ran.stderr
    assert [len(one["messages"]) for one in ran.data["sessions"]][1:] == [2]
    messages = [message for one in ran.data["sessions"] for message in one["messages"]]
    assert {(one["here"], one["kept"], one["host"]) for one in messages} == {("equal", "equal", "equal")}
