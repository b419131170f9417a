"""The command line of a user whose hosts are OpenCode servers by URL; what it prints is checked for secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from remote_dispatch.dispatch.store import Store
from remote_dispatch.sessions.gate import settled
from remote_dispatch.sessions.reading import read
from remote_dispatch.sessions.store import SessionStore, default_session_store
from tests.rig.world import ENVELOPE, REPOSITORY, Process, Ran

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.sessions.values import NamedSession, Standing
    from tests.rig.served import Bench
    from tests.rig.zygote import Zygote

PATIENCE_S = 60


@dataclass
class Shell:
    """A home with a hosts file: `box` is the server of this worker, `ghost` a port where nobody listens."""

    home: Path
    bench: Bench
    zygote: Zygote | None
    variables: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.configuration.mkdir(parents=True)
        (self.home / "output").mkdir()
        box = {"server": self.bench.server.url, "directory": self.bench.directory}
        self.write_hosts(box=box, ghost={"server": "http://127.0.0.1:9"})

    @property
    def configuration(self) -> Path:
        """Where the hosts file is."""
        return self.home / ".config/opencode"

    @property
    def store(self) -> SessionStore:
        """The named sessions of this home."""
        return default_session_store(Store(self.home / ".local/state/remote-dispatch/dispatches"))

    def write_hosts(self, **hosts: Mapping[str, object]) -> None:
        """Write the hosts file."""
        (self.configuration / "hosts.json").write_text(json.dumps({"hosts": hosts}))

    def __call__(self, *arguments: str) -> Ran:
        """Run `remote-dispatch session ARGUMENTS` to its end."""
        process, output = self.start(*arguments)
        exit_code = process.wait(PATIENCE_S)
        ran = Ran(arguments, exit_code, output.with_suffix(".out").read_text(), output.with_suffix(".err").read_text())
        self._check(ran)
        return ran

    def start(self, *arguments: str) -> tuple[Process, Path]:
        """Start it; its files are OUTPUT.out and OUTPUT.err."""
        output = self.home / "output" / str(next(self._numbers))
        output.with_suffix(".in").touch()
        environment = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "OPENCODE_SERVER_PASSWORD": self.bench.server.password,
            **self.variables,
        }
        if self.zygote is not None:
            return self.zygote.start(["session", *arguments], self.home, environment, output), output
        argv = [sys.executable, "-m", "remote_dispatch", "session", *arguments]
        with output.with_suffix(".out").open("wb") as out, output.with_suffix(".err").open("wb") as err:
            return subprocess.Popen(
                argv, cwd=self.home, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            ), output

    def data(self, *arguments: str) -> dict[str, Any]:
        """Run it with `--json`; it must succeed."""
        ran = self(*arguments, "--json")
        assert ran.exit_code == 0, ran.stderr
        return ran.data

    def new(self, *arguments: str) -> NamedSession:
        """Make a session on `box`, and return its record."""
        return self.store.load(self.data("new", "box", *arguments)["name"])

    def _check(self, ran: Ran) -> None:
        said = f"{ran.stdout}\n{ran.stderr}"
        assert "Traceback" not in said, said
        assert ran.exit_code != 70, said
        url = urlsplit(self.bench.server.url)
        for secret in (self.bench.server.password, url.netloc):
            assert secret not in said, said
        if "--json" in ran.arguments:
            assert set(ran.envelope) == ENVELOPE, said
            assert ran.envelope["command"] == f"session {ran.arguments[0]}"


async def play(api: Api, named: NamedSession, text: str) -> Standing:
    """Prompt a session, and wait until its turn has ended."""
    before = len(await api.messages(named.session_id))
    await begin(api, named, text)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        reading = await read(api, named.session_id, named.directory)
        standing = settled(reading)
        if standing.is_over and reading.status is None and len(reading.messages) > before + 1:
            return standing
        assert time.monotonic() < deadline, "the turn did not end"


async def begin(api: Api, named: NamedSession, text: str) -> None:
    """Prompt a session."""
    await api.prompt(named.session_id, named.directory, {"parts": [{"type": "text", "text": text}]})


async def until_waiting(api: Api, named: NamedSession) -> Standing:
    """Wait until the turn asks something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (standing := settled(await read(api, named.session_id, named.directory))).requests:
        assert time.monotonic() < deadline, "nothing was asked"
    return standing
