"""Where the real OpenCode is, for tests marked `real`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLED = REPOSITORY / ".cache/opencode/node_modules/.bin/opencode"
VARIABLE = "REMOTE_DISPATCH_TEST_OPENCODE"
_LAUNCHER = '#!/bin/sh\nBUN_JSC_useFTLJIT=0 exec "{program}" "$@"\n'
"""OpenCode's JavaScript engine has a compiler for long work: without it a start costs a tenth less (OpenCode 1.18)."""


class MissingError(Exception):
    """There is no real OpenCode."""


def find_opencode() -> Path:
    """Return the binary. Raises MissingError."""
    found = Path(os.environ.get(VARIABLE) or INSTALLED).expanduser()
    if not os.access(found, os.X_OK):
        raise MissingError(f"OpenCode is missing: run `make setup`, or set {VARIABLE}")
    return found.resolve()


@pytest.fixture(scope="session")
def real_opencode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that becomes OpenCode; a test that needs it fails without it."""
    launcher = tmp_path_factory.mktemp("opencode") / "opencode"
    try:
        launcher.write_text(_LAUNCHER.format(program=find_opencode()))
    except MissingError as error:
        pytest.fail(str(error))
    launcher.chmod(0o755)
    return launcher
