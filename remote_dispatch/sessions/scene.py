"""What is known of all watched sessions at a moment: updates go in, rows and reports come out. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from remote_dispatch.sessions.happening import TodosChanged, ToolChanged
from remote_dispatch.sessions.report import TodoTally, report_of, span_words, tool_words
from remote_dispatch.sessions.watch import Active, Back, Ended, LeftOut, StateChanged, Unreachable, Unwatched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from remote_dispatch.errors import RemoteDispatchError
    from remote_dispatch.sessions.report import SessionReport
    from remote_dispatch.sessions.values import Look, NamedSession
    from remote_dispatch.sessions.watch import WatchUpdate


@dataclass(frozen=True, slots=True)
class Row:
    """One watched session."""

    named: NamedSession
    report: SessionReport | None = None
    """None until it was read."""
    unreachable_since: datetime | None = None
    error: RemoteDispatchError | None = None
    """Why it is not watched."""
    is_over: bool = False
    call_id: str | None = None
    """The tool call that an event told of last."""

    @property
    def state(self) -> str:
        """What changes when something worth a line happens."""
        if self.error is not None:
            return "not watched"
        return self.report.state if self.report else "connecting"


class Scene:
    """Rows by name, in the order in which they were given."""

    def __init__(self, named: Sequence[NamedSession], *, now: Callable[[], datetime] | None = None) -> None:
        self.rows = {one.name: Row(one) for one in named}
        self._now = now or (lambda: datetime.now(UTC))

    @property
    def reports(self) -> list[SessionReport]:
        """The reports of all that were read."""
        return [row.report for row in self.rows.values() if row.report]

    @property
    def remarks(self) -> list[str]:
        """What to say of hosts that do not answer."""
        found: dict[str, tuple[datetime, list[str]]] = {}
        for row in self.rows.values():
            if row.unreachable_since and not row.is_over:
                found.setdefault(row.named.host, (row.unreachable_since, []))[1].append(row.named.name)
        return [self._remark(host, since, names) for host, (since, names) in found.items()]

    def is_asked(self, name: str, request_id: str) -> bool:
        """Whether a session still waits for the answer to this request, as far as it was read."""
        row = self.rows.get(name)
        return bool(row and row.report and any(one.id == request_id for one in row.report.asked))

    def take(self, update: WatchUpdate) -> None:
        """Note an update."""
        match update:
            case StateChanged() | Ended():
                self._read(update.look, is_over=isinstance(update, Ended))
            case Active():
                self._active(update)
            case LeftOut():
                del self.rows[update.named.name]
            case Unreachable():
                for name in update.names:
                    self._put(name, unreachable_since=update.since)
            case Back():
                for name in update.names:
                    self._put(name, unreachable_since=None)
            case Unwatched():
                self._put(update.named.name, error=update.error, is_over=True)

    def _remark(self, host: str, since: datetime, names: Sequence[str]) -> str:
        span = span_words((self._now() - since).total_seconds())
        return f"{host}: unreachable since {since.astimezone():%H:%M:%S} ({span}); {', '.join(names)} as last seen"

    def _read(self, look: Look, *, is_over: bool) -> None:
        report = report_of(look)
        if self.rows[look.named.name].report:
            # It changed just now; the times within are those of the host's clock, which may be wrong.
            report = replace(report, last_sign=self._now())
        self._put(look.named.name, report=report, is_over=is_over)

    def _active(self, update: Active) -> None:
        row = self.rows[update.named.name]
        if row.report is None:
            return
        report = replace(row.report, last_sign=self._now())
        match update.what:
            case TodosChanged() if update.source_id == update.named.session_id:
                report = replace(report, todo=TodoTally.of(update.what.todos))
            case ToolChanged() as tool if tool.status == "running":
                words = tool_words(tool.tool, {"title": tool.title})
                self._put(update.named.name, report=replace(report, tool=words), call_id=tool.call_id)
                return
            case ToolChanged() as tool if tool.call_id == row.call_id:
                report = replace(report, tool=None)
        self._put(update.named.name, report=report)

    def _put(self, name: str, **changes: object) -> None:
        if name in self.rows:
            self.rows[name] = replace(self.rows[name], **changes)  # type: ignore[arg-type]  # fields of Row
