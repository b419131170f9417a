"""Hand an OpenCode conversation to another machine over SSH, and bring it home."""

__version__ = "0.1.0"
