"""A stand-in `opencode acp` of a few lines, and the ways to it: for what is about processes, pipes and lost links."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_dispatch.acp.peer import Peer
from remote_dispatch.demo.processes import end_processes_of, processes_of
from remote_dispatch.model import Host
from remote_dispatch.remote.local import LocalConnection
from tests.rig.proxy import Proxy, redirect
from tests.rig.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from remote_dispatch.acp.lines import Message
    from remote_dispatch.acp.peer import Wire

PROGRAM = f"""#!{sys.executable} -S
import json, os, signal, sys, time

home = os.environ["HOME"]
open(home + "/starts", "a").write(str(os.getpid()) + chr(10))

def put(**message):
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\\n")
    sys.stdout.buffer.flush()

def get():
    line = sys.stdin.buffer.readline()
    if not line:
        open(home + "/end-of-input", "w").close()
        sys.exit(0)
    with open(home + "/lines", "ab") as lines:
        lines.write(line)
    return json.loads(line)

def update(text):
    put(jsonrpc="2.0", method="session/update", params=dict(text=text))

def wait_for(name):
    while not os.path.exists(home + "/" + name):
        time.sleep(0.01)

def answered(method, params):
    if method == "initialize":
        words = dict(name="OpenCode", version="1.18.33")
        umask = os.umask(0); os.umask(umask)
        return dict(protocolVersion=1, agentInfo=words, pid=os.getpid(), cwd=os.getcwd(), umask=umask,
                    argv=sys.argv[1:], environment=dict(os.environ))
    if method == "count":  # updates; with `until` the second half comes once that file is there
        for number in range(params["times"]):
            if params.get("until") and number == params["times"] // 2:
                open(home + "/half", "w").close()
                wait_for(params["until"])
            update(number)
        return params["times"]
    if method == "ask":
        put(jsonrpc="2.0", id=0, method="session/request_permission", params=dict())
        open(home + "/asked", "w").close()
        return get()["result"]
    if method == "raw":
        os.write(1, bytes.fromhex(params["hex"]))
        return None
    if method == "die":
        os.write(2, params.get("words", "").encode())
        if params.get("signal"):
            os.kill(os.getpid(), params["signal"])
        sys.exit(params["status"])
    return params

while True:
    message = get()
    if "method" in message and "id" in message:
        put(jsonrpc="2.0", id=message["id"], result=answered(message["method"], message["params"]))
"""


class Notes:
    """The handler that writes down what it is told; a permission is answered `yes`."""

    def __init__(self) -> None:
        self.texts: list[Any] = []
        self.asked = 0

    async def on_request(self, method: str, params: Message) -> Any:
        self.asked += 1
        return "yes"

    async def on_notification(self, method: str, params: Message) -> None:
        self.texts.append(params["text"])


def talk(wire: Wire, notes: Notes | None = None) -> Peer:
    return Peer(wire, notes or Notes())


@dataclass(frozen=True)
class Machine:
    """A machine with the stand-in: `home` is its HOME, `host` what the hosts file says, `proxy` is on the way there."""

    home: Path
    host: Host
    proxy: Proxy | None = None

    @property
    def project(self) -> Path:
        return self.home / "project"

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": os.environ["PATH"], "SHELL": "/bin/sh"}

    def local(self) -> LocalConnection:
        return LocalConnection(environment=self.environment)

    def lines(self) -> list[Any]:
        """What the stand-in has read, all its lives together."""
        return [json.loads(line) for line in (self.home / "lines").read_bytes().splitlines()]

    def starts(self) -> int:
        return len((self.home / "starts").read_text().splitlines())

    def processes(self) -> frozenset[int]:
        """Everything of this home but sshd's own sessions."""
        return frozenset(pid for pid in processes_of(self.home) if not _is_sshd(pid))

    def files(self) -> list[str]:
        """What is kept there for owners of agents."""
        return sorted(path.name for path in (self.home / ".local/state/remote-dispatch/acp").rglob("*"))


@contextmanager
def machine(directory: Path) -> Iterator[Machine]:
    """This machine with another home. What runs in it is ended."""
    home = directory / "home"
    (home / "project").mkdir(parents=True)
    program = home / ".opencode/bin/opencode"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    program.chmod(0o755)
    try:
        yield Machine(home, Host(name="box", host="box", opencode="~/.opencode/bin/opencode"))
    finally:
        end_processes_of(home)


@contextmanager
def machine_over_ssh(directory: Path, client_home: Path, *, extra: tuple[str, ...] = ()) -> Iterator[Machine]:
    """The same behind a real sshd, and a proxy before that. `extra` are further lines of sshd_config."""
    with (
        machine(directory) as made,
        Sshd(directory / "sshd", home=made.home, extra=extra) as sshd,
        Proxy(sshd.port) as proxy,
    ):
        sshd.write_client_home(client_home)
        redirect(client_home, sshd.port, proxy.port)
        yield Machine(made.home, made.host, proxy)


def _is_sshd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("sshd")
    except OSError:
        return False
