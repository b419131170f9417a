"""What we rely on in OpenCode's command line: held by the stand-in and, in tests marked `real`, by the real one."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.runner.scripts import script
from tests.rig.real import real_opencode
from tests.rig.stub import OPENCODE_STUB, a_transcript

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["real_opencode"]

PROGRAMS = [pytest.param("stub"), pytest.param("real", marks=pytest.mark.real)]


@dataclass(frozen=True)
class Program:
    """An OpenCode with a home of its own."""

    binary: str
    root: Path

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def environment(self) -> dict[str, str]:
        """Everything below our own home, nothing fetched."""
        switches = ("MODELS_FETCH", "DEFAULT_PLUGINS", "AUTOUPDATE")
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "TMPDIR": str(self.root / "tmp"),
        } | {f"OPENCODE_DISABLE_{switch}": "1" for switch in switches}

    def __call__(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a command with its output in files, which is the only way that nothing is cut."""
        directory = cwd or self.project
        out, err = self.root / "out", self.root / "err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            done = subprocess.run(
                [self.binary, "--pure", *arguments],
                cwd=directory,
                env=self.environment | {"PWD": str(directory)},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                timeout=90,
                check=False,
            )
        return subprocess.CompletedProcess(done.args, done.returncode, out.read_bytes(), err.read_bytes())

    def put(self, content: object) -> str:
        """Write a file to import, and return its path."""
        path = self.root / "file.json"
        path.write_text(json.dumps(content))
        return str(path)

    def take(self, transcript: dict[str, Any], cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """Import a transcript."""
        return self("import", self.put(transcript), cwd=cwd)

    def give(self, session_id: str) -> dict[str, Any]:
        """Export a session."""
        transcript: dict[str, Any] = json.loads(self("export", session_id).stdout)
        return transcript

    def rows(self, session_id: str) -> list[list[str]]:
        """Ask what the runner asks; rows as split by tabs, without their heading."""
        query = re.search(r'--format tsv "(.*?)"', script("runner"), re.DOTALL)
        assert query is not None
        done = self("db", "--format", "tsv", query[1].replace("$session", session_id))
        return [line.split("\t") for line in done.stdout.decode().splitlines()[1:]]


@pytest.fixture(params=PROGRAMS)
def opencode(request: pytest.FixtureRequest, tmp_path: Path) -> Program:
    """The stand-in, and the real one where there is one."""
    for name in ("home", "tmp", "project", "other"):
        (tmp_path / name).mkdir()
    binary = OPENCODE_STUB if request.param == "stub" else request.getfixturevalue("real_opencode")
    return Program(str(binary), tmp_path)


def id_of(transcript: dict[str, Any]) -> str:
    session_id: str = transcript["info"]["id"]
    return session_id


def texts(transcript: dict[str, Any]) -> list[str]:
    return [part["text"] for message in transcript["messages"] for part in message["parts"]]


def test_the_version_is_one_plain_line(opencode: Program) -> None:
    assert re.fullmatch(rb"\d+\.\d+\.\d+\n", opencode("--version").stdout)


def test_what_is_imported_is_exported_again_bound_to_the_current_directory(opencode: Program) -> None:
    sent = a_transcript("hello", 'with "quotes", ünïcode and\nlines')
    done = opencode.take(sent)
    assert done.returncode == 0
    assert f"Imported session: {id_of(sent)}".encode() in done.stdout.splitlines()
    back = opencode.give(id_of(sent))
    assert back["info"]["directory"] == str(opencode.project)
    assert back["messages"] == sent["messages"]
    assert opencode("export", id_of(sent)).stdout.rstrip(b"\n").endswith(b"}")


def test_the_runners_query_tells_directory_counts_children_todos_and_database(opencode: Program) -> None:
    directory = opencode.root / 'a dir\nwith "quotes"\tand $(things) ü'
    directory.mkdir()
    parent = a_transcript("hello", "hi")
    child = a_transcript("sub", parent_id=id_of(parent))
    for transcript in (child, parent):
        assert opencode.take(transcript, cwd=directory).returncode == 0
    rows = {row[1]: row for row in opencode.rows(id_of(parent)) if row[0] == "session"}
    encoded = str(directory).encode().hex().upper()
    assert rows[id_of(parent)][2:5] == [encoded, "2", "2"]
    assert rows[id_of(child)][2:5] == [encoded, "1", "1"]
    others = {row[0]: row[1] for row in opencode.rows(id_of(parent)) if row[0] != "session"}
    assert json.loads(others["todos"]) == []
    assert others["database"] == opencode("db", "path").stdout.decode().strip()


def test_todos_are_told_by_the_runners_query(opencode: Program) -> None:
    sent = a_transcript("hello")
    opencode.take(sent)
    values = f"'{id_of(sent)}', 'a\tb\"c', 'pending', 'high', 0, 1, 1"
    assert opencode("db", f"insert into todo values ({values})").returncode == 0
    todos = next(row[1] for row in opencode.rows(id_of(sent)) if row[0] == "todos")
    assert json.loads(todos) == [
        {"session_id": id_of(sent), "content": 'a\tb"c', "status": "pending", "priority": "high", "position": 0}
    ]


def test_a_second_import_adds_rows_moves_the_directory_and_changes_nothing_else(opencode: Program) -> None:
    sent = a_transcript("hello", "hi")
    opencode.take(sent)
    more = a_transcript("new", session_id=id_of(sent))
    more["messages"][0]["info"]["time"]["created"] += 10
    sent["messages"][0]["parts"][0]["text"] = "changed"
    sent["info"]["title"] = "changed"
    again = {"info": sent["info"], "messages": [*sent["messages"], *more["messages"]]}
    assert opencode.take(again, cwd=opencode.root / "other").returncode == 0
    back = opencode.give(id_of(sent))
    assert texts(back) == ["hello", "hi", "new"]
    assert (back["info"]["title"], back["info"]["directory"]) == ("A conversation", str(opencode.root / "other"))


def test_a_session_without_messages_can_be_imported(opencode: Program) -> None:
    empty = a_transcript()
    assert opencode.take(empty).returncode == 0
    assert opencode.give(id_of(empty))["messages"] == []


def test_an_import_of_null_ends_well_and_imports_nothing(opencode: Program) -> None:
    done = opencode("import", opencode.put(None))
    assert done.returncode == 0
    assert b"Imported session" not in done.stdout


def test_an_import_that_fails_on_the_way_leaves_a_part_of_the_session(opencode: Program) -> None:
    sent = a_transcript("hello", "hi")
    sent["messages"][1]["parts"][0]["id"] = "nonsense"
    done = opencode.take(sent)
    assert done.returncode == 1
    assert b"Imported session" not in done.stdout
    assert texts(opencode.give(id_of(sent))) == ["hello"]


@pytest.mark.parametrize("content", [[], {"messages": []}])
def test_an_import_of_something_else_fails(opencode: Program, content: object) -> None:
    assert opencode("import", opencode.put(content)).returncode == 1


def test_an_export_through_a_pipe_is_cut_although_it_ends_well(opencode: Program) -> None:
    sent = a_transcript("x" * 3_000_000)
    opencode.take(sent)
    whole = len(opencode("export", id_of(sent)).stdout)
    argv = [opencode.binary, "--pure", "export", id_of(sent)]
    piped = subprocess.run(
        argv,
        cwd=opencode.project,
        env=opencode.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert whole > 3_000_000
    assert piped.returncode == 0
    assert len(piped.stdout) < whole


def test_an_export_of_an_unknown_session_prints_nothing(opencode: Program) -> None:
    done = opencode("export", f"ses_{'0' * 26}")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Session not found" in done.stderr


def test_deleting_a_session_deletes_its_children_and_says_when_there_is_none(opencode: Program) -> None:
    parent = a_transcript("hello")
    child = a_transcript("sub", parent_id=id_of(parent))
    opencode.take(parent)
    opencode.take(child)
    assert opencode("session", "delete", id_of(parent)).returncode == 0
    assert opencode("export", id_of(child)).returncode == 1
    again = opencode("session", "delete", id_of(parent))
    assert again.returncode == 1
    assert b"Session not found" in again.stdout + again.stderr


def test_sessions_are_listed_as_json_without_children_and_none_is_an_empty_output(opencode: Program) -> None:
    assert opencode("session", "list", "--format", "json").stdout == b""
    parent = a_transcript("hello")
    opencode.take(parent)
    opencode.take(a_transcript("sub", parent_id=id_of(parent)))
    listed = json.loads(opencode("session", "list", "--format", "json").stdout)
    assert [(entry["id"], entry["directory"]) for entry in listed] == [(id_of(parent), str(opencode.project))]


def test_the_database_answers_in_json_and_in_rows(opencode: Program) -> None:
    assert json.loads(opencode("db", "--format", "json", "select 1 as one, 'a' as two").stdout) == [
        {"one": 1, "two": "a"}
    ]
    assert json.loads(opencode("db", "--format", "json", "select id from session").stdout) == []
    assert opencode("db", "--format", "tsv", "select 1 as one, 'a' as two").stdout == b"one\ttwo\n1\ta\n"
    assert opencode("db", "--format", "tsv", "select nothing").returncode == 1


def test_agents_and_their_rules_are_told(opencode: Program) -> None:
    agent = json.loads(opencode("debug", "agent", "build").stdout)
    assert agent["mode"] == "primary"
    assert {"permission": "external_directory", "pattern": "*", "action": "ask"} in agent["permission"]
    assert opencode("debug", "agent", "nobody").returncode == 1
    listed = opencode("agent", "list").stdout.decode()
    assert {"build (primary)", "plan (primary)", "general (subagent)"} <= set(listed.splitlines())


def test_models_are_lines_and_an_unknown_provider_is_an_error(opencode: Program) -> None:
    lines = opencode("models").stdout.decode().splitlines()
    assert lines
    assert all(re.fullmatch(r"[^/\s]+/\S+", line) for line in lines)
    assert opencode("models", "no-such-provider").returncode == 1


def test_paths_and_configuration_are_told(opencode: Program) -> None:
    paths = dict(line.split(maxsplit=1) for line in opencode("debug", "paths").stdout.decode().splitlines())
    assert paths["data"] == str(opencode.root / "home" / ".local" / "share" / "opencode")
    assert paths["tmp"] == str(opencode.root / "tmp" / "opencode")
    assert isinstance(json.loads(opencode("debug", "config").stdout), dict)


def test_a_run_without_a_prompt_fails(opencode: Program) -> None:
    known = a_transcript("hello")
    opencode.take(known)
    done = opencode("run", "--session", id_of(known), "--dir", str(opencode.project), "--format", "json")
    assert done.returncode == 1
    assert b"You must provide a message" in done.stderr


def test_a_run_of_an_unknown_session_or_model_fails(opencode: Program) -> None:
    known = a_transcript("hello")
    opencode.take(known)
    run = _runner_of(opencode)
    unknown = run(f"ses_{'0' * 26}", "test/model")
    assert unknown.returncode == 1
    assert b"Session not found" in unknown.stdout + unknown.stderr
    no_model = run(id_of(known), "no-such/model")
    assert no_model.returncode == 1
    assert json.loads(no_model.stdout.splitlines()[-1])["type"] == "error"


def _runner_of(opencode: Program) -> Callable[[str, str], subprocess.CompletedProcess[bytes]]:
    def run(session_id: str, model: str) -> subprocess.CompletedProcess[bytes]:
        argv = [opencode.binary, "run", "--session", session_id, "--dir", str(opencode.project), "--model", model]
        return subprocess.run(
            [*argv, "--agent", "build", "--format", "json"],
            cwd=opencode.project,
            env=opencode.environment | {"PWD": str(opencode.project)},
            input=b"go on",
            capture_output=True,
            timeout=90,
            check=False,
        )

    return run
