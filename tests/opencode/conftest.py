"""A host made of directories, probed through the local connection under each POSIX shell there is."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.demo.processes import end_processes_of, processes_of
from remote_dispatch.model import Host
from remote_dispatch.opencode.probe import Probed, probe, probe_script
from remote_dispatch.opencode.program import Program
from remote_dispatch.remote.local import LocalConnection
from tests.rig.sshd import wait_until
from tests.rig.stub import OPENCODE_STUB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from remote_dispatch.remote.connection import Completed
    from remote_dispatch.remote.local import LocalChannel, LocalDuplex

SHELLS = [name for name in ("dash", "bash", "busybox", "zsh") if shutil.which(name)]
PARAMETERS = [
    pytest.param(name, marks=[] if position == 0 else pytest.mark.thorough) for position, name in enumerate(SHELLS)
]
"""In the inner loop the first shell must do."""

# The stub, which notes each call first and takes variables that change while it is used.
_NOTED = (
    '#!/bin/sh\nif [ "$1" = -e ]; then echo "reader $3 $4"; else printf "%s\\n" "$*"; fi >>{calls}\n'
    '[ -f {variables} ] && . {variables}\nexec {python} -IS {stub} "$@"\n'
)
_QUICK = '#!/bin/sh\nprintf "%s\\n" "$*" >>{calls}\necho "${{STUB_MODELS:-own/model}}"\n'
_UNDER = 'shell=$1 script=$2; shift 2; exec "$shell" -c "$script" sh "$@"'


class UnderShell(LocalConnection):
    """The local connection, whose scripts run in a shell of our choice."""

    def __init__(self, shell: Path, environment: Mapping[str, str]) -> None:
        super().__init__(environment=environment)
        self._shell = str(shell)

    @property
    def name(self) -> str:
        return "box"

    @asynccontextmanager
    async def open(self, script: str, *values: str) -> AsyncIterator[LocalChannel]:
        async with super().open(_UNDER, self._shell, script, *values) as channel:
            yield channel

    @asynccontextmanager
    async def converse(self, script: str, *values: str) -> AsyncIterator[LocalDuplex]:
        async with super().converse(_UNDER, self._shell, script, *values) as duplex:
            yield duplex

    async def run(self, script: str, *values: str, timeout_s: float, input: bytes = b"") -> Completed:  # noqa: A002 - the contract's word
        return await super().run(_UNDER, self._shell, script, *values, timeout_s=timeout_s, input=input)


@dataclass
class Box:
    """One machine: a home, programs of its own at the head of PATH, and the stub where a test installs it."""

    root: Path
    shell: str = "dash"
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for directory in (self.home, self.bin):
            directory.mkdir(parents=True)
        (self.bin / "sh").symlink_to(shutil.which(self.shell) or self.shell)
        search = f"{self.bin}:/usr/bin:/bin"
        self.environment |= {"PATH": search, "HOME": str(self.home), "LC_ALL": "C", "SHELL": "/bin/sh"}

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def bin(self) -> Path:
        return self.root / "bin"

    @property
    def configuration(self) -> Path:
        return self.home / ".config/opencode/opencode.json"

    @property
    def cache(self) -> Path:
        return self.home / ".cache/remote-dispatch"

    @property
    def connection(self) -> UnderShell:
        return UnderShell(self.bin / "sh", self.environment)

    @property
    def program(self) -> Program:
        return Program(self.connection, self.install())

    def put_program(self, path: Path, text: str) -> Path:
        """Write an executable file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def install(self, directory: Path | None = None) -> Path:
        """Put the stub into a directory; without one, at the head of PATH."""
        text = _NOTED.format(calls=self._calls, variables=self._variables, python=sys.executable, stub=OPENCODE_STUB)
        return self.put_program((directory or self.bin) / "opencode", text)

    def install_quick(self, directory: Path | None = None) -> Path:
        """Put a program there that answers every listing with one model, in a hundredth of the stub's time."""
        return self.put_program((directory or self.bin) / "opencode", _QUICK.format(calls=self._calls))

    def use_login_shell(self, name: str, file: str, line: str) -> None:
        """Make this the account's shell, with one line in one of its start-up files; skip where it is missing."""
        shell = shutil.which(name)
        if shell is None:
            pytest.skip(f"{name} is not installed")
        self.environment["SHELL"] = shell
        path = self.home / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{line}\n")

    def set(self, **variables: str) -> None:
        """Set variables of every OpenCode that starts from now on."""
        self._variables.write_text("".join(f"export {name}='{value}'\n" for name, value in variables.items()))

    def calls(self) -> list[str]:
        """Return the arguments of every call of OpenCode so far."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    async def probe(
        self,
        directory: str | None = None,
        *,
        session_id: str | None = None,
        fresh: bool = False,
        project: str | None = None,
        **entry: object,
    ) -> Probed:
        """Probe this machine, whose registry entry has these fields."""
        host = Host.model_validate({"name": "box", "host": "nowhere", **entry})
        return await probe(
            self.connection, host, directory=directory, session_id=session_id, fresh=fresh, project=project
        )

    async def answer(self, *values: str) -> bytes:
        """Run the probe itself and return what it prints; what it leaves behind is not ended with it."""
        return (await self.connection.run(probe_script(), *values, timeout_s=30)).stdout

    def kept(self) -> list[Path]:
        """Return everything in our cache here but the catalogues themselves."""
        return [path for path in self.cache.glob("*") if not (path.is_file() and path.name.startswith("catalogue-"))]

    def await_quiet(self) -> None:
        """Wait until no process of this machine is left."""
        wait_until(lambda: not processes_of(self.home), f"left behind: {processes_of(self.home)}", timeout_s=5)

    @property
    def _calls(self) -> Path:
        return self.root / "calls"

    @property
    def _variables(self) -> Path:
        return self.root / "variables"


@pytest.fixture(params=PARAMETERS)
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    """A machine for each shell."""
    yield from _boxed(tmp_path, request.param)


@pytest.fixture
def one_box(tmp_path: Path) -> Iterator[Box]:
    """A machine with one shell, for what has nothing to do with shells."""
    yield from _boxed(tmp_path, "dash" if "dash" in SHELLS else SHELLS[0])


def _boxed(tmp_path: Path, shell: str) -> Iterator[Box]:
    box = Box(tmp_path / "box", shell)
    yield box
    end_processes_of(box.home)


@pytest.fixture
def needs_no_opencode_beside() -> None:
    """Skip where the system itself has an OpenCode in a place that the probe knows."""
    places = ("/usr/local/bin", "/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin", "/run/current-system/sw/bin")
    if any(os.access(f"{place}/opencode", os.X_OK) for place in (*places, "/usr/bin", "/bin")):
        pytest.skip("this machine has an OpenCode of its own in a usual place")
