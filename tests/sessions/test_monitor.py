"""The monitor on a server in memory, whose streams break when the test says so; and its texts in every order."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import httpx
from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.failure import Failure
from remote_dispatch.sessions.happening import (
    Answered,
    Asked,
    Changed,
    Child,
    Gone,
    Happened,
    LinkBack,
    LinkLost,
    TextDelta,
    TextMissed,
    TodosChanged,
    ToolChanged,
)
from remote_dispatch.sessions.monitor import Monitor
from remote_dispatch.sessions.texts import Texts
from remote_dispatch.sessions.values import Phase
from tests.rig.fake_server import DIRECTORY, SESSION, FakeServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_dispatch.sessions.happening import Update

DEADLINE_S = 20
CHILD = "ses_000000000000000000000child"


async def _quick(seconds: float) -> None:
    """Wait a hundredth of it: the server is in memory."""
    await asyncio.sleep(seconds / 100)


async def watched(
    server: FakeServer, *steps: tuple[Callable[[Update], bool], Callable[[], object]], message_id: str | None = None
) -> list[Update]:
    """Watch to the end; each step is done when its update was seen, in this order."""
    seen: list[Update] = []
    left = list(steps)
    async with asyncio.timeout(DEADLINE_S), server.api() as api:
        monitor = Monitor(api, sleep=_quick)
        monitor.add(SESSION, DIRECTORY, message_id)
        async with aclosing(monitor.updates()) as updates:
            async for update in updates:
                seen.append(update)
                if left and left[0][0](update):
                    left.pop(0)[1]()
    assert not left, f"not seen: step {len(steps) - len(left) + 1} of {len(steps)}; {seen}"
    return seen


def is_phase(phase: Phase) -> Callable[[Update], bool]:
    return lambda update: isinstance(update, Changed) and update.standing.phase is phase


def is_text(text: str) -> Callable[[Update], bool]:
    return lambda update: isinstance(update, Happened) and getattr(update.what, "text", None) == text


def is_a(kind: type[object]) -> Callable[[Update], bool]:
    return lambda update: isinstance(update, kind) or (isinstance(update, Happened) and isinstance(update.what, kind))


def text_of(updates: list[Update]) -> str:
    return "".join(one.what.text for one in updates if isinstance(one, Happened) and isinstance(one.what, TextDelta))


def end_of(updates: list[Update]) -> Changed:
    last = updates[-1]
    assert isinstance(last, Changed)
    assert last.standing.phase is Phase.ENDED
    return last


def a_busy_server() -> FakeServer:
    server = FakeServer()
    server.prompted("do it")
    server.busy()
    return server


def finish(server: FakeServer, text: str) -> None:
    server.answered(text)
    server.idle()


async def test_text_is_told_as_it_streams_and_the_end_after_it() -> None:
    server = a_busy_server()
    updates = await watched(
        server,
        (is_phase(Phase.BUSY), lambda: server.answering().piece("hel").piece("lo")),
        (is_text("lo"), lambda: finish(server, "hello")),
    )
    assert [one.what for one in updates if is_a(TextDelta)(one) and isinstance(one, Happened)] == [
        TextDelta("hel", "prt_msg_answer"),
        TextDelta("lo", "prt_msg_answer"),
    ]
    end = end_of(updates).standing.end
    assert end is not None
    assert end.answer == "hello"


async def test_an_end_that_nobody_told_is_found_when_the_stream_is_back() -> None:
    server = a_busy_server()

    def break_off() -> None:
        server.answering()
        server.cut()
        server.streams.clear()
        finish(server, "said while nobody listened")

    updates = await watched(server, (is_phase(Phase.BUSY), break_off))
    kinds = [type(one) for one in updates]
    assert kinds.index(LinkLost) < kinds.index(LinkBack) < len(kinds) - 1
    assert kinds.count(LinkLost) == kinds.count(LinkBack) == 1
    assert text_of(updates) == "said while nobody listened"
    assert end_of(updates).standing.failure is None


async def test_pieces_around_a_break_are_neither_doubled_nor_invented() -> None:
    server = a_busy_server()

    def break_off() -> None:
        server.cut()
        server.streams.clear()
        server.piece(" lost")

    updates = await watched(
        server,
        (is_phase(Phase.BUSY), lambda: server.answering().piece("told")),
        (is_text("told"), break_off),
        (is_a(LinkBack), lambda: server.piece(" and back")),
        (is_a(TextMissed), lambda: finish(server, "told lost and back")),
    )
    assert text_of(updates) == "told lost and back"


async def test_a_silent_stream_is_opened_anew() -> None:
    server = a_busy_server()
    updates = await watched(
        server,
        (is_phase(Phase.BUSY), lambda: server.cut(httpx.ReadTimeout("silent"))),
        (is_a(LinkBack), lambda: finish(server.answering(), "after")),
    )
    assert any(isinstance(one, LinkLost) for one in updates)
    assert text_of(updates) == "after"


async def test_a_server_that_is_away_is_waited_for_and_told_once() -> None:
    server = a_busy_server()
    tries = 0

    async def sleep(seconds: float) -> None:
        nonlocal tries
        tries += server.is_down
        if tries > 5:
            server.is_down = False
        await _quick(seconds)

    def go_away() -> None:
        server.is_down = True
        server.cut()

    seen: list[Update] = []
    async with asyncio.timeout(DEADLINE_S), server.api() as api:
        monitor = Monitor(api, sleep=sleep)
        monitor.add(SESSION, DIRECTORY)
        async with aclosing(monitor.updates()) as updates:
            async for update in updates:
                seen.append(update)
                if is_phase(Phase.BUSY)(update) and not tries:
                    go_away()
                if isinstance(update, LinkLost):
                    assert monitor.quiet_s(SESSION) == 0
                if isinstance(update, LinkBack):
                    server.answering()
                    finish(server, "back")
    assert [type(one) for one in seen if isinstance(one, LinkLost | LinkBack)] == [LinkLost, LinkBack]
    assert "http" not in next(one.message for one in seen if isinstance(one, LinkLost))


async def test_an_error_that_is_stored_after_the_first_idle_is_the_end_that_is_told() -> None:
    server = a_busy_server()
    error = {"name": "APIError", "data": {"message": "Unauthorized", "statusCode": 401}}
    updates = await watched(
        server,
        (is_phase(Phase.BUSY), lambda: server.answering().idle()),
        (
            lambda update: isinstance(update, Changed) and update.standing.phase is not Phase.BUSY,
            lambda: server.answered("", finish=None, error=error).idle(),
        ),
    )
    assert end_of(updates).standing.failure is Failure.AUTH_FAILED


async def test_what_a_sub_agent_does_belongs_to_its_root_session() -> None:
    server = a_busy_server()
    call = {"id": "prt_call", "type": "tool", "tool": "bash", "callID": "call_1", "sessionID": CHILD}
    state = {"status": "running", "input": {"command": "ls\x1b[31m"}}

    def begin() -> None:
        server.make(CHILD, SESSION)
        server.emit("session.created", info=server.sessions[CHILD])
        for _ in range(2):
            server.emit("message.part.updated", part={**call, "state": state})

    updates = await watched(
        server,
        (is_phase(Phase.BUSY), begin),
        (is_a(ToolChanged), lambda: finish(server.answering(), "done")),
    )
    told = [one for one in updates if isinstance(one, Happened) and one.source_id == CHILD]
    assert [one.what for one in told] == [Child(CHILD, "a title"), ToolChanged("bash", "call_1", "running", "ls")]
    assert all(one.session_id == SESSION for one in told)


async def test_a_request_is_told_once_and_its_answer_once() -> None:
    server = a_busy_server()
    asked = {"id": "per_1", "sessionID": SESSION, "permission": "bash", "patterns": ["ls"]}

    def ask() -> None:
        server.permissions.append(asked)
        for _ in range(3):
            server.emit("permission.asked", **asked)

    def answer() -> None:
        server.permissions.clear()
        server.emit("permission.replied", sessionID=SESSION, requestID="per_1", reply="once")

    updates = await watched(
        server,
        (is_phase(Phase.BUSY), ask),
        (is_phase(Phase.WAITING), answer),
        (is_a(Answered), lambda: finish(server.answering(), "done")),
    )
    told = [type(one.what) for one in updates if isinstance(one, Happened) and is_a(Asked)(one) | is_a(Answered)(one)]
    assert told == [Asked, Answered]


async def test_todos_are_told_when_they_change_whatever_tells_it() -> None:
    server = a_busy_server()
    todo = {"content": "a", "status": "pending", "priority": "high"}

    def change() -> None:
        server.todos[SESSION] = [todo]
        server.emit("todo.updated", sessionID=SESSION, todos=[todo])
        server.emit("session.status", sessionID=SESSION, status={"type": "busy"})

    updates = await watched(
        server,
        (is_phase(Phase.BUSY), change),
        (is_a(TodosChanged), lambda: finish(server.answering(), "done")),
    )
    assert sum(is_a(TodosChanged)(one) for one in updates) == 1


async def test_todos_of_the_turn_are_told_although_they_were_written_before_anybody_looked() -> None:
    server = a_busy_server()
    server.todos[SESSION] = [{"content": "a", "status": "pending", "priority": "high"}]
    server.answering()
    call = {"id": "prt_call", "type": "tool", "tool": "todowrite", "callID": "call_1", "state": {"status": "completed"}}
    server.messages[SESSION][-1]["parts"].append(call)
    updates = await watched(server, (is_a(TodosChanged), lambda: finish(server, "done")), message_id="msg_user")
    assert sum(is_a(TodosChanged)(one) for one in updates) == 1


async def test_todos_that_the_first_look_shows_before_the_call_that_wrote_them_are_told_all_the_same() -> None:
    server = a_busy_server()
    server.todos[SESSION] = [{"content": "a", "status": "pending", "priority": "high"}]
    call = {"id": "prt_call", "type": "tool", "tool": "todowrite", "callID": "call_1", "state": {"status": "completed"}}

    def show() -> None:
        server.answering()
        server.messages[SESSION][-1]["parts"].append(call)
        server.emit("session.status", sessionID=SESSION, status={"type": "busy"})

    updates = await watched(
        server,
        (is_phase(Phase.BUSY), show),
        (is_a(TodosChanged), lambda: finish(server, "done")),
        message_id="msg_user",
    )
    assert sum(is_a(TodosChanged)(one) for one in updates) == 1


async def test_a_session_that_is_deleted_is_gone() -> None:
    server = a_busy_server()

    def delete() -> None:
        info = server.sessions.pop(SESSION)
        server.emit("session.deleted", info=info)

    updates = await watched(server, (is_phase(Phase.BUSY), delete))
    assert updates[-1] == Gone(SESSION)


@given(
    pieces=st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=12),
    breaks=st.sets(st.integers(0, 12)),
    lost=st.sets(st.integers(0, 12)),
    looks=st.sets(st.integers(0, 12)),
)
def test_texts_tell_a_beginning_of_the_truth_and_in_the_end_all_of_it(
    pieces: list[str], breaks: set[int], lost: set[int], looks: set[int]
) -> None:
    """Pieces are lost only where the stream broke; readings come at any time."""
    whole, texts, told = "".join(pieces), Texts(), ""
    part = {"id": "prt_1", "type": "text", "text": ""}
    list(texts.began(part))
    is_broken = False
    for place, piece in enumerate(pieces):
        if place in breaks:
            texts.lost()
            is_broken = True
        if place in looks:
            told += _joined(texts.stored(part, is_final=False))
        if not (is_broken and place in lost):
            told += _joined(texts.piece("prt_1", piece))
        assert whole.startswith(told)
    told += _joined(texts.completed({**part, "text": whole, "time": {"end": 1}}))
    told += _joined(texts.stored({**part, "text": whole}, is_final=True))
    assert told == whole


def _joined(told: object) -> str:
    return "".join(one.text for one in told if isinstance(one, TextDelta))  # type: ignore[attr-defined]  # an iterator
