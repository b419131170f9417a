"""The scripted model and the separate home with the real OpenCode."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.rig.real import (
    lab,
    local_home,
    local_project,
    real_opencode,
    remote_home,
    remote_project,
    scripted_model,
    turns,
)

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.demo.host import DemoHost
    from remote_dispatch.demo.provider import ScriptedModel
    from tests.rig.real import RealHome

__all__ = ["lab", "local_home", "local_project", "real_opencode", "remote_home", "remote_project", "scripted_model"]

pytestmark = pytest.mark.real


def test_a_script_drives_the_real_tools(
    local_home: RealHome, local_project: Path, scripted_model: ScriptedModel
) -> None:
    script = "Do it.\n!write made.txt by hand\n!bash cat made.txt\n!todo one;two\n!task !write sub.txt below\n!say done"
    session = local_home.converse(script, cwd=local_project)
    assert (local_project / "made.txt").read_text() == "by hand\n"
    assert (local_project / "sub.txt").read_text() == "below\n"
    assert turns(local_home.export(session))[-1] == ("assistant", "done")
    assert len([call for call in scripted_model.calls if call.session_id == session]) == 5
    assert scripted_model.calls[0].directory == str(local_project)


def test_a_second_turn_sees_the_first(local_home: RealHome, local_project: Path, scripted_model: ScriptedModel) -> None:
    session = local_home.converse("!say noted", cwd=local_project)
    local_home.converse("and now?", cwd=local_project, session=session)
    assert [message["role"] for message in scripted_model.calls[-1].messages] == ["user", "assistant", "user"]
    assert turns(local_home.export(session))[-1] == (
        "assistant",
        "I see 3 messages; the last one ends with: and now?",
    )


def test_a_transcript_moves_to_another_home(
    local_home: RealHome, remote_home: RealHome, local_project: Path, remote_project: Path
) -> None:
    session = local_home.converse("!say noted", cwd=local_project)
    transcript = local_home.export(session)
    assert remote_home.bring_in(transcript, cwd=remote_project) == session
    arrived = remote_home.export(session)
    assert turns(arrived) == turns(transcript)
    assert arrived["info"]["directory"] == str(remote_project)


def test_a_home_asks_nobody_for_packages(local_home: RealHome, local_project: Path) -> None:
    tools = local_home.opencode.configuration / "tool"
    tools.mkdir()
    (tools / "bare.js").write_text("export default {description: 'x', args: {}, async execute() { return 'bare' }}\n")
    began = time.monotonic()
    session = local_home.converse("!tool bare {}", cwd=local_project)
    assert time.monotonic() - began < 30
    assert turns(local_home.export(session))[-1][1].endswith("the last result: bare")
    assert not any((local_home.opencode.configuration / "node_modules").iterdir())


def test_the_lab_runs_opencode_over_ssh(lab: DemoHost, local_home: RealHome, remote_project: Path) -> None:
    config = str(local_home.directory / ".ssh/config")
    done = subprocess.run(
        ["ssh", "-n", "-F", config, "lab", "opencode --version; cat project/README"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=True,
    )
    version, readme = done.stdout.decode().splitlines()
    assert version.count(".") == 2
    assert readme == "a small project"
