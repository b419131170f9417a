"""The screen of `session watch`, as lines."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from rich.cells import cell_len

from remote_dispatch.cli.session.board import JsonView, LineView, picture
from remote_dispatch.cli.session.watch import worst
from remote_dispatch.errors import HostNotReadyError
from remote_dispatch.failure import Failure
from remote_dispatch.model import Todo
from remote_dispatch.sessions.report import report_of
from remote_dispatch.sessions.scene import Scene
from remote_dispatch.sessions.values import Phase
from remote_dispatch.sessions.watch import Ended, StateChanged, Unreachable, Unwatched
from tests.sessions.looks_made import NOW, a_look, a_named, a_permission

NAMES = ("kumo", "csbx", "nozo", "baku")


def _scene() -> Scene:
    named = [a_named(name) for name in NAMES]
    scene = Scene(named, now=lambda: NOW)
    todos = (Todo("a", "completed", ""), Todo("schreibe die Prüfung 日本語", "in_progress", ""))
    scene.take(StateChanged(a_look(named[0], todos=todos)))
    scene.take(
        StateChanged(a_look(named[1], Phase.WAITING, failure=Failure.PENDING_PERMISSION, requests=(a_permission(),)))
    )
    scene.take(Ended(a_look(named[2], answer="", failure=Failure.RATE_LIMITED, detail="Too Many Requests")))
    return scene


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_every_session_has_one(width: int) -> None:
    scene = _scene()
    scene.take(Unreachable("pi", NAMES, NOW - timedelta(hours=2)))
    lines = picture(scene, width, NOW).plain.split("\n")
    assert max(map(cell_len, lines)) <= width
    assert [line.split()[0] for line in lines[:4]] == list(NAMES)


def test_a_row_says_state_todos_age_use_and_what_is_done() -> None:
    kumo, csbx, nozo, baku, foot = picture(_scene(), 160, NOW).plain.split("\n")
    assert kumo.split() == [
        "kumo",
        "busy",
        "pi",
        "1/2",
        "4",
        "s",
        "1200",
        "tok",
        "$0.50",
        "schreibe",
        "die",
        "Prüfung",
        "日本語",
    ]
    assert "waiting (pending_permission)" in csbx
    assert csbx.endswith("asks: bash: touch x")
    assert "rate_limited" in nozo
    assert nozo.endswith("Too Many Requests")
    assert baku.split() == ["baku", "connecting"]
    assert foot.startswith("3 at work.")


def test_a_host_that_does_not_answer_ages_no_further() -> None:
    scene = _scene()
    scene.take(Unreachable("pi", NAMES, NOW - timedelta(minutes=5)))
    *_, remark, foot = picture(scene, 160, NOW).plain.split("\n")
    assert "unreachable" in picture(scene, 160, NOW).plain.split("\n")[0]
    assert remark.startswith("! pi: unreachable since")
    assert "Ctrl-C" in foot


def test_lines_tell_each_request_once_with_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    view = LineView(has_reports=False)
    look = a_look(phase=Phase.WAITING, failure=Failure.PENDING_PERMISSION, requests=(a_permission(),))
    view.show(StateChanged(look))
    view.show(StateChanged(look))
    out = capsys.readouterr().out
    assert out.count("remote-dispatch session reply kumo") == 1
    assert out.count("kumo on pi: waiting (pending_permission)") == 1


def test_json_lines_tell_changes_once_and_the_whole_end(capsys: pytest.CaptureFixture[str]) -> None:
    view, named = JsonView(), a_named()
    for update in (StateChanged(a_look(named)), StateChanged(a_look(named)), Ended(a_look(named, answer="all\nof it"))):
        view.show(update)
    view.show(Unreachable("pi", ("kumo",), NOW))
    view.show(Unwatched(named, HostNotReadyError("pi", "no server", hint="start it")))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["type"] for line in lines] == ["state", "end", "link", "unwatched"]
    assert (lines[1]["verdict"], lines[1]["answer"]) == ("done", "all\nof it")


def test_of_several_bad_ends_the_worst_gives_the_exit_code() -> None:
    failures = (Failure.REJECTED, Failure.RATE_LIMITED, Failure.TIMEOUT)
    reports = [report_of(a_look(answer="", failure=failure)) for failure in failures]
    codes = [error.exit_code if (error := worst(reports[:number])) else 0 for number in range(4)]
    assert codes == [0, 3, 1, 6]
