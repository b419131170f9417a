"""The plugin that gives OpenCode the tool `remote_dispatch`, and what installs it, removes it and says how it is."""

from remote_dispatch.plugin.install import Done, install, uninstall
from remote_dispatch.plugin.places import Place, PlaceKind, project_place, this_command, user_place
from remote_dispatch.plugin.status import Standing, Status, problem_of, read_status

__all__ = [
    "Done",
    "Place",
    "PlaceKind",
    "Standing",
    "Status",
    "install",
    "problem_of",
    "project_place",
    "read_status",
    "this_command",
    "uninstall",
    "user_place",
]
