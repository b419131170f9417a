"""Hosts with one fault each, behind real servers, and a laptop whose hosts file and ~/.ssh/config know them all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import pytest

from remote_dispatch.demo.home import SYSTEM_PATH, OpencodeHome
from tests.rig.sshd import USER, Sshd, free_port, make_key
from tests.rig.stub import OPENCODE_STUB
from tests.rig.world import REPOSITORY, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MOUNT_S = 20.0
DOCTOR_S = 120.0
DISK = "size=3m,mode=700"


@dataclass(frozen=True, slots=True)
class Disk:
    """A small file system of its own, mounted on a directory."""

    place: Path

    def fill(self) -> None:
        """Leave not one block free."""
        with contextlib.suppress(OSError), (self.place / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        assert os.statvfs(self.place).f_bfree == 0

    def make_read_only(self) -> None:
        """Let nothing be written any more."""
        assert _ran("mount", "-o", "remount,ro", str(self.place))


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Disk]:
    """Have an empty directory lie on a disk of three megabytes. Skips the test where nobody may mount."""
    place.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or not _ran("mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(place)):
        pytest.skip("this user cannot mount a disk here")
    try:
        yield Disk(place)
    finally:
        _ran("umount", "-l", str(place))


def _close(links: list[socket.socket]) -> None:
    for link in links:
        link.close()


def _ran(*argv: str) -> bool:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=MOUNT_S, check=False)
    return done.returncode == 0


@dataclass
class Clinic:
    """A laptop, and as many hosts as are added; use as a context manager."""

    directory: Path
    entries: dict[str, object] = field(default_factory=dict)
    """The hosts file, by name."""
    ports: list[int] = field(default_factory=list)
    """Every port that an alias has."""
    shared: dict[str, Sshd] = field(default_factory=dict)
    """Servers that several hosts are aliases of."""

    def __enter__(self) -> Self:
        self.stack = contextlib.ExitStack()
        self.laptop = Machine(OpencodeHome(self.directory / "laptop", OPENCODE_STUB))
        self.laptop.make(None)
        self.laptop.run("session", "list")
        self.keys = [make_key(self.directory / name) for name in ("client_key", "host_key", "other_key")]
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    # --- hosts

    def machine(self, name: str) -> Machine:
        """Make a home with OpenCode at the head of its PATH."""
        machine = Machine(OpencodeHome(self.directory / "hosts" / name, OPENCODE_STUB))
        machine.make(None)
        return machine

    def serve(
        self,
        name: str,
        machine: Machine,
        *,
        path: str | None = None,
        environment: Mapping[str, str] | None = None,
        sftp: Literal["external", "internal", "off"] = "internal",
        extra: tuple[str, ...] = (),
    ) -> Sshd:
        """Start a server for this home. All servers share a host key and a client key: making keys takes time."""
        directory = self.directory / "servers" / name
        directory.mkdir(parents=True)
        for key in self.keys[:2]:
            for file in (key, key.with_name(f"{key.name}.pub")):
                shutil.copy(file, directory)
        sshd = Sshd(
            directory,
            home=machine.home,
            path=path or f"{machine.bin}:{SYSTEM_PATH}",
            environment=environment or {},
            sftp=sftp,
            extra=extra,
        )
        self.stack.enter_context(sshd)
        return sshd

    def disk(self, place: Path) -> Disk:
        """Mount a small disk for as long as the hosts stand."""
        return self.stack.enter_context(small_disk(place))

    def alias(
        self, name: str, port: int, *lines: str, host: str = "127.0.0.1", key: int | None = 0, known: int | None = 1
    ) -> str:
        """Write an alias of ~/.ssh/config; `key` and `known` number the client's key and the host key that is known."""
        self.ports.append(port)
        ssh = self.laptop.home / ".ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        own = [] if key is None else [f"IdentityFile {self.keys[key]}"]
        common = [f"HostName {host}", f"Port {port}", f"User {USER}", "IdentitiesOnly yes"]
        with (ssh / "config").open("a") as config:
            config.write("\n  ".join([f"Host alias-of-{name}", *lines, *own, *common]) + "\n")
        with (ssh / "known_hosts").open("a") as file:
            if known is not None:
                file.write(f"[{host}]:{port} {self.public_key(known)}\n")
        return f"alias-of-{name}"

    def public_key(self, number: int) -> str:
        """Return type and data of a public key."""
        key = self.keys[number]
        return " ".join(key.with_name(f"{key.name}.pub").read_text().split()[:2])

    def refused_port(self) -> int:
        """Return a port that nobody listens on."""
        return free_port()

    def talking_port(self, greeting: bytes) -> int:
        """Return a port that answers with this, or with nothing, to the end of the test."""
        server = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server.settimeout(DOCTOR_S)
        open_links: list[socket.socket] = []

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    link, _ = server.accept()
                    open_links.append(link)
                    link.sendall(greeting)
                    if greeting:
                        link.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        self.stack.callback(thread.join, 10)
        # A listening socket that is closed does not wake up who accepts; one that is shut down does.
        self.stack.callback(server.shutdown, socket.SHUT_RDWR)
        self.stack.callback(_close, open_links)
        return int(server.getsockname()[1])

    # --- the doctor

    def write_hosts(self) -> None:
        """Write the hosts file."""
        path = self.laptop.opencode.configuration / "hosts.json"
        path.write_text(json.dumps({"hosts": self.entries}))
        path.chmod(0o600)

    def examine(self) -> tuple[dict[str, Any], str]:
        """Run `doctor --json` on all hosts at once; return the reports by host, and all that it printed."""
        self.write_hosts()
        output, errors = self.directory / "doctor.out", self.directory / "doctor.err"
        environment = {**self.laptop.opencode.environment, "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"}
        with output.open("wb") as stdout, errors.open("wb") as stderr:
            subprocess.run(
                [sys.executable, "-m", "remote_dispatch", "doctor", *self.entries, "--json"],
                cwd=self.laptop.project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                timeout=DOCTOR_S,
                check=False,
            )
        printed = output.read_text() + errors.read_text()
        lines = output.read_text().splitlines()
        assert lines, printed
        reports = json.loads(lines[-1])["data"]["reports"]
        return {report["host"]: report for report in reports if report["host"] is not None}, printed
