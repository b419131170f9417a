"""The command that runs when a session has ended."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from remote_dispatch.errors import UsageError
from remote_dispatch.failure import Failure
from remote_dispatch.sessions.on_end import parse_command, run_on_end
from remote_dispatch.sessions.report import SessionReport, report_of
from tests.rig.sshd import wait_until
from tests.sessions.looks_made import a_look

COPY = """
import os, shutil, sys
shutil.copy(os.environ["REMOTE_DISPATCH_SESSION_ANSWER_FILE"], sys.argv[1] + ".answer")
names = sorted(name for name in os.environ if name.startswith("REMOTE_DISPATCH_SESSION"))
open(sys.argv[1], "w").write("\\n".join(f"{name}={os.environ[name]}" for name in names if "FILE" not in name))
"""


def _ended(failure: Failure | None = None) -> SessionReport:
    return report_of(a_look(answer="the whole\nanswer", failure=failure, detail="why" if failure else None))


async def test_it_gets_everything_by_its_environment_and_the_answer_in_a_file(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", COPY, str(tmp_path / "seen")]
    assert await run_on_end(argv, _ended(Failure.TIMEOUT), dict(os.environ)) is None
    assert (tmp_path / "seen").read_text().splitlines() == [
        "REMOTE_DISPATCH_SESSION=kumo",
        "REMOTE_DISPATCH_SESSION_COST=0.500000",
        "REMOTE_DISPATCH_SESSION_DETAIL=why",
        "REMOTE_DISPATCH_SESSION_FAILURE=timeout",
        "REMOTE_DISPATCH_SESSION_HOST=pi",
        "REMOTE_DISPATCH_SESSION_ID=ses_kumo0000000000000000",
        "REMOTE_DISPATCH_SESSION_STATE=failed",
        "REMOTE_DISPATCH_SESSION_TODO=0/0",
        "REMOTE_DISPATCH_SESSION_TOKENS=1200",
    ]
    assert (tmp_path / "seen.answer").read_text() == "the whole\nanswer"


async def test_no_shell_reads_its_words(tmp_path: Path) -> None:
    argv = parse_command(f"touch '{tmp_path}/a; b $HOME'")
    assert await run_on_end(argv, _ended(), dict(os.environ)) is None
    assert (tmp_path / "a; b $HOME").exists()


@pytest.mark.parametrize(
    ("command", "warning"),
    [
        ("sh -c 'echo it broke at me@10.0.0.7; exit 4'", "failed with exit status 4: it broke at <address>"),
        ("no-such-program-anywhere", "could not start: no such file or directory"),
    ],
)
async def test_its_failure_is_a_warning(command: str, warning: str) -> None:
    assert (await run_on_end(parse_command(command), _ended(), dict(os.environ)) or "").endswith(warning)


async def test_one_that_does_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    argv = parse_command(f"sh -c 'sleep 1000 & echo $! >{tmp_path}/pid; wait'")
    warning = await run_on_end(argv, _ended(), dict(os.environ), timeout_s=2)
    assert "did not end within" in (warning or "")
    child = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    await asyncio.to_thread(wait_until, lambda: _has_ended(child), "a child goes on", timeout_s=20)


def _has_ended(child: Path) -> bool:
    """Whether a process is gone, or waits for somebody to ask how it ended."""
    try:
        return child.read_text().rpartition(") ")[2][0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("text", ["", "  ", "sh -c 'open"])
def test_what_is_no_command_is_refused_beforehand(text: str) -> None:
    with pytest.raises(UsageError):
        parse_command(text)


async def test_what_it_leaves_running_is_neither_waited_for_nor_ended(tmp_path: Path) -> None:
    argv = parse_command(f"sh -c 'sleep 1000 & echo $! >{tmp_path}/pid'")
    assert await run_on_end(argv, _ended(), dict(os.environ), timeout_s=5) is None
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
