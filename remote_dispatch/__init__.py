"""Hand an OpenCode conversation to another machine over SSH, and bring it home.

The names below are the library: named sessions, as in docs/library.md. They are imported when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from remote_dispatch.errors import RemoteDispatchError, TurnFailedError
    from remote_dispatch.failure import Failure
    from remote_dispatch.library import Sessions, open_sessions
    from remote_dispatch.model import Host
    from remote_dispatch.sessions.values import End, Look, NamedSession
    from remote_dispatch.sessions.watch import Active, Ended, StateChanged, Unwatched

__version__ = "0.1.0"

__all__ = [
    "Active",
    "End",
    "Ended",
    "Failure",
    "Host",
    "Look",
    "NamedSession",
    "RemoteDispatchError",
    "Sessions",
    "StateChanged",
    "TurnFailedError",
    "Unwatched",
    "__version__",
    "open_sessions",
]

_MODULES = {
    "errors": ("RemoteDispatchError", "TurnFailedError"),
    "failure": ("Failure",),
    "library": ("Sessions", "open_sessions"),
    "model": ("Host",),
    "sessions.values": ("End", "Look", "NamedSession"),
    "sessions.watch": ("Active", "Ended", "StateChanged", "Unwatched"),
}


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return __all__
