"""The main path: send, wait, collect, resume, cancel; and the store of what was sent."""

from remote_dispatch.dispatch.carry_on import Goal, carry_on, goal_of, next_step
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
    "carry_on",
    "default_store",
    "goal_of",
    "is_collected",
    "is_home",
    "make_plan",
    "next_step",
    "record_dispatch",
    "silent",
]
