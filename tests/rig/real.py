"""Where the real OpenCode is, for tests marked `real`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLED = REPOSITORY / ".cache/opencode/node_modules/.bin/opencode"
VARIABLE = "REMOTE_DISPATCH_TEST_OPENCODE"


@pytest.fixture(scope="session")
def real_opencode() -> Path:
    """The binary; a test that needs it fails without it."""
    found = Path(os.environ.get(VARIABLE) or INSTALLED).expanduser()
    if not os.access(found, os.X_OK):
        pytest.fail(f"OpenCode is missing: run `sh tools/ensure-opencode.sh .cache/opencode`, or set {VARIABLE}")
    return found.resolve()
