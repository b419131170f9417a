"""The main path: send, wait, collect, cancel; and the store of what was sent."""

from remote_dispatch.dispatch.finish import bring_home
from remote_dispatch.dispatch.follow import follow
from remote_dispatch.dispatch.link import Link
from remote_dispatch.dispatch.manage import ask, cancel
from remote_dispatch.dispatch.report import Report, Step, silent
from remote_dispatch.dispatch.send import Plan, hand_over, make_plan
from remote_dispatch.dispatch.settle import is_collected, is_home
from remote_dispatch.dispatch.store import Store, default_store

__all__ = [
    "Link",
    "Plan",
    "Report",
    "Step",
    "Store",
    "ask",
    "bring_home",
    "cancel",
    "default_store",
    "follow",
    "hand_over",
    "is_collected",
    "is_home",
    "make_plan",
    "silent",
]
