"""What holds for every test: a private home, and a real home that raises when it is touched."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.rig.guard import guard_the_real_home
from tests.rig.real import (
    lab,
    local_home,
    local_project,
    real_opencode,
    remote_home,
    remote_project,
    scripted_model,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["lab", "local_home", "local_project", "real_opencode", "remote_home", "remote_project", "scripted_model"]

PREFIXES = ("XDG_", "OPENCODE_", "REMOTE_DISPATCH_")
KEPT = ("REMOTE_DISPATCH_TEST_",)

guard_the_real_home()


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a HOME of its own and none of the user's settings."""
    home = tmp_path_factory.mktemp("private-home")
    for name in [name for name in os.environ if name.startswith(PREFIXES) and not name.startswith(KEPT)]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home
