"""The text that opens the turn on the host. It names the host and never its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch.model import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import PurePath, PurePosixPath

    from remote_dispatch.model import Todo

CONTINUE = "Continue the work of this conversation where it stopped, and finish it."

_SYSTEMS = {"Darwin": "macOS"}


def brief(
    *,
    host: str,
    system: str,
    machine: str,
    directory: PurePosixPath,
    local_directory: PurePath,
    mode: Mode,
    prompt: str | None,
    is_code_carried: bool = False,
    tool_output: Mapping[str, str] | None = None,
    todos: Sequence[Todo] = (),
) -> str:
    """Return what the remote model reads first; the user's own words stand verbatim at its end.

    `system` and `machine` are what `uname` says there. `tool_output` maps the path in the conversation to the path on
    the host. The result never starts with `/` or `-`, so neither a command nor an option can be meant.
    """
    parts = (
        _where(host, system, machine, directory),
        _what_stayed_behind(directory, local_directory, is_code_carried=is_code_carried),
        _tool_output(tool_output or {}),
        _todos(todos),
        _conduct(mode),
        f"The task:\n\n{prompt if prompt and prompt.strip() else CONTINUE}",
    )
    return "\n\n".join(part for part in parts if part)


def _where(host: str, system: str, machine: str, directory: PurePosixPath) -> str:
    return (
        f"This conversation was handed over to another machine and goes on there. You are now on the host `{host}` "
        f"({_SYSTEMS.get(system, system)}, {machine}), in the directory `{directory}`."
    )


def _what_stayed_behind(directory: PurePosixPath, local_directory: PurePath, *, is_code_carried: bool) -> str:
    code = (
        "The code came along, uncommitted changes included."
        if is_code_carried
        else "Only the code that is in that directory is here: look before you rely on a file, "
        "uncommitted changes may be missing."
    )
    return (
        "The machine where the conversation began is out of reach: its files, servers and credentials are not here. "
        f"What is called `{local_directory}` in the conversation is `{directory}` here. {code} "
        "What you read about installed programs or running processes was true there; check it here."
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


def _conduct(mode: Mode) -> str:
    stay = "Do the work here yourself: do not hand this conversation over again, and do not use `remote-dispatch`."
    if mode is Mode.ROUND_TRIP:
        return (
            f"{stay} When the task is finished, say what you did and found, and stop: "
            "the conversation then goes home with your answer."
        )
    return f"{stay} Nobody is watching: do not wait for answers, and say at the end what you did and found."
