"""The same world with the real OpenCode on both sides: what the stub shows holds for it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.main_path.texts import briefs, said
from tests.rig.world import World

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.demo.provider import ScriptedModel


@pytest.mark.real
def test_a_round_trip_between_two_real_opencodes(
    tmp_path: Path, real_opencode: Path, scripted_model: ScriptedModel
) -> None:
    with World(tmp_path, opencode=real_opencode, model_url=scripted_model.url) as world:
        world.laptop.run("run", "--format", "json", "!say noted")
        [session] = world.laptop.sessions()
        before = world.export_local(session)
        ran = world.round_trip("!write found.txt it leaks\n!say all done", "--session", session)
        assert (ran.exit_code, ran.data["state"], ran.data["answer"]) == (0, "done", "all done")
        home = world.export_local(session)
        assert home["messages"][: len(before["messages"])] == before["messages"]
        assert briefs(home) == 1
        assert said(home)[-1] == ("assistant", "all done")
        assert (world.host.project / "found.txt").read_text().strip() == "it leaks"
        assert (world.count_runs(), world.connections(), world.run_directories()) == (1, 1, [])
