"""Dispatches in any order of commands, crashes and mishaps: nothing is lost, nothing runs twice, nothing is claimed.

Every rule is what a user, a crash or a power cut does; after each of them an independent judge looks (eyes.py). The
examples are the same ones each time; REMOTE_DISPATCH_TEST_EXAMPLES asks for more of them.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from remote_dispatch.dispatch import Goal, ask, cancel, goal_of, record_dispatch, silent
from remote_dispatch.dispatch.carry_on import carry_on
from remote_dispatch.dispatch.journal import POINTS
from remote_dispatch.dispatch.prune import prune
from remote_dispatch.dispatch.remove import loss_of, remove
from remote_dispatch.model import DispatchRequest, Mode
from remote_dispatch.runner.points import RECOVERY_POINTS, RUNNER_POINTS
from tests.machine.eyes import RANKS, Eyes, at_home, has_answer, task_of, tasks
from tests.machine.places import HOST, Places, damage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.machine.child import Ended

EXAMPLES = int(os.environ.get("REMOTE_DISPATCH_TEST_EXAMPLES", "0"))
STEPS = 15
PARTS = 4
"""Each has a seed of its own, and may run beside the others."""
ENDS = {"done", "failed", "cancelled", "lost"}
REFUSALS = {"deadline", "diverged", "host-not-ready", "task-failed", "unknown-name"}
"""What a command may answer when something else was done to its dispatch. What else it says is an error of ours."""

_OUTWARD = ("plan", "record", "stage", "launch")
SENDING = tuple(point for point in POINTS if point.startswith(_OUTWARD))
HOMEWARD = tuple(point for point in POINTS if not point.startswith(_OUTWARD))
LATE = RUNNER_POINTS[RUNNER_POINTS.index("runner.started.after") :]
TASKS = {
    "say": "",
    "wait": "!wait {gate}\n",
    "sub-agent": "!task look into <{number}>\n",
    "todos": "!todo one <{number}>;two\n",
}

WORDS = ("resume", "collect", "cancel", "look")
tasks_to_give = st.sampled_from(sorted(TASKS))
which = st.integers(0, 2)
"""Which session or dispatch: 0 is the newest."""


def sometimes(*points: str) -> st.SearchStrategy[str | None]:
    """Nothing in every other case, else one of these points."""
    return st.one_of(st.none(), st.sampled_from(points))


class Dispatching(RuleBasedStateMachine):
    """One laptop, one host, some sessions and their dispatches."""

    places: Places

    def __init__(self) -> None:
        super().__init__()
        self.places.begin()
        self.eyes = Eyes(self.places)
        self.sessions = [self.places.add_session()]
        self.names: list[str] = []
        self.deleted: set[str] = set()
        """Sessions that the user deleted: what came home into them before is gone on purpose."""
        self.moved_on: set[str] = set()
        """Dispatches whose sessions went on here before anything of the result was home."""
        self.removed: set[str] = set()
        """Sessions of dispatches that were removed or pruned."""
        self.is_disturbed = self.is_damaged = False
        self.said: set[str] = set()

    # --- commands

    @initialize(
        task=tasks_to_give, killed_at=sometimes(*POINTS), runner_killed_at=sometimes(*RUNNER_POINTS, *LATE, *LATE)
    )
    def send_first(self, task: str, killed_at: str | None, runner_killed_at: str | None) -> None:
        self._order_runner(runner_killed_at)
        self._send(0, task, mode=Mode.ROUND_TRIP, killed_at=killed_at)

    @rule(
        session=which,
        task=tasks_to_give,
        mode=st.sampled_from(Mode),
        is_copy=st.booleans(),
        killed_at=sometimes(*POINTS),
        runner_killed_at=sometimes(*RUNNER_POINTS, *LATE, *LATE),
    )
    def send(
        self, session: int, task: str, mode: Mode, is_copy: bool, killed_at: str | None, runner_killed_at: str | None
    ) -> None:
        self._order_runner(runner_killed_at)
        self._send(session, task, mode=mode, is_copy=is_copy, killed_at=killed_at)

    @rule(session=which, task=tasks_to_give, killed_at=sometimes(*SENDING))
    def send_detached(self, session: int, task: str, killed_at: str | None) -> None:
        self._send(session, task, mode=Mode.ROUND_TRIP, is_detached=True, killed_at=killed_at)

    @rule(
        word=st.sampled_from([*WORDS, "collect"]),
        dispatch=which,
        killed_at=sometimes(*HOMEWARD),
        recovery_killed_at=sometimes(*RECOVERY_POINTS),
    )
    def tell(self, word: str, dispatch: int, killed_at: str | None, recovery_killed_at: str | None) -> None:
        self._order_runner(recovery_killed_at)
        self.said.add(word)
        if record := self._record(dispatch):
            self._do(partial(self._command, word, record["name"]), killed_at=killed_at)

    @rule(dispatch=which, words=st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)))
    def tell_at_once(self, dispatch: int, words: tuple[str, str]) -> None:
        self.said |= set(words)
        record = self._record(dispatch)
        if record:
            children = [self.places.start(partial(self._command, word, record["name"])) for word in words]
            for ended in [child.finish() for child in children]:
                self._judge(ended, None)

    @rule(dispatch=st.one_of(st.none(), which))
    def clear(self, dispatch: int | None) -> None:
        """Remove one dispatch, or prune."""
        if dispatch is None:
            before = self.eyes.records()
            for name in self._do(self._prune).value:
                is_spare = before[name]["collected"] != "none" or not self._has_run(before[name])
                assert is_spare, f"{name} was the only copy"
                self._forget(before[name])
        elif (record := self._record(dispatch)) and not self._do(partial(self._remove, record["name"])).error:
            self._forget(record)

    # --- the user at the laptop, and mishaps

    @rule(what=st.sampled_from(["go on", "go on", "end the call", "begin", "begin and ask", "delete"]), session=which)
    def here(self, what: str, session: int) -> None:
        one = self._session(session)
        if what == "go on":
            self._go_on(one)
        elif what == "end the call" and self.places.end_call(one):
            self.eyes.forget_contents(one)
        elif what == "delete":
            self.deleted.add(one)
            self.places.delete(one)
            self.eyes.forget(one)
        elif what.startswith("begin"):
            self.sessions.append(self.places.add_session(is_asking=what != "begin"))

    @rule(what=st.sampled_from(["let go", "let go", "kill runner", "kill opencode", "reboot"]), dispatch=which)
    def there(self, what: str, dispatch: int) -> None:
        record = self._record(dispatch)
        if what == "reboot":
            self.places.reboot()
        elif record and what == "let go":
            self._gate(record["name"]).touch()
        elif record:
            (self.places.kill_runner if what == "kill runner" else self.places.kill_opencode)(record["id"])
        self.is_disturbed |= what != "let go"

    @rule(dispatch=which, what=st.sampled_from(["back.json.gz", "outgoing/session.json.gz", "outgoing/brief.txt"]))
    def damage_kept_file(self, dispatch: int, what: str) -> None:
        record = self._record(dispatch)
        if record and damage(self.places.store.folder(record["id"]).path / what):
            self.is_disturbed = self.is_damaged = True

    # --- judgement

    @invariant()
    def holds(self) -> None:
        self.eyes.look()

    def teardown(self) -> None:
        try:
            self._bring_everything_home()
        finally:
            self.places.end()

    def _bring_everything_home(self) -> None:
        for order in self.places.points.iterdir():
            order.unlink()
        for name in self.names:
            self._gate(name).touch()
        self._settle()
        before = self.eyes.snapshot()
        self._settle()
        assert self.eyes.snapshot() == before, "the second time changed something"
        for record in self.eyes.records().values():
            self._is_home(record)
        self._nothing_is_left()

    def _settle(self) -> None:
        for name in self.eyes.records():
            for goal in (None, Goal.HOME):
                self._do(partial(self._carry_on, name, goal, 30))
        self.eyes.look()

    def _is_home(self, record: dict[str, Any]) -> None:
        name, state = record["name"], record["history"][-1]["state"]
        assert state in ENDS, f"{name} is {state} after all"
        assert state == "done" or self.is_disturbed or "cancel" in self.said, f"{name} is {state} for no reason"
        if not self._has_run(record) or self._was_deleted(record):
            return
        local, remote = self.eyes.local(), self.eyes.remote()
        assert task_of(record) in tasks(at_home(record, local)), f"what {name} brought about is not at home"
        if has_answer(record, remote, record["travel"]["session_id"]):
            assert has_answer(record, local), f"the answer of {name} is not at home"
        self._is_where_it_belongs(record)

    def _is_where_it_belongs(self, record: dict[str, Any]) -> None:
        """A result is a copy where one was asked for, or where the session went on meanwhile; otherwise never."""
        request, session = record["request"], record["request"]["session_id"]
        others = [one for one in self.eyes.records().values() if one["request"]["session_id"] == session]
        if session in self.deleted or len(others) + len(self.removed & {session}) > 1 or not record["new_messages"]:
            return
        is_expected = request["is_copy"] or record["name"] in self.moved_on
        assert (record["copy_session_id"] is not None) == is_expected, f"{record['name']} is in the wrong place"

    def _was_deleted(self, record: dict[str, Any]) -> bool:
        return record["collected"] != "none" and (record["copy_session_id"] or record["session_id"]) in self.deleted

    def _has_run(self, record: dict[str, Any]) -> bool:
        """Whether its brief stands on the host."""
        there = record["travel"]["session_id"]
        return task_of(record) in tasks(self.eyes.remote().get(there, []))

    def _forget(self, record: dict[str, Any]) -> None:
        """A dispatch was taken away: nothing of it may be left on either side."""
        self.eyes.forget_dispatch(record["name"])
        self.removed.add(record["request"]["session_id"])
        assert not self.places.store.folder(record["id"]).path.exists(), "files of a removed dispatch are here"
        assert not self.places.run_directory(record["id"]).exists(), "its run directory is there"

    def _nothing_is_left(self) -> None:
        self._do(self._prune)
        kept = {record["id"] for record in self.eyes.records().values()}
        assert {path.name for path in self.places.runs_root.glob("*")} <= kept, "a run directory is left"
        assert {path.name for path in self.places.store.root.glob("*")} == kept, "a folder is left"
        assert not list(self.places.host.home.rglob("*.part")), "half a file is left"
        assert not list((self.places.store.root.parent / "locks").glob("*")), "a lock is left"

    # --- helpers

    def _away(self, session: str) -> list[dict[str, Any]]:
        """The records of the dispatches of a session that are not home."""
        return [
            one
            for one in self.eyes.records().values()
            if one["request"]["session_id"] == session and one["collected"] == "none"
        ]

    def _session(self, place: int) -> str:
        return self.sessions[-1 - place % len(self.sessions)]

    def _record(self, place: int) -> dict[str, Any] | None:
        """The record of a dispatch; None where it was never recorded, or is gone."""
        return self.eyes.records().get(self.names[-1 - place % len(self.names)])

    def _send(
        self, session: int, task: str, *, killed_at: str | None, is_detached: bool = False, **fields: Any
    ) -> None:
        number = len(self.names) + 1
        name = f"d-{number}"
        words = TASKS[task].format(number=number, gate=self._gate(name))
        request = DispatchRequest(
            host=HOST,
            session_id=self._session(session),
            prompt=f"{words}!say answer <{number}>",
            local_directory=self.places.laptop.project,
            name=name,
            is_forced=True,
            **fields,
        )
        self.names.append(name)
        is_calm = not self.is_disturbed
        ended = self._do(partial(self._sent, request, is_detached=is_detached or task == "wait"), killed_at=killed_at)
        if is_calm and not ended.is_killed and ended.error not in ("diverged", "unknown-name"):
            wanted = "running" if is_detached or task == "wait" or request.mode is Mode.ONE_WAY else "done"
            assert RANKS[ended.value or "new"] >= RANKS[wanted], f"{name} was sent, and is not {wanted}: {ended}"

    def _go_on(self, session: str) -> None:
        local = self.eyes.local()
        if session in local:
            here = tasks(local[session])
            self.moved_on |= {away["name"] for away in self._away(session) if task_of(away) not in here}
            self.places.add_turn(session)

    async def _command(self, word: str, name: str) -> str:
        if word == "look":
            return await self._ask(name)
        if word == "cancel":
            return await self._cancel(name)
        return await self._carry_on(name, Goal.HOME if word == "collect" else None)

    def _gate(self, name: str) -> Any:
        return self.places.host.home / f"gate-{name}"

    def _order_runner(self, point: str | None) -> None:
        if point is not None:
            self.is_disturbed = True
            (self.places.points / point).write_text("kill")

    def _do(self, action: Callable[[], Awaitable[Any]], *, killed_at: str | None = None) -> Ended:
        ended = self.places.call(action, killed_at=killed_at)
        self._judge(ended, killed_at)
        return ended

    def _judge(self, ended: Ended, killed_at: str | None) -> None:
        assert ended.status == 0 or (ended.is_killed and killed_at), ended
        allowed = REFUSALS | ({"integrity"} if self.is_damaged else set())
        assert ended.error is None or ended.error in allowed, f"{ended.error}: {ended.message}"

    async def _sent(self, request: DispatchRequest, *, is_detached: bool) -> str:
        async with self.places.link() as link:
            record = await record_dispatch(request, link, self.places.store, self.places.program, silent)
            goal = Goal.LAUNCHED if is_detached else goal_of(record)
            return str((await self._go(record.name, link, goal, 20)).state)

    async def _carry_on(self, name: str, goal: Goal | None = None, timeout_s: float = 2) -> str:
        async with self.places.link() as link:
            return str((await self._go(name, link, goal, timeout_s)).state)

    async def _go(self, name: str, link: Any, goal: Goal | None, timeout_s: float) -> Any:
        store = self.places.store
        record = store.load(name)
        wanted = goal or goal_of(record)
        return await carry_on(record, link, store, self.places.program, silent, goal=wanted, timeout_s=timeout_s)

    async def _ask(self, name: str) -> str:
        async with self.places.link() as link:
            return str((await ask(self.places.store.load(name), link, self.places.store)).state)

    async def _cancel(self, name: str) -> str:
        async with self.places.link() as link:
            return str((await cancel(self.places.store.load(name), link, self.places.store)).state)

    async def _remove(self, name: str) -> list[str]:
        record = self.places.store.load(name)
        async with self.places.link() as link:
            loss = await loss_of(record, link, self.places.store)
            await remove(record, link, self.places.store)
        return list(loss.lines)

    async def _prune(self) -> list[str]:
        return (await prune(self.places.store, self.places.link)).removed


@pytest.fixture
def places(tmp_path: Any) -> Iterator[Places]:
    made = Places(tmp_path)
    yield made
    made.end()


@pytest.mark.whole
@pytest.mark.timeout(0 if EXAMPLES else 900)
@pytest.mark.parametrize("number", range(PARTS))
def test_dispatches_survive_everything_in_any_order(places: Places, number: int) -> None:
    machine = seed(number)(type("Machine", (Dispatching,), {"places": places}))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, (EXAMPLES or 8) // PARTS),
            stateful_step_count=STEPS,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
