"""A live dispatch: a server on the host works on the session; it is answered, talked to, and comes home."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import DISPATCH_S, answers, stored, tool_parts
from tests.rig import picture
from tests.rig.sshd import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.real.conftest import Machines
    from tests.rig.world import Ran

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

BRIEF = "!bash echo asked\n!say finished there"


def test_a_live_dispatch_survives_two_kills_is_answered_and_talked_to_and_comes_home(
    machines: Machines, tmp_path: Path
) -> None:
    session = machines.session("hello", "at home")
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"bash": "ask"}))
    chosen = ("--session", session, "--live", "--mode", "round-trip", "--permission-rules", str(rules), "--json")
    killed(machines, tmp_path, "prompt.ready", "send", "pi", BRIEF, *chosen)
    name = machines.command("list").data["dispatches"][-1]["name"]
    killed(machines, tmp_path, "prompt.sent", "resume", name, "--json")
    waiting = collected_too_early(machines, name)
    assert (waiting.exit_code, waiting.error["kind"]) == (7, "answer-needed"), waiting.stderr
    assert f"remote-dispatch session requests {name}" in waiting.error["hint"]

    answer_the_only_request(machines, name)
    talk_once_it_is_free(machines, name, "talked to once more")
    ran = machines.command("collect", name)
    assert (ran.exit_code, ran.data["state"], ran.data["session_id"]) == (0, "done", session), ran.stderr
    after = stored(machines.laptop, session)
    assert answers(after) == ["at home", "finished there", "talked to once more"]
    assert [part["state"]["status"] for part in tool_parts(after, "bash")] == ["completed"]
    assert_the_brief_ran_once(machines, session)
    lives_on(machines, name)


def killed(machines: Machines, tmp_path: Path, point: str, *arguments: str) -> None:
    """Run a command that dies at this point as by SIGKILL."""
    orders = tmp_path / "orders"
    orders.mkdir(exist_ok=True)
    (orders / point).write_text("kill")
    variables = {"REMOTE_DISPATCH_FAILPOINTS": str(orders)}
    running = machines.world.start(*arguments, variables=variables)
    assert running.process.wait(timeout=DISPATCH_S) == -9, running.stderr()


def collected_too_early(machines: Machines, name: str) -> Ran:
    """Collect it without waiting, until it has come so far that it asks."""
    for _ in range(20):
        ran = machines.command("collect", "--no-wait", name)
        if ran.exit_code != 6:
            break
    return ran


def answer_the_only_request(machines: Machines, name: str) -> None:
    listed = machines.command("session", "requests", name)
    (request,) = listed.data["requests"]
    replied = machines.command("session", "reply", name, request["id"], "once")
    assert replied.exit_code == 0, replied.stderr


def talk_once_it_is_free(machines: Machines, name: str, words: str) -> None:
    """Prompt it when its turn is over, as who watches it does."""
    assert machines.command("session", "watch", name).exit_code == 0
    talked = machines.command("session", "send", name, f"!say {words}")
    assert (talked.exit_code, talked.data["answer"]) == (0, words), talked.stderr


def assert_the_brief_ran_once(machines: Machines, session: str) -> None:
    after = stored(machines.laptop, session)
    texts = [part.get("text", "") for message in after["messages"] for part in message["parts"]]
    assert sum("This conversation was handed over" in text for text in texts) == 1
    opened = [call for call in machines.calls(session) if len(call.messages) == 3 and not call.is_title]
    assert len(opened) == 1


def lives_on(machines: Machines, name: str) -> None:
    """The session stays on its server under its name, and goes on there."""
    talk_once_it_is_free(machines, name, "still here")
    assert machines.command("session", "server", "stop", "pi").exit_code == 0


EACH_POINT = (
    (("before", "begun", "ready", "sent", "done"), ("before", "begun", "done")),
    (("after",), ("after",)),
)
"""Of the brief and of its turn, one kill after another; what lies behind `done` is not begun again after it."""


@pytest.mark.slow
@pytest.mark.parametrize(("of_the_brief", "of_the_turn"), EACH_POINT, ids=["to done", "after"])
def test_a_live_dispatch_killed_at_every_point_of_its_turn_says_its_brief_once_and_comes_home(
    machines: Machines, tmp_path: Path, of_the_brief: tuple[str, ...], of_the_turn: tuple[str, ...]
) -> None:
    session = machines.session("hello", "at home")
    send = ("send", "pi", "!say finished there", "--session", session, "--live", "--mode", "round-trip", "--json")
    killed(machines, tmp_path, f"prompt.{of_the_brief[0]}", *send)
    name = machines.command("list").data["dispatches"][-1]["name"]
    for point in of_the_brief[1:]:
        killed(machines, tmp_path, f"prompt.{point}", "resume", name, "--json")
    for point in of_the_turn:
        killed(machines, tmp_path, f"turn.{point}", "collect", name, "--json")
    assert_it_came_home(machines, name, session)


@pytest.mark.slow
def test_a_live_dispatch_whose_runner_and_server_are_killed_in_its_turn_comes_home_with_what_was_stored(
    machines: Machines,
) -> None:
    session = machines.session("hello", "at home")
    brief = "!say half of it\n!bash sleep 60\n!say never"
    sent = machines.command("send", "pi", brief, "--session", session, "--live", "--detach")
    assert sent.exit_code == 0, sent.stderr
    name = machines.command("list").data["dispatches"][-1]["name"]
    end_all_on_the_host(machines)
    ran = machines.command("collect", name)
    assert (ran.exit_code, ran.data["state"], ran.data["session_id"]) == (1, "lost", session), ran.stderr
    assert_the_brief_ran_once(machines, session)
    assert machines.command("session", "server", "stop", "pi").exit_code == 0


def end_all_on_the_host(machines: Machines) -> None:
    """As when it loses its power, in the middle of a command that the model runs."""
    home = machines.host.home
    wait_until(lambda: any("sleep 60" in argv for argv in picture.living(home).values()), "no command runs there")
    for pid in picture.living(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def assert_it_came_home(machines: Machines, name: str, session: str) -> None:
    ran = machines.command("collect", name)
    assert (ran.exit_code, ran.data["state"], ran.data["session_id"]) == (0, "done", session), ran.stderr
    assert answers(stored(machines.laptop, session)) == ["at home", "finished there"]
    assert_the_brief_ran_once(machines, session)
    lives_on(machines, name)
