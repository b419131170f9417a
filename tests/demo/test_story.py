"""The demo as a user sees it, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.demo.processes import end_processes_of, processes_of
from remote_dispatch.demo.story import find_opencode, play
from remote_dispatch.errors import HostNotReadyError

if TYPE_CHECKING:
    from pathlib import Path

RUNS = ".local/state/remote-dispatch/runs"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def without_opencode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory without an installed OpenCode, and a PATH without one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_missing_opencode_is_an_error_with_the_command_to_install_it(without_opencode: Path) -> None:
    with pytest.raises(HostNotReadyError, match="this machine: OpenCode is missing") as raised:
        find_opencode(None)
    assert "npm install -g opencode-ai" in (raised.value.hint or "")


def test_a_given_opencode_must_be_a_program(without_opencode: Path) -> None:
    with pytest.raises(HostNotReadyError, match="not a program"):
        find_opencode(without_opencode / "nothing")


def test_opencode_is_the_given_one_then_the_one_in_path_then_the_installed_one(without_opencode: Path) -> None:
    installed = program(without_opencode / ".cache/opencode/node_modules/.bin/opencode")
    assert find_opencode(None) == installed
    in_path = program(without_opencode / "opencode")
    assert find_opencode(None) == in_path
    assert find_opencode(installed) == installed


def test_the_processes_of_a_home_are_found_and_ended_and_no_others(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "home2"
    line = "trap '' TERM; (setsid sleep 60 &) ; sleep 60"
    stubborn = subprocess.Popen(["/bin/sh", "-c", line], env={"PATH": os.environ["PATH"], "HOME": str(home)})
    spared = subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], "HOME": str(other)})
    deadline = time.monotonic() + 5
    while len(processes_of(home)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(processes_of(home)) == 3
    end_processes_of(home)
    # The shell is killed itself, or ends just behind its killed child.
    assert stubborn.wait(5) in (-9, 128 + 9)
    assert processes_of(home) == frozenset()
    assert processes_of(other) == {spared.pid}
    spared.kill()
    spared.wait(5)


@pytest.mark.real
async def test_the_demo_brings_the_conversation_home_and_leaves_the_file_on_the_host(
    real_opencode: Path, temporary: Path
) -> None:
    lines: list[str] = []
    ending = await play(lines.append, opencode=real_opencode)
    assert [role for role, _ in ending.turns] == ["user", "assistant", "user", "assistant"]
    assert ending.turns[-1][1].endswith("Done: the findings are in findings.txt on the lab machine.")
    assert (ending.is_on_host, ending.is_at_home) == (True, False)
    assert ending.model_calls == 5
    assert any("remote-dispatch hosts add gpu-box me@gpu.example" in line for line in lines)
    assert not ending.directory.exists()


AT_WORK = [
    pytest.param("laptop/.local/share/opencode/opencode.db", id="at-home"),
    # Slow: both machines work for many seconds until there is something to end that was not ended above.
    pytest.param(f"lab/{RUNS}/*/started", id="on-the-host", marks=pytest.mark.slow),
]


@pytest.mark.real
@pytest.mark.parametrize("sign", AT_WORK)
async def test_an_interrupted_demo_leaves_no_process_and_no_directory(
    real_opencode: Path, temporary: Path, sign: str
) -> None:
    demo = asyncio.create_task(play(lambda _: None, opencode=real_opencode))
    async with asyncio.timeout(90):
        while not list(temporary.glob(f"*/{sign}")):
            assert not demo.done()
            await asyncio.sleep(0.02)
    homes = list(temporary.glob("*/*"))
    assert any(processes_of(home) for home in homes)
    demo.cancel()
    with pytest.raises(asyncio.CancelledError):
        await demo
    assert list(temporary.iterdir()) == []
    assert not any(processes_of(home) for home in homes)
