from __future__ import annotations

from pathlib import Path

import pytest

HERE = f"{Path(__file__).parent}/"
"""Compared as text: a path that is taken apart for each of thousands of tests costs every worker half a second."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole dispatches are too slow for the inner loop."""
    for item in items:
        if str(item.path).startswith(HERE) and "zygote" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.whole)
