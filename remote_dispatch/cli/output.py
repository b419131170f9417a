"""What every command shares: one error handler, the `--json` envelope, and plain output that suits terminals and pipes.

stdout is data, stderr is talk. A command makes an Answer; `run_command` shows it and ends with its exit code.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import traceback
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar

import typer

from remote_dispatch.errors import ConfigurationError, RemoteDispatchError
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence

T = TypeVar("T")

SCHEMA = 1
WARNINGS_EXIT_CODE = 3
INTERNAL_EXIT_CODE = 70
INTERRUPTED_EXIT_CODE = 130
DEBUG_VARIABLE = "REMOTE_DISPATCH_DEBUG"
_THREADS = 96
"""More than hosts are asked at once; each begins when it is needed."""
_LONGEST_TEXT = 4000
_LONGEST_DETAILS = 100_000
_GAP = "  "

logger = logging.getLogger(__name__)

JSON_OPTION = "--json"
JsonFlag = Annotated[bool, typer.Option(JSON_OPTION, help="Print the result as JSON, on the last line.")]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command has to say. `data` is for `--json`, `render` prints the same for people, on stdout.

    `error` makes it a failure that still has data; then its exit code counts. With `warnings` and no exit code of its
    own the exit code is 3.
    """

    data: Mapping[str, Any] | None = None
    render: Callable[[], None] | None = None
    warnings: tuple[str, ...] = ()
    exit_code: int | None = None
    error: RemoteDispatchError | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The `error` of the envelope."""

    kind: str
    message: str
    hint: str | None
    exit_code: int


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end. Ctrl-C raises KeyboardInterrupt.

    CPython 3.11: after a group of tasks that failed, an interrupt comes out as a cancellation.
    """
    import asyncio

    try:
        return asyncio.run(_with_threads(work))
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error


async def _with_threads(work: Coroutine[Any, Any, T]) -> T:
    """Names of hosts are looked up in threads, and one that no server answers keeps its own for long.

    Python's few (four more than cores) would all be kept by dead hosts, and the others found to be dead, too.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    return await work


def run_command(
    command: str, work: Callable[[], Answer], *, is_json: bool, interrupted_hint: str | None = None
) -> None:
    """Do the work, show what came of it, and leave by typer.Exit with the exit code of design and help.

    `command` is the public name, such as `hosts list`. Foreseeable errors become `error:` and `hint:` on stderr, Ctrl-C
    130, anything else 70 without a traceback unless REMOTE_DISPATCH_DEBUG=1.
    """
    _survive_odd_encodings()
    answer, failure = _attempt(command, work, interrupted_hint, is_json=is_json)
    exit_code = failure.exit_code if failure else _exit_code(answer)
    with _readers_may_leave():
        for text in answer.warnings:
            warn(text)
        if failure:
            _show_failure(failure)
        try:
            if is_json:
                typer.echo(envelope(command, answer.data, failure, exit_code))
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            # What is still buffered would fail once more at the end of Python, with an exit code of its own.
            _silence_stdout()
            if not failure:
                unwritten = _unexpected(command, error)
                _show_failure(unwritten)
                exit_code = unwritten.exit_code
    raise typer.Exit(exit_code)


def envelope(command: str, data: Mapping[str, Any] | None, failure: Failure | None, exit_code: int) -> str:
    """Return the one line that `--json` ends with. ASCII only, so that nothing in it can break the line."""
    error = None
    if failure:
        error = {
            "kind": failure.kind,
            "message": failure.message,
            "hint": failure.hint,
            "exit_code": failure.exit_code,
        }
    is_ok = exit_code in (0, WARNINGS_EXIT_CODE)
    return _json({"schema": SCHEMA, "command": command, "ok": is_ok, "data": data, "error": error})


def stream(event: Mapping[str, Any]) -> None:
    """Print one line of a `--json` stream at once; `event` carries a `type`."""
    typer.echo(_json(event))
    sys.stdout.flush()


def say(text: str, *, limit: int = _LONGEST_TEXT) -> None:
    """Tell the user something on stderr; what is longer than the limit is cut."""
    typer.echo(clean(text, limit), err=True)


def note(text: str) -> None:
    """Tell the user something that is no fault."""
    _labelled("note", typer.colors.CYAN, text)


def warn(text: str) -> None:
    """Tell the user that something is not as it should be."""
    _labelled("warning", typer.colors.YELLOW, text)


def print_lines(lines: Iterable[str], *, limit: int = _LONGEST_TEXT) -> None:
    """Print data, a line each; control characters are removed, and what is longer than the limit is cut."""
    for line in lines:
        typer.echo(clean(line, limit).replace("\n", " "))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str | None]]) -> None:
    """Print aligned columns; on a terminal that is too narrow for them, one block for each row."""
    cells = [[_one_line(cell or "-") for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(headings, *cells, strict=True)]
    is_narrow = sys.stdout.isatty() and sum(widths) + len(_GAP) * (len(widths) - 1) > _columns()
    if is_narrow:
        return _print_blocks(headings, cells)
    typer.echo(styled(_aligned(headings, widths), sys.stdout, bold=True), color=has_color(sys.stdout))
    if cells:
        typer.echo("\n".join(_aligned(row, widths) for row in cells))
    return None


def print_fields(fields: Mapping[str, str | None]) -> None:
    """Print `name  value` lines; fields without a value are left out."""
    shown = {name: _one_line(value) for name, value in fields.items() if value is not None}
    widest = max(map(_width, shown), default=0)
    for name, value in shown.items():
        typer.echo(_aligned((name, value), (widest, 0)))


def _attempt(
    command: str, work: Callable[[], Answer], interrupted_hint: str | None, *, is_json: bool
) -> tuple[Answer, Failure | None]:
    try:
        answer = work()
        if answer.render and not is_json:
            with _readers_may_leave():
                answer.render()
        return answer, _failure(answer.error) if answer.error else None
    except (typer.Exit, typer.BadParameter):
        raise
    except RemoteDispatchError as error:
        return Answer(), _failure(error)
    except (KeyboardInterrupt, typer.Abort):
        return Answer(), Failure("interrupted", "interrupted", interrupted_hint, INTERRUPTED_EXIT_CODE)
    except Exception as error:  # noqa: BLE001 - the one place that turns our bugs into words
        return Answer(), _unexpected(command, error)


def _failure(error: RemoteDispatchError) -> Failure:
    hint = _shown(error.hint) if error.hint else None
    return Failure(error.kind, _shown(error.message), hint, error.exit_code)


def _unexpected(command: str, error: Exception) -> Failure:
    known = _first_known(error)
    if known:
        return _failure(known)
    if isinstance(error, OSError) and error.strerror:
        return Failure(
            ConfigurationError.kind,
            f"this machine: {error.strerror.lower()}",
            "is there space, and may you write, where records are kept (`~/.local/state/remote-dispatch`)?",
            ConfigurationError.exit_code,
        )
    logger.debug("unexpected error in %s", command, exc_info=error)
    if os.environ.get(DEBUG_VARIABLE) == "1":
        details = mask_addresses("".join(traceback.format_exception(error)))
        typer.echo(clean(details, _LONGEST_DETAILS), err=True)
    return Failure(
        RemoteDispatchError.kind,
        f"`{command}` stopped at a fault of remote-dispatch itself ({type(error).__name__})",
        f"run it again with `{DEBUG_VARIABLE}=1` for the details, and report them",
        INTERNAL_EXIT_CODE,
    )


def _first_known(error: Exception) -> RemoteDispatchError | None:
    """Several things done at once fail as a group: a group of errors that we know is as good as its first."""
    if isinstance(error, RemoteDispatchError):
        return error
    if not isinstance(error, ExceptionGroup):
        return None
    leaves = [_first_known(leaf) for leaf in error.exceptions]
    return leaves[0] if all(leaves) else None


def _exit_code(answer: Answer) -> int:
    if answer.exit_code is not None:
        return answer.exit_code
    return WARNINGS_EXIT_CODE if answer.warnings else 0


def _show_failure(failure: Failure) -> None:
    _labelled("error", typer.colors.RED, failure.message)
    if failure.hint:
        typer.echo("", err=True)
        _labelled("hint", typer.colors.CYAN, failure.hint)


def _labelled(label: str, color: str, text: str) -> None:
    shown = f"{styled(label, sys.stderr, fg=color, bold=True)}: {_shown(text)}"
    typer.echo(shown, err=True, color=has_color(sys.stderr))


def _print_blocks(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        typer.echo(row[0])
        for heading, cell in zip(headings[1:], row[1:], strict=True):
            typer.echo(f"  {heading.lower()}: {cell}")


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
    return _GAP.join(padded).rstrip()


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _columns() -> int:
    return shutil.get_terminal_size().columns


def styled(text: str, file: TextIO, **style: Any) -> str:
    """Return the text in this style where the file shows colours; `style` is that of typer.style."""
    return typer.style(text, **style) if has_color(file) else text


def has_color(file: TextIO) -> bool:
    """Whether colours may be written to this file: NO_COLOR, FORCE_COLOR and dumb terminals are honoured."""
    if os.environ.get("NO_COLOR"):
        return False
    is_forced = bool(os.environ.get("FORCE_COLOR") or os.environ.get("CLICOLOR_FORCE"))
    return is_forced or (file.isatty() and os.environ.get("TERM") != "dumb")


def _shown(text: str) -> str:
    return clean(text, _LONGEST_TEXT)


def _one_line(text: str) -> str:
    return " ".join(_shown(text).split("\n"))


def _json(value: object) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in the envelope")


def _survive_odd_encodings() -> None:
    """A terminal that is not UTF-8 shows escapes instead of ending the command."""
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            file.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # tests put other files there


@contextlib.contextmanager
def _readers_may_leave() -> Iterator[None]:
    """`| head` ends early: the work is done, so the exit code stays; nothing more is written."""
    try:
        yield
    except BrokenPipeError:
        _silence_stdout()


def _silence_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
