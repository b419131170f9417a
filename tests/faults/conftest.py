from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole dispatches are too slow for the inner loop."""
    for item in items:
        if item.path.is_relative_to(HERE) and "zygote" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.whole)
