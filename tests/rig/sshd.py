"""A real sshd on the loopback: its own host key, client key, configuration, and a remote HOME and PATH of its own.

No Linux user is needed: `SetEnv` gives every session the remote home, whoever runs the tests. What is started here is
ended here, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from remote_dispatch.model import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_START_S = 10
_SOONEST_S = 0.01
_LATEST_S = 0.25
_SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server",
                 "/usr/libexec/sftp-server", "/usr/lib/sftp-server")  # fmt: skip
USER = subprocess.run(
    ["id", "-un"], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
).stdout.strip()


@dataclass
class Sshd:
    """One server. `directory` holds its files; `home` is the remote HOME; use as a context manager, or start and stop.

    `path` is the PATH of remote sessions; `environment` adds variables to them; `sftp` is how the subsystem runs:
    `external` (by the login shell, as most systems do), `internal`, or `off`; `extra` are further lines of sshd_config.
    """

    directory: Path
    home: Path | None = None
    path: str = "/usr/local/bin:/usr/bin:/bin"
    environment: Mapping[str, str] = field(default_factory=dict)
    sftp: Literal["external", "internal", "off"] = "external"
    extra: tuple[str, ...] = ()
    port: int = 0
    listen: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.home = self.home or self.directory / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.client_key = self.directory / "client_key"
        self.host_key = self.directory / "host_key"
        self.known_hosts = self.directory / "known_hosts"
        self.log = self.directory / "sshd.log"
        self._process: subprocess.Popen[bytes] | None = None
        for key in (self.client_key, self.host_key):
            make_key(key)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def remote_home(self) -> Path:
        """HOME on the remote side."""
        assert self.home is not None
        return self.home

    @property
    def address(self) -> str:
        """What a hosts file would say, without the port."""
        return f"{USER}@{self.listen}"

    def host(self, name: str = "box", **fields: object) -> Host:
        """Return a registry entry for this server."""
        return Host.model_validate({"name": name, "host": self.address, "port": self.port, **fields})

    def start(self) -> None:
        """Start, and return once the port answers."""
        self.port = self.port or free_port(self.listen)
        _write_private(self.known_hosts, f"[{self.listen}]:{self.port} {_public(self.host_key)}\n")
        _write_private(self.directory / "authorized_keys", _public(self.client_key) + "\n")
        config = self.directory / "sshd_config"
        config.write_text(self._config())
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        argv = [_program(), "-D", "-f", str(config), "-E", str(self.log)]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        wait_until(self._answers, f"sshd did not start:\n{self._log_text()}")

    def stop(self) -> None:
        """End the server and every process that its sessions started and that still hangs on it."""
        if self._process is None:
            return
        family = descendants(self._process.pid)
        self._process.terminate()
        for pid in family:
            _kill(pid)
        self._process.wait(timeout=10)
        self._process = None

    def drop_connections(self) -> int:
        """Kill the sshd processes of all live connections, as a failing network would; what they run goes on.

        Returns how many were killed. New connections are accepted.
        """
        assert self._process is not None
        sessions = [pid for pid, name in descendants(self._process.pid).items() if name.startswith("sshd")]
        for pid in sessions:
            _kill(pid)
        return len(sessions)

    def write_client_home(self, home: Path, *, alias: str = "box", extra: str = "", knows_host: bool = True) -> Path:
        """Write ~/.ssh of a client that knows this server as `alias`; a second server is added to the first.

        `extra` are further lines of the alias; without `knows_host` the host key stays unknown.
        """
        ssh = home / ".ssh"
        ssh.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ssh / f"id_{alias}"
        shutil.copy(self.client_key, key)
        key.chmod(0o600)
        lines = [
            f"HostName {self.listen}",
            f"Port {self.port}",
            f"User {USER}",
            f"IdentityFile ~/.ssh/id_{alias}",
            *extra.splitlines(),
        ]
        with (ssh / "config").open("a") as config:
            config.write("\n  ".join([f"Host {alias}", *lines, "IdentitiesOnly yes"]) + "\n")
        with (ssh / "known_hosts").open("a") as known:
            known.write(self.known_hosts.read_text() if knows_host else "")
        (ssh / "known_hosts").chmod(0o600)
        return home

    def _config(self) -> str:
        environment = {"HOME": str(self.remote_home), "PATH": self.path, **self.environment}
        for variable, place in (
            ("STATE", ".local/state"),
            ("CONFIG", ".config"),
            ("DATA", ".local/share"),
            ("CACHE", ".cache"),
        ):
            environment.setdefault(f"XDG_{variable}_HOME", str(self.remote_home / place))
        words = " ".join(f'"{key}={value}"' for key, value in environment.items())
        subsystem = {"external": _sftp_server(), "internal": "internal-sftp", "off": None}[self.sftp]
        return "\n".join(
            [
                *self.extra,
                f"ListenAddress {self.listen}",
                f"Port {self.port}",
                f"HostKey {self.host_key}",
                f"AuthorizedKeysFile {self.directory / 'authorized_keys'}",
                f"PidFile {self.directory / 'sshd.pid'}",
                "UsePAM no",
                "StrictModes no",
                "PermitRootLogin yes",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "UseDNS no",
                "PrintMotd no",
                f"SetEnv {words}",
                *([f"Subsystem sftp {subsystem}"] if subsystem else []),
                "",
            ]
        )

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"sshd ended at once:\n{self._log_text()}")
        with contextlib.suppress(OSError), socket.create_connection((self.listen, self.port), timeout=1) as link:
            return link.recv(4).startswith(b"SSH")
        return False

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def make_key(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair once."""
    if not path.exists():
        argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "rig", "-f", str(path)]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=20)
    return path


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on just now."""
    with socket.create_server((address, 0)) as server:
        return int(server.getsockname()[1])


def wait_until(condition: Callable[[], bool], message: str, *, timeout_s: float = _START_S) -> None:
    """Wait for a condition, asked every hundredth of a second at first. Raises TimeoutError with the message."""
    began = asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now - began > timeout_s:
            raise TimeoutError(message)
        time.sleep(pause_s(now - began, now - asked))
        asked = time.monotonic()


def pause_s(waited_s: float, asking_s: float = 0) -> float:
    """How long to wait before a condition is asked again: at least as long as asking took, for what is waited for
    needs the processor too.
    """
    return min(max(_SOONEST_S, waited_s / 10, asking_s), _LATEST_S)


def descendants(pid: int) -> dict[int, str]:
    """Return every process below this one with its program's name."""
    rows = list(_from_proc() if Path("/proc/self/stat").exists() else _from_ps())
    found: dict[int, str] = {}
    parents = {pid}
    while parents:
        children = {child: name for child, parent, name in rows if parent in parents}
        parents = children.keys() - found.keys()
        found.update(children)
    return found


def _from_proc() -> Iterator[tuple[int, int, str]]:
    """Yield every process with its parent and its program's name: `ps` takes three times as long."""
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - no paths are wanted
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - nor here
            before, _, behind = file.read().rpartition(b")")
            yield int(name), int(behind.split()[1]), os.fsdecode(before.partition(b"(")[2])


def _from_ps() -> Iterator[tuple[int, int, str]]:
    argv = ["ps", "-A", "-o", "pid=,ppid=,comm="]
    listing = subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10)
    for line in listing.stdout.splitlines():
        pid, parent, program = line.split(None, 2)
        yield int(pid), int(parent), program.rpartition("/")[2]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _program() -> str:
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError("these tests need OpenSSH's sshd (`apt-get install openssh-server`)")
    return found


def _sftp_server() -> str:
    return next((server for server in _SFTP_SERVERS if Path(server).exists()), "internal-sftp")


def _public(key: Path) -> str:
    return " ".join(key.with_name(key.name + ".pub").read_text().split()[:2])


def _write_private(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
