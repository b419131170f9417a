"""Whole round trips through the command line: what was said and done on the host is at home, whatever its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import OUTSIDE, answers, heard, spoken, stored, tool_parts
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ENVELOPE = {"name", "id", "host", "mode", "state", "session_id", "new_messages", "warnings", "copy_session_id"}


def test_a_session_works_on_the_host_comes_home_and_goes_on_here(machines: Machines) -> None:
    session = machines.talk("!say noted at home")
    before = stored(machines.laptop, session)
    directory = 'a dir/with "quotes" and $(things)'
    script = "Measure it.\n!write found.txt by the host\n!bash cat found.txt\n!say measured on the host"
    ran = machines.send(script, "--directory", f"~/{directory}", "--name", "kumo", session=session)
    assert ran.exit_code == 0, ran.stderr
    assert ran.data.keys() >= ENVELOPE
    shown = [ran.data[key] for key in ("name", "host", "mode", "state", "session_id", "warnings", "copy_session_id")]
    assert shown == ["kumo", "pi", "round-trip", "done", session, [], None]

    assert (machines.host.home / directory / "found.txt").read_text() == "by the host\n"
    assert not (machines.laptop.project / "found.txt").exists()
    assert ran.data["id"] not in {one.name for one in machines.world.run_directories()}

    after = stored(machines.laptop, session)
    assert after["messages"][:2] == before["messages"]
    assert ran.data["new_messages"] == len(after["messages"]) - 2
    for field in ("directory", "title", "agent", "model", "permission"):
        assert after["info"][field] == before["info"][field]
    assert answers(after) == ["noted at home", "measured on the host"]
    assert spoken(after)[2].endswith(script)
    providers = [one["info"]["providerID"] for one in after["messages"] if "providerID" in one["info"]]
    assert providers == ["here", "there", "there", "there"]

    machines.talk("and what do you see now?", session)
    last = heard(machines.calls(session)[-1])
    told = ("noted at home", "Measure it.", "by the host", "measured on the host", "what do you see now")
    places = [last.index(text) for text in told]
    assert places == sorted(places)
    assert answers(stored(machines.laptop, session))[-1].startswith("I see ")


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


def test_a_new_session_is_granted_what_would_be_asked_comes_home_is_listed_and_goes_on(machines: Machines) -> None:
    script = f"Begin afresh.\n!read {OUTSIDE}\n!bash pwd\n!say begun on the host"
    ran = machines.send(script, "--permissions", "auto")
    assert (ran.exit_code, ran.data["state"], ran.data["warnings"]) == (0, "done", []), ran.stderr
    session = ran.data["session_id"]
    (read,) = tool_parts(stored(machines.laptop, session), "read")
    assert read["state"]["status"] == "completed"
    assert session in machines.laptop.run("session", "list", "--format", "json").stdout
    machines.talk("!bash pwd\n!say gone on here", session)
    after = stored(machines.laptop, session)
    assert answers(after) == ["begun on the host", "gone on here"]
    last = after["messages"][-1]["info"]
    assert (last["providerID"], last["path"]["cwd"]) == ("here", str(machines.laptop.project))
