"""The kinds of fault by name. A fault drives a dispatch of its trial to a place and breaks something there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.faults.scenario import Scenario
    from tests.faults.trial import Trial


def _no_options(_: Scenario) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: what it does, and which world it needs (further arguments of Trial)."""

    title: str
    inflict: Callable[[Trial], None]
    world: Callable[[Scenario], Mapping[str, Any]] = field(default=_no_options)


KINDS: dict[str, Kind] = {}


def kind(
    name: str, title: str, world: Callable[[Scenario], Mapping[str, Any]] = _no_options
) -> Callable[[Callable[[Trial], None]], Callable[[Trial], None]]:
    """Enter a function as the fault of this name; `title` stands in the table."""

    def enter(inflict: Callable[[Trial], None]) -> Callable[[Trial], None]:
        KINDS[name] = Kind(title, inflict, world)
        return inflict

    return enter
