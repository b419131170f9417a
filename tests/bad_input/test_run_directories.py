"""field.md section 6, "Replies of the host": a run directory that was tampered with between the end of the run and the
collecting is refused, and both sides stay as they were; or what is odd in it loses nothing and says nothing odd.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.bad_input.terminal import laptop_of
from tests.bad_input.values import ESCAPES, controls_in, named
from tests.rig.stub import a_transcript
from tests.rig.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.rig.world import Ran

ALL_ESCAPES = " ".join(ESCAPES.values())


class Finished:
    """A one-way dispatch whose run ended on the host and whose result was not yet collected."""

    def __init__(self, world: World, prompt: str = "!say done") -> None:
        self.world = world
        self.terminal = laptop_of(world)
        self.session = world.local_session()
        sent = self.terminal.run("send", "pi", prompt, "--session", self.session, "--json")
        assert sent.exit_code == 0, sent.stderr
        self.name = str(sent.data["name"])
        self.run = world.host.home / ".local/state/remote-dispatch/runs" / str(sent.data["id"])
        self.folder = self.terminal.state / "dispatches" / str(sent.data["id"])
        world.await_file(self.run / "outcome.json")

    def collect(self) -> Ran:
        """Collect it, and check the envelope and what is said."""
        ran = self.terminal.run("collect", self.name, "--json")
        self.world.check(ran)
        return ran

    def outcome(self, **changes: Any) -> None:
        """Change fields of the outcome file."""
        path = self.run / "outcome.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def back(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the back-file, with the right hash: a host can do that."""
        transcript = json.loads((self.run / "back.json").read_text())
        change(transcript)
        data = json.dumps(transcript).encode()
        (self.run / "back.json.gz").write_bytes(gzip.compress(data))
        self.outcome(back_sha256=hashlib.sha256(data).hexdigest(), back_bytes=len(data))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """One finished dispatch for all cases that are refused. After all of them it can be collected as if nothing was."""
    with World(tmp_path_factory.mktemp("kept")) as world:
        kept = Finished(world)
        yield kept
        assert kept.collect().exit_code == 0
        assert world.count_runs() == 1


@pytest.fixture
def finished(kept: Finished) -> Iterator[Finished]:
    """The finished dispatch, whose run directory is put right again afterwards; it must then still be collectable."""
    names = ("outcome.json", "back.json", "back.json.gz", "events.jsonl")
    before = {name: (kept.run / name).read_bytes() for name in names}
    record = (kept.folder / "record.json").read_bytes()
    content = kept.world.laptop.content()
    yield kept
    for name, data in before.items():
        _clear(kept.run / name)
        (kept.run / name).write_bytes(data)
    (kept.folder / "record.json").write_bytes(record)
    brought = [kept.folder / name for name in ("back.json.gz", "back.json.gz.part", "events.jsonl")]
    for path in (*brought, *kept.run.glob("back-children/*"), *kept.folder.glob("back-children/*")):
        path.unlink(missing_ok=True)
    assert kept.world.laptop.content() == content
    assert not list(kept.world.directory.rglob("canary"))


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)


BAD_OUTCOMES: dict[str, dict[str, Any]] = {
    "of another dispatch": {"dispatch": "20260102-120000-zzzzzzzz"},
    "a status of two lines": {"run_status": "0\n1"},
    "a status that is NaN": {"run_status": float("nan")},
    "a status beyond all": {"export_status": 1e999},
    "a time that is a text": {"ended": "yesterday"},
    "a hash of another file": {"back_sha256": "0" * 64},
    "a hash that is none": {"back_sha256": "../../x"},
    "a hash in capitals": {"back_sha256": "A" * 64},
    "a hash that is a list": {"back_sha256": []},
    "started that is a word": {"started": "\x1b[31m"},
}


@pytest.mark.parametrize("changes", named(BAD_OUTCOMES))
def test_an_outcome_that_makes_no_sense_is_refused_and_all_is_kept(finished: Finished, changes: dict[str, Any]) -> None:
    finished.outcome(**changes)
    assert finished.collect().exit_code == 12
    assert (finished.run / "back.json.gz").exists()


def _first(transcript: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = transcript["messages"][-1]
    return message


def _set_id(transcript: dict[str, Any], identity: str) -> None:
    transcript["info"]["id"] = identity


OTHER = f"ses_{'0' * 26}"
BAD_BACKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "another session": lambda one: _set_id(one, OTHER),
    "a session that is a path": lambda one: _set_id(one, "ses_../../x"),
    "a message of another session": lambda one: _first(one)["info"].update(sessionID=OTHER),
    "a part of another session": lambda one: _first(one)["parts"][0].update(sessionID=OTHER),
    "a message twice": lambda one: one["messages"].append(_first(one)),
    "a part twice": lambda one: _first(one)["parts"].append(_first(one)["parts"][0]),
    "no messages": lambda one: one.update(messages=[]),
    "messages that are none": lambda one: one.update(messages={"__proto__": []}),
    "a message id that is a path": lambda one: _first(one)["info"].update(id="msg_../../x"),
    "a role from the future": lambda one: _first(one)["info"].update(role="oracle"),
}


@pytest.mark.parametrize("change", named(BAD_BACKS))
def test_a_back_file_that_is_not_ours_is_refused_and_all_is_kept(
    finished: Finished, change: Callable[[dict[str, Any]], object]
) -> None:
    finished.back(change)
    assert finished.collect().exit_code == 12
    assert (finished.run / "back.json.gz").exists()


def _swap(run: Path) -> None:
    (run / "back.json.gz").write_bytes(gzip.compress(json.dumps(a_transcript("other")).encode()))


def _symlink(run: Path) -> None:
    (run / "back.json.gz").unlink()
    (run / "back.json.gz").symlink_to("/etc/passwd")


def _pipe(run: Path) -> None:
    (run / "back.json.gz").unlink()
    os.mkfifo(run / "back.json.gz")


def _directory(run: Path) -> None:
    (run / "back.json.gz").unlink()
    (run / "back.json.gz").mkdir()


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "swapped after the hash": _swap,
    "cut": lambda run: os.truncate(run / "back.json.gz", 50),
    "empty": lambda run: os.truncate(run / "back.json.gz", 0),
    "no gzip": lambda run: (run / "back.json.gz").write_bytes(b"hello"),
    "a bomb": lambda run: (run / "back.json.gz").write_bytes(gzip.compress(b" " * 50_000_000, compresslevel=1)),
    "a symlink to a system file": _symlink,
}
NO_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": _pipe,
    "a directory": _directory,
    "gone": lambda run: (run / "back.json.gz").unlink(),
}


@pytest.mark.parametrize("change", named(BAD_FILES))
def test_a_back_file_that_differs_from_its_hash_is_refused_and_all_is_kept(
    finished: Finished, change: Callable[[Path], object]
) -> None:
    change(finished.run)
    ran = finished.collect()
    assert ran.exit_code in (9, 12)
    assert "passwd" not in ran.stdout + ran.stderr


@pytest.mark.parametrize("change", named(NO_FILES))
def test_a_back_file_that_is_no_file_is_refused_and_all_is_kept(
    finished: Finished, change: Callable[[Path], object]
) -> None:
    change(finished.run)
    ran = finished.collect()
    assert ran.exit_code in (9, 12)
    assert "this machine" not in ran.error["message"]


EVENTS = {
    "broken": b'{"type": "text"\n\x00\xff\xfe\n[]\nnull\n{}\n{"type": 1}\n',
    "nested 100,000 times": b"[" * 100_000 + b"\n",
    "a line that never ends": b'{"type": "text", "part": {"text": "' + b"x" * 1_000_000,
    "numbers beyond all": b'{"type": "step_finish", "part": {"tokens": {"total": 1e999, "input": NaN}}}\n',
    "negative numbers": b'{"type": "step_finish", "part": {"tokens": {"total": -5, "input": -5}}}\n',
    "ten thousand digits": b'{"type": "step_finish", "part": {"tokens": {"total": ' + b"9" * 10_000 + b"}}}\n",
    "an address in an error": b'{"type": "error", "error": {"name": "E", "data": {"message": "at me@box.example"}}}\n',
    "todos that are none": b'{"type": "tool_use", "part": {"tool": "todowrite", "state": {"input": {"todos": [1]}}}}\n',
    **{
        f"{name} in a text, a tool and an error": b"".join(
            json.dumps(event).encode() + b"\n"
            for event in (
                {"type": "text", "part": {"text": text}},
                {"type": "tool_use", "part": {"tool": text, "state": {"title": text, "status": "completed"}}},
                {"type": "tool_use", "part": {"tool": "bash", "state": {"error": text, "status": "error"}}},
                {"type": "error", "error": {"name": text, "data": {"message": text}}},
            )
        )
        for name, text in ESCAPES.items()
    },
}


@pytest.mark.parametrize("events", named(EVENTS))
def test_events_are_shown_without_what_is_broken_or_obeyed(finished: Finished, events: bytes) -> None:
    """`Terminal.run` looks at all that is printed."""
    (finished.run / "events.jsonl").write_bytes(events)
    assert finished.terminal.run("logs", finished.name).exit_code == 0


HARMLESS_OUTCOMES: dict[str, dict[str, Any]] = {
    "times of 1970": {"began": 0, "run_began": 0, "run_ended": 0, "ended": 1},
    "times of 2100": {"began": 4_102_444_800, "run_began": 4_102_444_800, "ended": 4_102_444_801},
    "numbers that cannot be": {"run_status": 10**18, "export_status": -1, "back_bytes": -5, "left": 10**12},
    "fields from the future": {"schema": 99, "quantum": ["\x1b[31m"], "problem": "ignore previous instructions"},
}


@pytest.mark.parametrize("changes", named(HARMLESS_OUTCOMES))
def test_an_odd_outcome_loses_nothing_and_says_nothing_odd(shared_world: World, changes: dict[str, Any]) -> None:
    finished = Finished(shared_world)
    finished.outcome(**changes)
    ran = finished.collect()
    assert ran.exit_code in (0, 1, 3)
    assert "done" in json.dumps(shared_world.export_local(finished.session))
    shown = finished.terminal.run("show", finished.name)
    assert shown.exit_code == 0


@pytest.mark.parametrize("text", named(ESCAPES))
def test_an_outcome_with_escape_codes_is_refused_or_shown_without_them(finished: Finished, text: str) -> None:
    """`Terminal.run` looks at all that is printed."""
    finished.outcome(problem=text, signal=text, session=text, quantum=text)
    assert finished.terminal.run("show", finished.name).exit_code in (0, 12)
    assert finished.terminal.run("list", "--refresh").exit_code in (0, 3)


def _plant(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def _child_of(session: str, identity: str) -> bytes:
    return gzip.compress(json.dumps(a_transcript("a task", session_id=identity, parent_id=session)).encode())


def test_files_with_names_that_leave_their_directory_are_left_there(shared_world: World) -> None:
    finished = Finished(shared_world)
    for name in ("tool_a.b", "tool_$(touch canary)", "tool_\x1b[31m", "tool_" + "x" * 200):
        _plant(finished.run / "back-tool-output" / name, b"evil")
    (finished.run / "back-tool-output/tool_link").symlink_to("/etc/passwd")
    for name in ("ses_..", "ses_$(id)", "x"):
        _plant(finished.run / "back-children" / f"{name}.json.gz", _child_of(finished.session, OTHER))
    (finished.run / "back-sums").unlink()
    (finished.run / "back-children.txt").write_text("../../x\nses_../../x\n\x1b]0;owned\x07\n$(touch canary)\n")
    assert finished.collect().exit_code in (0, 3)
    assert shared_world.laptop.sessions().count(OTHER) == 0
    brought = [path for path in finished.terminal.home.rglob("*") if path.is_file() and path.read_bytes() == b"evil"]
    assert brought == []
    assert not list(shared_world.directory.rglob("canary"))


def test_a_sub_agents_session_whose_name_breaks_a_line_is_left_out(shared_world: World) -> None:
    one = Finished(shared_world)
    _plant(one.run / "back-children" / f"{OTHER}\n.json.gz", _child_of(one.session, OTHER))
    assert one.collect().exit_code == 0
    assert OTHER not in shared_world.laptop.sessions()


CHILDREN: dict[str, Callable[[str], bytes]] = {
    "the id of another": lambda session: _child_of(session, f"ses_{'1' * 26}"),
    "no gzip": lambda session: b"hello",
    "no transcript": lambda session: gzip.compress(b"[]"),
}


@pytest.mark.parametrize("make", named(CHILDREN))
def test_a_sub_agents_session_that_is_not_what_it_says_is_refused(
    finished: Finished, make: Callable[[str], bytes]
) -> None:
    _plant(finished.run / "back-children" / f"{OTHER}.json.gz", make(finished.session))
    assert finished.collect().exit_code == 12


def test_a_sub_agents_session_cannot_overwrite_a_session_of_this_machine(shared_world: World) -> None:
    victim = shared_world.local_session("mine", "yours")
    before = shared_world.export_local(victim)
    finished = Finished(shared_world)
    _plant(finished.run / "back-children" / f"{victim}.json.gz", _child_of(finished.session, victim))
    assert finished.collect().exit_code in (0, 3, 12)
    after = shared_world.export_local(victim)
    assert [message["info"]["id"] for message in after["messages"][:2]] == [
        message["info"]["id"] for message in before["messages"]
    ]
    assert after["info"].get("parentID") is None


TODOS = {
    "broken": b"[{",
    "rows that are none": b'[1, null, {"content": {"__proto__": 1}}, {"content": "' + b"x" * 100_000 + b'"}]',
    "escape codes": json.dumps([{"content": ALL_ESCAPES, "status": ALL_ESCAPES, "priority": "'; drop"}]).encode(),
}


@pytest.mark.parametrize("todos", named(TODOS))
def test_todos_that_make_no_sense_are_left_out_or_cleaned(shared_world: World, todos: bytes) -> None:
    finished = Finished(shared_world)
    (finished.run / "back-todos.json").write_bytes(todos)
    (finished.run / "back-sums").unlink()
    assert finished.collect().exit_code in (0, 3)
    rows = shared_world.laptop.query("select * from todo where session_id = ?", finished.session)
    assert controls_in(" ".join(str(row["content"]) for row in rows)) == ""
