"""Files over a real sshd on loopback: our connection beside `scp`, both from the first packet of the login on."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from benchmarks.measure import Figure, medians_s
from remote_dispatch.remote.ssh import connect
from tests.rig.sshd import USER, Sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from remote_dispatch.model import Host

SIZE_BYTES = 20_000_000
ROUNDS = 3
ALIAS = "bench-box"


def figures(directory: Path) -> Iterator[Figure]:
    """Measure 20 MB of noise, which no compression makes smaller, in both directions."""
    source = directory / "noise"
    source.write_bytes(os.urandom(SIZE_BYTES))
    with Sshd(directory / "sshd") as sshd:
        client = sshd.write_client_home(directory / "client", alias=ALIAS)
        there = sshd.remote_home / "upload"
        scp = _scp(sshd)
        with _home(client):
            host = sshd.host().model_copy(update={"host": ALIAS, "port": None})
            works: dict[str, Callable[[], object]] = {
                "upload": lambda: asyncio.run(_upload(host, source, there)),
                "upload by scp": lambda: scp(str(source), f"{USER}@{sshd.listen}:{there}/scp"),
                "download": lambda: asyncio.run(_download(host, there / "noise", directory / "back")),
                "download by scp": lambda: scp(f"{USER}@{sshd.listen}:{there}/noise", str(directory / "scp-back")),
            }
            medians = medians_s(works, rounds=ROUNDS)
    assert (directory / "back").read_bytes() == source.read_bytes()
    for way in ("upload", "download"):
        yield Figure(
            "20 MB with login", f"{way}, beside scp", medians[way] * 1000, "ms", medians[f"{way} by scp"] * 1000
        )


async def _upload(host: Host, source: Path, there: Path) -> None:
    async with connect(host) as connection:
        await connection.upload(PurePosixPath(there), {"noise": source}, timeout_s=60)


async def _download(host: Host, there: Path, target: Path) -> None:
    async with connect(host) as connection:
        await connection.download(PurePosixPath(there), target, limit_bytes=2 * SIZE_BYTES, timeout_s=60)


def _scp(sshd: Sshd) -> Callable[[str, str], object]:
    options = (f"UserKnownHostsFile={sshd.known_hosts}", "IdentitiesOnly=yes", "BatchMode=yes", "Compression=no")
    flags = [word for option in options for word in ("-o", option)]
    argv = ["scp", "-q", "-F", os.devnull, "-i", str(sshd.client_key), "-P", str(sshd.port), *flags]

    def copy(source: str, target: str) -> None:
        subprocess.run([*argv, source, target], stdin=subprocess.DEVNULL, timeout=60, check=True)

    return copy


@contextmanager
def _home(directory: Path) -> Iterator[None]:
    before = os.environ["HOME"]
    os.environ["HOME"] = str(directory)
    try:
        yield
    finally:
        os.environ["HOME"] = before
