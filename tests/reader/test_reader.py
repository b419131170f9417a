"""The reader, run by the real OpenCode's own runtime: what it reads, and what it leaves to OpenCode itself.

It takes a hundredth of a second where OpenCode takes one: only what it is held to starts OpenCode.
"""

from __future__ import annotations

import gzip
import json
import runpy
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.opencode.program import Program
from remote_dispatch.reader import DONE, reader_script, reader_text
from remote_dispatch.remote.local import LocalConnection
from tests.opencode.conftest import SHELLS
from tests.rig.stub import OPENCODE_STUB, a_transcript

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.real

REFUSED = 94
SCHEMA: str = runpy.run_path(str(OPENCODE_STUB.with_name("stub_base.py")))["SCHEMA"]
NEWEST = "20260622202450_simplify_session_input"


class Machine:
    """A home with an OpenCode database, and the program that reads it."""

    def __init__(self, root: Path, binary: Path) -> None:
        self.root = root
        self.binary = binary
        self.environment = {"HOME": str(root), "PATH": "/usr/bin:/bin", "OPENCODE_DISABLE_MODELS_FETCH": "1"}
        self.data = root / ".local/share/opencode"

    @property
    def program(self) -> Program:
        return Program(LocalConnection(environment=self.environment, directory=self.root), self.binary)

    def read(self, *words: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        """Run the reader."""
        return subprocess.run(
            [str(self.binary), "-e", reader_text(), *words],
            cwd="/",
            env=self.environment | {"BUN_BE_BUN": "1"} | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )

    def sql(self, statement: str, *values: object) -> None:
        """Change the database without OpenCode."""
        self.data.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self.data / "opencode.db", timeout=10, isolation_level=None)) as connection:
            connection.executescript(statement) if not values else connection.execute(statement, values)

    def make_database(self, newest: str = NEWEST) -> str:
        """Make a database as OpenCode's is, with one session; return its id."""
        self.sql(f"pragma journal_mode = wal; {SCHEMA} create table migration (id text primary key)")
        self.sql("insert into migration values (?)", newest)
        session = "ses_000000000001TTTTTTTTTTTTTT"
        columns = "id, project_id, slug, directory, title, version, time_created, time_updated"
        self.sql(f"insert into session ({columns}) values (?, 'global', 's', '/', 't', '1', 1, 1)", session)
        return session


@pytest.fixture
def machine(tmp_path: Path, real_opencode: Path) -> Machine:
    return Machine(tmp_path, real_opencode)


def test_its_text_can_stand_in_single_quotes_of_a_shell_script() -> None:
    assert not set("'`$") & set(reader_text())
    assert not any(line.startswith("#") for line in reader_text().splitlines())


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_hands_the_text_over(machine: Machine, shell: str) -> None:
    machine.make_database()
    script = reader_script() + 'as_reader "$1" -e "$READER" rows tsv "select id, 1 as one from session"'
    argv = ["busybox", "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*argv, "-c", script, "sh", str(machine.binary)],
        env=machine.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (DONE, b"id\tone\nses_000000000001TTTTTTTTTTTTTT\t1\n")


# --- the same as OpenCode's own


def _rich(machine: Machine) -> tuple[str, str]:
    """Have OpenCode import two sessions, and fill every column that an export shows; return their ids."""
    first, second = a_transcript("hello", "hällo \u2028 \ud800", *["x" * 40_000] * 150), a_transcript("more")
    for transcript in (first, second):
        file = machine.root / "in.json"
        file.write_text(json.dumps(transcript))
        subprocess.run(
            [str(machine.binary), "--pure", "import", str(file)],
            cwd=machine.root,
            env=machine.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=90,
            check=True,
        )
    part = first["messages"][1]["parts"][0]
    values = {
        "workspace_id": "wrk_1", "parent_id": "ses_0", "share_url": "https://example.org/s", "summary_additions": 0,
        "summary_deletions": None, "summary_files": 3, "summary_diffs": '[{"file":"é","additions":1}]',
        "metadata": '{"b":1,"10":2,"2":3,"__proto__":{"z":1}}', "cost": 0.1 + 0.2, "tokens_input": 12345678901234,
        "revert": json.dumps({"diff": "d", "messageID": part["messageID"], "odd": 1, "partID": part["id"]}),
        "permission": '[{"permission":"*","pattern":"*","action":"deny"}]', "agent": "build", "time_compacting": 5,
        "model": '{"providerID":"p","extra":1,"id":"m"}', "time_archived": 0,
    }  # fmt: skip
    settings = ", ".join(f"{name} = ?" for name in values)
    machine.sql(f"update session set {settings} where id = ?", *values.values(), first["info"]["id"])
    odd = '{"id":"zzz","type":"text","text":"","numbers":[1.0,1e25,-0.0],"b":{"2":1,"1":2}}'
    machine.sql("update part set data = ? where id = ?", odd, part["id"])
    machine.sql("update message set time_created = 5 where session_id = ?", first["info"]["id"])
    empty = {"share_url": "", "metadata": "null", "summary_additions": 1, "path": None}
    settings = ", ".join(f"{name} = ?" for name in empty)
    machine.sql(f"update session set {settings} where id = ?", *empty.values(), second["info"]["id"])
    return first["info"]["id"], second["info"]["id"]


def test_it_exports_what_opencode_exports_value_for_value_and_in_its_order(machine: Machine) -> None:
    sessions = _rich(machine)
    files = [machine.root / name for name in ("first", "first.gz", "second", "second.gz")]
    words = [sessions[0], *map(str, files[:2]), sessions[1], *map(str, files[2:])]
    assert machine.read("export", *words).returncode == DONE
    for session, read, packed in zip(sessions, files[::2], files[1::2], strict=True):
        own = machine.root / "own"
        with own.open("wb") as target:
            subprocess.run(
                [str(machine.binary), "--pure", "export", session],
                env=machine.environment,
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=subprocess.DEVNULL,
                timeout=90,
                check=True,
            )
        assert _in_order(read.read_bytes()) == _in_order(own.read_bytes())
        assert gzip.decompress(packed.read_bytes()) == read.read_bytes()
    assert files[0].stat().st_mode & 0o777 == 0o600


def _in_order(data: bytes) -> Any:
    """Decode JSON so that the order of names counts too."""
    return json.loads(data, object_pairs_hook=list)


def test_a_session_is_one_line_a_message(machine: Machine) -> None:
    session = machine.make_database()
    for number in (2, 1):
        data = json.dumps({"role": "user"})
        machine.sql("insert into message values (?, ?, 7, 7, ?)", f"msg_{number}", session, data)
    target = machine.root / "out"
    assert machine.read("export", session, str(target), "").returncode == DONE
    lines = target.read_text().splitlines()
    assert [line[:28] for line in lines[1:3]] == ['{"info":{"role":"user","id":'] * 2
    assert ["msg_1" in lines[1], "msg_2" in lines[2], lines[3:]] == [True, True, ["]}"]]


# --- what it refuses


def _no_database(machine: Machine) -> dict[str, str]:
    (machine.data / "opencode.db").unlink()
    return {}


def _another_channel(machine: Machine) -> dict[str, str]:
    (machine.data / "opencode-dev.db").touch()
    return {}


def _a_missing_one_by_name(_machine: Machine) -> dict[str, str]:
    return {"OPENCODE_DB": "other.db"}


def _a_relative_place(_machine: Machine) -> dict[str, str]:
    return {"XDG_DATA_HOME": "data"}


@pytest.mark.parametrize(
    "change", [_no_database, _another_channel, _a_missing_one_by_name, _a_relative_place], ids=lambda one: one.__name__
)
def test_it_refuses_where_it_is_not_sure_which_database_counts(
    machine: Machine, change: Callable[[Machine], dict[str, str]]
) -> None:
    machine.make_database()
    done = machine.read("rows", "json", "select 1 as one", **change(machine))
    assert (done.returncode, done.stdout) == (REFUSED, b"")


def test_a_database_that_is_named_is_read_whatever_lies_beside_it(machine: Machine) -> None:
    machine.make_database()
    (machine.data / "opencode-dev.db").touch()
    for variables in ({"OPENCODE_DB": "opencode.db"}, {"OPENCODE_DISABLE_CHANNEL_DB": "1"}):
        assert machine.read("rows", "json", "select 1 as one", **variables).returncode == DONE


@pytest.mark.parametrize(
    "change",
    [
        "alter table session add column new text",
        "alter table part add column new text",
        "insert into migration values ('20990101000000_another')",
        'update session set revert = \'{"messageID":"odd"}\'',
        "update session set permission = '{'",
        "delete from session",
    ],
)
def test_it_exports_nothing_of_a_kind_that_it_does_not_know(machine: Machine, change: str) -> None:
    session = machine.make_database()
    words = ("export", session, str(machine.root / "out"), "")
    assert machine.read(*words).returncode == DONE
    machine.sql(change)
    assert machine.read(*words).returncode == REFUSED


def test_it_cannot_write(machine: Machine) -> None:
    machine.make_database()
    before = (machine.data / "opencode.db").read_bytes()
    for statement in ("delete from session", "pragma user_version = 5", "create table other (one)"):
        assert machine.read("rows", "json", statement).returncode == REFUSED
    assert (machine.data / "opencode.db").read_bytes() == before


def test_what_is_still_in_the_log_of_the_database_is_read_too(machine: Machine) -> None:
    machine.make_database()
    with closing(sqlite3.connect(machine.data / "opencode.db", isolation_level=None)) as open_elsewhere:
        open_elsewhere.execute("update session set title = 'newer'")
        assert (machine.data / "opencode.db-wal").stat().st_size > 0
        done = machine.read("rows", "json", "select title from session")
    assert json.loads(done.stdout) == [{"title": "newer"}]


# --- the project


async def test_nothing_that_a_project_holds_is_run(machine: Machine) -> None:
    machine.make_database()
    (machine.root / "bunfig.toml").write_text('preload = ["./hostile.js"]\n')
    (machine.root / "hostile.js").write_text('require("fs").writeFileSync("ran", "")\n')
    (machine.root / ".env").write_text("OPENCODE_DB=/nowhere.db\n")
    assert await machine.program.query("select 1 as one") == [{"one": 1}]
    assert not (machine.root / "ran").exists()
    # Where the project is in / itself.
    script = (
        f'{reader_script()}\ncd() {{ command cd "$HOME"; }}\nas_reader "$1" -e "$READER" rows tsv "select 1 as one"'
    )
    done = await machine.program.connection.run(script, str(machine.binary), timeout_s=30)
    assert (done.exit_status, done.stdout) == (DONE, b"one\n1\n")
    assert not (machine.root / "ran").exists()
    hostile = machine.environment | {"BUN_BE_BUN": "1"}
    subprocess.run(
        [str(machine.binary), "-e", "1"],
        cwd=machine.root,
        env=hostile,
        stdin=subprocess.DEVNULL,
        timeout=30,
        check=True,
    )
    assert (machine.root / "ran").exists(), "this test shows nothing"
