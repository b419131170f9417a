"""The same faults with the real OpenCode on both sides: kinds of their own, `real-KIND` for KIND.

The scripted model answers it; what that was asked is one more witness of the oracle.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults import damage, kills, meanwhile, network  # noqa: F401 - enter their kinds
from tests.faults.kinds import KINDS, Kind
from tests.rig.real import INSTALLED, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.faults.scenario import Scenario

BEGINNING = "real-"
PLAYED = (
    *("kill-local", "kill-local-anytime", "kill-runner", "kill-opencode", "kill-sshd", "reboot"),
    *("cut-up", "cut-down", "meanwhile", "damage-back"),
)
"""Kinds that are played on the real OpenCode too."""


class MissingError(Exception):
    """There is no real OpenCode to play on."""


def find_opencode() -> Path:
    """Return the real OpenCode's binary. Raises MissingError."""
    found = Path(os.environ.get(VARIABLE) or INSTALLED).expanduser()
    if not os.access(found, os.X_OK):
        raise MissingError(f"OpenCode is missing: run `make setup`, or set {VARIABLE}")
    return found.resolve()


def is_real(scenario: Scenario) -> bool:
    """Whether it is played on the real OpenCode."""
    return scenario.kind.startswith(BEGINNING)


def _with_the_real_opencode(kind: Kind) -> Callable[[Scenario], Mapping[str, Any]]:
    def world(scenario: Scenario) -> Mapping[str, Any]:
        return {**kind.world(scenario), "opencode": find_opencode()}

    return world


KINDS.update(
    {
        BEGINNING + name: Kind(
            f"on the real OpenCode: {KINDS[name].title}", KINDS[name].inflict, _with_the_real_opencode(KINDS[name])
        )
        for name in PLAYED
    }
)
