"""The closest peer, the npm package `opencode-remote-login` 0.2.1, on the rig of our own dispatches.

It is an OpenCode plugin with one tool, which starts `opencode`, `ssh` and `scp`, a connection a step. Here it runs
inside the real OpenCode, called by the scripted model, or alone, with the stand-in in OpenCode's place.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from tests.rig.world import ALIAS, REPOSITORY, World

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Mode = Literal["one-way", "round-trip"]

VARIABLE = "REMOTE_DISPATCH_BENCH_PEER"
INSTALLED = REPOSITORY / ".cache/peer"
MODULE = Path("opencode-remote-login-0.2.1/src/index.ts")
HOST = "pi"
PATIENCE_S = 180
LAUNCH = 4
"""The place of the launch among its connections: scp, import, rm and scp come before it."""
CLOCK = Path(__file__).with_name("remote_login.mjs")
REMOTE_TEMPORARY = Path("/tmp")
"""The peer's own choice on a host."""
_AT_HOME = 'case $PWD in "$HOME"*) ;; *) cd ;; esac\n'
"""The rig's HOME is not where sshd begins. Imported there and run at HOME the peer's session would hang for ever."""
_STAND_IN = """case $1$2 in
run--session=*)
    exec "$0" run --session "${2#*=}" <<END
$3
END
    ;;
esac
"""
"""The stand-in reads its brief where ours stands, on stdin; the peer gives it as an argument."""
_REMOTE_PROGRAM = """#!/bin/sh
PATH='{path}' {name} -F '{ssh}/config' -i '{ssh}/id_{alias}' -o UserKnownHostsFile='{ssh}/known_hosts' "$@"
status=$?
: >"$PEER_CALLS/$$"
exit $status
"""
_BARE_OPENCODE = """#!/bin/sh
unset OPENCODE_CONFIG_CONTENT BUN_BE_BUN
[ "$1" = export ] || exec '{opencode}' "$@"
'{opencode}' "$@" >'{file}' && exec cat '{file}'
"""
"""What the tool starts is as bare as what is subtracted. OpenCode 1.18 cuts what it exports into a pipe at 64 KiB, and
so the peer fails with every longer session: this is mended, its export goes through a file."""


class PeerMissingError(Exception):
    """There is no package to measure with."""


class PeerFailedError(Exception):
    """The tool of the package did not do what it was asked."""


def find_peer() -> Path:
    """Return the module of the installed package. Raises PeerMissingError with what to do."""
    found = Path(os.environ.get(VARIABLE) or INSTALLED).expanduser() / MODULE
    if not found.is_file():
        raise PeerMissingError(f"{MODULE.parts[0]} is missing: run `sh tools/ensure-peer.sh .cache/peer`")
    return found.resolve()


@dataclass(frozen=True, slots=True)
class Report:
    """What the tool said when it had ended, and its own time. `began_s` is a time of the clock."""

    began_s: float
    seconds: float
    title: str
    output: str

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `remote_login.mjs` writes. Raises PeerFailedError for a refusal, which has no title."""
        fields = json.loads(text)
        if not fields.get("title"):
            # What follows the colon is a command line, with the address in it.
            raise PeerFailedError(f"the peer said: {fields['output'].partition(':')[0]}")
        return cls(fields["began_s"], fields["seconds"], fields["title"], fields["output"])


class Peer:
    """The package inside the real OpenCode of a world's laptop; use as a context manager.

    It reaches the host as `ssh` does that reads ~/.ssh of the laptop. What it leaves in the host's temporary directory
    is removed. Raises PeerMissingError on entering.
    """

    preface = _AT_HOME
    """How the host's `opencode` begins, in shell."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._directory = world.directory / "peer"

    def __enter__(self) -> Self:
        module = find_peer()
        self._calls.mkdir(parents=True, exist_ok=True)
        self._launcher = (self._world.host.bin / "opencode").read_text()
        self._world.host.put_program("opencode", self._launcher.replace("\n", f"\n{self.preface}", 1))
        self._put_programs()
        self._environment = self._make_environment(module)
        return self

    def __exit__(self, *_: object) -> None:
        self._world.host.put_program("opencode", self._launcher)

    def times_s(self, session: str) -> tuple[float, float]:
        """Send a session and bring it home; return the seconds until its launch has returned, and until its end.

        The launch returns when the run and the export there have ended. A one-way call makes the same connections up
        to there, and waits for the run as well.
        """
        report = self.call(session, "round-trip")
        ends = sorted(one.stat().st_mtime_ns / 1e9 for one in self._calls.iterdir())
        return ends[LAUNCH] - report.began_s, report.seconds

    def call(self, session: str, mode: Mode) -> Report:
        """Have the tool called once, and wait for its end. Raises PeerFailedError."""
        for left in self._calls.iterdir():
            left.unlink()
        self._report.unlink(missing_ok=True)
        try:
            self.start(session, mode)
            return Report.read(self._report.read_text())
        except FileNotFoundError as error:
            raise PeerFailedError("the peer's tool was not called") from error
        finally:
            for left in REMOTE_TEMPORARY.glob(f"opencode-*-{session}-*"):
                left.unlink()

    def start(self, session: str, mode: Mode) -> None:
        """Have the tool called once; the scripted model does it when it is told so."""
        plugin = json.dumps({"plugin": [str(CLOCK)]})
        argv = [str(self._world.laptop.bin / "opencode"), "run", "--session", session]
        text = f"!tool remote_login {json.dumps({'host': HOST, 'mode': mode})}\n!say done\n"
        self.run([*argv, "--model", self._world.laptop.opencode.model], {"OPENCODE_CONFIG_CONTENT": plugin}, text)

    def run(self, argv: Sequence[str], variables: Mapping[str, str], text: str = "") -> None:
        """Run a program on the laptop, with what `remote_login.mjs` needs."""
        done = subprocess.run(
            argv,
            cwd=self._world.laptop.project,
            env={**self._environment, **variables},
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        if done.returncode != 0:
            raise PeerFailedError(f"what called the peer ended with exit code {done.returncode}")

    @property
    def _report(self) -> Path:
        return self._directory / "report.json"

    @property
    def _calls(self) -> Path:
        """A directory with an empty file for each `ssh` and `scp` that has ended."""
        return self._directory / "calls"

    def _put_programs(self) -> None:
        ssh, path = self._world.laptop.home / ".ssh", os.environ["PATH"]
        texts = {name: _REMOTE_PROGRAM.format(path=path, name=name, ssh=ssh, alias=ALIAS) for name in ("ssh", "scp")}
        texts["opencode"] = _BARE_OPENCODE.format(
            opencode=self._world.laptop.bin / "opencode",
            file=self._directory / "export.json",
        )
        for name, text in texts.items():
            (program := self._directory / name).write_text(text)
            program.chmod(0o755)

    def _make_environment(self, module: Path) -> dict[str, str]:
        environment: dict[str, Any] = self._world.laptop.opencode.environment
        # With `os` the peer asks for the system of the host no more: a connection less.
        options = {"hosts": {HOST: {"host": ALIAS, "os": "linux"}}}
        return {
            **environment,
            "PATH": f"{self._directory}:{environment['PATH']}",
            "PWD": str(self._world.laptop.project),
            "PEER_MODULE": str(module),
            "PEER_OPTIONS": json.dumps(options),
            "PEER_REPORT": str(self._report),
            "PEER_CALLS": str(self._calls),
        }


class PeerAlone(Peer):
    """The same tool without OpenCode around it, in a world of the stand-in, run by the Bun in OpenCode's binary."""

    preface = _AT_HOME + _STAND_IN

    def __init__(self, world: World, opencode: Path) -> None:
        super().__init__(world)
        self._opencode = opencode

    def start(self, session: str, mode: Mode) -> None:
        """Have the tool called once."""
        self.run([str(self._opencode), str(CLOCK), session, HOST, mode], {"BUN_BE_BUN": "1"})
