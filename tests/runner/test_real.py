"""The runner with the real OpenCode and the scripted model."""

from __future__ import annotations

import gzip
import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.model import Model
from remote_dispatch.runner.events import EventReader, describe
from tests.rig.real import RealHome, real_opencode, remote_home, scripted_model, turns
from tests.rig.stub import a_transcript, packed
from tests.runner.conftest import Host, end_leftovers, is_alive, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["real_opencode", "remote_home", "scripted_model"]

pytestmark = pytest.mark.real

DENY = {"external_directory": "deny", "question": "deny"}


@pytest.fixture
def real_host(tmp_path: Path, remote_home: RealHome) -> Iterator[Host]:
    """A host with a real OpenCode."""
    host = Host(tmp_path / "host", "dash", dict(remote_home.environment))
    yield host
    end_leftovers(host)


def on(remote_home: RealHome) -> dict[str, Any]:
    """Return what a job says about this OpenCode."""
    return {
        "opencode": PurePosixPath(remote_home.opencode.bin / "opencode"),
        "model": Model("scripted", "large"),
        "permission": DENY,
    }


def test_a_whole_dispatch_brings_answer_children_todos_and_events_back(real_host: Host, remote_home: RealHome) -> None:
    script = "!write made.txt by hand\n!todo one;two\n!task !say below\n!read /etc/hostname\n!say the answer"
    real_host.stage(script, **on(remote_home))
    real_host.launch()
    wait_until(real_host.has_ended, timeout_s=90)
    outcome = real_host.outcome()
    assert (outcome.problem, outcome.import_status, outcome.run_status, outcome.export_status) == (None, 0, 0, 0)
    assert (real_host.project / "made.txt").exists()
    assert turns(real_host.back())[-1] == ("assistant", "the answer")
    children = list((real_host.run_directory / "back-children").iterdir())
    assert [turns(json.loads(gzip.decompress(path.read_bytes())))[-1] for path in children] == [("assistant", "below")]
    todos = json.loads((real_host.run_directory / "back-todos.json").read_bytes())
    assert [todo["content"] for todo in todos] == ["one", "two"]
    reader = EventReader()
    events = list(reader.feed((real_host.run_directory / "events.jsonl").read_bytes()))
    told = [progress for progress in map(describe, events) if progress]
    assert reader.malformed == 0
    assert {"text", "tool", "todo", "tokens"} == {progress.kind for progress in told}


def test_cancelling_ends_the_bash_tools_processes_and_keeps_what_was_said(
    real_host: Host, remote_home: RealHome
) -> None:
    pids = real_host.root / "pids"
    real_host.stage(f"!bash echo $$ > {pids}; setsid sleep 300 & echo $! >> {pids}; wait", **on(remote_home))
    real_host.launch(30)
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, timeout_s=60)
    outcome = real_host.cancel(40).outcome
    assert outcome is not None
    assert (outcome.problem, outcome.signal, outcome.export_status) == ("terminated", "TERM", 0)
    assert [pid for pid in pids.read_text().split() if is_alive(int(pid))] == []
    assert len(real_host.back()["messages"]) == 4


def test_a_provider_error_is_a_failed_run_that_is_exported(real_host: Host, remote_home: RealHome) -> None:
    real_host.stage("!fail 401", session=packed(a_transcript("hello", "hi")), **on(remote_home))
    real_host.launch()
    wait_until(real_host.has_ended, timeout_s=90)
    outcome = real_host.outcome()
    assert (outcome.problem, outcome.run_status, outcome.export_status) == ("run-failed", 1, 0)
