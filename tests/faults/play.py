"""Plays one scenario from the making of its world to the verdict."""

from __future__ import annotations

import shutil
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults import (  # noqa: F401 - enter their kinds
    code,
    crowds,
    damage,
    disks,
    doors,
    kills,
    meanwhile,
    network,
    real,
)
from tests.faults.kinds import KINDS
from tests.faults.trial import HangError, SkippedError, Trial, VoidError
from tests.rig.oracle import Broken

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.scenario import Scenario
    from tests.rig.world import Starter


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a scenario."""

    scenario: Scenario
    broken: tuple[Broken, ...] = ()
    duration_s: float = 0.0
    settled_s: float = 0.0
    """From the end of the fault to the dispatch's last state."""
    is_hang: bool = False
    skipped: str | None = None

    @property
    def is_passed(self) -> bool:
        """Whether every invariant holds."""
        return not self.broken and self.skipped is None


def play(scenario: Scenario, directory: Path, starter: Starter | None = None) -> Result:
    """Play a scenario in this directory, which is kept when something is broken."""
    began = time.monotonic()
    settled_s, is_hang, skipped = 0.0, False, None
    broken: list[Broken] = []
    kind = KINDS[scenario.kind]
    try:
        with Trial(scenario, directory, starter, **kind.world(scenario)) as trial:
            kind.inflict(trial)
            trial.heal()
            settled_s = trial.settle()
            broken = trial.judge(settled_s)
    except HangError as error:
        broken, is_hang = [Broken("hang", str(error))], True
    except SkippedError as error:
        skipped = str(error)
    except VoidError as error:
        broken = [Broken("void", f"{error}: the fault did not happen, so nothing is proved")]
    except AssertionError as error:
        broken = [Broken("claim", str(error))]
    except Exception:  # noqa: BLE001 - whatever goes wrong in one run is a result, and the others go on
        broken = [Broken("rig", traceback.format_exc())]
    if not broken:
        shutil.rmtree(directory, ignore_errors=True)
    return Result(scenario, tuple(broken), time.monotonic() - began, settled_s, is_hang, skipped)
