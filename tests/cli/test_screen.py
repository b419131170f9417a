"""What people and programs see while a dispatch is under way."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.cli import screen as screens
from remote_dispatch.cli.screen import Screen, line_of, marks_for
from remote_dispatch.dispatch.report import Step
from remote_dispatch.runner.events import Progress
from tests.cli.terminal import Terminal, converse, on_a_terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOSTILE = "a\x1b]52;c;eA==\x07b\x1b[2J\u202ec"
UTF8 = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
ASCII = io.TextIOWrapper(io.BytesIO(), encoding="ascii")


def test_programs_get_one_json_line_for_each_report(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(is_json=True)
    with screen.live():
        screen(Step("stage", "copying", "kumo"))
        screen(Step("alive", "box is working"))
        screen(Progress("tool", "make test", tool="bash"))
        screen(Progress("tokens", "", tokens=15))
    output = capsys.readouterr()
    lines = [json.loads(line) for line in output.out.splitlines()]
    assert lines[0] == {"type": "step", "phase": "stage", "text": "copying", "dispatch": "kumo"}
    assert screen.dispatch == "kumo"
    assert [line["type"] for line in lines] == ["step", "tool", "tokens"]
    assert lines[1].items() >= {"text": "make test", "tool": "bash", "is_error": False}.items()
    assert output.err == ""
    assert screen.tokens == 15


def test_a_log_has_the_time_before_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(is_json=False)
    with screen.live():
        screen(Step("stage", "copying"))
        screen(Progress("text", "first\nsecond"))
    output = capsys.readouterr()
    assert output.out == ""
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "TIME ", line) for line in output.err.splitlines()] == [
        "TIME copying",
        f"TIME   {marks_for(UTF8)['text']} first",
        f"TIME   {marks_for(UTF8)['text']} second",
    ]


def test_a_sign_of_life_is_worth_a_line_only_after_a_silence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(is_json=False)
    screen(Progress("tokens", "", tokens=15))
    screen(Step("alive", "box is working"))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(screens, "SIGN_OF_LIFE_S", 0.0)
    screen(Step("alive", "box is working"))
    assert re.search(r"^\S+ box is working \(0:0\d, 15 tokens\)$", capsys.readouterr().err.rstrip())


@pytest.mark.parametrize(
    "report",
    [
        lambda text: Step("note", text),
        lambda text: Step("unreachable", text),
        lambda text: Progress("text", text),
        lambda text: Progress("tool", text, tool=text),
        lambda text: Progress("todo", text, done=1, total=2),
        lambda text: Progress("error", text, is_error=True),
    ],
)
@pytest.mark.parametrize("is_json", [True, False])
def test_no_control_character_reaches_the_terminal(
    capsys: pytest.CaptureFixture[str], *, report: Callable[[str], Step | Progress], is_json: bool
) -> None:
    Screen(is_json=is_json)(report(HOSTILE))
    output = capsys.readouterr()
    shown = output.out + output.err
    assert "ab" in shown or is_json
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress("tool", "make test", tool="bash"), "  - bash: make test"),
        (Progress("tool", "", tool="list"), "  - list"),
        (Progress("tool", "denied", tool="bash", is_error=True), "  ! bash: denied"),
        (Progress("todo", "write tests", done=1, total=3), "  o todo 1/3: write tests"),
        (Progress("text", "one\ntwo"), "  | one\n  | two"),
        (Progress("error", "APIError: no"), "  ! APIError: no"),
        (Progress("tokens", "stop", tokens=5), ""),
    ],
)
def test_each_event_has_its_line_and_ascii_will_do(progress: Progress, line: str) -> None:
    shown = line_of(progress, marks_for(ASCII))
    assert shown == line
    shown.encode("ascii")


def test_a_long_title_is_cut_to_one_line() -> None:
    shown = line_of(Progress("tool", "x\n" * 500, tool="bash"), marks_for(UTF8))
    assert "\n" not in shown
    assert len(shown) < 200
    assert shown.endswith("…")


ASKING = """
from remote_dispatch.cli.screen import Screen
from remote_dispatch.dispatch.report import Step
screen = Screen(is_json=False)
with screen.live():
    screen(Step("connect", "asking pi"))
    print("agreed" if screen.ask("send it?") else "refused")
"""


@pytest.mark.parametrize(("answer", "outcome"), [("y\n", "agreed"), ("\n", "refused")])
def test_a_question_stands_on_a_line_of_its_own_and_no_spinner_beside_it(
    answer: str, outcome: str, tmp_path: Path
) -> None:
    terminal = Terminal(tmp_path, {"TERM": "xterm"})
    terminal.project.mkdir()
    _, seen = converse(terminal, answers=[("[y/N]", answer)], program=ASKING)
    assert "\x1b[2Ksend it?" in seen
    assert outcome in seen


PATCHING = r"""
from remote_dispatch.cli.code import print_patch
print_patch(b"+safe\r-never there\x0b+nor this\xe2\x80\xa8+or this\x1b[2J\x1b]0;title\x07\n+next\n")
"""


def test_a_line_of_a_patch_is_one_line_on_a_terminal_and_drives_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, {"TERM": "xterm"})
    terminal.project.mkdir()
    assert on_a_terminal(terminal, program=PATCHING) == (0, "+safe -never there +nor this +or this\r\n+next\r\n")
