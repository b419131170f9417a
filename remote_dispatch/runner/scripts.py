"""The scripts that run on the host, as texts for `Connection.run`; see the head of each file for its values."""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

ScriptName = Literal["runner", "launch", "follow", "status", "cancel", "clean", "tail", "sweep", "partial", "end"]

_PARTS: dict[ScriptName, tuple[str, ...]] = {
    "runner": ("common", "steps", "code", "unpack", "export", "live", "recover", "runner"),
    "launch": ("common", "launch"),
    "follow": ("common", "follow"),
    "status": ("common", "report", "status"),
    "cancel": ("common", "report", "cancel"),
    "clean": ("common", "code", "clean"),
    "tail": ("common", "tail"),
    "sweep": ("common", "sweep"),
    "partial": ("common", "code", "partial"),
    "end": ("common", "end"),
}


def script(name: ScriptName) -> str:
    """Return a script as one POSIX sh text, complete with what it shares with the others.

    launch RUN_DIRECTORY DEADLINE_S [recover] · follow RUN_DIRECTORY OFFSET [HEARTBEAT_S] · status RUN_DIRECTORY ·
    cancel RUN_DIRECTORY SECONDS · clean RUN_DIRECTORY DISPATCH_ID · tail RUN_DIRECTORY OFFSET ·
    sweep · partial RUN_DIRECTORY DISPATCH_ID · end RUN_DIRECTORY STATUS;
    `runner` is uploaded and started by `launch`.
    """
    return "\n".join(_text(part) for part in _PARTS[name])


def _text(part: str) -> str:
    return files("remote_dispatch.runner").joinpath(f"{part}.sh").read_text(encoding="utf-8")
