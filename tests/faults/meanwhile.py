"""What others do while a dispatch is away: the user at home, a second command of ours, and the provider there."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.faults.kills import reach_following
from tests.faults.kinds import kind
from tests.faults.trial import VoidError
from tests.rig import oracle, picture
from tests.rig.sshd import wait_until
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.trial import Trial
    from tests.rig.oracle import Said
    from tests.rig.world import Running

LATER_MS = 1000
SPREAD_S = 1.5
"""Within how long two commands are started."""


# --- the user at home


@kind("meanwhile", "the local session changed, deleted or busy meanwhile")
def meanwhile(trial: Trial) -> None:
    """`point` is `CHANGE:WHEN`. What was written at home stays; where the session moved on, the result is a copy.

    A sub-agent's session for which nothing comes back is not touched, so it may move on.
    """
    change, _, at = trial.scenario.point.partition(":")
    trial.until_paused(at)
    CHANGES[change](trial)
    look_again(trial)
    trial.release(at)
    trial.drive_to_the_end()
    said = trial.run("collect", "kumo")
    wanted = "whole" if change in ("deleted", "child", "renamed") else "copy"
    assert said.data.get("collected") == wanted, f"it arrived as {said.data.get('collected')}: {said.data}"


def look_again(trial: Trial) -> None:
    """What the user did is what was before: none of it may be lost."""
    laptop, host = trial.before
    here, there = trial.pictures()
    # A sub-agent's session that travelled and went on here only: the host's is an older one of the same, not a result.
    stayed = _gone_on(here, there) if trial.scenario.point.startswith("child") else set()
    trial.before = (
        replace(here, files=laptop.files),
        replace(
            host,
            sessions=host.sessions | {one: there.sessions[one] for one in stayed},
            messages=host.messages | {one: there.messages[one] for one in stayed},
        ),
    )


def _gone_on(here: picture.Picture, there: picture.Picture) -> set[str]:
    both = here.sessions.keys() & there.sessions.keys()
    return {one for one in both if here.sessions[one]["parent_id"] and here.messages[one] != there.messages[one]}


def go_on_at_home(trial: Trial, session: str) -> None:
    """Ask something in a local session, and get an answer."""
    import_turn(trial, session, {})


def import_turn(trial: Trial, session: str, info: dict[str, Any], *, after_ms: int | None = None) -> None:
    """Add a turn to a local session, behind this time or its last message.

    `info` changes fields of its answer; None takes one away.
    """
    transcript = trial.world.laptop.export(session)
    turn = a_transcript("said at home meanwhile", "answered at home", session_id=session)["messages"]
    newest = after_ms or max(message["info"]["time"]["created"] for message in transcript["messages"])
    for place, message in enumerate(turn, 1):
        times = message["info"]["time"]
        times |= dict.fromkeys(times, newest + place * LATER_MS)
    turn[-1]["info"] = {key: one for key, one in {**turn[-1]["info"], **info}.items() if one is not None}
    trial.world.laptop.bring_in({**transcript, "messages": turn})


def _delete(trial: Trial) -> None:
    trial.world.laptop.run("session", "delete", trial.session)


def _work_at_home(trial: Trial) -> None:
    """A turn that has not ended."""
    import_turn(trial, trial.session, {"finish": None, "time": {"created": int(time.time() * 1000)}})


def _take_back(trial: Trial) -> None:
    """Take the conversation back, as OpenCode's `undo` does until the next prompt."""
    first = trial.world.laptop.export(trial.session)["messages"][0]["info"]["id"]
    revert = json.dumps({"messageID": first})
    trial.world.laptop.query("update session set revert = ? where id = ?", revert, trial.session)


def _go_on_in_the_child(trial: Trial) -> None:
    children = trial.world.laptop.query("select id from session where parent_id = ?", trial.session)
    if not children:
        raise VoidError("the session has no sub-agent")
    go_on_at_home(trial, children[0]["id"])


def _rename(trial: Trial) -> None:
    trial.world.laptop.query("update session set title = 'another title' where id = ?", trial.session)


CHANGES: dict[str, Callable[[Trial], None]] = {
    "message": lambda trial: go_on_at_home(trial, trial.session),
    "deleted": _delete,
    "busy": _work_at_home,
    "reverted": _take_back,
    "child": _go_on_in_the_child,
    "renamed": _rename,
}


# --- a second command of ours


PAIRS = {
    "resume+resume": ("resume", "resume"),
    "collect+collect": ("collect", "collect"),
    "wait+cancel": ("wait", "cancel"),
    "collect+cancel": ("collect", "cancel"),
    "resume+remove": ("resume", "remove"),
}


@kind("together", "two commands on one dispatch at once")
def together(trial: Trial) -> None:
    """Started at random moments, while the run ends at another."""
    trial.gate.unlink()
    trial.run(*trial.commands()[0])
    if "cancel" in trial.scenario.point:
        trial.expected = frozenset({"done", "cancelled"})
    began = time.monotonic()
    plan = [(began + trial.random.uniform(0, SPREAD_S), word) for word in ("gate", *PAIRS[trial.scenario.point])]
    for running in [_at(trial, moment, word) for moment, word in sorted(plan)]:
        if running is not None:
            trial.note(running)
    if "remove" in trial.scenario.point and not trial.world.dispatch_folders():
        _check_that_it_was_home(trial)


def _at(trial: Trial, moment: float, word: str) -> Running | None:
    """At this moment open the gate, or start a command."""
    wait_until(lambda: time.monotonic() >= moment, "the clock stands still")
    if word == "gate":
        trial.gate.touch()
        return None
    return trial.world.start(word, "kumo", "--json")


def _check_that_it_was_home(trial: Trial) -> None:
    """A dispatch is forgotten without a word only when all of it is at home."""
    laptop, host = trial.pictures()
    there = [message.content for message in oracle.turn_of(host, trial.token)]
    here = [message.content for message in oracle.turn_of(laptop, trial.token)]
    assert there, "the run is gone"
    assert here == there, "it was removed before it was home"
    trial.expected, trial.is_unreadable = frozenset({"none"}), True


# --- the provider there


REFUSALS = {
    "fail-503": ("!fail 503", "failed", "provider_unavailable"),
    "fail-429": ("!fail 429", "failed", "rate_limited"),
    "fail-401": ("!fail 401", "failed", "auth_failed"),
    "reject": ("!reject", "failed", "rejected"),
    "deny": ("!deny rm -rf /", "done", None),
}


@kind("refused", "the provider or a permission refused, and our command killed")
def refused(trial: Trial) -> None:
    """`point` is `REFUSAL:WHERE`; the conversation comes home with the kind of the failure."""
    what, _, at = trial.scenario.point.partition(":")
    line, state, failure = REFUSALS[what]
    trial.expected = frozenset({state})
    words = list(trial.commands()[0])
    words[2] = "\n".join([f"Please see to {trial.token}.", "!say first", f"!wait {trial.gate}", line])
    reach_following(trial, at)
    order = trial.order(at, "kill")
    trial.start(*words)
    trial.drive_until(lambda: not order.exists() and trial.has_died(), at)
    assert trial.current is not None
    trial.note(trial.current)
    trial.current = None
    trial.gate.touch()
    trial.run(trial.scenario.ending, "kumo")
    _check_failure(trial.run("collect", "kumo"), failure)


def _check_failure(said: Said, failure: str | None) -> None:
    assert said.data.get("kind") == failure, f"it is {said.data.get('kind')}, not {failure}: {said.data}"
    assert said.data.get("collected") == "whole", f"{said.data.get('collected')} came home: {said.data}"
    if failure is None:
        assert said.exit_code == 3, f"nobody was told of the refused permission: {said.stdout}"
