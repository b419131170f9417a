"""Sessions that go more than once. Minutes: tests/main_path shows the same with the stub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import answers, heard, stored

if TYPE_CHECKING:
    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]


def test_a_session_sent_twice_comes_home_twice_in_order_and_goes_on_there_too(machines: Machines) -> None:
    session = machines.session("hello", "at home")
    first = machines.send("!task !say below\n!say first time", session=session)
    machines.talk("!say between", session)
    second = machines.send("!say second time", session=session)
    assert (first.exit_code, second.exit_code) == (0, 0), first.stderr + second.stderr
    assert second.data["copy_session_id"] is None
    said = answers(stored(machines.laptop, session))
    assert said == ["at home", "first time", "between", "second time"]
    assert all(text in heard(machines.calls(session)[-1]) for text in said[:-1])
    machines.host.run("run", "--session", session, "--dir", str(machines.host.project), "!say and on there")
    assert answers(stored(machines.host, session))[-1] == "and on there"


def test_a_session_sent_twice_before_it_is_collected_loses_nothing(machines: Machines) -> None:
    session = machines.session("hello", "at home")
    first = machines.send("!say first errand", "--detach", session=session)
    machines.world.await_end(timeout_s=60)
    second = machines.send("!task !say below\n!say second errand", "--detach", session=session)
    assert (first.exit_code, second.exit_code) == (0, 0), first.stderr + second.stderr
    ran = machines.command("collect", first.data["name"])
    assert (ran.exit_code, ran.data["copy_session_id"]) == (0, None), ran.stderr
    machines.talk("!say moved on", session)
    moved = stored(machines.laptop, session)
    said = answers(moved)
    assert (said[0], said[1].endswith("first errand"), said[2]) == ("at home", True, "moved on")

    copied = machines.command("collect", second.data["name"])
    assert (copied.exit_code, copied.data["collected"], copied.data["session_id"]) == (3, "copy", session), (
        copied.stderr
    )
    assert stored(machines.laptop, session)["messages"] == moved["messages"]
    copy = stored(machines.laptop, copied.data["copy_session_id"])
    assert answers(copy) == ["at home", "second errand"]
