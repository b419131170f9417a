"""Shows what the main path reports: a line each on stderr, a spinner on a terminal, JSON lines for `--json`."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

import typer

from remote_dispatch.cli.output import say, stream
from remote_dispatch.dispatch.report import Step
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.live import Live
    from rich.status import Status

    from remote_dispatch.runner.events import Progress

SIGN_OF_LIFE_S = 15.0
LINES_LIMIT = 20_000
_MARKS = {"error": "!", "tool": "·", "todo": "☐", "text": "│"}
_ASCII_MARKS = {"error": "!", "tool": "-", "todo": "o", "text": "|"}


class Screen:
    """Takes reports and shows them. `tokens` counts what the host's model used; `dispatch` is the name, once known."""

    def __init__(self, *, is_json: bool) -> None:
        self.tokens = 0
        self.dispatch: str | None = None
        self._is_json = is_json
        self._marks = marks_for(sys.stderr)
        self._is_terminal = sys.stderr.isatty() and not is_json
        self._last_line: _LastLine | None = None
        self._began = self._spoke = time.monotonic()

    def __call__(self, what: Step | Progress) -> None:
        """Show one report."""
        if isinstance(what, Step):
            self._step(what)
        else:
            self._progress(what)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keep the last line of a terminal for what is being done meanwhile."""
        if not self._is_terminal:
            yield
            return
        self._last_line = _LastLine()
        try:
            with self._last_line.shown():
                yield
        finally:
            self._last_line = None

    def ask(self, question: str) -> bool:
        """Ask on the terminal. The last line, which would be painted over the question, is away meanwhile."""
        if self._last_line is None:
            return confirm(question)
        with self._last_line.away():
            return confirm(question)

    def _step(self, step: Step) -> None:
        self.dispatch = step.dispatch or self.dispatch
        if self._is_json:
            if step.phase != "alive":
                stream({"type": "step", "phase": step.phase, "text": step.text, "dispatch": step.dispatch})
        elif self._last_line is not None:
            self._last_line.show(self._with_time(step.text), is_turning=step.phase != "alive")
            if step.phase in ("note", "unreachable", "session", "stage"):
                self._line(step.text)
        elif step.phase != "alive" or time.monotonic() - self._spoke >= SIGN_OF_LIFE_S:
            self._line(self._with_time(step.text) if step.phase == "alive" else step.text)

    def _progress(self, progress: Progress) -> None:
        if progress.tokens:
            self.tokens += progress.tokens
        if self._is_json:
            stream({"type": progress.kind, **{key: value for key, value in asdict(progress).items() if key != "kind"}})
        elif line := line_of(progress, self._marks):
            self._line(line)

    def _line(self, text: str) -> None:
        self._spoke = time.monotonic()
        if self._last_line is not None:
            self._last_line.print_above(clean(text, LINES_LIMIT))
            return
        stamp = "" if self._is_terminal else f"{datetime.now().astimezone():%H:%M:%S} "
        say("\n".join(f"{stamp}{line}" for line in text.splitlines()))

    def _with_time(self, text: str) -> str:
        seconds = int(time.monotonic() - self._began)
        used = f", {self.tokens} tokens" if self.tokens else ""
        return f"{text} ({seconds // 60}:{seconds % 60:02}{used})"


class _LastLine:
    """The last line of a terminal: it turns while something is moved, and stands still while only the host works.

    Turning takes most of a percent of a core, for as long as a model may think.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._turning = self._console.status("")
        self._still = Live(console=self._console, auto_refresh=False, transient=True)
        self._shown: Status | Live = self._turning

    def show(self, text: str, *, is_turning: bool) -> None:
        """Say this from now on."""
        from rich.text import Text

        wanted = self._turning if is_turning else self._still
        if wanted is not self._shown:
            self._shown.stop()
            self._shown = wanted
            wanted.start()
        if is_turning:
            self._turning.update(Text(text))
        else:
            self._still.update(Text(f"  {text}"), refresh=True)

    def print_above(self, text: str) -> None:
        """Print lines that stay. What is printed past this console would land in the last line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Be there."""
        self._shown.start()
        try:
            yield
        finally:
            self._shown.stop()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Leave the terminal to somebody else."""
        self._shown.stop()
        try:
            yield
        finally:
            self._shown.start()


def marks_for(file: TextIO) -> dict[str, str]:
    """The marks before lines, as far as this file can show them."""
    return _MARKS if (file.encoding or "").lower().startswith("utf") else _ASCII_MARKS


def line_of(progress: Progress, marks: dict[str, str]) -> str:
    """One event in words; empty for what is not worth a line."""
    match progress.kind:
        case "tool":
            mark = marks["error"] if progress.is_error else marks["tool"]
            return (
                f"  {mark} {progress.tool}: {_short(progress.text)}" if progress.text else f"  {mark} {progress.tool}"
            )
        case "todo":
            return f"  {marks['todo']} todo {progress.done}/{progress.total}: {_short(progress.text)}"
        case "text":
            return "\n".join(f"  {marks['text']} {line}" for line in progress.text.splitlines())
        case "error":
            return f"  {marks['error']} {_short(progress.text)}"
        case _:
            return ""


def is_interactive() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str) -> bool:
    """Ask on the terminal."""
    return typer.confirm(question, err=True)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else f"{line[:159]}…"
