from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remote_dispatch.model import Host
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.setup import Installed, Phase, Plan, Wishes, carry_out, make_plan
from tests.setup.programs import put, tiny_program

HERE = f"{Path(__file__).parent}/"
"""Compared as text: a path that is taken apart for each of thousands of tests costs every worker half a second."""
RUNS_TINY_PROGRAMS = sys.platform == "linux" and platform.machine() == "x86_64"

USUAL_TOOLS = (
    *("awk", "bash", "busybox", "cat", "chmod", "cp", "cut", "date", "dd", "df", "dirname", "env", "getconf", "grep"),
    *("gzip", "head", "ldd", "ln", "ls", "mkdir", "mktemp", "mv", "openssl", "perl", "rm", "sed", "sh", "sha256sum"),
    *("shasum", "sleep", "sort", "tail", "timeout", "tr", "uname", "wc"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Programs made of bytes run on one kind of machine only; what goes over sshd is too slow for the inner loop."""
    for item in items:
        if not str(item.path).startswith(HERE):
            continue
        names = getattr(item, "fixturenames", ())
        if "machine" in names:
            item.add_marker(pytest.mark.skipif(not RUNS_TINY_PROGRAMS, reason="needs Linux on x86-64"))
        if "world" in names:
            item.add_marker(pytest.mark.whole)


@dataclass
class Pair:
    """This machine with a program of OpenCode, and another home that lacks it, reached without SSH."""

    root: Path
    program: Path = field(init=False)
    steps: list[tuple[Phase, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.program = put(self.root / "here/bin/opencode", tiny_program(tail=os.urandom(2_000_000)))
        self.tools = self.root / "tools"
        for directory in (self.there, self.tools):
            directory.mkdir(parents=True)

    @property
    def there(self) -> Path:
        """The host's HOME."""
        return self.root / "there"

    @property
    def bin(self) -> Path:
        """Where OpenCode goes."""
        return self.there / ".opencode/bin"

    @property
    def installed(self) -> Path:
        """The file that OpenCode becomes."""
        return self.bin / "opencode"

    @property
    def here(self) -> dict[str, str]:
        """This machine's environment."""
        return {"HOME": str(self.root / "here"), "PATH": str(self.program.parent)}

    @property
    def connection(self) -> LocalConnection:
        """The connection to the host, at the head of whose PATH `tools` stands."""
        path = f"{self.tools}:/usr/bin:/bin"
        return LocalConnection(environment={"HOME": str(self.there), "PATH": path, "SHELL": "/bin/sh"})

    def tool(self, name: str, text: str) -> None:
        """Put a program of the host before its own."""
        put(self.tools / name, f"#!/bin/sh\n{text}\n".encode())

    def only_tools(self, *missing: str) -> LocalConnection:
        """Return a connection to a host that has the usual tools but these."""
        for name in set(USUAL_TOOLS) - set(missing):
            if found := shutil.which(name, path="/usr/bin:/bin"):
                (self.tools / name).symlink_to(found)
        return LocalConnection(environment={"HOME": str(self.there), "PATH": str(self.tools), "SHELL": "/bin/sh"})

    async def plan(
        self, connection: LocalConnection | None = None, *, is_forced: bool = False, **entry: object
    ) -> Plan:
        """Make the plan for the host."""
        host = Host.model_validate({"name": "box", "host": "nowhere", **entry})
        return await make_plan(connection or self.connection, host, self.here, Wishes(is_forced=is_forced))

    async def set_up(
        self, connection: LocalConnection | None = None, *, is_forced: bool = False, **entry: object
    ) -> Installed:
        """Set the host up."""
        plan = await self.plan(connection, is_forced=is_forced, **entry)
        return await carry_out(connection or self.connection, plan, self.root / "cache", self._report)

    def _report(self, phase: Phase, sent: int, total: int) -> None:
        self.steps.append((phase, sent, total))

    def assert_tidy(self) -> None:
        """Fail when anything but OpenCode itself was left."""
        assert [path.name for path in self.bin.iterdir()] == ["opencode"]
        assert not list((self.root / "cache").glob("*"))


@pytest.fixture
def machine(tmp_path: Path) -> Pair:
    """This machine, and a host that lacks OpenCode."""
    return Pair(tmp_path)
