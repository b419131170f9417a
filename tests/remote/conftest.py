from __future__ import annotations

import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.model import Host
from tests.rig.proxy import Proxy, redirect
from tests.rig.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One real sshd for the tests that do nothing to it."""
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield sshd


@pytest.fixture(scope="session")
def server_without_sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One real sshd that knows no SFTP."""
    with Sshd(tmp_path_factory.mktemp("sshd"), sftp="off") as sshd:
        yield sshd


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Start servers that belong to one test."""
    started: list[Sshd] = []

    def start(**options: object) -> Sshd:
        sshd = Sshd(tmp_path / f"sshd-{len(started)}", **options)  # type: ignore[arg-type] # the test's own keywords
        sshd.start()
        started.append(sshd)
        return sshd

    yield start
    for sshd in started:
        sshd.stop()


@pytest.fixture
def client_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty HOME of a client without an agent."""
    home = tmp_path / "client-home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kilobytes; only root can make one."""
    place = tmp_path / "small-disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=10).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, stdin=subprocess.DEVNULL, timeout=10)


@dataclass(frozen=True)
class Road:
    """A host behind a proxy."""

    host: Host
    proxy: Proxy
    server: Sshd


@pytest.fixture
def proxied(client_home: Path) -> Iterator[Callable[[Sshd], Road]]:
    """Put a proxy before a server, and have the client's `box` go through it."""
    with ExitStack() as stack:

        def lay(server: Sshd) -> Road:
            proxy = stack.enter_context(Proxy(server.port))
            server.write_client_home(client_home)
            redirect(client_home, server.port, proxy.port)
            return Road(Host(name="box", host="box"), proxy, server)

        yield lay
