"""`hosts validate`, `hosts path --origin`, and what `hosts list` says of entries that are not in a file of the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.terminal import HOSTS, envelope

if TYPE_CHECKING:
    from tests.cli.terminal import Terminal


def test_files_without_problems_are_exit_0(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    completed = terminal("hosts", "validate")
    assert (completed.returncode, completed.stdout) == (0, "")
    assert completed.stderr == "no problems: 3 hosts in 1 file\n"
    assert envelope(terminal("hosts", "validate", "--json"))["data"] == {
        "files": [str(terminal.file)],
        "problems": [],
        "remarks": [],
    }


def test_every_problem_of_every_file_is_named_with_its_place(terminal: Terminal) -> None:
    terminal.write('{"hosts": {"a": {"host": "u@@10.0.0.5",\n"port": 0},\n"all": "x"}}')
    other = terminal.file.with_name("hosts.json")
    other.write_text("{")
    completed = terminal("hosts", "validate")
    assert completed.returncode == 11
    assert [line.split(": ")[0] for line in completed.stdout.splitlines()] == [
        f"{terminal.file}:1",
        f"{terminal.file}:2",
        f"{terminal.file}:3",
        f"{other}:1",
    ]
    assert "error: the hosts files have 4 problems" in completed.stderr
    value = envelope(terminal("hosts", "validate", "--json"))
    assert len(value["data"]["problems"]) == 4
    assert value["error"]["kind"] == "configuration"


def test_what_surprises_is_a_note_and_no_problem(terminal: Terminal) -> None:
    terminal.write('{"hosts": {"a": "x", "Lab": "x"}}')
    terminal.file.with_name("hosts.json").write_text('{"hosts": {"a": "y", "lab": "z"}}')
    (terminal.project / "hosts.json").write_text('{"hosts": {"a": "me@10.0.0.5"}}')
    completed = terminal("hosts", "validate")
    assert completed.returncode == 0
    for word in ("is not trusted", "would redefine `a`", "host `a` in ", "is hidden", "differ only in case"):
        assert word in completed.stderr
    assert "10.0.0.5" not in completed.stderr
    assert len(envelope(terminal("hosts", "validate", "--json"))["data"]["remarks"]) == 3


def test_the_origin_of_every_field_and_what_it_hides(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    later = terminal.file.with_name("hosts.json")
    later.write_text('{"hosts": {\n"pi": {"host": "me@10.0.0.5",\n"me@10.0.0.5": 1,\n"port": 2222}}}')
    completed = terminal("hosts", "path", "--origin", "pi")
    assert completed.returncode == 3
    assert [line.split() for line in completed.stdout.splitlines()] == [
        ["FIELD", "FROM", "STATE"],
        ["host", f"{later}:2", "-"],
        ["?", f"{later}:3", "-"],
        ["port", f"{later}:4", "-"],
        *([field, f"{terminal.file}:3", "hidden", "by", f"{later}:2"] for field in ("host", "port", "agent", "model")),
    ]
    data = envelope(terminal("hosts", "path", "--origin", "dev", "--json"))["data"]
    assert data == {
        "host": "dev",
        "entries": [
            {
                "file": str(terminal.file),
                "line": 2,
                "kind": "user",
                "counts": True,
                "fields": [{"field": "host", "line": 2}],
            }
        ],
    }


def test_list_says_which_hosts_are_not_from_a_hosts_file_of_the_user(terminal: Terminal) -> None:
    terminal.write('{"hosts": {"a": "x"}}')
    configuration = terminal.file.with_name("opencode.json")
    configuration.write_text('{"plugin": [["remote-dispatch", {"hosts": {"b": "y"}}]]}')
    assert [line.split() for line in terminal("hosts", "list").stdout.splitlines()] == [
        ["NAME", "AGENT", "MODEL", "DIRECTORY", "PERMISSIONS", "FROM"],
        ["a", "-", "-", "-", "-", "-"],
        ["b", "-", "-", "-", "-", str(configuration)],
    ]
