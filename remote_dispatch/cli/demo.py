"""`remote-dispatch demo`: one real round trip on this machine, shown step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remote_dispatch.cli.output import Answer, JsonFlag, run_async, run_command, say


def demo(
    *,
    opencode: Annotated[Path | None, typer.Option(help="The OpenCode to play with, when it is not in PATH.")] = None,
    is_kept: Annotated[bool, typer.Option("--keep", help="Keep the temporary directory to look around in.")] = False,
    is_json: JsonFlag = False,
) -> None:
    """Show a real round trip on this machine: two OpenCode homes, an SSH server on loopback, a scripted model."""
    run_command("demo", lambda: _play(opencode, is_kept=is_kept, is_json=is_json), is_json=is_json)


def _play(opencode: Path | None, *, is_kept: bool, is_json: bool) -> Answer:
    from remote_dispatch.demo.story import play

    report = say if is_json else typer.echo
    ending = run_async(play(report, opencode=opencode, keep=is_kept))
    return Answer(data={"session_id": ending.session_id})
