"""The host registry: public names for private addresses, read from the user's hosts files.

Its names are imported when they are first used: `hosts.quick` must start without pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remote_dispatch.hosts.edit import add, add_many, parse_value, remove, rename, set_field, unset_field
    from remote_dispatch.hosts.entries import FIELDS, PRIVATE_FIELDS, Problem
    from remote_dispatch.hosts.layers import Layer, LayerKind, Places, locate
    from remote_dispatch.hosts.registry import Origin, Registry, Standing

__all__ = [
    "FIELDS",
    "PRIVATE_FIELDS",
    "Layer",
    "LayerKind",
    "Origin",
    "Places",
    "Problem",
    "Registry",
    "Standing",
    "add",
    "add_many",
    "locate",
    "parse_value",
    "remove",
    "rename",
    "set_field",
    "unset_field",
]

_MODULES = {
    "edit": ("add", "add_many", "parse_value", "remove", "rename", "set_field", "unset_field"),
    "entries": ("FIELDS", "PRIVATE_FIELDS", "Problem"),
    "layers": ("Layer", "LayerKind", "Places", "locate"),
    "registry": ("Origin", "Registry", "Standing"),
}


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
