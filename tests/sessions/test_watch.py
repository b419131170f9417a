"""One stream of updates for sessions on several hosts, with monitors that follow a script."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest

from remote_dispatch.errors import HostNotReadyError, HostUnreachableError, RemoteDispatchError, UnknownNameError
from remote_dispatch.failure import Failure
from remote_dispatch.model import Host, Todo
from remote_dispatch.opencode.api import RefusedError
from remote_dispatch.opencode.served import Served, Status
from remote_dispatch.sessions.happening import Changed, Gone, LinkBack, LinkLost, TodosChanged, ToolChanged
from remote_dispatch.sessions.scene import Scene
from remote_dispatch.sessions.values import Phase
from remote_dispatch.sessions.watch import Active, Back, Ended, LeftOut, StateChanged, Unreachable, Unwatched, watch
from tests.sessions.looks_made import NOW, a_look, a_named, a_permission, said

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.sessions.happening import Update
    from remote_dispatch.sessions.values import Look, NamedSession
    from remote_dispatch.sessions.watch import WatchUpdate

KUMO, CSBX, LAB = a_named(), a_named("csbx"), a_named("labo", host="lab")
LOST = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)


@dataclass
class Server:
    """A server that answers, or raises what is in `errors` first, one at a try."""

    errors: list[RemoteDispatchError] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    is_aborted: asyncio.Event = field(default_factory=asyncio.Event)
    refused: dict[str, RemoteDispatchError] = field(default_factory=dict)
    clock_offset_ms: int = 0

    async def session(self, session_id: str) -> Served:
        if session_id in self.refused:
            raise self.refused[session_id]
        return Served(session_id, "/work", "")

    async def nothing(self, *_: object, **__: object) -> tuple[()]:
        return ()

    messages = todos = children = permissions = questions = nothing

    async def statuses(self, _: str) -> dict[str, Status]:
        return {}

    async def health(self) -> None:
        if self.errors:
            raise self.errors.pop(0)

    async def abort(self, session_id: str) -> None:
        self.aborted.append(session_id)
        self.is_aborted.set()


@dataclass
class Script:
    """A monitor that says what stands in a script; an error there is raised, an event is waited for."""

    said: Sequence[Update | RemoteDispatchError | asyncio.Event]
    added: list[tuple[str, str, str | None]] = field(default_factory=list)

    def add(self, session_id: str, directory: str, message_id: str | None = None) -> None:
        self.added.append((session_id, directory, message_id))

    def remove(self, session_id: str) -> None:
        self.added = [one for one in self.added if one[0] != session_id]

    async def updates(self) -> AsyncGenerator[Update, None]:
        for one in self.said:
            if isinstance(one, RemoteDispatchError):
                raise one
            if isinstance(one, asyncio.Event):
                await one.wait()
            else:
                yield one


@dataclass
class Rig:
    """Servers and monitors of hosts by name."""

    scripts: dict[str, Script]
    servers: dict[str, Server] = field(default_factory=dict)
    told: list[WatchUpdate] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    monitors: dict[str, Script] = field(default_factory=dict)
    """What follows the first monitor of a host."""

    async def api(self, host: Host) -> Api:
        return cast("Api", self.servers.setdefault(host.name, Server()))

    def host(self, name: str) -> Host:
        if name not in self.scripts:
            raise UnknownNameError(f"no host is called {name}")
        return Host.model_validate({"name": name, "host": name})

    def monitor(self, api: Api) -> Script:
        name = next(name for name, server in self.servers.items() if cast("Any", api) is server)
        script, self.scripts[name] = self.scripts[name], self.monitors.get(name, self.scripts[name])
        return script

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)

    async def watch(self, *named: NamedSession, busy_only: bool = False) -> list[WatchUpdate]:
        async with asyncio.timeout(10):
            await watch(
                self, self.host, named, self.told.append, busy_only=busy_only, monitor=self.monitor, sleep=self.sleep
            )
        return self.told


def _changed(look: Look) -> Changed:
    return Changed(look.named.session_id, look.standing, look.reading)


def _rig(*said: Update | RemoteDispatchError | asyncio.Event, host: str = "pi") -> Rig:
    return Rig({host: Script(said)})


async def test_a_watch_ends_when_every_session_has_ended() -> None:
    busy, done = a_look(KUMO), a_look(KUMO, answer="fine")
    told = await _rig(_changed(busy), _changed(done), _changed(a_look(CSBX, answer=""))).watch(KUMO, CSBX)
    assert told == [StateChanged(busy), Ended(done), Ended(a_look(CSBX, answer=""))]


async def test_the_hosts_are_watched_at_the_same_time() -> None:
    rig = _rig(_changed(a_look(KUMO, answer="")))
    is_first_over = asyncio.Event()
    rig.scripts["lab"] = Script([is_first_over, _changed(a_look(LAB, answer=""))])
    tell = rig.told.append
    rig.told = told = []

    def note(update: WatchUpdate) -> None:
        tell(update)
        told.append(update)
        is_first_over.set()

    async with asyncio.timeout(10):
        await watch(rig, rig.host, [LAB, KUMO], note, monitor=rig.monitor)
    assert [one.look.named.name for one in told if isinstance(one, Ended)] == ["kumo", "labo"]


async def test_of_all_sessions_only_those_at_work_are_watched() -> None:
    done = a_look(CSBX, answer="of yesterday", messages=[_final("of yesterday")])
    rig = _rig(_changed(done), _changed(_busy(KUMO)), _changed(a_look(KUMO, answer="")))
    told = await rig.watch(KUMO, CSBX, busy_only=True)
    assert [type(one) for one in told] == [LeftOut, StateChanged, Ended]


async def test_one_that_is_named_is_reported_with_its_last_end() -> None:
    done = a_look(CSBX, answer="of yesterday")
    assert await _rig(_changed(done)).watch(CSBX) == [Ended(done)]


async def test_a_host_that_does_not_answer_is_told_once_and_tried_with_a_growing_delay() -> None:
    rig = _rig(_changed(a_look(KUMO, answer="")))
    rig.servers["pi"] = Server([HostUnreachableError("pi", "no route") for _ in range(8)])
    told = await rig.watch(KUMO)
    assert [type(one) for one in told] == [Unreachable, Back, Ended]
    assert rig.slept[-1] > 4 * rig.slept[0]
    assert max(rig.slept) <= 30


async def test_a_lost_link_is_told_with_its_sessions_and_the_watch_goes_on() -> None:
    lost = LinkLost(LOST, "lost")
    rig = _rig(_changed(a_look(KUMO)), lost, lost, LinkBack(), _changed(a_look(KUMO, answer="")))
    _, *told, last = await rig.watch(KUMO)
    assert told == [Unreachable("pi", ("kumo",), LOST), Back("pi", ("kumo",))]
    assert isinstance(last, Ended)


@pytest.mark.parametrize("error", [HostNotReadyError("pi", "no server runs"), UnknownNameError("no host")])
async def test_what_cannot_be_watched_does_not_stop_the_others(error: RemoteDispatchError) -> None:
    rig = _rig(_changed(a_look(KUMO, answer="")))
    rig.scripts["lab"] = Script([])
    rig.servers["lab"] = Server([error])
    told = await rig.watch(LAB, KUMO)
    assert sorted(type(one).__name__ for one in told) == ["Ended", "Unwatched"]
    assert Unwatched(LAB, error) in told


async def test_a_host_that_left_the_registry_is_a_session_that_cannot_be_watched() -> None:
    (told,) = await _rig().watch(LAB)
    assert isinstance(told, Unwatched)


async def test_a_session_that_was_deleted_is_not_watched_any_more() -> None:
    (told,) = await _rig(Gone(KUMO.session_id)).watch(KUMO)
    assert isinstance(told, Unwatched)
    assert "session forget kumo" in (told.error.hint or "")


async def test_a_session_that_the_server_will_not_show_does_not_stop_the_others() -> None:
    error = RefusedError("pi", "GET /session", 400, "", "")
    rig = _rig(error)
    rig.servers["pi"] = Server(refused={CSBX.session_id: error})
    rig.monitors["pi"] = Script([_changed(a_look(KUMO, answer=""))])
    assert await rig.watch(KUMO, CSBX) == [Unwatched(CSBX, error), Ended(a_look(KUMO, answer=""))]


async def test_a_server_that_refuses_without_a_session_to_blame_is_given_up() -> None:
    error = RefusedError("pi", "GET /global/event", 500, "", "")
    assert await _rig(error).watch(KUMO, CSBX) == [Unwatched(KUMO, error), Unwatched(CSBX, error)]


async def test_a_turn_that_would_never_end_is_aborted_once() -> None:
    server = Server()
    endless = _changed(a_look(KUMO, must_abort=True))
    failed = _changed(a_look(KUMO, answer="", failure=Failure.PROVIDER_UNAVAILABLE))
    rig = _rig(endless, endless, server.is_aborted, failed)
    rig.servers["pi"] = server
    told = await rig.watch(KUMO)
    assert server.aborted == [KUMO.session_id]
    assert isinstance(told[-1], Ended)


# --- what is known of all of them


def _scene(*updates: WatchUpdate) -> Scene:
    scene = Scene([KUMO, CSBX], now=lambda: NOW)
    for update in updates:
        scene.take(update)
    return scene


def test_a_scene_keeps_todos_and_tools_up_to_date_between_readings() -> None:
    todos = (Todo("write", "in_progress", ""),)
    running, done = (ToolChanged("bash", "call", status, "make test") for status in ("running", "completed"))
    scene = _scene(StateChanged(a_look(KUMO)), _active(TodosChanged(todos)), _active(running))
    report = scene.rows["kumo"].report
    assert report is not None
    assert (report.todo.task, report.tool, report.last_sign) == ("write", "bash: make test", NOW)
    scene.take(_active(done))
    assert (after := scene.rows["kumo"].report) is not None
    assert after.tool is None


def test_the_todos_of_a_sub_agent_are_not_those_of_the_session() -> None:
    todos = (Todo("its own", "in_progress", ""),)
    scene = _scene(StateChanged(a_look(KUMO)), _active(TodosChanged(todos), source="ses_child"))
    assert scene.reports[0].todo.total == 0


def test_a_scene_remarks_how_long_a_host_is_away_until_it_is_back() -> None:
    scene = _scene(StateChanged(a_look(KUMO)), Unreachable("pi", ("kumo", "csbx"), LOST))
    (remark,) = scene.remarks
    assert "pi: unreachable since" in remark
    assert "(4 min); kumo, csbx as last seen" in remark
    scene.take(Back("pi", ("kumo", "csbx")))
    assert scene.remarks == []


def test_a_scene_knows_whether_a_request_still_waits() -> None:
    asking = a_look(KUMO, phase=Phase.WAITING, requests=(a_permission(),))
    scene = _scene(StateChanged(asking))
    assert scene.is_asked("kumo", a_permission().id)
    scene.take(StateChanged(a_look(KUMO)))
    assert not scene.is_asked("kumo", a_permission().id)


def test_what_has_ended_is_no_part_of_a_remark() -> None:
    scene = _scene(Ended(a_look(KUMO, answer="")), Unreachable("pi", ("kumo",), LOST))
    assert scene.remarks == []


def _active(what: Any, source: str = KUMO.session_id) -> WatchUpdate:
    return Active(KUMO, what, source)


def _busy(named: NamedSession) -> Look:
    return a_look(named, status=Status("busy"))


def _final(text: str) -> dict[str, Any]:
    message = said({"type": "text", "text": text})
    return message | {"info": {"role": "assistant", "time": {"created": 1, "completed": 2}, "finish": "stop"}}
