"""The scripts that run on the host, as texts for `Connection.run`; see the head of each file for its values."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

from remote_dispatch.reader import reader_script
from remote_dispatch.text import bare_script

ScriptName = Literal[
    "runner", "launch", "follow", "glance", "list", "status", "cancel", "clean", "tail", "sweep", "partial", "end"
]

_PARTS: dict[ScriptName, tuple[str, ...]] = {
    "runner": ("common", "wake", "steps", "code", "unpack", "reader", "export", "live", "recover", "runner"),
    "launch": ("common", "report", "launch"),
    "follow": ("common", "report", "wake", "push", "follow"),
    "status": ("common", "report", "status"),
    "cancel": ("common", "report", "cancel"),
    "clean": ("common", "code", "clean"),
    "tail": ("common", "tail"),
    "sweep": ("common", "sweep"),
    "partial": ("common", "code", "partial"),
    "end": ("common", "end"),
    "glance": ("common", "report", "push", "glance"),
    "list": ("common", "push", "list"),
}


def script(name: ScriptName) -> str:
    """Return a script as one POSIX sh text, complete with what it shares with the others.

    launch RUN_DIRECTORY DEADLINE_S [recover] | - · follow RUN_DIRECTORY OFFSET [HEARTBEAT_S [LIMIT_BYTES]] ·
    glance RUN_DIRECTORY LIMIT_BYTES [events] · list RUN_DIRECTORY · status RUN_DIRECTORY ·
    cancel RUN_DIRECTORY SECONDS · clean RUN_DIRECTORY DISPATCH_ID · tail RUN_DIRECTORY OFFSET ·
    sweep · partial RUN_DIRECTORY DISPATCH_ID · end RUN_DIRECTORY STATUS;
    `runner` is uploaded and started by `launch`.
    """
    return bare_script(script_as_written(name))


def script_as_written(name: ScriptName) -> str:
    """Return the same script with its comments."""
    return "\n".join(_text(part) for part in _PARTS[name])


def _text(part: str) -> str:
    if part == "reader":
        return reader_script()
    return files("remote_dispatch.runner").joinpath(f"{part}.sh").read_text(encoding="utf-8")
