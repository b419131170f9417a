"""How `session watch` looks: a live screen on a terminal, plain lines elsewhere, JSON lines for `--json`."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, Self

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from remote_dispatch.cli.output import stream
from remote_dispatch.cli.session.requests import request_lines
from remote_dispatch.sessions.report import (
    DONE,
    combined_lines,
    data_of,
    end_data,
    end_lines,
    report_of,
    span_words,
    state_words,
)
from remote_dispatch.sessions.requests import waiting_in
from remote_dispatch.sessions.values import Phase
from remote_dispatch.sessions.watch import Back, Ended, StateChanged, Unreachable, Unwatched
from remote_dispatch.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from remote_dispatch.sessions.report import SessionReport
    from remote_dispatch.sessions.scene import Row, Scene
    from remote_dispatch.sessions.values import Look
    from remote_dispatch.sessions.watch import WatchUpdate

FRAME_S = 0.5
"""The time between two pictures, at least."""
AGE_S = 1.0
"""After this time the ages are drawn anew, though nothing happened."""
_GAP = "  "
_LINE_LIMIT = 4 * 1024 * 1024
_FOOT = "Ctrl-C ends the watch; the sessions go on"
_STYLES = {"busy": "cyan", "starting": "cyan", "retrying": "yellow", "waiting": "bold yellow", DONE: "green"}
_NARROW, _WIDE = 60, 100


class View(Protocol):
    """Shows what a watch tells."""

    def show(self, update: WatchUpdate) -> None:
        """Show one update."""

    def report(self, scene: Scene) -> None:
        """Show how far all are."""


class JsonView:
    """JSON lines: `state`, `end`, `link`, `unwatched`, `report`."""

    def __init__(self) -> None:
        self._told: dict[str, object] = {}

    def show(self, update: WatchUpdate) -> None:
        """Print a line for what changed; what only ages is no line."""
        match update:
            case StateChanged():
                self._state(update.look)
            case Ended():
                stream({"type": "end", "at": _now(), **end_data(report_of(update.look))})
            case Unreachable() | Back():
                stream({"type": "link", "at": _now(), **link_data(update)})
            case Unwatched():
                stream({"type": "unwatched", "at": _now(), **unwatched_data(update)})

    def report(self, scene: Scene) -> None:
        """Print one line with all sessions."""
        stream({"type": "report", **report_data(scene.reports, scene.remarks)})

    def _state(self, look: Look) -> None:
        report = report_of(look)
        picture = (report.state, report.failure, report.todo, tuple(one.id for one in report.asked), report.detail)
        if self._told.get(report.name) != picture:
            self._told[report.name] = picture
            stream({"type": "state", "at": _now(), **data_of(report)})


class LineView:
    """Lines on stdout. With reports at an interval the states between them are left out; ends and requests are not."""

    def __init__(self, *, has_reports: bool) -> None:
        self._has_reports = has_reports
        self._told: dict[str, str] = {}
        self._asked: set[str] = set()

    def show(self, update: WatchUpdate) -> None:
        """Print what is worth a line."""
        self.put(lines_of_update(update))
        if isinstance(update, StateChanged):
            self._state(update.look)

    def report(self, scene: Scene) -> None:
        """Print the combined report."""
        self.put(combined_lines(scene.reports, datetime.now(UTC), scene.remarks))

    def put(self, lines: Iterable[str]) -> None:
        """Print lines."""
        for line in lines:
            # An answer may have long lines, and is told whole.
            typer.echo(clean(line, _LINE_LIMIT).replace("\n", " "))
        sys.stdout.flush()

    def _state(self, look: Look) -> None:
        report = report_of(look)
        words = f"{report.name} on {report.host}: {state_words(report)}"
        is_worth_it = not self._has_reports and report.phase is not Phase.ENDING
        if is_worth_it and self._told.get(report.name) != words:
            self._told[report.name] = words
            self.put([f"{_clock()} {words}"])
        for lines in new_requests(look, self._asked):
            self.put(lines)


class BoardView:
    """One screen for all, drawn anew only when something changed, and once a second for the ages.

    Requests are told with the command that answers them, unless somebody is there who is asked.
    """

    def __init__(self, *, is_asking: bool) -> None:
        self.is_asking = is_asking
        self._console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False)
        self._live = self._new_live()
        self._asked: set[str] = set()
        self._held: list[str] | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, update: WatchUpdate) -> None:
        """Print above the table what is to stay: ends, requests, remarks on hosts."""
        self._put(lines_of_update(update))
        if isinstance(update, StateChanged) and not self.is_asking:
            for lines in new_requests(update.look, self._asked):
                self._put(lines)

    def report(self, scene: Scene) -> None:
        """Print the combined report above the table."""
        self._put(combined_lines(scene.reports, datetime.now(UTC), scene.remarks))

    def draw(self, scene: Scene) -> None:
        """Draw the table anew."""
        if self._held is None:
            self._live.update(picture(scene, self._console.width, datetime.now(UTC)), refresh=True)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Take the table away, and keep lines until it is back."""
        self._held = []
        self._live.transient = True
        self._live.stop()
        try:
            yield
        finally:
            # A live table that was taken away would come back over what was written meanwhile.
            self._live = self._new_live()
            self._live.start()
            held, self._held = self._held, None
            self._put(held)

    def _new_live(self) -> Live:
        return Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def _put(self, lines: Sequence[str]) -> None:
        if self._held is not None:
            self._held.extend(lines)
        elif lines:
            text = Text("\n".join(clean(line, _LINE_LIMIT) for line in lines))
            self._console.print(text, soft_wrap=True)


def picture(scene: Scene, width: int, now: datetime) -> Text:
    """Return the table: a line for each session, remarks on hosts, and how to leave. No line is wider than `width`."""
    rows = [table_row(row, width, now) for row in scene.rows.values()]
    columns = [max(map(cell_len, column)) for column in zip(*rows, strict=True)] if rows else []
    lines = [_table_line(cells, columns, width, row) for cells, row in zip(rows, scene.rows.values(), strict=True)]
    lines.extend(Text(_cut(f"! {remark}", width), style="yellow") for remark in scene.remarks)
    at_work = sum(not row.is_over for row in scene.rows.values())
    if at_work:
        lines.append(Text(_cut(f"{at_work} at work. {_FOOT}", width), style="dim"))
    return Text("\n", no_wrap=True, overflow="crop").join(lines)


def table_row(row: Row, width: int, now: datetime) -> tuple[str, ...]:
    """Return the cells of a session, the more of them the wider the screen is."""
    report = row.report
    if report is None or row.error is not None:
        return (row.named.name, row.state, *("" for _ in range(_cells(width) - 2)))
    kind = f" ({report.failure.value})" if report.failure and report.phase is not Phase.ENDED else ""
    cells = [report.name, f"{report.state}{kind}"]
    if width >= _NARROW:
        cells += [
            report.host,
            f"{report.todo.done}/{report.todo.total}" if report.todo.total else "",
            _age(row, now),
        ]
    if width >= _WIDE:
        cells += [f"{report.usage.total} tok", f"${report.usage.cost:.2f}"]
    return (*cells, _doing(row, report))


def lines_of_update(update: WatchUpdate) -> list[str]:
    """Return what is said once: an end, a host that is lost or back, a session that cannot be watched."""
    match update:
        case Ended():
            return [f"{_clock()} {(lines := end_lines(report_of(update.look)))[0]}", *lines[1:]]
        case Unreachable():
            since = f"{update.since.astimezone():%H:%M:%S}"
            return [f"{_clock()} {update.host}: unreachable since {since}; {', '.join(update.names)} may go on there"]
        case Back():
            return [f"{_clock()} {update.host}: reachable again; everything was read anew"]
        case Unwatched():
            hint = [f"  {update.error.hint}"] if update.error.hint else []
            why = update.error.message.removeprefix(f"{update.named.name}: ")
            return [f"{_clock()} {update.named.name} is not watched: {why}", *hint]
    return []


def new_requests(look: Look, told: set[str]) -> Iterator[list[str]]:
    """Yield the lines of each request that was not told before: what is asked in full, and the command."""
    commands = {one.id: one.command for one in report_of(look).asked}
    for waiting in waiting_in(look.reading):
        if waiting.id in commands and waiting.id not in told:
            told.add(waiting.id)
            head = f"{_clock()} {look.named.name} on {look.named.host} asks:"
            yield [head, *(f"  {line}" for line in request_lines(waiting)), f"  {commands[waiting.id]}"]


def report_data(reports: Sequence[SessionReport], remarks: Sequence[str]) -> dict[str, Any]:
    """The JSON of a combined report."""
    return {"at": _now(), "sessions": [data_of(one) for one in reports], "remarks": list(remarks)}


def link_data(update: Unreachable | Back) -> dict[str, Any]:
    """The JSON of a host that was lost, or is back."""
    is_lost = isinstance(update, Unreachable)
    return {
        "host": update.host,
        "names": list(update.names),
        "state": "unreachable" if is_lost else "back",
        "since": update.since if isinstance(update, Unreachable) else None,
    }


def unwatched_data(update: Unwatched) -> dict[str, Any]:
    """The JSON of a session that cannot be watched."""
    error = update.error
    return {
        "name": update.named.name,
        "host": update.named.host,
        "kind": error.kind,
        "message": error.message,
        "hint": error.hint,
    }


def can_be_live() -> bool:
    """Whether stdout is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def notify(text: str) -> None:
    """Ring, and show a notification where the terminal can (OSC 9)."""
    plain = clean(text, 200).replace("\n", " ")
    typer.echo(f"\x1b]9;{plain}\x07\x07", nl=False, err=True, color=True)


def _table_line(cells: Sequence[str], columns: Sequence[int], width: int, row: Row) -> Text:
    padded = _GAP.join(set_cell_size(cell, size) for cell, size in zip(cells, columns, strict=True))
    line = Text(_cut(padded.rstrip(), width), no_wrap=True)
    begin = columns[0] + len(_GAP)
    line.stylize(_style(row), begin, begin + columns[1])
    return line


def _style(row: Row) -> str:
    if row.unreachable_since and not row.is_over:
        return "dim"
    word = row.report.phase.value if row.report and not row.is_over else row.state
    return _STYLES.get(word, "red" if row.is_over and word != Phase.IDLE else "")


def _cells(width: int) -> int:
    return 3 + 3 * (width >= _NARROW) + 2 * (width >= _WIDE)


def _age(row: Row, now: datetime) -> str:
    if row.unreachable_since and not row.is_over:
        return "unreachable"
    if row.is_over or row.report is None or row.report.last_sign is None:
        return ""
    return span_words((now - row.report.last_sign).total_seconds())


def _doing(row: Row, report: SessionReport) -> str:
    if row.is_over:
        return report.detail or ""
    if report.asked:
        return f"asks: {report.asked[0].text}"
    if report.phase is Phase.RETRYING:
        return report.detail or ""
    return " · ".join(one for one in (report.todo.task, report.tool) if one)


def _cut(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 0)).rstrip() + "…"[:width]


def _clock() -> str:
    return f"{datetime.now().astimezone():%H:%M:%S}"


def _now() -> datetime:
    return datetime.now(UTC)
