"""Fifty hosts on the loopback, ten of them dead: what `doctor` and `list --refresh` are measured with.

OpenCode there is a script that waits as the real one does when it starts, and uses no processor meanwhile: fifty real
ones on one machine would measure nothing but themselves.
"""

from __future__ import annotations

import json
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.spending import Spent, spent
from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.dispatch.names import new_id
from remote_dispatch.model import Dispatch, DispatchRequest, Moment, State
from tests.rig.sshd import USER, Sshd, free_port
from tests.rig.stub import OPENCODE_STUB
from tests.rig.world import REPOSITORY, Machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ALIVE, REFUSING, SILENT = 40, 5, 5
SERVERS = 4
_LOOPBACK = "127.0.0.1"
_STAND_IN = """#!/bin/sh
case $* in -e*) exit 1 ;; esac
sleep 0.9
case $* in
  *--version*) echo 1.18.33 ;;
  *models*) printf '%s\\n' scripted/small scripted/large ;;
  *'agent list'*) printf 'build (primary)\\n  []\\n' ;;
  *'debug config'*) printf '{\\n  "model": "scripted/large"\\n}\\n' ;;
esac
"""


@dataclass
class Fleet:
    """The hosts, and a laptop that knows them; use as a context manager.

    `alive-NN` run, nobody listens where `refusing-N` are, `silent-N` take the connection and say nothing.
    """

    directory: Path
    _stack: ExitStack = field(default_factory=ExitStack)
    _ports: dict[str, int] = field(default_factory=dict)
    _homes: dict[str, Path] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.laptop = Machine(OpencodeHome(self.directory / "laptop", OPENCODE_STUB))
        self.laptop.make(None)
        for number in range(SERVERS):
            self._add_server(number)
        for number in range(REFUSING):
            self._ports[f"refusing-{number}"] = free_port()
        for number in range(SILENT):
            deaf = self._stack.enter_context(socket.create_server((_LOOPBACK, 0)))
            self._ports[f"silent-{number}"] = deaf.getsockname()[1]
        self._write_laptop()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def names(self) -> list[str]:
        """The hosts' names, the dead ones last."""
        return list(self._ports)

    def run(self, *arguments: str, state: Path | None = None) -> Spent:
        """Run the command line on the laptop. `state` is where its records are; its own without."""
        environment = {
            **self.laptop.opencode.environment,
            "PYTHONPATH": str(REPOSITORY),
            "REMOTE_DISPATCH_STATE": str(state or self.directory / "state"),
        }
        argv = [sys.executable, "-m", "remote_dispatch", *arguments]
        done = spent(argv, environment, directory=self.laptop.project)
        if done.exit_code in (1, 2, 70):
            raise RuntimeError(f"`{' '.join(arguments)}` ended with exit code {done.exit_code}")
        return done

    def write_records(self, state: Path, names: Iterable[str]) -> None:
        """Write a record of a dispatch at work for each host, and its run directory where there is a host."""
        now = datetime.now(UTC)
        for name in names:
            identity = new_id(now)
            home = self._homes.get(name, Path("/home/nobody"))
            run = home / ".local/state/remote-dispatch/runs" / identity
            if name in self._homes:
                run.mkdir(parents=True)
                (run / "job.json").write_text("{}")
            history = tuple(Moment(state=one, at=now) for one in (State.NEW, State.STAGING, State.RUNNING))
            request = DispatchRequest(host=name, local_directory=self.laptop.project)
            record = Dispatch(id=identity, name=name, request=request, history=history, run_directory=str(run))
            (folder := state / "dispatches" / identity).mkdir(parents=True, mode=0o700)
            (folder / "record.json").write_text(record.model_dump_json(indent=1))

    def _add_server(self, number: int) -> None:
        """One sshd listens on the ports of ten hosts: it takes no more than sixteen."""
        host = Machine(OpencodeHome(self.directory / f"host-{number}", OPENCODE_STUB))
        host.make(None)
        host.put_program("opencode", _STAND_IN)
        ports = [free_port() for _ in range(ALIVE // SERVERS - 1)]
        environment = dict(host.opencode.environment)
        sshd = Sshd(
            self.directory / f"sshd-{number}",
            home=host.home,
            path=environment.pop("PATH"),
            environment=environment,
            extra=("MaxStartups 200", *(f"ListenAddress {_LOOPBACK}:{port}" for port in ports)),
        )
        self._stack.enter_context(sshd)
        for port in (*ports, sshd.port):
            name = f"alive-{len(self._ports):02}"
            self._ports[name], self._homes[name] = port, host.home
        self._introduce(sshd, ports)

    def _introduce(self, sshd: Sshd, ports: list[int]) -> None:
        """Let the laptop know the server's keys: one line for each of its ports."""
        ssh = self.laptop.home / ".ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        key = ssh / sshd.directory.name
        key.write_bytes(sshd.client_key.read_bytes())
        key.chmod(0o600)
        known = sshd.known_hosts.read_text()
        with (ssh / "known_hosts").open("a") as file:
            file.writelines(known.replace(f":{sshd.port} ", f":{port} ") for port in (*ports, sshd.port))

    def _write_laptop(self) -> None:
        lines = "".join(self._entry(name, port) for name, port in self._ports.items())
        (self.laptop.home / ".ssh/config").write_text(lines)
        hosts = {name: {"host": f"{name}-lan"} for name in self._ports}
        (self.laptop.opencode.configuration / "hosts.json").write_text(json.dumps({"hosts": hosts}))

    def _entry(self, name: str, port: int) -> str:
        home = self._homes.get(name)
        server = home.name.rpartition("-")[2] if home else "0"
        words = (f"HostName {_LOOPBACK}", f"Port {port}", f"User {USER}", f"IdentityFile ~/.ssh/sshd-{server}")
        return "\n  ".join((f"Host {name}-lan", *words, "IdentitiesOnly yes")) + "\n"


def kinds(names: Iterable[str]) -> Iterator[str]:
    """Return the first host of each kind."""
    seen: set[str] = set()
    for name in names:
        kind = name.partition("-")[0]
        if kind not in seen:
            seen.add(kind)
            yield name
