"""A laptop for the doctor: a home with a stand-in OpenCode, hosts files, and everything the doctor works with."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.dispatch import Store
from remote_dispatch.doctor.local import Means
from remote_dispatch.hosts import Registry
from remote_dispatch.opencode.program import Program, find_binary
from remote_dispatch.remote.local import LocalConnection
from tests.rig.stub import OPENCODE_STUB
from tests.rig.world import Machine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from remote_dispatch.doctor.finding import Report


@dataclass
class Laptop:
    """What the doctor works with, in a home of its own."""

    machine: Machine
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def hosts_file(self) -> Path:
        return self.machine.opencode.configuration / "hosts.json"

    def write_hosts(self, entries: Mapping[str, object], *, mode: int = 0o600) -> None:
        self.hosts_file.write_text(json.dumps({"hosts": entries}))
        self.hosts_file.chmod(mode)

    def registry(self) -> Registry:
        return Registry.load(environment=self.environment, project=self.machine.project, platform="linux")

    def program(self) -> Program:
        return Program(LocalConnection(environment=self.environment), find_binary(self.environment))

    @property
    def means(self) -> Means:
        store = Store(self.machine.home / ".local/state/remote-dispatch")
        return Means(self.registry, store, self.program, self.environment, self.machine.project)


@dataclass
class Audience:
    """Hears everything."""

    waited_for: list[tuple[str | None, str]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def is_at(self, host: str | None, what: str) -> None:
        self.waited_for.append((host, what))

    def finished(self, report: Report) -> None:
        self.reports.append(report)


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    machine = Machine(OpencodeHome(tmp_path / "laptop", OPENCODE_STUB))
    machine.make(None)
    for name in ("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, machine.opencode.environment[name])
    return Laptop(machine, dict(machine.opencode.environment))
