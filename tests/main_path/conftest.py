from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.zygote import Zygote


HERE = f"{Path(__file__).parent}/"
"""Compared as text: a path that is taken apart for each of thousands of tests costs every worker half a second."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole dispatches are too slow for the inner loop."""
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.whole)


@pytest.fixture
def world(tmp_path: Path, zygote: Zygote | None) -> Iterator[World]:
    """A laptop and the host `pi`, with the stub as OpenCode on both."""
    with World(tmp_path, starter=zygote) as world:
        yield world


@pytest.fixture
def gate(world: World) -> Path:
    """A file that a brief waits for: `!wait GATE`."""
    return world.host.home / "gate"
