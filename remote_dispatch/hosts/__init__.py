"""The host registry: public names for private addresses, read from the user's hosts files."""

from remote_dispatch.hosts.edit import add
from remote_dispatch.hosts.entries import PRIVATE_FIELDS, Problem
from remote_dispatch.hosts.layers import Layer, LayerKind, Places, locate
from remote_dispatch.hosts.registry import Origin, Registry

__all__ = ["PRIVATE_FIELDS", "Layer", "LayerKind", "Origin", "Places", "Problem", "Registry", "add", "locate"]
