"""A stand-in `opencode` that serves health only: for what is about shells, processes and races."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = f"""#!{sys.executable} -S
import base64, os, signal, subprocess, sys, time, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

home = os.environ["HOME"]
mode = open(home + "/mode").read() if os.path.exists(home + "/mode") else ""
password = os.environ.get("OPENCODE_SERVER_PASSWORD", "")
login = "Basic " + base64.b64encode(b"opencode:" + password.encode()).decode()

if os.environ.get("BUN_BE_BUN"):
    word, port = sys.argv[2:4]
    asked = urllib.request.Request("http://127.0.0.1:" + port + "/", headers=dict(Authorization=login))
    urllib.request.urlopen(asked, timeout=2).read()
    print(dict(health="1.18.33", idle=sys.argv[-1], dispose="true")[word])
    sys.exit()

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.headers.get("Authorization") == login else 401)
        self.end_headers()

    def log_message(self, *words):
        pass

open(home + "/calls", "a").write(" ".join(sys.argv[1:]) + chr(10))
if mode == "taken" and open(home + "/calls").read().count(chr(10)) == 1:
    sys.exit("Unexpected error: ServeError: the port is in use")
if mode == "broken":
    sys.exit("cannot open the database of me@192.0.2.7" + chr(10) + "giving up")
if mode == "hanging":
    time.sleep(600)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "orphans":
    subprocess.Popen(["setsid", "sh", "-c", "sleep 600 & echo $! >$HOME/orphan"])
server = HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler)
print("opencode server listening on http://127.0.0.1", flush=True)
server.serve_forever()
"""


class StandIn:
    """A home with the stand-in; `variables` are those of its processes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        program = home / "programs/opencode"
        program.parent.mkdir(parents=True)
        program.write_text(PROGRAM)
        program.chmod(0o755)
        self.variables = {
            "HOME": str(home),
            "PATH": f"{program.parent}:/usr/bin:/bin",
            "SHELL": "/bin/sh",
            "SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22",
        }

    def set(self, mode: str) -> None:
        """Make the next start go another way."""
        (self.home / "mode").write_text(mode)

    def calls(self) -> list[str]:
        """How it was started, each time."""
        log = self.home / "calls"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def place(self) -> Path:
        """The server's directory."""
        return self.home / ".local/state/remote-dispatch/server" / os.uname().nodename

    def serving(self) -> list[int]:
        """The processes of this home that serve."""
        return [pid for pid in self._mine() if b"\0serve\0" in _read(pid, "cmdline")]

    def marked(self) -> list[int]:
        """Every process that a server of this home started."""
        return [pid for pid in self._mine() if b"REMOTE_DISPATCH_SERVED=" in _read(pid, "environ")]

    def _mine(self) -> Iterator[int]:
        mark = f"HOME={self.home}\0".encode()
        for place in Path("/proc").glob("[0-9]*"):
            if mark in _read(int(place.name), "environ"):
                yield int(place.name)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
