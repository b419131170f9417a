"""`session watch`: one screen for several sessions, reports at an interval, and what is done when one ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from remote_dispatch.cli.hosts import HostsFile
from remote_dispatch.cli.options import Timeout
from remote_dispatch.cli.output import Answer, JsonFlag, note, run_async, run_command, warn
from remote_dispatch.cli.session.app import SessionDesk, SessionNames, session_app
from remote_dispatch.cli.words import duration_s
from remote_dispatch.errors import (
    DeadlinePassedError,
    HostNotReadyError,
    RemoteDispatchError,
    TurnFailedError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from remote_dispatch.cli.session.board import BoardView, View
    from remote_dispatch.servers.reach import Servers
    from remote_dispatch.sessions.looks import Unseen
    from remote_dispatch.sessions.report import SessionReport
    from remote_dispatch.sessions.requests import Waiting
    from remote_dispatch.sessions.scene import Scene
    from remote_dispatch.sessions.values import Look, NamedSession
    from remote_dispatch.sessions.watch import WatchUpdate

logger = logging.getLogger(__name__)

WORST_FIRST = (7, 6, 1, 3)
"""Which exit code counts when several sessions have ended badly."""


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How to watch. `on_end` is the command that runs when a session has ended, as it was typed."""

    every_s: float | None = None
    is_once: bool = False
    on_end: str | None = None
    is_quiet: bool = False
    is_json: bool = False
    timeout_s: float | None = None


@session_app.command("watch")
def watch(
    names: SessionNames = None,
    *,
    every: Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="Print a report on all at this interval: `5m`.")
    ] = None,
    is_once: Annotated[
        bool, typer.Option("--once", help="Print one report and leave: for cron. Exit code 7 when one waits.")
    ] = False,
    on_end: Annotated[
        str | None,
        typer.Option(
            "--on-end", metavar="COMMAND", help="Run this when a session ends; no shell, values by environment."
        ),
    ] = None,
    is_quiet: Annotated[bool, typer.Option("--quiet", help="No bell and no notification when a session ends.")] = False,
    timeout: Timeout = None,
    hosts_file: HostsFile = None,
    is_json: JsonFlag = False,
) -> None:
    """Watch sessions until all have ended: those that are named, or all that are at work.

    For example: `remote-dispatch session watch --every 5m`
    """
    options = (every, is_once, on_end, is_quiet, is_json, timeout)
    run_command(
        "session watch",
        lambda: run_async(_watch(SessionDesk(hosts_file), names or [], _read_options(*options))),
        is_json=is_json,
        interrupted_hint="the sessions go on; `remote-dispatch session watch` watches them again",
    )


def _read_options(
    every: str | None,
    is_once: bool,  # noqa: FBT001 - in the order of the command line
    on_end: str | None,
    is_quiet: bool,  # noqa: FBT001
    is_json: bool,  # noqa: FBT001
    timeout: str | None,
) -> WatchOptions:
    if is_once and (every or on_end):
        raise UsageError("`--once` goes with neither `--every` nor `--on-end`")
    return WatchOptions(duration_s(every), is_once, on_end, is_quiet, is_json, duration_s(timeout))


async def _watch(desk: SessionDesk, names: Sequence[str], options: WatchOptions) -> Answer:
    named = desk.sessions.several(names)
    async with desk.servers() as servers:
        return await watch_named(desk, servers, named, options, busy_only=not names)


async def watch_named(
    desk: SessionDesk,
    servers: Servers,
    named: Sequence[NamedSession],
    options: WatchOptions,
    *,
    busy_only: bool = False,
) -> Answer:
    """Watch these sessions until all have ended, and show it on stdout. Sessions go on when the watch is left."""
    from remote_dispatch.sessions.on_end import parse_command

    if options.is_once:
        return await _once(desk, servers, named)
    command = parse_command(options.on_end) if options.on_end else None
    return await _Watching(desk, servers, named, options, command, busy_only=busy_only).run()


class _Watching:
    """One watch: its view, what is known, and what was started for sessions that ended."""

    def __init__(
        self,
        desk: SessionDesk,
        servers: Servers,
        named: Sequence[NamedSession],
        options: WatchOptions,
        command: list[str] | None,
        *,
        busy_only: bool,
    ) -> None:
        from remote_dispatch.sessions.scene import Scene

        self._desk = desk
        self._servers = servers
        self._named = named
        self._options = options
        self._command = command
        self._busy_only = busy_only
        self._scene = Scene(named)
        self._commands: list[asyncio.Task[str | None]] = []
        self._to_ask: asyncio.Queue[tuple[NamedSession, Waiting]] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._asked: set[str] = set()
        self._idle_hosts: dict[str, None] = {}

    async def run(self) -> Answer:
        """Watch, and say how it came out."""
        from remote_dispatch.cli.session.board import BoardView

        with _view(self._options) as self._view:
            board = self._view if isinstance(self._view, BoardView) else None
            is_late = False
            try:
                async with asyncio.timeout(self._options.timeout_s):
                    await self._watch(board)
            except* BrokenPipeError:
                logger.debug("whoever read the output has left")
            except* TimeoutError:
                is_late = True
            warnings = [text for text in await asyncio.gather(*self._commands) if text]
            if board:
                board.draw(self._scene)
        return self._answer(warnings, is_late=is_late)

    async def _watch(self, board: BoardView | None) -> None:
        """Watch, and meanwhile draw, report and ask."""
        from remote_dispatch.sessions.watch import watch

        async with asyncio.TaskGroup() as group:
            beside = []
            if board:
                beside = [group.create_task(self._draw(board)), group.create_task(self._ask(board))]
            if self._options.every_s:
                beside.append(group.create_task(self._report(self._options.every_s)))
            await watch(self._servers, self._desk.host, self._named, self._tell, busy_only=self._busy_only)
            for task in beside:
                task.cancel()

    def _tell(self, update: WatchUpdate) -> None:
        from remote_dispatch.sessions.report import report_of
        from remote_dispatch.sessions.watch import Ended, LeftOut, StateChanged, Unwatched

        if self._busy_only and isinstance(update, Unwatched) and isinstance(update.error, HostNotReadyError):
            # A host without a server has nothing at work: that is worth one word for all its sessions.
            self._idle_hosts[update.error.message] = None
            update = update if self._options.is_json else LeftOut(update.named)
        self._scene.take(update)
        self._changed.set()
        self._view.show(update)
        if isinstance(update, StateChanged):
            self._note_requests(update.look)
        if isinstance(update, Ended):
            self._ended(report_of(update.look))

    def _ended(self, report: SessionReport) -> None:
        from remote_dispatch.cli.session.board import notify
        from remote_dispatch.sessions.on_end import run_on_end

        if sys.stderr.isatty() and not self._options.is_quiet and not self._options.is_json:
            notify(f"{report.name}: {report.state}")
        if self._command:
            work = run_on_end(self._command, report, self._desk.environment)
            self._commands.append(asyncio.create_task(work))

    async def _draw(self, board: BoardView) -> None:
        from remote_dispatch.cli.session.board import AGE_S, FRAME_S

        while True:
            self._changed.clear()
            board.draw(self._scene)
            await asyncio.sleep(FRAME_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), AGE_S - FRAME_S)

    async def _report(self, every_s: float) -> None:
        began, number = time.monotonic(), 1
        while True:
            await asyncio.sleep(began + number * every_s - time.monotonic())
            number += 1
            self._view.report(self._scene)

    def _note_requests(self, look: Look) -> None:
        from remote_dispatch.sessions.requests import waiting_in

        for waiting in waiting_in(look.reading):
            if waiting.id not in self._asked:
                self._asked.add(waiting.id)
                self._to_ask.put_nowait((look.named, waiting))

    async def _ask(self, board: BoardView) -> None:
        """Ask for answers right here, one request after the other; one that is left waiting is not asked again."""
        while board.is_asking:
            named, waiting = await self._to_ask.get()
            if self._scene.is_asked(named.name, waiting.id):
                with board.resting():
                    await self._ask_for(named, waiting)

    async def _ask_for(self, named: NamedSession, waiting: Waiting) -> None:
        from remote_dispatch.cli.session.requests import answer_here

        try:
            await answer_here(await self._servers.api(self._desk.host(named.host)), named, waiting)
        except RemoteDispatchError as error:
            warn(error.message)

    def _answer(self, warnings: Sequence[str], *, is_late: bool) -> Answer:
        from remote_dispatch.cli.session.board import report_data
        from remote_dispatch.sessions.report import end_data

        rows = self._scene.rows.values()
        data = report_data([], self._scene.remarks)
        data["sessions"] = [end_data(row.report) for row in rows if row.report]
        if not self._options.is_json:
            for text in self._idle_hosts:
                note(text)
        if not rows and not self._options.is_json:
            note("nothing is at work; `remote-dispatch session list` shows all sessions")
        if is_late:
            return Answer(data, warnings=tuple(warnings), error=_late(self._scene))
        unwatched = [row.error for row in rows if row.error]
        if self._busy_only:
            # A host without a server has nothing at work.
            warnings = [*warnings, *(one.message for one in unwatched if not isinstance(one, HostNotReadyError))]
            unwatched = []
        error = worst([row.report for row in rows if row.report and row.is_over]) or next(iter(unwatched), None)
        return Answer(data, warnings=tuple(warnings), error=error)


def worst(reports: Iterable[SessionReport]) -> TurnFailedError | None:
    """Return the worst failure of sessions that have ended, in the order of WORST_FIRST; None when all is well."""
    from remote_dispatch.sessions.report import next_command

    failed = [one for one in reports if one.failure]
    if not failed:
        return None
    first = min(failed, key=lambda one: WORST_FIRST.index(one.failure.exit_code if one.failure else 1))
    assert first.failure is not None
    words = ", ".join(f"{one.name} ({one.failure})" for one in failed)
    return TurnFailedError(first.failure, f"not ended well: {words}", hint=f"look with `{next_command(first)}`")


def _late(scene: Scene) -> RemoteDispatchError:
    """Say what goes on after our time is over: an answer that is needed counts more than time."""
    if error := _waiting(scene.reports):
        return error
    names = [row.named.name for row in scene.rows.values() if not row.is_over]
    return DeadlinePassedError(
        f"the time was over before these had ended: {', '.join(names)}",
        hint=f"go on watching with `remote-dispatch session watch {' '.join(names)}`",
    )


def _waiting(reports: Iterable[SessionReport]) -> TurnFailedError | None:
    waiting = [one for one in reports if one.asked and one.failure and one.failure.is_waiting]
    if not waiting:
        return None
    first = waiting[0]
    assert first.failure is not None
    names = ", ".join(one.name for one in waiting)
    return TurnFailedError(
        first.failure, f"waiting for an answer: {names}", hint=f"see what is asked with `{_requests(waiting)}`"
    )


def _requests(waiting: Sequence[SessionReport]) -> str:
    return f"remote-dispatch session requests {' '.join(one.name for one in waiting)}"


async def _once(desk: SessionDesk, servers: Servers, named: Sequence[NamedSession]) -> Answer:
    from remote_dispatch.cli.output import print_lines
    from remote_dispatch.cli.session.board import report_data
    from remote_dispatch.sessions.looks import look
    from remote_dispatch.sessions.report import combined_lines, report_of
    from remote_dispatch.sessions.values import Look

    seen = await look(servers, desk.registry, named, environment=desk.environment)
    reports = [report_of(one) for one in seen if isinstance(one, Look)]
    remarks = [_remark(one) for one in seen if not isinstance(one, Look)]
    return Answer(
        report_data(reports, remarks),
        lambda: print_lines(combined_lines(reports, datetime.now(UTC), remarks)),
        error=_waiting(reports),
    )


def _remark(unseen: Unseen) -> str:
    return f"{unseen.named.name}: {unseen.remark}"


@contextlib.contextmanager
def _view(options: WatchOptions) -> Iterator[View]:
    """Choose how it looks: the live screen needs a terminal that can move its cursor."""
    from remote_dispatch.cli.screen import is_interactive
    from remote_dispatch.cli.session.board import BoardView, JsonView, LineView, can_be_live

    if options.is_json:
        yield JsonView()
    elif options.every_s or not can_be_live():
        yield LineView(has_reports=options.every_s is not None)
    else:
        with BoardView(is_asking=is_interactive()) as board:
            yield board
