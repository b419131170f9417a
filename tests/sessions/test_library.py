"""The library: cheap to import, and its documented examples run as they stand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import remote_dispatch
from remote_dispatch import Failure, TurnFailedError, open_sessions

if TYPE_CHECKING:
    from tests.rig.served import Bench

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "library.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
FIRST, WATCHED, PIPELINE, BATCH, LEAVE = EXAMPLES
HEAVY = ("asyncio", "asyncssh", "httpx", "pydantic", "typer", "rich", "platformdirs")


def test_importing_the_package_imports_nothing_of_it() -> None:
    program = "import sys, json, remote_dispatch; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, stdin=subprocess.DEVNULL, timeout=30
    ).stdout
    loaded = json.loads(printed)
    assert [name for name in loaded if name.startswith("remote_dispatch.")] == []
    assert not set(HEAVY) & set(loaded)


def test_every_public_name_is_there_and_documented() -> None:
    text = DOCUMENT.read_text()
    for name in set(remote_dispatch.__all__) - {"__version__"}:
        assert getattr(remote_dispatch, name) is not None
        assert f"`{name}" in text, name
    with pytest.raises(AttributeError):
        _ = remote_dispatch.nothing_of_ours


def test_every_function_of_sessions_is_documented() -> None:
    text = DOCUMENT.read_text()
    names = [name for name in vars(remote_dispatch.Sessions) if not name.startswith("_")]
    assert [name for name in names if f"`{name}(" not in text] == []


@pytest.fixture
def hosts(served: Bench, private_home: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """The hosts `pi` and `gpu` of the examples, both of them the same server, as a user's hosts file names them."""
    entry = {"server": served.server.url, "directory": served.directory}
    file = private_home / "hosts.json"
    file.write_text(json.dumps({"hosts": {"pi": entry, "gpu": entry}}))
    monkeypatch.setenv("REMOTE_DISPATCH_HOSTS", str(file))
    monkeypatch.setenv("REMOTE_DISPATCH_STATE", str(private_home / "state"))
    monkeypatch.setenv("OPENCODE_SERVER_PASSWORD", served.server.password)
    return served


def run(example: str) -> dict[str, Any]:
    """Run an example as a program; return what it defined."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(example, str(DOCUMENT), "exec"), names)
    return names


@pytest.mark.real
def test_the_first_example_asks_and_leaves_nothing_behind(
    hosts: Bench, private_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(FIRST)
    assert "Which kernel runs here?" in prompts(hosts)[-1]
    assert capsys.readouterr().out.strip()
    assert names_in(private_home) == []


@pytest.mark.real
def test_three_sessions_on_two_hosts_are_watched_to_their_ends(
    hosts: Bench, private_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(WATCHED)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[:2] for line in lines) == [["disks", "done"], ["jobs", "done"], ["kernel", "done"]]
    assert names_in(private_home) == ["disks", "jobs", "kernel"]


@pytest.mark.real
def test_a_pipeline_hands_each_answer_to_a_fresh_session(
    hosts: Bench, private_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(PIPELINE)
    begins = ("The collector leaks memory. Find", "The collector leaks memory. Carry out", "Review what was done:")
    assert all(said.startswith(words) for said, words in zip(prompts(hosts)[-3:], begins, strict=True))
    assert "stopped" not in capsys.readouterr().out
    assert names_in(private_home) == []


@pytest.mark.real
def test_a_batch_answers_for_every_file(hosts: Bench, private_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(BATCH)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["reader.py", "writer.py", "index.py", "cache.py"]
    assert not any("failed" in line for line in lines)
    assert names_in(private_home) == []


@pytest.mark.real
async def test_what_is_asked_is_granted_and_the_turn_goes_on(hosts: Bench) -> None:
    ask_with_leave = run(LEAVE)["ask_with_leave"]
    async with open_sessions() as sessions, sessions.fresh("pi", permission_rules={"bash": "ask"}) as session:
        end = await ask_with_leave(sessions, session, "!bash echo one\n!bash echo two\n!say both ran")
        assert (end.failure, end.answer, end.refused) == (None, "both ran", ())
        assert await sessions.requests(session) == ()


@pytest.mark.real
async def test_json_is_asked_for_once_more_and_then_given_up(hosts: Bench) -> None:
    async with open_sessions() as sessions, sessions.fresh("pi") as session:
        assert await sessions.ask_json(session, "!say ```json [1, 2] ```") == [1, 2]
        before = len(prompts(hosts))
        with pytest.raises(TurnFailedError) as raised:
            await sessions.ask_json(session, "!say no JSON at all")
        assert (raised.value.failure, len(prompts(hosts)) - before) == (Failure.NOT_JSON, 2)


def prompts(bench: Bench) -> list[str]:
    """What users said last in each request to the model, titles left out."""
    calls = (call for call in bench.model.calls if not call.is_title)
    return [text_of(call.messages[-1]["content"]) for call in calls if call.messages[-1]["role"] == "user"]


def text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def names_in(home: Path) -> list[str]:
    """The names of the sessions that are recorded."""
    return sorted(path.stem for path in (home / "state" / "sessions").glob("*.json"))
