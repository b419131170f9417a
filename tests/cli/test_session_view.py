"""How a turn looks while it is waited for: nothing of prompt and answer is cut or run together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remote_dispatch.cli.session.view import View
from remote_dispatch.sessions.happening import Happened, TextDelta
from remote_dispatch.sessions.prompt import Prompt, Sent
from tests.sessions.looks_made import a_named

if TYPE_CHECKING:
    import pytest

LONG = "x" * 100_000


def a_view() -> View:
    return View(lambda _: None, is_json=False)


def says(view: View, part_id: str, text: str) -> None:
    named = a_named()
    view.update(Happened(named.session_id, TextDelta(text, part_id), named.session_id))


def test_the_whole_prompt_is_shown_back_however_long_its_lines_are(capsys: pytest.CaptureFixture[str]) -> None:
    a_view().sent(a_named(), Sent("msg_1", Prompt(f"{LONG}\nend"), 0.0))
    assert f"\n> {LONG}\n> end\n" in capsys.readouterr().err


def test_a_long_line_of_the_answer_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    view = a_view()
    says(view, "prt_1", LONG)
    view.end()
    assert LONG in capsys.readouterr().err


def test_the_texts_of_two_answers_do_not_run_together(capsys: pytest.CaptureFixture[str]) -> None:
    view = a_view()
    says(view, "prt_1", "the first")
    says(view, "prt_2", "the second")
    view.end()
    assert [line.split(maxsplit=1)[1] for line in capsys.readouterr().err.splitlines()] == ["the first", "the second"]
