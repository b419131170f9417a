"""Code travels along: the same faults as kinds of their own, `code-KIND` for KIND, and those that only code meets."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.faults import damage, disks, kills, network  # noqa: F401 - enter their kinds
from tests.faults.damage import DAMAGES, check_claim
from tests.faults.kinds import KINDS, Kind, kind
from tests.faults.trial import VoidError
from tests.rig import oracle
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.trial import Trial
    from tests.rig.oracle import Sent

BEGINNING = "code-"
PLAYED = (
    *("kill-local", "kill-local-anytime", "kill-runner", "kill-opencode", "kill-sshd", "reboot", "cut-up", "cut-down"),
    *("damage-outgoing", "damage-kept", "damage-back", "disk-full"),
)
"""Kinds that are played with code too."""
ENDED_S = 30.0


def _harmed(*files: str) -> tuple[str, ...]:
    return tuple(f"{file}:{harm}" for file in files for harm in DAMAGES)


Line = tuple[str, tuple[str, ...], str, str]
"""Kind without its beginning, points, mode and ending."""
_CODE_POINTS = ("code.before", "code.begun", "code.done", "code.after")
_SENT = ("runner.code.before", "runner.code.stored", "runner.code.unpacked", "runner.code.after")
_PACKED = ("runner.pack.before", "runner.pack.written", "runner.pack.after")

LINES: dict[str, tuple[Line, ...]] = {
    "bundle": (
        ("kill-local", ("pack.before", "pack.after", "record.after", "stage.begun"), "round-trip", "resume"),
        ("kill-local", ("launch.begun", *_CODE_POINTS, "release.begun", "release.done"), "round-trip", "resume"),
        ("kill-local", _CODE_POINTS, "one-way", "collect"),
        ("kill-local", ("follow.begun",), "round-trip", "cancel"),
        ("kill-local-anytime", ("1500", "2500"), "round-trip", "resume"),
        ("kill-runner", (*_SENT, "runner.run.running", *_PACKED, "runner.outcome.written"), "round-trip", "resume"),
        ("kill-runner", tuple(f"recovery:{point}" for point in _PACKED), "detached", "collect"),
        ("kill-opencode", ("SIGKILL",), "round-trip", "resume"),
        ("kill-sshd", ("stage.begun", "launch.begun", *_SENT[1:3], *_PACKED[1:2]), "round-trip", "resume"),
        ("kill-sshd", _CODE_POINTS, "round-trip", "resume"),
        ("reboot", (*_SENT[1:3], *_PACKED[1:2]), "round-trip", "resume"),
        ("cut-up", ("moving",), "round-trip", "resume"),
        ("cut-down", ("moving",), "round-trip", "resume"),
        ("cut-down", ("moving",), "one-way", "collect"),
        ("damage-outgoing", _harmed("code.bundle"), "round-trip", "resume"),
        (
            "damage-outgoing",
            ("param+code:empty", "param+code-snapshot:flip", "param+code-name:cut"),
            "one-way",
            "resume",
        ),
        ("damage-kept", ("code.bundle:flip", "code.bundle:empty"), "one-way", "resume"),
        ("damage-back", _harmed("back.bundle", "back-code"), "detached", "collect"),
        (
            "damage-back",
            ("back.bundle:flip", "back-code:swap", "back-sums:flip", "back-sums:empty"),
            "round-trip",
            "resume",
        ),
        ("disk-full", tuple(f"host-state:{point}" for point in (*_SENT[:2], *_PACKED[:2])), "round-trip", "resume"),
        ("disk-full", ("laptop-state:pack.before", "laptop-state:pack.after"), "round-trip", "resume"),
        ("disk-full", ("laptop-state:code.begun", "laptop-project:code.begun"), "round-trip", "resume"),
        ("exchanged", ("back.bundle", "back-code", "all"), "detached", "collect"),
        ("project", ("gone:first", "refs:first", "config:first", "objects:first"), "round-trip", "resume"),
        ("project", ("gone:record.after", "objects:record.after", "config:working"), "round-trip", "resume"),
        (
            "pair",
            ("runner.code.stored", "runner.code.unpacked", "runner.pack.written", "code.begun"),
            "round-trip",
            "resume",
        ),
    ),
    "archive": (
        ("kill-local", ("pack.after", "code.begun", "code.done"), "round-trip", "resume"),
        ("kill-local-anytime", ("2500",), "round-trip", "resume"),
        ("kill-runner", (*_SENT[2:3], *_PACKED[1:2]), "round-trip", "resume"),
        ("kill-runner", ("recovery:runner.pack.written",), "detached", "collect"),
        ("kill-sshd", (*_SENT[2:3], "code.begun"), "round-trip", "resume"),
        ("damage-outgoing", ("code.tar.gz:cut", "code.tar.gz:flip"), "round-trip", "resume"),
        ("damage-back", _harmed("back.tar.gz"), "detached", "collect"),
        ("disk-full", ("host-state:runner.code.before", "laptop-state:code.begun"), "round-trip", "resume"),
        ("pair", ("runner.pack.written",), "round-trip", "resume"),
    ),
}
"""What is played, by the task."""
SMOKE = frozenset(
    {
        ("code-kill-local", "code.done", "bundle"),
        ("code-kill-runner", "runner.code.stored", "bundle"),
        ("code-kill-runner", "runner.pack.written", "archive"),
        ("code-damage-back", "back.bundle:flip", "bundle"),
        ("code-project", "objects:first", "bundle"),
    }
)
"""Kind, point and task of those in the smoke set."""

KINDS.update(
    {
        BEGINNING + name: Kind(f"code travels along: {KINDS[name].title}", KINDS[name].inflict, KINDS[name].world)
        for name in PLAYED
    }
)


# --- two dispatches of one repository


@kind("code-pair", "code travels along: two dispatches of one repository at once, one process killed")
def pair(trial: Trial) -> None:
    """Whichever gets to the point first is killed there."""
    point = trial.scenario.point
    if point.startswith("runner."):
        trial.expected = kills.end_states_of_the_runner(point) | {"done"}
    order = trial.order(point, "kill")
    both = [trial.add(name) for name in ("kumo", "lima")]
    trial.before = trial.pictures()
    running = [trial.start(*trial.sending(sent)) for sent in both]
    trial.current = None
    for one in running:
        trial.note(one)
    if list(order.parent.glob(f"{point}*")) not in ([], [order.with_name(f"{point}.reached")]):
        raise VoidError(f"{point} was not reached")
    for sent in both:
        trial.run("collect", sent.name)


@kind("code-exchanged", "code travels along: the results of two dispatches exchanged on the host")
def exchanged(trial: Trial) -> None:
    """`point` is the file, or `all` with the list of digests. Nobody claims a success with what is not its own."""
    both = [trial.add(name) for name in ("kumo", "lima")]
    trial.before = trial.pictures()
    for sent in both:
        trial.run(*trial.sending(sent), "--detach")
    runs = trial.world.run_directories()
    wait_until(lambda: all((run / "outcome.json").exists() for run in runs), "no end", timeout_s=ENDED_S)
    names = ("back.bundle", "back-code", "back-sums") if trial.scenario.point == "all" else (trial.scenario.point,)
    for name in names:
        trial.on_heal(_exchange(runs[0] / name, runs[1] / name))
    for sent in both:
        check_claim(trial, trial.run("collect", sent.name))


def _exchange(one: Path, other: Path) -> Callable[[], None]:
    kept = {one: one.read_bytes(), other: other.read_bytes()}
    if len(set(kept.values())) == 1:
        raise VoidError(f"{one.name} is the same in both")

    def put_back() -> None:
        for path, content in kept.items():
            if path.parent.is_dir():
                path.write_bytes(content)

    one.write_bytes(kept[other])
    other.write_bytes(kept[one])
    return put_back


# --- what the host keeps from one dispatch to the next


@kind("code-project", "code travels along: what the host keeps of the project damaged between two dispatches")
def project(trial: Trial) -> None:
    """`point` is `DAMAGE:WHEN`: after a first dispatch, while it works, or when the second one stands at a point.

    The second one is done. Where it relies on what has gone meanwhile, or the first one still needs what is left, it is
    refused before anything runs, and another one is done later.
    """
    what, _, at = trial.scenario.point.partition(":")
    first = trial.add("first")
    trial.before = trial.pictures()
    if at == "working":
        trial.gate.unlink()
        trial.run(*trial.sending(first), "--detach")
    else:
        trial.run(*trial.sending(first))
    if at in ("first", "working"):
        _harm_project(trial, what)
        trial.run(*trial.commands()[0])
    else:
        _harm_meanwhile(trial, what, at)
    if at != "first":
        _check_refused(trial, first)


def _harm_meanwhile(trial: Trial, what: str, at: str) -> None:
    trial.order(at, "pause")
    running = trial.start(*trial.commands()[0])
    trial.current = None
    wait_until((trial.orders_here / f"{at}.reached").exists, f"{at} was not reached", timeout_s=ENDED_S)
    _harm_project(trial, what)
    trial.release(at)
    trial.note(running)


def _harm_project(trial: Trial, what: str) -> None:
    (store,) = (trial.world.host.home / oracle.STATE / "projects").glob("*.git")
    if what == "gone":
        shutil.rmtree(store)
    elif what == "refs":
        shutil.rmtree(store / "refs")
    elif what == "config":
        (store / "config").write_bytes(b"[core\n")
    else:
        for path in (store / "objects").rglob("*"):
            if path.is_file():
                path.chmod(0o600)
                path.write_bytes(path.read_bytes()[:20])


def _check_refused(trial: Trial, first: Sent) -> None:
    """Nothing ran, what the first one needs is still there, and the next one needs nothing of what is damaged."""
    said = trial.run("show", "kumo")
    found = said.data.get("state"), said.data.get("kind")
    assert found == ("failed", "code-refused"), f"it is {found}: {said.data}"
    trial.expected = frozenset({"done", "failed"})
    trial.gate.touch()
    for words in (("collect", first.name), trial.sending(trial.add("third"))):
        said = trial.run(*words)
        assert said.data.get("state") == "done", f"nor is `{words[0]}` done: {said.stdout} {said.stderr}"
