"""The guard that keeps tests out of the real home."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tests.rig.guard import FORBIDDEN, RealHomeError

REAL_HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_touching_the_real_home_raises(name: str) -> None:
    place = REAL_HOME / name
    with pytest.raises(RealHomeError):
        (place / "a-file").read_bytes()
    with pytest.raises(RealHomeError):
        (place / "a-directory").mkdir()
    with pytest.raises(RealHomeError):
        os.listdir(place)  # noqa: PTH208 - the audited call itself


def test_every_test_has_a_home_of_its_own_and_none_of_the_users_settings(private_home: Path) -> None:
    assert Path.home() == private_home
    assert list(private_home.iterdir()) == []
    assert not [name for name in os.environ if name.startswith(("XDG_", "OPENCODE_"))]
