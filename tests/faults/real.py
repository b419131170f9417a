"""The same faults with the real OpenCode on both sides: kinds of their own, `real-KIND` for KIND.

The scripted model answers it; what that was asked is one more witness of the oracle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.faults import damage, kills, meanwhile, network  # noqa: F401 - enter their kinds
from tests.faults.kinds import KINDS, Kind
from tests.rig.real import find_opencode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.faults.scenario import Scenario

BEGINNING = "real-"
PLAYED = (
    *("kill-local", "kill-local-anytime", "kill-runner", "kill-opencode", "kill-sshd", "reboot"),
    *("cut-up", "cut-down", "meanwhile", "damage-back"),
)
"""Kinds that are played on the real OpenCode too."""


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
