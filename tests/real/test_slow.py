"""What takes minutes: a long task, a host whose clock is wrong, a host that waits for a package registry."""

from __future__ import annotations

import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import answers, heard, stored, two_machines

if TYPE_CHECKING:
    from tests.real.conftest import Machines

pytestmark = pytest.mark.slow

TEN_MINUTES_S = 600
CLOSED_REGISTRY = "http://127.0.0.1:9/"
_LIBRARY = "faketime/libfaketime.so.1"
_LIBRARIES = ("/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib")


@pytest.fixture
def faketime() -> Path:
    """The library that shows programs another time."""
    found = [place for place in (Path(root) / _LIBRARY for root in _LIBRARIES) if place.exists()]
    if not found:
        pytest.skip("libfaketime is missing (`apt-get install faketime`)")
    return found[0]


@pytest.mark.timeout(TEN_MINUTES_S + 240)
def test_a_task_of_ten_minutes_comes_home(machines: Machines) -> None:
    session = machines.session("hello", "at home")
    ran = machines.send(f"!sleep {TEN_MINUTES_S}\n!say done at last", session=session, timeout_s=TEN_MINUTES_S + 180)
    assert (ran.exit_code, ran.data["state"]) == (0, "done"), ran.stderr
    answer = answers(stored(machines.laptop, session))[-1]
    assert answer.split() == ["tick"] * TEN_MINUTES_S + ["done", "at", "last"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("offset_s", [-30, 60])
def test_a_host_whose_clock_is_wrong_answers_once_and_in_order(
    tmp_path: Path, real_opencode: Path, faketime: Path, offset_s: int
) -> None:
    variables = {"LD_PRELOAD": str(faketime), "FAKETIME": f"{offset_s:+}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with two_machines(tmp_path, real_opencode, host_variables=variables) as machines:
        session = machines.talk("!say at home")
        ran = machines.send("!bash echo there\n!say from the host", session=session)
        assert (ran.exit_code, ran.data["warnings"]) == (0, []), ran.stderr
        there = stored(machines.host, session)["messages"][-1]["info"]["time"]["created"]
        here = stored(machines.laptop, session)["messages"][-1]["info"]["time"]["created"]
        assert (there - here) / 1000 == pytest.approx(offset_s, abs=5)
        assert here / 1000 <= time.time()
        assert len(machines.calls(session)) == 3
        machines.talk("!say home again", session)
        assert answers(stored(machines.laptop, session)) == ["at home", "from the host", "home again"]
        assert "from the host" in heard(machines.calls(session)[-1])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("host_environment", "run_limit_s"), [({}, 180), ({"npm_config_fetch_retries": "0"}, 60)])
def test_a_plugin_file_and_a_registry_out_of_reach_delay_the_run_at_most(
    tmp_path: Path, real_opencode: Path, host_environment: dict[str, str], run_limit_s: float
) -> None:
    variables = {"npm_config_offline": "false", "npm_config_registry": CLOSED_REGISTRY}
    with two_machines(tmp_path, real_opencode, host_variables=variables) as machines:
        configuration = machines.host.opencode.configuration
        shutil.rmtree(configuration / "node_modules")
        (configuration / "package-lock.json").unlink()
        (configuration / "plugin").mkdir()
        (configuration / "plugin/idle.js").write_text("export const Idle = async () => ({})\n")
        machines.world.write_hosts(pi={"directory": "~/project", "env": host_environment})
        session = machines.session("hello", "at home")
        began = time.monotonic()
        ran = machines.send("!say from the host", session=session, timeout_s=500)
        assert (ran.exit_code, ran.data["warnings"]) == (0, []), ran.stderr
        assert answers(stored(machines.laptop, session)) == ["at home", "from the host"]
        assert time.monotonic() - began < 240
        reached = {moment["state"]: datetime.fromisoformat(moment["at"]) for moment in ran.data["history"]}
        assert (reached["finished"] - reached["running"]).total_seconds() < run_limit_s
