"""Named sessions as their user meets them: real OpenCode servers, real sshd, the command line."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.demo.processes import processes_of
from remote_dispatch.sessions.happening import Changed
from remote_dispatch.sessions.monitor import Monitor
from remote_dispatch.sessions.prompt import Prompt
from remote_dispatch.sessions.turn import send
from remote_dispatch.sessions.values import End, NamedSession
from tests.rig.two_hosts import TwoHosts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.rig.served import Bench
    from tests.rig.world import Running
    from tests.rig.zygote import Zygote

ASKING = {
    "snapshot": False,
    "permission": {"bash": "ask"},
    "agent": {"general": {"permission": {"question": "allow"}}},
}
"""Every shell command is asked for, and sub-agents may put questions."""
LONG = "".join(f"line {number:08d} of a long answer\n" for number in range(1000))
PATIENCE_S = 30
MANY = 20

Line = dict[str, Any]


def lines_of(watch: Running, kind: str = "report") -> list[Line]:
    """Return the JSON lines of one type that a watch has printed in full so far."""
    whole = watch.stdout().rpartition("\n")[0].splitlines()
    return [line for line in map(json.loads, whole) if line.get("type") == kind]


def told_of(watch: Running, name: str) -> list[Line]:
    """Return what the reports said of one session, in order."""
    return [one for line in lines_of(watch) for one in line["sessions"] if one["name"] == name]


def await_lines(watch: Running, is_there: Callable[[], bool], what: str) -> None:
    """Wait until a watch has printed something; a failure shows what it printed instead."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_there():
        assert time.monotonic() < deadline, f"{what}:\n{watch.stdout()[-4000:]}\n{watch.stderr()}"
        time.sleep(0.05)


def await_report(watch: Running, **words: str) -> None:
    """Wait until one report has this failure, or else this state, for each of these names."""

    def is_there() -> bool:
        for line in lines_of(watch):
            told = {one["name"]: one["failure"] or one["state"] for one in line["sessions"]}
            if words.items() <= told.items():
                return True
        return False

    await_lines(watch, is_there, f"no report has {words}")


def states(watch: Running, name: str) -> list[str]:
    """Return the states that the reports gave to a session, each change once."""
    return [state for state, _ in groupby(one["state"] for one in told_of(watch, name))]


def prompt(world: TwoHosts, name: str, *lines: str) -> None:
    ran = world.cli("session", "send", name, "\n".join(lines), "--no-wait", "--json")
    assert ran.exit_code == 0, ran.stderr


@pytest.mark.real
def test_three_sessions_on_two_hosts_are_watched_and_answered_to_their_ends(
    tmp_path: Path, real_opencode: Path, zygote: Zygote | None
) -> None:
    with TwoHosts(tmp_path, real_opencode, starter=zygote, settings=ASKING) as world:
        begun = [
            world.start("session", "new", host, "--name", name) for host, name in (("pi", "kumo"), ("lab", "miso"))
        ]
        assert [one.finish().exit_code for one in begun] == [0, 0]
        assert world.cli("session", "new", "pi", "--name", "nori").exit_code == 0
        _requests_are_reported_and_answered_once(world)
        _what_hangs_and_what_is_cut_is_reported(world)
        for host in ("pi", "lab"):
            assert world.cli("session", "server", "stop", host).exit_code == 0
        assert not processes_of(world.host.home) | processes_of(world.lab.home)


def _requests_are_reported_and_answered_once(world: TwoHosts) -> None:
    """Todos, a permission, a question of a sub-agent, and a provider that answers 429."""
    limited = ("!fail 429 1", "!error rate_limit_exceeded Too Many Requests", "!retry-after-ms 6000")
    prompt(world, "kumo", "!todo boil;brew;pour", "!bash echo brewed >>cups", "!say the tea is ready")
    prompt(world, "nori", "!task !question Which colour?", "!say the wall is painted")
    prompt(world, "miso", "!bash printf ready", *limited, "!say got through")
    watch = world.start("session", "watch", "--every", "1s", "--json")
    await_report(watch, kumo="pending_permission", nori="pending_question", miso="pending_permission")
    asked = {one["name"]: one for one in world.cli("session", "requests", "--json").data["requests"]}
    assert asked["kumo"]["metadata"]["command"] == "echo brewed >>cups"
    assert asked["nori"]["questions"][0]["question"] == "Which colour?"
    assert asked["nori"]["is_sub_agent"]
    _cut_the_connection(world, watch)

    assert world.cli("session", "reply", "miso", "once").exit_code == 0
    await_report(watch, miso="rate_limited", kumo="pending_permission", nori="pending_question")
    assert world.cli("session", "reply", "kumo", asked["kumo"]["short"], "once").exit_code == 0
    assert world.cli("session", "reply", "kumo", asked["kumo"]["short"], "once").exit_code == 8
    assert world.cli("session", "reply", "nori", "no").exit_code == 0

    assert watch.finish().exit_code == 0
    assert (world.host.project / "cups").read_text() == "brewed\n"
    assert {one["name"]: one["answer"] for one in lines_of(watch, "end")} == {
        "kumo": "the tea is ready",
        "nori": "the wall is painted",
        "miso": "got through",
    }
    assert len(lines_of(watch, "end")) == 3
    for name in ("kumo", "nori", "miso"):
        seen = states(watch, name)
        assert seen[0] == "waiting"
        assert "ended" not in seen[:-1], "a session was believed done before it was"
    todo = told_of(watch, "kumo")[0]["todo"]
    assert (todo["done"], todo["active"], todo["pending"], todo["task"]) == (0, 1, 2, "boil")


def _cut_the_connection(world: TwoHosts, watch: Running) -> None:
    """Cut the connection of one host under a watch; what it reports after the return is what there is."""
    assert world.sshd.drop_connections()
    await_lines(
        watch,
        lambda: [one["state"] for one in lines_of(watch, "link")] == ["unreachable", "back"],
        "the connection did not come back",
    )
    before = len(lines_of(watch))
    await_lines(watch, lambda: len(lines_of(watch)) > before, "no report came after it")
    last = lines_of(watch)[before]
    assert last["remarks"] == []
    assert {one["name"]: one["failure"] for one in last["sessions"]} == {
        "kumo": "pending_permission",
        "nori": "pending_question",
        "miso": "pending_permission",
    }


def _what_hangs_and_what_is_cut_is_reported(world: TwoHosts) -> None:
    """A provider that hangs, one whose stream ends too early, and a long answer that is whole."""
    prompt(world, "kumo", "!todo wait;sleep", "!hang")
    prompt(world, "miso", "!bash printf ready", "!say first", "!todo one", f"!long {len(LONG)}")
    prompt(world, "nori", "!bash printf ready", "!say half an answ", "!finish none")
    watch = world.start("session", "watch", "--every", "1s", "--json")
    await_report(watch, kumo="busy", miso="pending_permission", nori="pending_permission")
    assert world.cli("session", "send", "kumo", "are you there?").exit_code == 8
    for name in ("miso", "nori"):
        assert world.cli("session", "reply", name, "once").exit_code == 0
    await_report(watch, kumo="busy", miso="ended", nori="provider_unavailable")
    assert world.cli("session", "abort", "kumo").exit_code == 0

    assert watch.finish().exit_code == 1
    ends = {one["name"]: one for one in lines_of(watch, "end")}
    assert {name: one["failure"] for name, one in ends.items()} == {
        "kumo": "aborted",
        "miso": None,
        "nori": "provider_unavailable",
    }
    assert ends["miso"]["answer"] == LONG[: len(ends["miso"]["answer"])]
    assert len(ends["miso"]["answer"]) == len(LONG)
    assert told_of(watch, "kumo")[0]["todo"]["total"] == 2


@pytest.mark.real
@pytest.mark.thorough
async def test_twenty_sessions_prompted_at_once_end_each_with_its_own_answer(served: Bench) -> None:
    """No git repository, so no snapshots: they would be made one after another."""
    async with served.api() as api, asyncio.timeout(150):
        made = await asyncio.gather(*(api.create(served.directory, title=f"number {one}") for one in range(MANY)))
        named = [
            NamedSession(
                name=f"number-{place}",
                host="box",
                session_id=one.id,
                directory=one.directory,
                created=datetime.now(UTC),
            )
            for place, one in enumerate(made)
        ]
        texts = [f"!todo a;b\n!bash printf {place}\n!say this was number {place}" for place in range(MANY)]
        sent = await asyncio.gather(*(send(api, one, Prompt(text)) for one, text in zip(named, texts, strict=True)))
        monitor = Monitor(api)
        for session, prompted in zip(named, sent, strict=True):
            monitor.add(session.session_id, session.directory, prompted.message_id)
        ends: dict[str, End] = {}
        async with aclosing(monitor.updates()) as updates:
            async for update in updates:
                if isinstance(update, Changed) and update.standing.end:
                    ends[update.session_id] = update.standing.end
        assert [(ends[one.id].failure, ends[one.id].answer) for one in made] == [
            (None, f"this was number {place}") for place in range(MANY)
        ]
        assert all([len(await api.todos(one.id)) == 2 for one in made])
        await asyncio.gather(*(api.delete(one.id) for one in made))
