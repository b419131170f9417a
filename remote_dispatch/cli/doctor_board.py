"""How `doctor` looks on a screen: a report for each host as it is finished, and what is still being waited for."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from remote_dispatch.cli.output import has_color, say, styled
from remote_dispatch.cli.screen import SIGN_OF_LIFE_S
from remote_dispatch.doctor.finding import Severity
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Iterable, Iterator

    from remote_dispatch.doctor.finding import Finding, Report

T = TypeVar("T")

THIS_MACHINE = "this machine"
_COLORS = {
    Severity.OK: typer.colors.GREEN,
    Severity.NOTE: typer.colors.CYAN,
    Severity.WARNING: typer.colors.YELLOW,
    Severity.ERROR: typer.colors.RED,
    Severity.SKIPPED: typer.colors.BRIGHT_BLACK,
}
_SEVERITY_WIDTH = max(map(len, Severity))
_CHECK_WIDTH = 13
_INDENT = 2 + _SEVERITY_WIDTH + 2 + _CHECK_WIDTH + 2
_NARROW = 72
_NAMED = 4
_TICK_S = 1.0
_TEXT_LIMIT = 2000


class Board:
    """The audience of an examination. Reports go to stdout, what is waited for to stderr; with `--json` nothing."""

    def __init__(self, *, is_json: bool, is_verbose: bool) -> None:
        self._is_json = is_json
        self._is_verbose = is_verbose
        self._waiting: dict[str | None, str] = {}
        self._shown: Collection[str | None] | None = None
        self._status: Any = None
        self._began = self._spoke = time.monotonic()

    def is_at(self, host: str | None, what: str) -> None:
        """Note what is being waited for."""
        self._waiting[host] = what
        self._tell()

    def finished(self, report: Report) -> None:
        """Print a report."""
        self._waiting.pop(report.host, None)
        if self._is_json or (self._shown is not None and report.host not in self._shown):
            return
        with self._quiet(), contextlib.suppress(BrokenPipeError):
            for line in lines_of(report, is_verbose=self._is_verbose, width=_width()):
                typer.echo(line, color=has_color(sys.stdout))
            sys.stdout.flush()
        self._tell()

    async def watch(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, and show meanwhile that something is going on."""
        self._began = self._spoke = time.monotonic()
        ticker = asyncio.create_task(self._tick())
        try:
            with self._spinner():
                return await work
        finally:
            ticker.cancel()
            self._waiting.clear()

    @contextlib.contextmanager
    def showing(self, hosts: Collection[str | None]) -> Iterator[None]:
        """Print the reports of these hosts alone."""
        self._shown = hosts
        yield
        self._shown = None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._tell()

    def _tell(self) -> None:
        if self._status is not None:
            self._status.update(clean(self._what(), _TEXT_LIMIT))
        elif self._waiting and not self._is_json and time.monotonic() - self._spoke >= SIGN_OF_LIFE_S:
            self._spoke = time.monotonic()
            say(self._what())

    def _what(self) -> str:
        seconds = int(time.monotonic() - self._began)
        parts = [f"{host or THIS_MACHINE} ({what})" for host, what in self._waiting.items()]
        more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
        return f"waiting for {', '.join(parts[:3])}{more}: {seconds} s"

    @contextlib.contextmanager
    def _spinner(self) -> Iterator[None]:
        if self._is_json or not sys.stderr.isatty():
            yield
            return
        from rich.console import Console

        with Console(stderr=True, markup=False, highlight=False).status("") as self._status:
            yield
        self._status = None

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """What is printed beside the spinner would land in its line."""
        if self._status is None:
            yield
            return
        self._status.stop()
        yield
        self._status.start()


def lines_of(report: Report, *, is_verbose: bool, width: int | None) -> list[str]:
    """Return a report in lines, an empty one last. None as width wraps nothing; commands are never wrapped."""
    lines = [_heading(report)]
    quiet = () if is_verbose else (Severity.OK, Severity.SKIPPED)
    for finding in report.findings:
        if finding.severity not in quiet:
            lines += _finding_lines(finding, report.host, width)
    for severity in quiet:
        for text in _folded(severity, report.findings):
            lines += _wrapped(f"  {_word(severity)}  ", text, width, 2 + _SEVERITY_WIDTH + 2)
    return [*lines, ""]


def _folded(severity: Severity, findings: Iterable[Finding]) -> Iterator[str]:
    """Checks in a line: the fine ones by name, those not looked at with the reason for each group of them."""
    if severity is Severity.OK:
        if names := dict.fromkeys(one.check for one in findings if one.severity is severity):
            yield ", ".join(names)
        return
    groups: dict[str, list[str]] = {}
    for one in findings:
        if one.severity is severity:
            groups.setdefault(one.seen, []).append(one.check)
    for reason, checks in groups.items():
        yield f"{', '.join(checks) if len(checks) <= _NAMED else f'{len(checks)} checks'}: {reason}"


def _heading(report: Report) -> str:
    name = styled(report.host or THIS_MACHINE, sys.stdout, bold=True)
    color = _COLORS[report.severity]
    return f"{name}: {styled(_summary(report.findings), sys.stdout, fg=color)}"


def _summary(findings: Iterable[Finding]) -> str:
    found = [finding.severity for finding in findings]
    counts = [
        f"{count} {severity}{'s' if count > 1 else ''}"
        for severity in (Severity.ERROR, Severity.WARNING, Severity.NOTE)
        if (count := found.count(severity))
    ]
    return ", ".join(counts) or "everything is fine"


def _finding_lines(finding: Finding, host: str | None, width: int | None) -> list[str]:
    is_narrow = width is not None and width < _NARROW
    indent = 4 if is_narrow else _INDENT
    head = f"  {_word(finding.severity)}  {finding.check.ljust(_CHECK_WIDTH)}  "
    lines = [head.rstrip()] if is_narrow else []
    lines += _wrapped(" " * indent if is_narrow else head, finding.seen, width, indent)
    if finding.cure:
        lines += _wrapped(" " * indent, finding.cure, width, indent)
    if finding.command:
        where = f"on {host}: " if finding.is_there else ""
        lines.append(" " * indent + where + styled(f"$ {_plain(finding.command)}", sys.stdout, bold=True))
    return lines


def _word(severity: Severity) -> str:
    padding = " " * (_SEVERITY_WIDTH - len(severity))
    return styled(severity.value, sys.stdout, fg=_COLORS[severity]) + padding


def _wrapped(head: str, text: str, width: int | None, indent: int) -> list[str]:
    """Break a text after `head`, which is `indent` columns wide, so that it stays in its column."""
    if width is None:
        return [head + _plain(text)]
    lines = textwrap.wrap(_plain(text), max(width - indent, 20), break_long_words=False, break_on_hyphens=False)
    return [head + (lines[0] if lines else ""), *(" " * indent + line for line in lines[1:])]


def _plain(text: str) -> str:
    return " ".join(clean(text, _TEXT_LIMIT).split())


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
