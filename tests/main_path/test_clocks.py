"""A host whose clock differs: the turn runs there, and every message has its place at home."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.main_path.texts import said, times
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from tests.rig.world import World

OFFSETS_S = [3600, -30]
DATE = "#!/bin/sh\nexec /bin/date -d '{offset} seconds' \"$@\"\n"


def set_clock(world: World, offset_s: int) -> None:
    """Have the host's `date` and its OpenCode tell another time."""
    world.host.put_program("date", DATE.format(offset=offset_s))
    world.host.set(STUB_CLOCK_OFFSET_MS=offset_s * 1000)


def recent_session(world: World) -> str:
    """Make a session whose last message is a second old."""
    transcript = a_transcript("hello", "hi there")
    now = int(time.time() * 1000) - 2000
    for position, message in enumerate(transcript["messages"]):
        message["info"]["time"] = dict.fromkeys(message["info"]["time"], now + position * 1000)
    transcript["info"]["time"] = {"created": now, "updated": now + 1000}
    return world.laptop.bring_in(transcript)


@pytest.mark.parametrize("offset_s", OFFSETS_S)
def test_messages_are_in_order_and_in_the_past_on_the_host_and_at_home(world: World, offset_s: int) -> None:
    session = recent_session(world)
    set_clock(world, offset_s)
    for answer in ("first", "second"):
        ran = world.round_trip(f"!say {answer}", "--session", session)
        assert (ran.exit_code, ran.data["new_messages"]) == (0, 2)
        created = times(world.host.export(session))
        assert max(created[:-2]) < created[-2] <= (time.time() + offset_s) * 1000
    home = world.export_local(session)
    assert [role for role, _ in said(home)] == ["user", "assistant"] * 3
    assert [text for role, text in said(home) if role == "assistant"] == ["hi there", "first", "second"]
    assert times(home) == sorted(set(times(home)))
    assert times(home)[-1] <= time.time() * 1000


@pytest.mark.parametrize("offset_s", [3600, -3600])
def test_the_offset_is_measured(world: World, offset_s: int) -> None:
    set_clock(world, offset_s)
    ran = world.send("--session", world.local_session(), "--dry-run")
    assert abs(ran.data["clock_offset_s"] - offset_s) < 5


@pytest.mark.parametrize("offset_s", [3600, -3600])
def test_a_new_session_and_a_sub_agents_session_come_home_in_the_past(world: World, offset_s: int) -> None:
    set_clock(world, offset_s)
    ran = world.round_trip("!task look\n!say done", "--new", "--model", "test/model")
    assert ran.exit_code == 0
    now = time.time() * 1000
    for session in world.laptop.sessions():
        created = times(world.export_local(session))
        assert now - 60_000 < min(created) <= max(created) <= now
