"""How files come to a host and back: our own way, and the programs that everybody has for it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from remote_dispatch.dispatch.packing import packed, read_back
from remote_dispatch.remote.ssh import connect
from tests.rig.sshd import USER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.model import Host
    from remote_dispatch.remote.connection import Connection
    from remote_dispatch.transcript import Transcript
    from tests.rig.sshd import Sshd

DEADLINE_S = 180
ALIAS = "bench-box"
_UNPACK = 'cd -- "$1" && sha256sum session.json.gz && gzip -dc session.json.gz >session.json'
_PACK = 'cd -- "$1" && { gzip -1 -c back.json >back.json.gz & sha256sum back.json && wait "$!"; }'
_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Ours:
    """As a dispatch does it, login included: the conversation is packed, copied and unpacked, and its hash compared."""

    host: Host
    there: Path
    """A directory on the host with the export as `back.json`."""
    here: Path

    def up(self, transcript: Transcript) -> None:
        """Bring a conversation to the host; it is a file there at the end."""
        asyncio.run(self._up(transcript))

    def down(self) -> Transcript:
        """Bring what the host exported here, and read it."""
        return asyncio.run(self._down())

    async def _up(self, transcript: Transcript) -> None:
        """The login goes on while the conversation is packed, as in a dispatch."""
        packing = asyncio.create_task(asyncio.to_thread(packed, transcript, self.here / "out.json.gz"))
        async with connect(self.host) as connection:
            connection.warm()
            travels = (await packing).packed
            files = {"session.json.gz": travels.content}
            await connection.upload(PurePosixPath(self.there), files, timeout_s=DEADLINE_S)
            assert travels.sha256 in await _said(connection, _UNPACK, self.there)

    async def _down(self) -> Transcript:
        target = self.here / "back.json.gz"
        async with connect(self.host) as connection:
            connection.warm()
            sha256 = (await _said(connection, _PACK, self.there)).split()[0]
            source = PurePosixPath(self.there / "back.json.gz")
            await connection.download(source, target, limit_bytes=_LIMIT_BYTES, timeout_s=DEADLINE_S)
        return read_back(target, sha256)


async def _said(connection: Connection, script: str, directory: Path) -> str:
    done = await connection.run(script, str(directory), timeout_s=DEADLINE_S)
    assert done.exit_status == 0, done.stderr
    return done.stdout.decode()


@dataclass(frozen=True, slots=True)
class Tool:
    """`scp`, `sftp` or `rsync -z`: the export as it is, from one file to another."""

    name: str
    sshd: Sshd

    def up(self, source: Path, target: Path) -> None:
        """Copy a file to the host."""
        self._copy(str(source), f"{USER}@{self.sshd.listen}:{target}", put=(source, target))

    def down(self, source: Path, target: Path) -> None:
        """Copy a file from the host."""
        self._copy(f"{USER}@{self.sshd.listen}:{source}", str(target), get=(source, target))

    def _copy(self, source: str, target: str, **batch: tuple[Path, Path]) -> None:
        options = (f"UserKnownHostsFile={self.sshd.known_hosts}", "IdentitiesOnly=yes", "BatchMode=yes")
        words = ["-F", os.devnull, "-i", str(self.sshd.client_key), *(w for one in options for w in ("-o", one))]
        port = str(self.sshd.port)
        lines = "".join(f"{verb} {one} {other}\n" for verb, (one, other) in batch.items())
        argv = {
            "scp": ["scp", "-q", "-P", port, *words, source, target],
            "sftp": ["sftp", "-q", "-b", "-", "-P", port, *words, f"{USER}@{self.sshd.listen}"],
            "rsync -z": ["rsync", "-z", "-e", " ".join(["ssh", "-p", port, *words]), source, target],
        }[self.name]
        subprocess.run(
            argv,
            input=lines.encode() if self.name == "sftp" else b"",
            stdout=subprocess.DEVNULL,
            timeout=DEADLINE_S,
            check=True,
        )


def tools(sshd: Sshd) -> list[Tool]:
    """Return those that are installed here, `scp` first."""
    return [Tool(name, sshd) for name in ("scp", "sftp", "rsync -z") if shutil.which(name.split()[0])]


@contextmanager
def at_home(directory: Path) -> Iterator[None]:
    """Use the ~/.ssh of another home."""
    before = os.environ["HOME"]
    os.environ["HOME"] = str(directory)
    try:
        yield
    finally:
        os.environ["HOME"] = before


def sha256_of(path: Path) -> str:
    """Return a file's hash."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
