"""What holds for every test: a private home, and a real home that raises when it is touched."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.rig.guard import guard_the_real_home
from tests.rig.real import real_opencode
from tests.rig.served import served
from tests.rig.zygote import IS_POSSIBLE, Zygote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["real_opencode", "served"]

PREFIXES = ("XDG_", "OPENCODE_", "REMOTE_DISPATCH_")
KEPT = ("REMOTE_DISPATCH_TEST_",)

guard_the_real_home()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has its background jobs ignore Ctrl-C, and so would every program that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # And `nohup` has them ignore a hang-up.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that nobody waits for it at the end.

    It begins at one worker, whose servers and machines all of it shares; the others take of it when they have time.
    """
    items.sort(key=lambda item: item.get_closest_marker("real") is None)


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a HOME of its own and none of the user's settings."""
    home = tmp_path_factory.mktemp("private-home")
    for name in [name for name in os.environ if name.startswith(PREFIXES) and not name.startswith(KEPT)]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote | None]:
    """What starts the command line quickly; None where that is impossible."""
    if not IS_POSSIBLE:
        yield None
        return
    with Zygote() as zygote:
        yield zygote
