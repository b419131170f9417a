"""A host made of directories: the scripts run here through a plain subprocess, under each POSIX shell there is."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.model import Mode, Model
from remote_dispatch.runner.job import Job, files_for
from remote_dispatch.runner.scripts import ScriptName, script
from remote_dispatch.runner.status import (
    LaunchState,
    Partial,
    RunStatus,
    parse_clean,
    parse_launch,
    parse_outcome,
    parse_partial,
    parse_status,
)
from tests.rig.sshd import pause_s
from tests.rig.stub import OPENCODE_STUB, a_transcript, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from remote_dispatch.runner.outcome import Outcome

SHELLS = [name for name in ("dash", "bash", "busybox", "zsh") if shutil.which(name)]
PARAMETERS = [
    pytest.param(name, marks=[] if position == 0 else pytest.mark.thorough) for position, name in enumerate(SHELLS)
]
"""In the inner loop the first shell must do."""
under_two_shells = pytest.mark.parametrize(
    "host", [one for one in PARAMETERS if one.values[0] in ("dash", "busybox")], indirect=True
)
"""For what takes long and hangs on no shell's ways."""
DISPATCH = "20260102-030405-abcdefgh"


def wait_until(condition: Callable[[], object], *, timeout_s: float = 20) -> None:
    """Return as soon as the condition holds; fails the test after the deadline."""
    began = asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now - began < timeout_s, "the condition did not come true in time"
        time.sleep(pause_s(now - began, now - asked))
        asked = time.monotonic()


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not merely waiting to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


@dataclass
class Host:
    """One machine with one run directory on it."""

    root: Path
    shell: str
    environment: dict[str, str] = field(default_factory=dict)
    id: str = DISPATCH

    def __post_init__(self) -> None:
        (self.root / "bin").mkdir(parents=True)
        (self.root / "bin" / "sh").symlink_to(shutil.which(self.shell) or self.shell)
        search = f"{self.root}/bin:/usr/local/bin:/usr/bin:/bin"
        self.environment = {"PATH": search, "HOME": str(self.root / "home"), "LC_ALL": "C"} | self.environment

    def beside(self, dispatch_id: str) -> Host:
        """The same machine with the run directory of another dispatch."""
        other = copy.copy(self)
        other.id = dispatch_id
        return other

    @property
    def run_directory(self) -> Path:
        return self.root / "home" / "remote-dispatch" / "runs" / self.id

    @property
    def project(self) -> Path:
        return self.root / "project"

    def open(self, name: ScriptName, *values: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start a script as a connection does: fixed text, values beside it, no stdin."""
        argv = [str(self.root / "bin" / "sh"), "-c", script(name), name, *values]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, env=self.environment, **streams)

    def run(self, name: ScriptName, *values: str, timeout_s: float = 30) -> bytes:
        """Run a script to its end, and to the end of its output; returns what it printed."""
        with self.open(name, *values, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                printed, errors = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert not errors, errors
        return printed

    def stage(self, prompt: str = "!say done", /, **changes: Any) -> Job:
        """Put a run directory in place as an upload does, and return its job."""
        job = Job(
            dispatch_id=self.id,
            session=changes.pop("session", None) or packed(a_transcript("hello", "hi there")),
            mode=Mode.ROUND_TRIP,
            opencode=PurePosixPath(OPENCODE_STUB),
            directory=PurePosixPath(self.project),
            model=Model("test", "model"),
            agent="build",
            brief=f"You are on another machine.\n\n{prompt}",
        )
        job = replace(job, **changes)
        put(self.run_directory, files_for(job))
        return job

    def change_runner(self, old: str, new: str) -> None:
        """Change a constant of the staged runner, and the manifest with it."""
        runner, manifest = self.run_directory / "runner.sh", self.run_directory / "manifest"
        before = runner.read_text()
        assert old in before
        runner.write_text(before.replace(old, new))
        manifest.write_text(manifest.read_text().replace(_digest(before), _digest(runner.read_text())))

    def launch(self, deadline_s: int = 10) -> LaunchState:
        return parse_launch(self.run("launch", str(self.run_directory), str(deadline_s), timeout_s=deadline_s + 30))

    def recover(self, deadline_s: int = 10) -> LaunchState:
        values = (str(self.run_directory), str(deadline_s), "recover")
        return parse_launch(self.run("launch", *values, timeout_s=deadline_s + 30))

    def order(self, point: str, action: str = "pause") -> Path:
        """Have the runner stop or die at a point; returns the file that stands once a pause is reached."""
        orders = self.root / "failpoints"
        orders.mkdir(exist_ok=True)
        self.environment["REMOTE_DISPATCH_FAILPOINTS"] = str(orders)
        (orders / point).write_text(action)
        return orders / f"{point}.reached"

    def go_on(self, point: str) -> None:
        """Let a paused runner go on."""
        (self.root / "failpoints" / f"{point}.go").touch()

    def kill_runner(self) -> None:
        """Kill the runner that holds the lock."""
        os.kill(self.runner_pid(), signal.SIGKILL)
        wait_until(lambda: self.status().held == "dead")

    def journal(self) -> list[str]:
        """Return the points that were reached, by their names."""
        lines = (line.split() for line in (self.run_directory / "journal").read_text().splitlines())
        return [f"runner.{step}.{point}" for _, step, point in lines]

    def status(self) -> RunStatus:
        return parse_status(self.run("status", str(self.run_directory)), self.id)

    def has_ended(self) -> bool:
        return (self.run_directory / "outcome.json").exists()

    def has_back(self) -> bool:
        status = self.status()
        return bool(status.outcome and status.outcome.back_sha256 and not status.is_recovering)

    def outcome(self) -> Outcome:
        """Wait for the outcome and return it."""
        wait_until(self.has_ended)
        return parse_outcome((self.run_directory / "outcome.json").read_bytes(), self.id)

    def dispatch(self, prompt: str = "!say done", /, **changes: Any) -> Outcome:
        """Stage, launch and wait."""
        self.stage(prompt, **changes)
        self.launch()
        return self.outcome()

    def forget(self) -> None:
        """Make the run directory look as if nothing had run in it, once its runner is gone."""
        wait_until(lambda: not is_alive(self.runner_pid()))
        for name in ("outcome.json", "started"):
            (self.run_directory / name).unlink()

    def clean(self, *words: str) -> str | None:
        return parse_clean(self.run("clean", str(self.run_directory), self.id, *words))

    def partial(self) -> Partial:
        return parse_partial(self.run("partial", str(self.run_directory), self.id))

    def cancel(self, seconds: int = 10) -> RunStatus:
        return parse_status(self.run("cancel", str(self.run_directory), str(seconds)), self.id)

    def back(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.run_directory / "back.json").read_bytes())
        return data

    def runner_pid(self) -> int:
        """Wait for a runner and return its process id."""
        owner = self.run_directory / "lock" / "owner"
        wait_until(owner.exists)
        while (owner.parent / "next" / "owner").exists():
            owner = owner.parent / "next" / "owner"
        return int(owner.read_text().split()[1])

    def runs(self) -> int:
        """Count how often the brief reached OpenCode."""
        return sum(
            "You are on another machine." in part.get("text", "")
            for message in self.back()["messages"]
            for part in message["parts"]
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def put(directory: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write files as an upload does: 0700 directories, 0600 files."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        target.chmod(0o600)


@pytest.fixture(params=PARAMETERS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    """A host for each shell; what still runs for its dispatch is ended afterwards."""
    host = Host(tmp_path / "host", request.param)
    yield host
    end_leftovers(host)


@pytest.fixture
def one_host(tmp_path: Path) -> Iterator[Host]:
    """A host with one shell, for what has nothing to do with shells."""
    host = Host(tmp_path / "host", "dash")
    yield host
    end_leftovers(host)


def end_leftovers(host: Host) -> None:
    """End every process whose environment names this host."""
    mark = str(host.root).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark in (entry / "environ").read_bytes():
                    os.kill(int(entry.name), 9)
            except (OSError, PermissionError):
                continue
