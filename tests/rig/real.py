"""Where the real OpenCode is, for tests marked `real`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLED = REPOSITORY / ".cache/opencode/node_modules/.bin/opencode"
VARIABLE = "REMOTE_DISPATCH_TEST_OPENCODE"
_LAUNCHER = """#!/bin/sh
case $1:$2 in
--version:)
    [ -s '{version}' ] || {{ '{program}' --version >'{version}'.$$ && mv '{version}'.$$ '{version}'; }} || exit
    exec cat '{version}'
    ;;
--pure:* | import:* | export:* | agent:* | debug:*) collects=0 ;;
*) collects=1 ;;
esac
export BUN_JSC_useFTLJIT=0 BUN_JSC_useGC=$collects
export BUN_JSC_thresholdForJITSoon=500 BUN_JSC_thresholdForJITAfterWarmUp=2000
export BUN_JSC_thresholdForOptimizeAfterWarmUp=4000
exec '{program}' "$@"
"""
"""A start is most of what the real OpenCode costs here. Its JavaScript engine has compilers and a garbage collector
for long work: where they begin later, or not at all, a start costs up to a quarter less (OpenCode 1.18). What works on
a turn keeps its collector: it would want a gigabyte and a half. The version is asked once."""


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
    launcher = tmp_path_factory.mktemp("launcher") / "opencode"
    try:
        launcher.write_text(_LAUNCHER.format(program=find_opencode(), version=launcher.with_name("version")))
    except MissingError as error:
        pytest.fail(str(error))
    launcher.chmod(0o755)
    return launcher
