from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole dispatches are too slow for the inner loop."""
    for item in items:
        if Path(__file__).parent in item.path.parents and "zygote" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.whole)
