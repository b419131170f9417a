from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole dispatches are too slow for the inner loop."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.whole)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A laptop and the host `pi`, with the stub as OpenCode on both."""
    with World(tmp_path) as world:
        yield world
