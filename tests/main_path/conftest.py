from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.zygote import Zygote


HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole dispatches are too slow for the inner loop."""
    for item in items:
        if item.path.is_relative_to(HERE):
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
