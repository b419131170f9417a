"""The text that opens the turn on the host. It names the host and never its address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from remote_dispatch.model import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import PurePath, PurePosixPath

    from remote_dispatch.model import Todo

CONTINUE = "Continue the work of this conversation where it stopped, and finish it."

_SYSTEMS = {"Darwin": "macOS"}


@dataclass(frozen=True, slots=True)
class CarriedTree:
    """Where the code was and where it is, each the top of the tree."""

    local: PurePath
    remote: PurePosixPath
    branch: str | None
    """As which branch it goes home; None where it is no repository on the host."""


def brief(
    *,
    host: str,
    system: str,
    machine: str,
    directory: PurePosixPath,
    local_directory: PurePath,
    mode: Mode,
    prompt: str | None,
    code: CarriedTree | None = None,
    tool_output: Mapping[str, str] | None = None,
    todos: Sequence[Todo] = (),
    is_live: bool = False,
) -> str:
    """Return what the remote model reads first; the user's own words stand verbatim at its end.

    `system` and `machine` are what `uname` says there. `tool_output` maps the path in the conversation to the path on
    the host. The result never starts with `/` or `-`, so neither a command nor an option can be meant.
    """
    parts = (
        _where(host, system, machine, directory),
        _what_stayed_behind(directory, local_directory, code),
        _tool_output(tool_output or {}),
        _todos(todos),
        _conduct(mode, code, is_live=is_live),
        f"The task:\n\n{prompt if prompt and prompt.strip() else CONTINUE}",
    )
    return "\n\n".join(part for part in parts if part)


def _where(host: str, system: str, machine: str, directory: PurePosixPath) -> str:
    return (
        f"This conversation was handed over to another machine and goes on there. You are now on the host `{host}` "
        f"({_SYSTEMS.get(system, system)}, {machine}), in the directory `{directory}`."
    )


def _what_stayed_behind(directory: PurePosixPath, local_directory: PurePath, code: CarriedTree | None) -> str:
    return (
        "The machine where the conversation began is out of reach: its files, servers and credentials are not here. "
        f"What is called `{local_directory}` in the conversation is `{directory}` here. {_code(code)} "
        "What you read about installed programs or running processes was true there; check it here."
    )


def _code(code: CarriedTree | None) -> str:
    if code is None:
        return (
            "Only the code that is in that directory is here: look before you rely on a file, "
            "uncommitted changes may be missing."
        )
    kept = (
        f"It is a repository of its own, on the branch `{code.branch}`, whose last commit holds what was not committed."
        if code.branch
        else "It is no repository here."
    )
    return (
        f"The code came along, uncommitted changes included: all below `{code.local}` there is below `{code.remote}` "
        f"here. {kept} What git ignores did not come, unless it was asked for: install dependencies and build anew "
        "where you need them, and do not expect files with credentials."
    )


def _tool_output(paths: Mapping[str, str]) -> str:
    if not paths:
        return ""
    lines = "\n".join(f"- `{there}` is `{here}`" for there, here in paths.items())
    return f"Long tool outputs that the conversation refers to came along:\n{lines}"


def _todos(todos: Sequence[Todo]) -> str:
    if not todos:
        return ""
    lines = "\n".join(f"- [{todo.status}] {' '.join(todo.content.split())}" for todo in todos)
    return f"The todo list as it stood:\n{lines}"


def _conduct(mode: Mode, code: CarriedTree | None, *, is_live: bool) -> str:
    stay = "Do the work here yourself: do not hand this conversation over again, and do not use `remote-dispatch`."
    if code is not None:
        stay = f"{stay} {_way_home(code)}"
    if is_live:
        return f"{stay} Somebody can watch and answer: ask where you must. At the end say what you did and found."
    if mode is Mode.ROUND_TRIP:
        return (
            f"{stay} When the task is finished, say what you did and found, and stop: "
            "the conversation then goes home with your answer."
        )
    return f"{stay} Nobody is watching: do not wait for answers, and say at the end what you did and found."


def _way_home(code: CarriedTree) -> str:
    if code.branch is None:
        return f"Every file that you leave below `{code.remote}` goes home; leave nothing large there."
    return (
        f"What you change below `{code.remote}` goes home as the branch `{code.branch}`: commits are welcome and stay "
        "as they are, the rest becomes a last commit. Ignored files do not go home. Do not push."
    )
