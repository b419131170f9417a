from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.zygote import IS_POSSIBLE, Zygote

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole dispatches are too slow for the inner loop."""
    for item in items:
        if Path(__file__).parent in item.path.parents and "zygote" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.whole)


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote | None]:
    """What starts the command line quickly; None where that is impossible."""
    if not IS_POSSIBLE:
        yield None
        return
    with Zygote() as zygote:
        yield zygote
