"""A laptop and two hosts behind real sshds, each with an OpenCode home and a scripted model of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.processes import end_processes_of
from remote_dispatch.demo.provider import ScriptedModel
from tests.rig.sshd import Sshd
from tests.rig.world import Machine, World

if TYPE_CHECKING:
    from collections.abc import Mapping

SECOND_ALIAS = "attic-lan"


@dataclass
class TwoHosts(World):
    """A world whose laptop knows `pi` and `lab`; use as a context manager with the real OpenCode.

    `settings` are further fields of OpenCode's configuration on both hosts.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.models = (ScriptedModel().__enter__(), ScriptedModel().__enter__())
        self.model_url = self.models[0].url
        super().__enter__()
        self.lab = Machine(OpencodeHome(self.directory / "lab", self.opencode))
        self.lab.make(self.models[1].url)
        environment = dict(self.lab.opencode.environment)
        self.second_sshd = Sshd(
            self.directory / "second-sshd",
            home=self.lab.home,
            path=environment.pop("PATH"),
            environment=environment,
        )
        self.second_sshd.start()
        self.second_sshd.write_client_home(self.laptop.home, alias=SECOND_ALIAS)
        self.write_hosts(pi={}, lab={"host": SECOND_ALIAS, "directory": str(self.lab.project)})
        for machine in (self.host, self.lab):
            _configure(machine, self.settings)
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.second_sshd.stop()
        end_processes_of(self.lab.home)
        for model in self.models:
            model.__exit__(None, None, None)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every private string of both hosts."""
        return (*super().secrets, SECOND_ALIAS, str(self.second_sshd.port))


def _configure(machine: Machine, settings: Mapping[str, Any]) -> None:
    path = machine.opencode.configuration / "opencode.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
