"""One scenario at work: a world with sessions and work trees, a dispatch, a fault, the way out of it, the verdict."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from remote_dispatch.demo.provider import ScriptedModel
from tests.rig import oracle, picture
from tests.rig.oracle import Broken, Said, Sent, Work
from tests.rig.proxy import Proxy, redirect
from tests.rig.sshd import wait_until
from tests.rig.stub import a_transcript
from tests.rig.world import Running, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from random import Random

    from tests.faults.scenario import Scenario
    from tests.rig.world import Starter

COMMAND_S = 90.0
"""A command that takes longer hangs."""
SETTLED_S = 30.0
"""How soon a documented state has to be there once the host can be reached again."""
POINT_S = 60.0
RESTING_S = 8.0
"""How long processes may take to go after the last command."""
AGED_S = 2 * 3600
PACE_ON_REAL = 4
"""How much longer everything may take with the real OpenCode: a dispatch starts it 30 times, for a second of CPU."""
FAILPOINTS = "REMOTE_DISPATCH_FAILPOINTS"
WAITING = {False: "!wait {gate}", True: "!bash until [ -e {gate} ]; do sleep 0.1; done"}
EDIT = "echo there >>committed && echo there >>staged && rm renamed"
CODING = {
    "bundle": f"!bash {EDIT} && git commit --quiet --all --message 'Fix it'",
    "archive": f"!bash {EDIT}",
}
THE_REST = "!bash echo rest >left"
EDITED: Mapping[str, bytes | None] = {
    "committed": b"one, and changed\nthere\n",
    "staged": b"two\nthere\n",
    "renamed": None,
}
WORKS = {
    task: Work(subjects, EDITED, {**EDITED, "left": b"rest\n"})
    for task, subjects in (("bundle", ("Fix it",)), ("archive", ()))
}
NO_GIT = "#!/bin/sh\nexit 127\n"
LONG_OUTPUT = {False: f"!output tool_{'A' * 26} a long text", True: "!bash seq 20000"}
"""Of the stub, and of the real OpenCode with the scripted model."""


class VoidError(Exception):
    """The fault of a scenario did not happen: it proves nothing."""


class SkippedError(Exception):
    """This machine cannot play the scenario."""


class HangError(Exception):
    """A command did not end."""


@dataclass(slots=True)
class Trial:
    """What a fault works with; use as a context manager.

    `expected` are the states that are right in the end: `none` stands for a dispatch that was never recorded.
    `has_proxy` puts a proxy before the host. `opencode` is a real OpenCode in place of the stub.
    """

    scenario: Scenario
    directory: Path
    starter: Starter | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    has_proxy: bool = False
    opencode: Path | None = None
    expected: frozenset[str] = frozenset({"done"})
    changed: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    is_unreadable: bool = False
    limit_s: float = SETTLED_S
    said: list[Said] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    current: Running | None = None
    further: list[tuple[str, ...]] = field(default_factory=list)
    """What the user does when the usual commands have ended."""
    random: Random = field(init=False)
    world: World = field(init=False)
    proxy: Proxy = field(init=False)
    session: str = field(init=False)
    token: str = field(init=False)
    before: tuple[picture.Picture, picture.Picture] = field(init=False)
    _heals: list[Callable[[], None]] = field(default_factory=list)
    _waiting: list[tuple[str, ...]] = field(default_factory=list)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        self.random = self.scenario.random()
        self.token = f"token-{self.random.getrandbits(40):010x}"
        for orders in (self.orders_here, self.orders_there):
            orders.mkdir(parents=True)
        variables = {FAILPOINTS: str(self.orders_there)}
        options = {**self._real_options(), **self.options}
        world = World(self.directory, starter=self.starter, host_variables=variables, **options)
        self.world = self._stack.enter_context(world)
        if self.has_proxy:
            self.proxy = self._stack.enter_context(Proxy(world.sshd.port))
            redirect(world.laptop.home, world.sshd.port, self.proxy.port)
        self._furnish()
        self.before = self.pictures()
        return self

    def __exit__(self, *_: object) -> None:
        for heal in self._heals:
            with contextlib.suppress(OSError):
                heal()
        self._stack.close()

    # --- the world

    @property
    def orders_here(self) -> Path:
        """Where the points of the laptop are ordered."""
        return self.directory / "orders-here"

    @property
    def orders_there(self) -> Path:
        """Where the points of the runner are ordered."""
        return self.directory / "orders-there"

    @property
    def gate(self) -> Path:
        """The file that the task waits for."""
        return self.world.host.home / "gate"

    @property
    def run_directory(self) -> Path:
        """The only run directory on the host."""
        return self.world.run_directories()[-1]

    @property
    def folder(self) -> Path:
        """The only dispatch on the laptop."""
        return self.world.dispatch_folders()[-1]

    @property
    def pace(self) -> int:
        """By what every limit of time is multiplied."""
        return 1 if self.opencode is None else PACE_ON_REAL

    @property
    def requests(self) -> Path:
        """Where the scripted model notes what it was asked, one JSON object a line."""
        return self.directory / "requests.jsonl"

    def _real_options(self) -> dict[str, Any]:
        """Start the model that a real OpenCode asks; the stub needs none."""
        if self.opencode is None:
            return {}
        model = self._stack.enter_context(ScriptedModel(log=self.requests))
        # By another name than the host's address: OpenCode stores the URL of a provider that fails.
        return {"opencode": self.opencode, "model_url": model.url.replace("127.0.0.1", "localhost")}

    def _furnish(self) -> None:
        """Two sessions at home and one on the host, work trees on both sides, and an open gate."""
        for machine in (self.world.laptop, self.world.host):
            shutil.rmtree(machine.project)
            shutil.copytree(_work_tree(), machine.project, symlinks=True)
            machine.bring_in(a_transcript("something else", "quite another answer"))
        if self.scenario.task == "archive":
            self.world.host.put_program("git", NO_GIT)
        self.session = self.world.local_session(*self._texts())
        if self.scenario.task == "rich":
            child = a_transcript("look into it", "looked", parent_id=self.session)
            self.world.laptop.bring_in(child)
        self.gate.touch()

    def _texts(self) -> tuple[str, ...]:
        if self.scenario.point.startswith("large"):
            return ("hello", self.random.randbytes(400_000).hex())
        return ("hello", "hi there")

    def prompt(self, token: str) -> str:
        """What the model on the host is asked for."""
        is_real = self.opencode is not None
        first = {
            "say": ["!say first"],
            "tool": ["!say first", "!bash echo worked"],
            "child": ["!say first", "!task a part of it"],
            "rich": ["!say first", "!todo one;two", "!task a part of it", "!write task-file some text",
                     LONG_OUTPUT[is_real], "!bash echo worked"],
            **{task: ["!say first", line] for task, line in CODING.items()},
        }[self.scenario.task]  # fmt: skip
        waiting = WAITING[is_real].format(gate=self.gate)
        rest = [THE_REST] if self.scenario.has_code else []
        return "\n".join([f"Please see to {token}.", *first, waiting, *rest, "!say the answer"])

    # --- orders

    def order(self, point: str, action: str) -> Path:
        """Have a point killed or paused; returns the order, which goes when the point is reached."""
        place = self.orders_there if point.startswith("runner.") else self.orders_here
        order = place / point
        order.write_text(action)
        return order

    def release(self, point: str) -> None:
        """Let a paused point go on."""
        place = self.orders_there if point.startswith("runner.") else self.orders_here
        (place / f"{point}.go").touch()

    def until_paused(self, point: str) -> None:
        """Drive the dispatch until it stands at this point."""
        order = self.order(point, "pause")
        self.drive_until(Path(f"{order}.reached").exists, point)

    def has_died(self) -> bool:
        """Whether the current command was killed."""
        return self.current is not None and self.current.process.poll() == -signal.SIGKILL

    def until_obeyed(self, point: str) -> None:
        """Drive the dispatch until the runner was killed at this point: it takes the order away under another name."""
        self.order(point, "kill")
        self.drive_until(lambda: not list(self.orders_there.glob(f"{point}*")), point)

    # --- the dispatch

    def commands(self) -> list[tuple[str, ...]]:
        """The commands that an undisturbed user gives."""
        self.sent.append(Sent("kumo", self.session, self.token))
        send = self.sending(self.sent[-1])
        if self.scenario.mode == "one-way":
            return [send, ("collect", "kumo")]
        if self.scenario.mode == "detached":
            return [(*send, "--detach"), ("wait", "kumo")]
        return [send]

    def sending(self, sent: Sent) -> tuple[str, ...]:
        """Return the command that sends it."""
        mode = "one-way" if self.scenario.mode == "one-way" else "round-trip"
        words = ("send", "pi", self.prompt(sent.token), "--session", sent.session, "--name", sent.name, "--mode", mode)
        return (*words, "--code", "carry") if self.scenario.has_code else words

    def drive_until(self, condition: Callable[[], bool], what: str) -> None:
        """Give command after command until this is so. Raises VoidError where it never is."""
        if not self.sent:
            self._waiting = [*self.commands(), *self.further]
        end = time.monotonic() + POINT_S * self.pace
        while not condition():
            if self.current is None or self.current.process.poll() is not None:
                # It may have ended since the condition was asked.
                if condition():
                    return
                self._note_end()
                if condition():
                    return
                if not self._waiting or (self.said and self.said[-1].exit_code < 0):
                    raise VoidError(f"{what} did not happen")
                self.start(*self._waiting.pop(0))
            if time.monotonic() > end:
                raise VoidError(f"{what} did not happen in time")
            time.sleep(0.01)

    def drive_to_the_end(self) -> None:
        """Give all commands of an undisturbed user."""
        with contextlib.suppress(VoidError):
            self.drive_until(lambda: False, "")

    def start(self, *arguments: str, **options: Any) -> Running:
        """Start a command; it becomes the current one."""
        variables = {FAILPOINTS: str(self.orders_here), **options.pop("variables", {})}
        self.current = self.world.start(*arguments, "--json", variables=variables, **options)
        return self.current

    def _note_end(self) -> None:
        if self.current is not None:
            running, self.current = self.current, None
            self.note(running)

    def note(self, running: Running, timeout_s: float = COMMAND_S) -> Said:
        """Wait for the end of a command and keep what it said."""
        try:
            ran = running.end(timeout_s * self.pace)
        except subprocess.TimeoutExpired as error:
            words = " ".join(running.arguments)
            raise HangError(
                f"`{words}` still ran after {timeout_s * self.pace:.0f} s: {running.stderr()[-400:]}"
            ) from error
        self.said.append(Said(ran.arguments, ran.exit_code, ran.stdout, ran.stderr))
        return self.said[-1]

    def run(self, *arguments: str) -> Said:
        """Give a command and wait for its end."""
        variables = {FAILPOINTS: str(self.orders_here)}
        return self.note(self.world.start(*arguments, "--json", variables=variables))

    def add(self, name: str) -> Sent:
        """Make one more session, and note that it is dispatched under this name, with a prompt of its own."""
        sent = Sent(name, self.world.local_session("hello", f"hi from {name}"), f"{name}-of-{self.scenario.seed}")
        self.sent.append(sent)
        return sent

    def linger(self, seconds: float) -> None:
        """Let the fault last: until the current command gives up, at most so long."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self.current is not None:
                self.current.process.wait(seconds)

    def keep(self, resource: contextlib.AbstractContextManager[object]) -> None:
        """Enter something that is left at the very end, before the world."""
        self._stack.enter_context(resource)

    def look_again(self) -> None:
        """Take what is at home now, which the scenario itself changed, for what was there before."""
        self.before = (self.pictures()[0], self.before[1])

    # --- after the fault

    def on_heal(self, heal: Callable[[], None]) -> None:
        """Have this done when the fault is over, and in any case at the end."""
        self._heals.append(heal)

    def heal(self) -> None:
        """Put everything right again; nothing of ours is ended."""
        heals, self._heals = self._heals, []
        for heal in reversed(heals):
            heal()
        self.gate.touch()
        for orders in (self.orders_here, self.orders_there):
            for order in list(orders.iterdir()):
                if order.suffix == ".reached":
                    order.with_suffix(".go").touch()
                elif order.suffix != ".go":
                    order.unlink(missing_ok=True)

    def settle(self) -> float:
        """Finish the dispatch with documented commands; returns the seconds until its state was there."""
        began = time.monotonic()
        if self.current is not None:
            self._note_end()
        for sent in self.sent:
            self.run(self.scenario.ending, sent.name)
        settled_s = time.monotonic() - began
        for sent in self.sent:
            if self.scenario.ending != "collect":
                self.run("collect", sent.name)
        return settled_s

    def judge(self, settled_s: float) -> list[Broken]:
        """Compare with what was before, repeat the commands, prune, and look again."""
        final = {sent.name: self.run("show", sent.name).data for sent in self.sent}
        after = self.pictures()
        mark = len(self.said)
        for sent in self.sent:
            self.run("collect", sent.name)
        self.run("resume")
        broken = [*oracle.repeated(after, self.pictures(), self.said[mark:]), *self._tidy(final.values())]
        if settled_s > self.limit_s * self.pace:
            broken.append(Broken("I5 states", f"it took {settled_s:.0f} s"))
        return [*oracle.judge(self._case(final, after)), *broken]

    def _case(self, final: dict[str, dict[str, Any]], after: tuple[picture.Picture, picture.Picture]) -> oracle.Case:
        return oracle.Case(
            before=self.before,
            after=after,
            sent=self.sent,
            said=self.said,
            secrets=self.secrets(),
            final=final,
            expected=self.expected,
            changed=frozenset(self.changed),
            gone=frozenset(self.gone),
            is_unreadable=self.is_unreadable,
            work=WORKS.get(self.scenario.task),
            asked=None if self.opencode is None else tuple(oracle.first_requests(self.requests)),
        )

    def _tidy(self, shown: Iterable[dict[str, Any]]) -> list[Broken]:
        """Nothing is left after `prune`. What a killed command left counts as garbage once it is old."""
        there = self.world.host.home / oracle.STATE
        _age(self.world.laptop.home / oracle.STATE, self.world.host.home / ".cache", there / "work", there / "projects")
        names = [one["name"] for one in shown if one.get("collected") in ("whole", "copy", "partial")]
        for name in names:
            self.run("verify", name)
        self.run("prune")
        homes = (self.world.laptop.home, self.world.host.home)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not any(map(picture.living, homes)), "", timeout_s=RESTING_S * self.pace)
        open_ids = [one["id"] for one in shown if "id" in one and not _is_home(one)]
        return list(oracle.leftovers(self.before, homes, open_ids))

    def pictures(self) -> tuple[picture.Picture, picture.Picture]:
        """Look at both machines."""
        laptop, host = self.world.laptop, self.world.host
        here = picture.look(laptop.home, laptop.project, has_history=self.scenario.has_code)
        return here, picture.look(host.home, host.project)

    def secrets(self) -> tuple[str, ...]:
        """What must appear in nothing that a model can read."""
        return (*self.world.secrets, *([str(self.proxy.port)] if self.has_proxy else []))


def _is_home(shown: dict[str, Any]) -> bool:
    is_code_due = (shown.get("code") or {}).get("home") in ("away", "partial", "lost")
    return shown.get("collected") in ("whole", "copy") and not is_code_due


def _age(*places: Path) -> None:
    for place in places:
        for directory, names, files in os.walk(place):
            for name in (*names, *files):
                path = Path(directory, name)
                with contextlib.suppress(OSError):
                    state = path.lstat()
                    times = (state.st_atime - AGED_S, state.st_mtime - AGED_S)
                    os.utime(path, times, follow_symlinks=False)


@cache
def _work_tree() -> Path:
    """A git repository with a commit and every kind of change in it; made once, copied often."""
    place = Path(tempfile.mkdtemp(prefix="work-tree-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(place),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        **{f"GIT_{who}_{what}": "rig@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", *arguments], cwd=place, env=environment, check=True, stdin=subprocess.DEVNULL, capture_output=True
        )

    git("init", "-q", "-b", "main", "--template=")
    (place / "committed").write_text("one\n")
    (place / "named").write_text("a name\n")
    (place / ".gitignore").write_text("*.log\n")
    git("add", "--all")
    git("commit", "-q", "-m", "first")
    (place / "staged").write_text("two\n")
    (place / "staged").chmod(0o755)
    git("add", "staged")
    git("mv", "named", "renamed")
    (place / "link").symlink_to("committed")
    (place / "ignored.log").write_text("ignored\n")
    (place / "committed").write_text("one, and changed\n")
    (place / "untracked").write_text("three\n")
    return place
