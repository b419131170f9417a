"""The one error handler: exit codes, the envelope, and what people see of each kind of end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import typer

from remote_dispatch.cli.output import Answer, run_async, run_command
from remote_dispatch.dispatch.manage import HOSTS_AT_ONCE
from remote_dispatch.doctor.examine import REACHED_AT_ONCE
from remote_dispatch.errors import HostUnreachableError, RemoteDispatchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def raising(error: BaseException) -> Callable[[], Answer]:
    def work() -> Answer:
        raise error

    return work


def exit_of(work: Callable[[], Answer], *, is_json: bool = False) -> int:
    with pytest.raises(typer.Exit) as caught:
        run_command("some thing", work, is_json=is_json)
    return caught.value.exit_code


@pytest.mark.parametrize(
    ("error", "exit_code", "kind"),
    [
        (UsageError("no"), 2, "usage"),
        (HostUnreachableError("lab", "gone"), 5, "unreachable"),
        (RemoteDispatchError("odd"), 70, "internal"),
        (KeyError("10.0.0.5"), 70, "internal"),
        (ExceptionGroup("both", [HostUnreachableError("lab", "gone"), UsageError("no")]), 5, "unreachable"),
        (ExceptionGroup("both", [HostUnreachableError("lab", "gone"), KeyError("x")]), 70, "internal"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (typer.Abort(), 130, "interrupted"),
    ],
)
def test_every_end_has_its_exit_code_and_an_envelope(
    capsys: pytest.CaptureFixture[str], error: BaseException, exit_code: int, kind: str
) -> None:
    assert exit_of(raising(error), is_json=True) == exit_code
    output = capsys.readouterr()
    value = json.loads(output.out)
    assert (value["ok"], value["data"], value["error"]["kind"]) == (False, None, kind)
    assert value["error"]["exit_code"] == exit_code
    assert output.err.startswith("error: ")
    assert "10.0.0.5" not in output.out + output.err
    assert "Traceback" not in output.err


def test_a_traceback_is_for_those_who_ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMOTE_DISPATCH_DEBUG", "1")
    assert exit_of(raising(KeyError("x\x1b[2J refused by 10.0.0.5:4096"))) == 70
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "\x1b[2J" not in shown
    assert "10.0.0.5" not in shown


def test_an_exit_of_a_command_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(raising(typer.Exit(6))) == 6
    assert capsys.readouterr() == ("", "")


def test_hints_stand_after_a_blank_line(capsys: pytest.CaptureFixture[str]) -> None:
    exit_of(raising(UsageError("no such thing", hint="try `this`")))
    assert capsys.readouterr().err == "error: no such thing\n\nhint: try `this`\n"


def test_foreign_text_cannot_reach_the_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    exit_of(raising(UsageError("a\x1b]52;c;eA==\x07b\x1b[2J")))
    assert capsys.readouterr().err == "error: ab\n"


def test_the_envelope_is_one_line_whatever_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"text": "a\nb\u2028c\ud800 é"}
    assert exit_of(lambda: Answer(data=data), is_json=True) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["data"] == data


def test_warnings_make_exit_code_3_which_is_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(lambda: Answer(data={}, warnings=("one", "two")), is_json=True) == 3
    output = capsys.readouterr()
    assert output.err == "warning: one\nwarning: two\n"
    assert json.loads(output.out)["ok"] is True


def test_a_failure_can_carry_data(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(data={"name": "kumo"}, error=HostUnreachableError("lab", "gone"))
    assert exit_of(lambda: answer, is_json=True) == 5
    value = json.loads(capsys.readouterr().out)
    assert (value["ok"], value["data"], value["error"]["message"]) == (False, {"name": "kumo"}, "lab: gone")


def test_people_get_no_envelope_and_programs_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer(data={"a": 1}, render=lambda: typer.echo("for people"))
    exit_of(lambda: answer)
    assert capsys.readouterr().out == "for people\n"
    exit_of(lambda: answer, is_json=True)
    assert "for people" not in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_error() -> None:
    program = (
        "from remote_dispatch.cli.output import *\n"
        "import typer\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def f(): run_command('f', lambda: Answer(render=lambda: print_lines(['x' * 99] * 99999)), is_json=False)\n"
        "app()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_names_that_no_server_answers_keep_no_other_name_waiting() -> None:
    """As many look-ups hold a thread each as hosts are asked at once; one more gets through."""
    answered = threading.Event()

    async def look_up() -> list[bool]:
        held = [asyncio.to_thread(answered.wait, 2) for _ in range(max(HOSTS_AT_ONCE, REACHED_AT_ONCE))]
        *heard, _ = await asyncio.gather(*held, asyncio.to_thread(answered.set))
        return [one is True for one in heard]

    assert all(run_async(look_up()))
