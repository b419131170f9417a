"""What we rely on in OpenCode's command line: held by the stand-in and, in tests marked `real`, by the real one.

Each start of the real one costs a second or two of a core: a test asks for several facts where one start shows them,
and reads the database itself where it is not the export that is held to something. What a whole dispatch in tests/real
would fail without, and what is rare, is asked of the real one by `make slow` only.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.opencode.probe import probe_script
from remote_dispatch.reader import DONE, reader_text
from remote_dispatch.runner.scripts import script
from tests.rig.stub import OPENCODE_STUB, a_transcript

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAMS = [pytest.param("stub"), pytest.param("real", marks=pytest.mark.real)]
the_real_one_is_slow = pytest.mark.parametrize(
    "opencode", ["stub", pytest.param("real", marks=[pytest.mark.real, pytest.mark.slow])], indirect=True
)


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

    def read(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Ask the reader."""
        return subprocess.run(
            [self.binary, "-e", reader_text(), *words],
            cwd="/",
            env=self.environment | {"BUN_BE_BUN": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=90,
            check=False,
        )

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

    @property
    def database(self) -> Path:
        """Where sessions are kept."""
        return self.root / "home/.local/share/opencode/opencode.db"

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database, or change it, without OpenCode."""
        with closing(sqlite3.connect(self.database, timeout=10, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()

    def texts(self, session_id: str) -> list[str]:
        """Return the text of every part of a session, in order."""
        statement = "select data from part where session_id = ? order by message_id, id"
        return [json.loads(data)["text"] for (data,) in self.sql(statement, session_id)]

    def rows(self, session_id: str) -> list[list[str]]:
        """Ask what the runner asks; rows as split by tabs, without their heading."""
        return self._answer(script("runner"), "$session", session_id)

    def probed_rows(self, session_id: str) -> list[list[str]]:
        """Ask what the probe asks of an old copy."""
        return self._answer(probe_script(), "$1", session_id)

    def _answer(self, text: str, variable: str, session_id: str) -> list[list[str]]:
        query = re.search(r'"\s*(with recursive .*?)"', text, re.DOTALL)
        assert query is not None
        statement = query[1].replace(variable, session_id).replace("\\$", "$")
        done = self("db", "--format", "tsv", statement)
        read = self.read("rows", "tsv", statement)
        assert (read.returncode, read.stdout) == (DONE, done.stdout)
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


@the_real_one_is_slow
def test_version_agents_and_models_are_plain_lines(opencode: Program) -> None:
    assert re.fullmatch(rb"\d+\.\d+\.\d+\n", opencode("--version").stdout)
    agents = opencode("agent", "list").stdout.decode().splitlines()
    assert {"build (primary)", "plan (primary)", "general (subagent)"} <= set(agents)
    models = opencode("models").stdout.decode().splitlines()
    assert models
    assert all(re.fullmatch(r"[^/\s]+/\S+", line) for line in models)


def test_p1_what_is_imported_is_exported_and_read_again_bound_to_the_directory_and_a_pipe_cuts_it(
    opencode: Program,
) -> None:
    sent = a_transcript("hello", 'with "quotes", ünïcode and\nlines', "x" * 3_000_000)
    done = opencode.take(sent)
    assert done.returncode == 0
    assert f"Imported session: {id_of(sent)}".encode() in done.stdout.splitlines()
    exported = opencode("export", id_of(sent)).stdout
    assert exported.rstrip(b"\n").endswith(b"}")
    back = json.loads(exported)
    assert back["info"]["directory"] == str(opencode.project)
    assert back["messages"] == sent["messages"]
    read, packed = opencode.root / "read", opencode.root / "read.gz"
    assert opencode.read("export", id_of(sent), str(read), str(packed)).returncode == DONE
    assert json.loads(gzip.decompress(packed.read_bytes())) == json.loads(read.read_bytes()) == back
    assert len(read.read_bytes().splitlines()) == len(back["messages"]) + 2
    status, piped = _into_a_pipe(opencode, "export", id_of(sent))
    assert status == 0
    assert len(piped) < len(exported)


def _into_a_pipe(opencode: Program, *arguments: str) -> tuple[int, bytes]:
    """Run a command whose output nobody takes before its end; return its exit status and what was in the pipe."""
    with subprocess.Popen(
        [opencode.binary, "--pure", *arguments],
        cwd=opencode.project,
        env=opencode.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            status = process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.stdout is not None
        return status, process.stdout.read()


@the_real_one_is_slow
def test_the_runners_query_tells_directory_counts_children_todos_and_database(opencode: Program) -> None:
    directory = opencode.root / 'a dir\nwith "quotes"\tand $(things) ü'
    directory.mkdir()
    parent = a_transcript("hello", "hi")
    child = a_transcript("sub", parent_id=id_of(parent))
    for transcript in (child, parent):
        assert opencode.take(transcript, cwd=directory).returncode == 0
    todo = (id_of(parent), 'a\tb"c', "pending", "high", 0, 1, 1)
    opencode.sql("insert into todo values (?, ?, ?, ?, ?, ?, ?)", *todo)
    told = opencode.rows(id_of(parent))
    rows = {row[1]: row for row in told if row[0] == "session"}
    encoded = str(directory).encode().hex().upper()
    assert rows[id_of(parent)][2:5] == [encoded, "2", "2"]
    assert rows[id_of(child)][2:5] == [encoded, "1", "1"]
    others = {row[0]: row[1] for row in told if row[0] != "session"}
    keys = ("session_id", "content", "status", "priority", "position")
    assert json.loads(others["todos"]) == [dict(zip(keys, todo, strict=False))]
    assert others["database"] == str(opencode.database)


def test_the_probe_sees_a_family_whose_turn_is_open_and_deleting_the_parent_deletes_all_of_it(
    opencode: Program,
) -> None:
    parent = a_transcript("hello", "working on it")
    child = a_transcript("sub", parent_id=id_of(parent))
    del parent["messages"][-1]["info"]["time"]["completed"], parent["messages"][-1]["info"]["finish"]
    for transcript in (child, parent):
        assert opencode.take(transcript).returncode == 0
    told = opencode.probed_rows(id_of(parent))
    kinds = [kind for kind, _ in told]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "session": 2, "message": 3, "part": 3, "database": 1, "open": 1, "changed": 1,
    }  # fmt: skip
    values = dict(told)
    assert values["open"] == parent["messages"][-1]["info"]["id"]
    assert values["database"] == str(opencode.database)
    assert abs(int(values["changed"]) / 1000 - time.time()) < 90

    assert opencode("session", "delete", id_of(parent)).returncode == 0
    assert opencode.sql("select id from session") == []
    assert opencode.sql("select id from part") == []
    again = opencode("session", "delete", id_of(parent))
    assert again.returncode == 1
    assert b"Session not found" in again.stdout + again.stderr


def test_a_second_import_adds_rows_moves_the_directory_and_changes_nothing_else(opencode: Program) -> None:
    sent = a_transcript("hello", "hi")
    opencode.take(sent)
    more = a_transcript("new", session_id=id_of(sent))
    more["messages"][0]["info"]["time"]["created"] += 10
    sent["messages"][0]["parts"][0]["text"] = "changed"
    sent["info"]["title"] = "changed"
    again = {"info": sent["info"], "messages": [*sent["messages"], *more["messages"]]}
    assert opencode.take(again, cwd=opencode.root / "other").returncode == 0
    assert opencode.texts(id_of(sent)) == ["hello", "hi", "new"]
    assert opencode.sql("select title, directory from session") == [("A conversation", str(opencode.root / "other"))]


@the_real_one_is_slow
def test_a_session_without_messages_can_be_imported(opencode: Program) -> None:
    empty = a_transcript()
    assert opencode.take(empty).returncode == 0
    assert opencode.give(id_of(empty))["messages"] == []


@the_real_one_is_slow
def test_an_import_of_null_ends_well_and_imports_nothing_and_one_of_something_else_fails(opencode: Program) -> None:
    done = opencode("import", opencode.put(None))
    assert done.returncode == 0
    assert b"Imported session" not in done.stdout
    assert opencode("import", opencode.put({"messages": []})).returncode == 1


def test_an_import_that_fails_on_the_way_leaves_a_part_of_the_session(opencode: Program) -> None:
    sent = a_transcript("hello", "hi")
    sent["messages"][1]["parts"][0]["id"] = "nonsense"
    done = opencode.take(sent)
    assert done.returncode == 1
    assert b"Imported session" not in done.stdout
    assert opencode.texts(id_of(sent)) == ["hello"]


@the_real_one_is_slow
def test_an_export_of_an_unknown_session_prints_nothing(opencode: Program) -> None:
    done = opencode("export", f"ses_{'0' * 26}")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Session not found" in done.stderr


@the_real_one_is_slow
def test_the_database_answers_in_json_and_fails_when_it_cannot(opencode: Program) -> None:
    some = opencode("db", "--format", "json", "select 1 as one, 'a' as two").stdout
    assert json.loads(some) == [{"one": 1, "two": "a"}]
    assert json.loads(opencode("db", "--format", "json", "select id from session").stdout) == []
    assert opencode("db", "--format", "tsv", "select nothing").returncode == 1


@the_real_one_is_slow
def test_a_run_without_a_prompt_of_an_unknown_session_or_model_fails(opencode: Program) -> None:
    known = a_transcript("hello")
    opencode.take(known)
    silent = opencode("run", "--session", id_of(known), "--dir", str(opencode.project), "--format", "json")
    assert silent.returncode == 1
    assert b"You must provide a message" in silent.stderr
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
