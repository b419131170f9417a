"""The command line: thin. Parse, call the library, render."""

from remote_dispatch.cli.app import main

__all__ = ["main"]
