"""The real OpenCode outlives its runner: a recovery waits for it and brings home all that it did.

For `make slow`: test_recovery.py shows the same with the stub, and no start of the real one is cheap.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.provider import ScriptedModel
from remote_dispatch.model import Model
from remote_dispatch.runner.status import LaunchState
from tests.runner.conftest import Host, end_leftovers, is_alive, wait_until


@pytest.mark.real
@pytest.mark.slow
def test_the_real_opencode_is_waited_for_and_its_work_comes_home(tmp_path: Path, real_opencode: Path) -> None:
    home = OpencodeHome(tmp_path / "host" / "home", real_opencode, "there")
    host = Host(tmp_path / "host", "dash", dict(home.environment))
    host.environment["PATH"] = f"{host.root}/bin:/usr/local/bin:/usr/bin:/bin"
    gate = host.root / "gate"
    work = f"while [ ! -e {gate} ]; do sleep 0.1; done"
    with ScriptedModel() as model:
        home.make(model.url)
        try:
            host.stage(
                f"!bash (setsid sleep 300 >/dev/null 2>&1 & echo $! >{host.root}/left); {work}\n!say last words",
                opencode=PurePosixPath(real_opencode),
                model=Model.parse(home.model),
                is_auto=True,
            )
            assert host.launch(60) is LaunchState.STARTED
            wait_until((host.root / "left").exists, timeout_s=60)
            host.kill_runner()
            assert host.recover(30) is LaunchState.RECOVERING
            assert host.status().is_opencode_alive
            gate.touch()
            wait_until(host.has_ended, timeout_s=60)
            outcome = host.outcome()
            assert (outcome.problem, outcome.export_status, outcome.left_processes) == ("lost", 0, 1)
            last = host.back()["messages"][-1]
            assert "completed" in last["info"]["time"]
            assert [part["text"] for part in last["parts"] if part["type"] == "text"] == ["last words"]
            assert host.runs() == 1
            assert is_alive(int((host.root / "left").read_text()))
        finally:
            end_leftovers(host)
