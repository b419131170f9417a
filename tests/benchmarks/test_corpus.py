"""The conversations that transfers and memory are measured with, and how a program's memory is measured."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from benchmarks import corpus, spending
from remote_dispatch import transcript as transcripts
from tests.rig.world import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path


def test_a_conversation_has_the_size_that_was_asked_for_and_shrinks_as_real_ones_do(tmp_path: Path) -> None:
    session = corpus.a_session(corpus.MEGABYTE)
    size = corpus.write_export(session, tmp_path / "export.json")
    assert 0.9 < size / corpus.MEGABYTE < 1.1
    assert 3.0 < corpus.shrinks(tmp_path / "export.json") < 4.5
    assert transcripts.parse((tmp_path / "export.json").read_bytes()) == session


def test_the_peak_of_a_command_is_its_own_and_not_that_of_who_started_it(tmp_path: Path) -> None:
    ballast = bytearray(os.urandom(1)) * 300_000_000
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    peak = spending.peak_bytes(["--version"], environment, tmp_path, tmp_path / "peak")
    assert 5_000_000 < peak < len(ballast) / 2


def test_what_a_command_spends_is_counted_with_its_children(tmp_path: Path) -> None:
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    done = spending.spent([sys.executable, "-c", parent], dict(os.environ), directory=tmp_path)
    assert done.exit_code == 0
    assert done.processor_s > 0.2
