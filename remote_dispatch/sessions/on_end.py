"""A command of the user's that runs when a session has ended: argv, no shell; values by environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from remote_dispatch.errors import UsageError
from remote_dispatch.sessions.report import DONE
from remote_dispatch.text import clean, mask_addresses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from remote_dispatch.sessions.report import SessionReport

DEADLINE_S = 300.0
_OUTPUT_BYTES = 2000
_PREFIX = "REMOTE_DISPATCH_SESSION"


def parse_command(text: str) -> list[str]:
    """Split a command line into argv. Raises UsageError for an empty one, and for quotes without an end."""
    try:
        argv = shlex.split(text)
    except ValueError:
        argv = []
    if not argv:
        raise UsageError(
            "`--on-end` is not a command",
            hint="write a program and its arguments; a shell is not asked: `--on-end 'sh -c \"...\"'`",
        )
    return argv


async def run_on_end(
    argv: Sequence[str], report: SessionReport, environment: Mapping[str, str], *, timeout_s: float = DEADLINE_S
) -> str | None:
    """Run the command for a session that has ended; return a warning when it did not succeed.

    It has no stdin; what it prints stands in the warning only. The answer is in a file that is there while it runs.
    """
    with tempfile.TemporaryDirectory(prefix="remote-dispatch-") as directory:
        variables = {**environment, **variables_of(report, _write_answer(report, Path(directory)))}
        said = Path(directory) / "said"
        try:
            # A file: what it leaves running would keep a pipe open, and us waiting.
            with said.open("wb") as file:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    env=variables,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=file,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not a command line"
            return f"`--on-end` for {report.name} could not start: {reason.lower()}"
        return await _watched(process, report.name, timeout_s, said)


def variables_of(report: SessionReport, answer: Path) -> dict[str, str]:
    """Return what the command learns by its environment; all of them are always there, some empty."""
    values = {
        "": report.name,
        "_HOST": report.host,
        "_ID": report.session_id,
        "_STATE": DONE if report.failure is None else "failed",
        "_FAILURE": report.failure.value if report.failure else "",
        "_DETAIL": report.detail or "",
        "_TODO": f"{report.todo.done}/{report.todo.total}",
        "_TOKENS": str(report.usage.total),
        "_COST": f"{report.usage.cost:.6f}",
        "_ANSWER_FILE": str(answer),
    }
    return {f"{_PREFIX}{name}": value.replace("\0", "") for name, value in values.items()}


def _write_answer(report: SessionReport, directory: Path) -> Path:
    path = directory / "answer.md"
    path.write_text(report.end.answer if report.end else "", encoding="utf-8", errors="replace")
    return path


async def _watched(process: asyncio.subprocess.Process, name: str, timeout_s: float, said: Path) -> str | None:
    try:
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except TimeoutError:
        return f"`--on-end` for {name} did not end within {timeout_s:.0f} s, and was ended"
    finally:
        await _end(process)
    if process.returncode == 0:
        return None
    words = " ".join(clean(mask_addresses(_tail(said).decode(errors="replace")), _OUTPUT_BYTES).split())
    return f"`--on-end` for {name} failed with exit status {process.returncode}{f': {words}' if words else ''}"


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _OUTPUT_BYTES, 0))
        return file.read(_OUTPUT_BYTES)


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it with everything that it started and that still shares its group."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
