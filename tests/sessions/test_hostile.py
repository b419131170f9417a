"""Faults that would end a watch early, never, or with an untruth, on a server in memory that goes wrong on purpose."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_dispatch.errors import RemoteDispatchError, TurnFailedError
from remote_dispatch.failure import Failure
from remote_dispatch.model import Host
from remote_dispatch.opencode.api import RefusedError
from remote_dispatch.opencode.receive import lines
from remote_dispatch.opencode.served import read_event, read_offer
from remote_dispatch.sessions import watching
from remote_dispatch.sessions.gate import Gate, settled
from remote_dispatch.sessions.happening import Changed, Gone, Happened, TextDelta
from remote_dispatch.sessions.looks import look_at
from remote_dispatch.sessions.monitor import Monitor
from remote_dispatch.sessions.prompt import Prompt
from remote_dispatch.sessions.reading import read
from remote_dispatch.sessions.report import report_of
from remote_dispatch.sessions.requests import open_requests
from remote_dispatch.sessions.story import Story, is_decisive
from remote_dispatch.sessions.turn import follow, send
from remote_dispatch.sessions.values import Look, NamedSession, Phase
from remote_dispatch.sessions.watch import Ended, StateChanged, WatchUpdate, watch
from remote_dispatch.transcript.shape import mapping
from tests.rig.fake_server import DIRECTORY, SESSION, FakeServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.sessions.happening import Update

DEADLINE_S = 20
CHILD = "ses_000000000000000000000child"
PERMISSION = {"id": "per_1", "sessionID": SESSION, "permission": "bash", "patterns": ["make"]}
NAMED = NamedSession(
    name="kumo", host="box", session_id=SESSION, directory=DIRECTORY, created=datetime(2026, 1, 1, tzinfo=UTC)
)

Raw = dict[str, Any]
Fault = httpx.Response | Exception | None


@dataclass
class Faulty(FakeServer):
    """A server whose answers a test may replace."""

    fault: Callable[[httpx.Request], Fault] = lambda _: None
    offset: timedelta | None = None
    """How far its clock is ahead of ours; None: it does not say."""
    asked: list[str] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        found = self.fault(request)
        if isinstance(found, Exception):
            raise found
        answer = found or await super().handle_async_request(request)
        if self.offset is not None:
            answer.headers["date"] = format_datetime(datetime.now(UTC) + self.offset, usegmt=True)
        return answer


def busy(**fields: Any) -> Faulty:
    server = Faulty(**fields)
    server.prompted("do it")
    server.busy()
    return server


@dataclass(frozen=True)
class One:
    """Reaches one server, whatever the host."""

    there: Api

    async def api(self, host: Host) -> Api:
        assert host.name
        return self.there


def of(text: str, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=text.encode(), headers={"content-type": "application/json"})


async def _quick(seconds: float) -> None:
    await asyncio.sleep(seconds / 100)


async def watched(server: FakeServer, on_update: Callable[[Update], object]) -> list[Update]:
    seen: list[Update] = []
    async with asyncio.timeout(DEADLINE_S), server.api() as api:
        monitor = Monitor(api, sleep=_quick)
        monitor.add(SESSION, DIRECTORY)
        async with aclosing(monitor.updates()) as updates:
            async for update in updates:
                seen.append(update)
                on_update(update)
    return seen


# --- the event stream


@pytest.mark.parametrize("mark", ["\u2028", "\u0085"])
async def test_a_line_end_of_unicode_within_an_event_loses_nothing(mark: str) -> None:
    server = busy()

    def go_on(update: Update) -> None:
        if isinstance(update, Changed) and update.standing.phase is Phase.BUSY and not server.messages[SESSION][1:]:
            server.answering().piece("one").piece(f"{mark}two")
        elif isinstance(update, Happened) and isinstance(update.what, TextDelta) and "two" in update.what.text:
            server.answered(f"one{mark}two").idle()

    updates = await watched(server, go_on)
    told = [one.what for one in updates if isinstance(one, Happened)]
    assert [one.text for one in told if isinstance(one, TextDelta)] == ["one", f"{mark}two"]


async def test_a_stream_that_never_ends_a_line_is_given_up() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(1000):
            yield bytes(100)

    taken = lines(pieces(), limit_bytes=1000, silence_s=60)
    with pytest.raises(TimeoutError):
        await anext(taken)


async def test_a_stream_of_crumbs_is_silence() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"data: 1\nda"
        yield b"ta"

    taken = lines(pieces(), limit_bytes=1000, silence_s=-1)
    with pytest.raises(TimeoutError):
        await anext(taken)


# --- the server's clock


@pytest.mark.parametrize("ahead", [timedelta(hours=-3), timedelta(seconds=-40), timedelta(0), timedelta(hours=3)])
async def test_a_prompt_that_has_just_begun_is_no_failure_whatever_the_servers_clock_says(ahead: timedelta) -> None:
    server = Faulty(offset=ahead)
    server.prompted("do it")
    server.messages[SESSION][0]["info"]["time"]["created"] += ahead / timedelta(milliseconds=1)
    async with server.api() as api:
        looked = await read(api, SESSION, DIRECTORY)
    assert settled(looked).phase is Phase.STARTING


async def test_a_prompt_that_never_began_is_told_although_the_servers_clock_is_ahead() -> None:
    server = Faulty(offset=timedelta(hours=3))
    server.prompted("do it")
    server.messages[SESSION][0]["info"]["time"]["created"] += (3 * 3600 - 60) * 1000
    async with server.api() as api:
        looked = await read(api, SESSION, DIRECTORY)
    assert settled(looked).failure is Failure.CONFIG_ERROR


async def test_a_short_pause_of_the_provider_is_waited_for_although_the_servers_clock_is_ahead() -> None:
    server = busy(offset=timedelta(minutes=20))
    soon_ms = round((time.time() + 20 * 60 + 3) * 1000)
    server.statuses[SESSION] = {"type": "retry", "attempt": 1, "message": "Too Many Requests", "next": soon_ms}

    def go_on(update: Update) -> None:
        if isinstance(update, Changed) and update.standing.phase is Phase.RETRYING:
            asyncio.get_running_loop().call_later(1.2, lambda: server.answering().answered("done").idle())

    async with asyncio.timeout(DEADLINE_S), server.api() as api:
        standing, _ = await follow(api, SESSION, DIRECTORY, None, idle_timeout_s=10, tell=go_on)
    assert (standing.failure, server.asked.count(f"POST /session/{SESSION}/abort")) == (None, 0)


# --- following a turn


async def test_a_turn_that_an_abort_does_not_end_is_told_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "ABORT_AGAIN_S", 0.1)
    server = busy()
    server.fault = lambda request: of("true") if request.url.path.endswith("/abort") else None
    async with asyncio.timeout(DEADLINE_S), server.api() as api:
        with pytest.raises(TurnFailedError) as told:
            await follow(api, SESSION, DIRECTORY, None, idle_timeout_s=0.2)
    assert told.value.failure is Failure.TIMEOUT
    assert server.asked.count(f"POST /session/{SESSION}/abort") == watching.MOST_ABORTS


async def test_an_abort_that_is_refused_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "ABORT_AGAIN_S", 0.1)
    server = busy()
    server.fault = lambda request: of('{"name": "UnknownError"}', 500) if "abort" in request.url.path else None
    async with asyncio.timeout(DEADLINE_S), server.api() as api:
        with pytest.raises(RefusedError):
            await follow(api, SESSION, DIRECTORY, None, idle_timeout_s=0.2)


async def test_an_abort_that_is_lost_on_its_way_is_made_again() -> None:
    server = busy()
    lost = [httpx.ReadError("reset") for _ in range(5)]
    server.fault = lambda request: lost.pop() if lost and "abort" in request.url.path else None
    async with asyncio.timeout(DEADLINE_S), server.api() as api:
        server.answering()
        standing, _ = await follow(api, SESSION, DIRECTORY, None, idle_timeout_s=0.2)
    assert (standing.failure, lost) == (Failure.TIMEOUT, [])


async def test_a_request_is_put_to_the_user_although_the_connection_breaks_at_that_moment() -> None:
    server = busy()
    server.permissions.append(PERMISSION)
    put: list[Phase] = []

    def go_on(update: Update) -> None:
        if isinstance(update, Changed) and update.standing.phase is Phase.WAITING and not put:
            put.append(update.standing.phase)
            server.is_down = True
            asyncio.get_running_loop().call_later(1.5, setattr, server, "is_down", False)

    async def answer(_: object) -> bool:
        server.permissions.clear()
        server.answering().answered("done").idle()
        return True

    async with asyncio.timeout(DEADLINE_S), server.api() as api:
        standing, _ = await follow(api, SESSION, DIRECTORY, None, tell=go_on, answer=answer)
    assert (put, standing.phase, standing.failure) == ([Phase.WAITING], Phase.ENDED, None)


async def test_a_sub_agent_that_is_deleted_in_the_middle_of_a_look_is_not_the_end_of_the_session() -> None:
    server = busy()
    server.make(CHILD, parent=SESSION)
    server.statuses[CHILD] = {"type": "busy"}
    missing = of('{"name": "NotFoundError"}', 404)
    server.fault = lambda request: missing if request.url.path == f"/session/{CHILD}/children" else None
    server.permissions.append({**PERMISSION, "sessionID": CHILD})

    def go_on(update: Update) -> None:
        if isinstance(update, Changed) and update.standing.phase is Phase.WAITING:
            server.permissions.clear()
            server.answering().answered("done").idle()

    async with server.api() as api:
        assert [one.id for one in await open_requests(api, SESSION, DIRECTORY)] == ["per_1"]
    updates = await watched(server, go_on)
    assert not [one for one in updates if isinstance(one, Gone)]


# --- sending


async def test_a_prompt_that_was_taken_is_told_although_the_connection_breaks_after_it() -> None:
    server = Faulty()
    breaks = [httpx.ReadError("reset") for _ in range(6)]
    server.fault = lambda request: breaks.pop() if breaks and server.posts and "/message/" in request.url.path else None
    async with asyncio.timeout(DEADLINE_S), server.api() as api:
        sent = await send(api, NAMED, Prompt("do it"))
    assert [one["info"]["id"] for one in server.messages[SESSION]] == [sent.message_id]
    assert (len(server.posts), breaks) == (1, [])


# --- words of the server

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 10**30, 1e308, float("inf"), float("-inf"), float("nan"), 0.5]),
    st.sampled_from(["", "\ud800", "../../x", "a\nb", "\0", "x" * 70_000, "\x1b]0;title\x07"]),
    st.sampled_from([[], {}, [None], {"a": None}]),
)


def _places(value: object) -> list[tuple[Any, Any]]:
    """Every place of a JSON value that can be replaced: a container and a key in it."""
    found: list[tuple[Any, Any]] = []
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        found += [(value, key), *_places(value[key])]  # type: ignore[index]  # a dict or a list
    return found


def _a_whole_session() -> dict[str, Any]:
    """What a server says of a session at work, by the path of the question."""
    state: Raw = {"status": "running", "title": "t", "input": {"command": "make"}, "time": {"start": 1}}
    parts = [
        {"id": "prt_1", "type": "text", "text": "so far", "time": {"start": 1}},
        {"id": "prt_2", "type": "tool", "tool": "bash", "callID": "call_1", "state": state},
    ]
    prompt: Raw = {"info": {"id": "msg_1", "role": "user", "time": {"created": 1}}, "parts": parts[:1]}
    info: Raw = {"id": "msg_2", "role": "assistant", "parentID": "msg_1", "finish": "stop", "agent": "build"}
    info |= {"time": {"created": 1, "completed": 2}, "modelID": "m", "providerID": "p", "tokens": {"input": 1}}
    info |= {"error": {"name": "APIError", "data": {"message": "no", "statusCode": 500}}}
    tool: Raw = {"messageID": "msg_9", "callID": "call_1"}
    session: Raw = {"id": SESSION, "directory": DIRECTORY, "title": "t", "time": {"created": 1, "updated": 2}}
    session |= {"tokens": {"input": 1, "cache": {"read": 1}}, "cost": 0.1, "model": {"id": "m", "providerID": "p"}}
    retry: Raw = {"type": "retry", "attempt": 1, "message": "no", "next": 5, "action": {"reason": "free_tier_limit"}}
    option: Raw = {"label": "a", "description": "b"}
    question: Raw = {"question": "q", "header": "h", "options": [option], "multiple": True}
    return {
        "": session,
        "children": [{**session, "id": CHILD, "parentID": SESSION}],
        "status": {SESSION: retry, CHILD: {"type": "busy"}},
        "message": [prompt, {"info": info, "parts": parts}],
        "todo": [{"content": "c", "status": "in_progress", "priority": "high"}],
        "permission": [{**PERMISSION, "metadata": {"command": "make"}, "always": ["make"], "tool": tool}],
        "question": [{"id": "que_1", "sessionID": CHILD, "questions": [question], "tool": tool}],
    }


def _serve(said: dict[str, Any]) -> Callable[[httpx.Request], Fault]:
    def answer(request: httpx.Request) -> Fault:
        path = request.url.path.removeprefix(f"/session/{SESSION}").strip("/").split("/")
        word = path[-1] if path[-1] in said else ""
        is_child = CHILD in request.url.path
        return of("[]" if is_child else json.dumps(said[word])) if path[0] != "global" else None

    return answer


@pytest.mark.thorough
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0), odd=ODD, is_idle=st.booleans())
def test_whatever_a_server_says_a_look_is_a_look_or_an_error_of_ours(place: int, odd: Any, *, is_idle: bool) -> None:
    said = _a_whole_session()
    places = _places(said)
    container, key = places[place % len(places)]
    container[key] = odd
    if is_idle:
        said["status"] = {}
    asyncio.run(_look_at_all(Faulty(fault=_serve(said))))


async def _look_at_all(server: FakeServer) -> None:
    async with server.api() as api:
        try:
            looked = await read(api, SESSION, DIRECTORY)
            await open_requests(api, SESSION, DIRECTORY)
        except RemoteDispatchError:
            return
        for message_id in (None, "msg_1", "msg_8"):
            Gate(message_id).judge(looked)
            standing = settled(looked, message_id)
            report_of(Look(NAMED, looked, standing))
        list(Story(SESSION).reading(looked))


def _events() -> list[Raw]:
    """The events of a turn with a sub-agent."""
    ids = {"sessionID": SESSION, "messageID": "msg_2"}
    text: Raw = {"id": "prt_1", "type": "text", "text": "", **ids}
    tool: Raw = {"id": "prt_2", "type": "tool", "tool": "bash", "callID": "call_1", **ids}
    state: Raw = {"status": "running", "title": "t", "input": {"command": "make"}, "error": "no"}
    retry: Raw = {"type": "retry", "attempt": 1, "message": "no", "next": 5, "action": {"reason": "limit"}}
    child: Raw = {"id": CHILD, "parentID": SESSION, "title": "t"}
    told: list[tuple[str, Raw]] = [
        ("session.created", {"sessionID": CHILD, "info": child}),
        ("message.updated", {"info": {"id": "msg_2", "role": "assistant", "sessionID": SESSION, "finish": "stop"}}),
        ("message.part.updated", {"part": text}),
        ("message.part.delta", {**ids, "partID": "prt_1", "field": "text", "delta": "a"}),
        ("message.part.updated", {"part": {**text, "text": "a", "time": {"start": 1, "end": 2}}}),
        ("message.part.updated", {"part": {**tool, "state": state}}),
        ("todo.updated", {"sessionID": SESSION, "todos": [{"content": "c", "status": "pending"}]}),
        ("session.status", {"sessionID": SESSION, "status": retry}),
        ("session.error", {"sessionID": SESSION, "error": {"name": "APIError", "data": {"message": "no"}}}),
    ]
    return [{"directory": DIRECTORY, "payload": {"type": kind, "properties": what}} for kind, what in told]


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0), odd=ODD)
def test_whatever_an_event_says_it_is_taken_or_left(place: int, odd: Any) -> None:
    events = _events()
    places = _places(events)
    container, key = places[place % len(places)]
    container[key] = odd
    story, gate = Story(SESSION), Gate()
    for event in filter(None, (read_event(mapping(one)) for one in events)):
        if story.concerns(event):
            list(story.event(event, 1.0))
            is_decisive(event)
            gate.heard(mapping(event.properties.get("error")))


# --- somebody else's prompt


async def test_a_session_that_somebody_else_prompts_after_our_turn_is_at_work() -> None:
    health = of('{"healthy": true, "version": "1.18.33"}')
    server = Faulty(fault=lambda request: health if request.url.path == "/global/health" else None)
    server.prompted("ours", message_id="msg_ours")
    server.answering().answered("done")
    server.prompted("theirs", message_id="msg_theirs")
    server.busy()
    ours = NAMED.but(message_id="msg_ours")
    told: list[WatchUpdate] = []

    def note(update: WatchUpdate) -> None:
        told.append(update)
        if isinstance(update, StateChanged) and update.look.standing.phase is Phase.BUSY:
            server.answering(message_id="msg_later").answered("done for them").idle()

    async with asyncio.timeout(DEADLINE_S), server.api() as api:
        standing = (await look_at(api, ours)).standing
        monitor = Monitor(api, sleep=_quick)
        await watch(
            One(api), lambda name: Host(name=name, host=name), [ours], note, busy_only=True, monitor=lambda _: monitor
        )
    assert standing.phase is Phase.BUSY
    (end,) = [one.look.standing.end for one in told if isinstance(one, Ended)]
    assert end is not None
    assert end.answer == "done for them"


# --- words that are not known


async def test_a_status_that_is_not_known_is_no_end() -> None:
    server = busy()
    server.answering().answered("so far")
    server.statuses[SESSION] = {"type": "thinking"}
    async with server.api() as api:
        assert settled(await read(api, SESSION, DIRECTORY)).phase is Phase.BUSY


async def test_a_prompt_that_was_aborted_before_it_began_is_called_so() -> None:
    server = Faulty()
    server.prompted("do it")
    gate = Gate()
    async with server.api() as api:
        looked = await read(api, SESSION, DIRECTORY)
    gate.heard({"name": "MessageAbortedError", "data": {"message": "Aborted"}})
    gate.judge(looked)
    assert gate.judge(replace(looked, at_s=looked.at_s + 3)).failure is Failure.ABORTED


def test_a_model_that_cannot_be_named_is_not_offered() -> None:
    models: Raw = {"good": {}, "odd\x1b[31m": {}, "": {}}
    assert read_offer({"providers": [{"id": "box", "models": models}]}).models == ("box/good",)


async def test_a_proxy_whose_server_is_away_is_waited_for() -> None:
    server = busy()
    left = [httpx.Response(503, text="<html>Bad Gateway</html>") for _ in range(20)]
    server.fault = lambda request: left.pop() if left and "/session" in request.url.path else None

    def go_on(update: Update) -> None:
        if isinstance(update, Changed) and update.standing.phase is Phase.BUSY:
            server.answering().answered("done").idle()

    updates = await watched(server, go_on)
    assert isinstance(updates[-1], Changed)
    assert (updates[-1].standing.failure, left) == (None, [])
