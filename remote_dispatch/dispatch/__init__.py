"""The main path: send, wait, collect, resume, cancel; and the store of what was sent.

Its names are imported when they are first used: `list` needs the store alone. `carry_on.carry_on` is not among them: a
name cannot stand for a module and for what is in it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remote_dispatch.dispatch.carry_on import Goal, goal_of, next_step
    from remote_dispatch.dispatch.link import Link
    from remote_dispatch.dispatch.manage import ask, cancel
    from remote_dispatch.dispatch.report import Report, Step, silent
    from remote_dispatch.dispatch.send import Plan, make_plan, record_dispatch
    from remote_dispatch.dispatch.settle import is_collected, is_home
    from remote_dispatch.dispatch.store import Store, default_store

__all__ = [
    "Goal",
    "Link",
    "Plan",
    "Report",
    "Step",
    "Store",
    "ask",
    "cancel",
    "default_store",
    "goal_of",
    "is_collected",
    "is_home",
    "make_plan",
    "next_step",
    "record_dispatch",
    "silent",
]

_MODULES = {
    "carry_on": ("Goal", "goal_of", "next_step"),
    "link": ("Link",),
    "manage": ("ask", "cancel"),
    "report": ("Report", "Step", "silent"),
    "send": ("Plan", "make_plan", "record_dispatch"),
    "settle": ("is_collected", "is_home"),
    "store": ("Store", "default_store"),
}


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
