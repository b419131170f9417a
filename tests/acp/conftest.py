"""Agents for the tests of this room."""

from __future__ import annotations

import pytest

from tests.rig.scripted import Boxes


@pytest.fixture
def boxes() -> Boxes:
    """Agents, as many as are started."""
    return Boxes()
