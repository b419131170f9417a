"""Putting OpenCode on a host that lacks it: which build suits, copying it over, and on request what belongs to it."""

from remote_dispatch.setup.belongings import Belongings, Credentials, collect_config, collect_credentials
from remote_dispatch.setup.deliver import Delivery, deliver, plan_delivery
from remote_dispatch.setup.here import given
from remote_dispatch.setup.install import Installed, Phase, Report, cache_directory, carry_out
from remote_dispatch.setup.plan import Action, Plan, Wishes, make_plan

__all__ = [
    "Action",
    "Belongings",
    "Credentials",
    "Delivery",
    "Installed",
    "Phase",
    "Plan",
    "Report",
    "Wishes",
    "cache_directory",
    "carry_out",
    "collect_config",
    "collect_credentials",
    "deliver",
    "given",
    "make_plan",
    "plan_delivery",
]
