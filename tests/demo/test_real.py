"""The separate home with the real OpenCode; the rest of the demo's parts is shown by its story and by tests/real.

For `make slow`: no home of the demo has a tool of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.provider import ScriptedModel
from tests.rig.world import Machine

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.real
@pytest.mark.slow
def test_a_home_with_a_tool_of_its_own_asks_nobody_for_packages(tmp_path: Path, real_opencode: Path) -> None:
    machine = Machine(OpencodeHome(tmp_path / "home", real_opencode))
    with ScriptedModel() as model:
        machine.make(model.url)
        tools = machine.opencode.configuration / "tool"
        tools.mkdir()
        tool = "export default {description: 'x', args: {}, async execute() { return 'bare' }}\n"
        (tools / "bare.js").write_text(tool)
        began = time.monotonic()
        said = machine.run("run", "--format", "json", "!tool bare {}").stdout
    assert time.monotonic() - began < 30
    assert "the last result: bare" in said
    assert not any((machine.opencode.configuration / "node_modules").iterdir())
