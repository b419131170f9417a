"""Whole round trips of much. Minutes: tests/main_path shows the same with the stub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import spoken, stored
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]


def test_p1_a_session_of_twenty_megabytes_and_a_long_answer_come_home_equal(machines: Machines) -> None:
    messages, bytes_each = 400, 50_000
    texts = [f"message {number:06d} " + "x" * (bytes_each - 15) for number in range(messages)]
    session = machines.bring_in(a_transcript(*texts))
    before = machines.laptop.export(session)
    ran = machines.send("!long 400000", session=session)
    assert ran.exit_code == 0, ran.stderr
    after = machines.laptop.export(session)
    assert after["messages"][:messages] == before["messages"]
    assert spoken(after) == spoken(stored(machines.host, session))
    assert len(after["messages"]) == messages + 2
    assert len(spoken(after)[-1]) == 400_000
