"""Calls a Typer application in this process. Its options are read once; Typer's own runner reads them at each call."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from typer.main import get_command
from typer.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import typer

_command_of = cache(get_command)


@dataclass(frozen=True, slots=True)
class Called:
    """How a call ended, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str
    output: str


def call(
    application: typer.Typer,
    words: Sequence[str],
    *,
    typed: str = "",
    environment: Mapping[str, str | None] | None = None,
) -> Called:
    """Call `remote-dispatch WORDS` of this application; variables that are None are hidden meanwhile."""
    with CliRunner().isolation(input=typed, env=environment) as streams:
        try:
            _command_of(application).main(list(words), prog_name="remote-dispatch")
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        stdout, stderr, output = (stream.getvalue().decode(errors="replace") for stream in streams)
    assert isinstance(code, int)
    return Called(code, stdout, stderr, output)
