from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bad_input.terminal import Terminal, laptop_of
from tests.bad_input.values import Trap
from tests.rig.stub import OPENCODE_STUB
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.zygote import Zygote


HERE = f"{Path(__file__).parent}/"
"""Compared as text: a path that is taken apart for each of thousands of tests costs every worker half a second."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A thousand cases are too many for the inner loop."""
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.thorough)


@pytest.fixture
def trap() -> Iterator[Trap]:
    """A port that nobody may connect to."""
    trap = Trap()
    yield trap
    trap.close()


@pytest.fixture
def terminal(tmp_path: Path, trap: Trap) -> Terminal:
    """A user with OpenCode's stub and one host, `pi`, whose SSH port is the trap."""
    project, programs = tmp_path / "project", tmp_path / "bin"
    project.mkdir()
    programs.mkdir()
    (programs / "opencode").write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{OPENCODE_STUB}" "$@"\n')
    (programs / "opencode").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    terminal = Terminal(tmp_path, project, {"HOME": str(tmp_path), "PATH": path, "LANG": "C.UTF-8", "NO_COLOR": "1"})
    terminal.write_hosts(json.dumps({"hosts": {"pi": {"host": "me@127.0.0.1", "port": trap.port}}}))
    return terminal


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A laptop and the host `pi` for all cases of a module; what one case leaves must not matter to another."""
    with World(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture
def world(tmp_path: Path, zygote: Zygote | None) -> Iterator[World]:
    """A laptop and the host `pi` of one's own."""
    with World(tmp_path, starter=zygote) as world:
        yield world


@pytest.fixture
def laptop(shared_world: World) -> Terminal:
    """The command line on the laptop of the shared world."""
    return laptop_of(shared_world)
