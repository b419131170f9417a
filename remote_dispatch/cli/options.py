"""Options that stand in more than one command, or are too long to stand in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def _choices(*values: str) -> Callable[[str], list[str]]:
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


Timeout = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="Stop waiting after this time; the work goes on.")
]
ModeOption = Annotated[
    str,
    typer.Option(
        "--mode",
        metavar="one-way|round-trip",
        help="Leave the session there, or bring it home.",
        autocompletion=_choices("one-way", "round-trip"),
    ),
]
PermissionsOption = Annotated[
    str | None,
    typer.Option(
        "--permissions",
        metavar="deny|auto",
        help="Refuse, or grant, what OpenCode would ask for.",
        autocompletion=_choices("deny", "auto"),
    ),
]
PermissionRulesOption = Annotated[
    Path | None,
    typer.Option("--permission-rules", metavar="FILE", help="More permission rules, as JSON, in OpenCode's own form."),
]
CodeOption = Annotated[
    str | None,
    typer.Option(
        "--code",
        metavar="carry|existing|none",
        help="Which code it works on there: this working tree, what is in the directory there, or none. "
        "By default this working tree, where it is in git and no directory there is named.",
        autocompletion=_choices("carry", "existing", "none"),
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--include", metavar="PATTERN", help="Let ignored files, or likely secrets, travel too: `.env`, `data/*.csv`."
    ),
]
LiveFlag = Annotated[
    bool,
    typer.Option(
        "--live", help="Have an OpenCode server there work on it: watch it, answer it and talk to it meanwhile."
    ),
]
AgreedFlag = Annotated[bool, typer.Option("--yes", help="Do not ask before much code is sent.")]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server", metavar="URL", help="Tell this OpenCode server when it is home (also: REMOTE_DISPATCH_SERVER)."
    ),
]
