"""`remote-dispatch hosts` as a user meets it: what is printed where, exit codes, the envelope, and no address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.terminal import HOSTS, SECRETS, envelope, on_a_terminal

if TYPE_CHECKING:
    from tests.cli.terminal import Terminal


def test_a_host_is_added_listed_and_shown(terminal: Terminal) -> None:
    added = terminal(
        "hosts", "add", "lab", "me@10.0.0.5", "--port", "2222", "--agent", "build", "--permissions", "auto"
    )
    assert (added.returncode, added.stdout) == (0, "")
    assert added.stderr == (f"added `lab` to {terminal.file}\nsee whether it works with `remote-dispatch doctor lab`\n")
    assert terminal("hosts", "list").stdout == (
        "NAME  AGENT  MODEL  DIRECTORY  PERMISSIONS\nlab   build  -      -          auto\n"
    )
    shown = terminal("hosts", "show", "lab")
    assert shown.stdout.splitlines()[:3] == ["name         lab", "agent        build", "permissions  auto"]


def test_the_names_alone_suit_a_script(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    assert terminal("hosts", "list", "--names").stdout == "dev\nlab\npi\n"


def test_the_names_are_there_though_an_entry_or_a_file_is_broken(terminal: Terminal) -> None:
    terminal.write(HOSTS.replace('"me@10.0.0.5"', "7"))
    completed = terminal("hosts", "list", "--names", "--json")
    assert completed.returncode == 3
    assert envelope(completed)["data"] == {"names": ["lab", "pi"]}
    terminal.write("{")
    terminal.file.with_name("hosts.json").write_text(HOSTS)
    assert envelope(terminal("hosts", "list", "--names", "--json"))["data"] == {"names": ["dev", "lab", "pi"]}


def test_hosts_among_the_plugins_options_are_named_with_their_file(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    configuration = terminal.file.with_name("opencode.jsonc")
    configuration.write_text(
        '{"plugin": [["file:///x/remote-dispatch.js", {\n"hosts": {"dev": "other", "new": "x"}}]]}'
    )
    assert terminal("hosts", "list", "--names").stdout == "dev\nlab\nnew\npi\n"
    assert terminal("hosts", "show", "dev").stdout == f"name  dev\nfile  {configuration}:2\n"
    assert f"{configuration}" in terminal("hosts", "path").stdout
    layers = envelope(terminal("hosts", "path", "--json"))["data"]["layers"]
    assert (layers[-1]["path"], layers[-1]["kind"]) == (str(configuration), "inline")


def test_list_as_json(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    value = envelope(terminal("hosts", "list", "--json"))
    assert value["command"] == "hosts list"
    assert value["data"]["problems"] == []
    assert value["data"]["hosts"][2] == {
        "name": "pi",
        "agent": "build",
        "model": "provider/id",
        "directory": None,
        "permissions": None,
        "file": str(terminal.file),
        "line": 3,
        "kind": "user",
        "overrides": None,
    }


def test_show_as_json_names_variables_without_their_values(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    data = envelope(terminal("hosts", "show", "lab", "--json"))["data"]
    assert data["host"] == {"name": "lab", "directory": "~/src", "permissions": "auto", "env": ["TOKEN"]}
    assert (data["file"], data["line"]) == (str(terminal.file), 4)


def test_no_hosts_is_no_error(terminal: Terminal) -> None:
    completed = terminal("hosts", "list")
    assert (completed.returncode, completed.stdout) == (0, "")
    assert "hosts add NAME ADDRESS" in completed.stderr


def test_path_tells_what_is_read_missing_and_ignored(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    (terminal.project / "hosts.json").write_text(HOSTS)
    ignored = "ignored: it belongs to a project and is not trusted"
    states = [line.split("  ")[-1].strip() for line in terminal("hosts", "path").stdout.splitlines()]
    assert states == ["STATE", "read", "not there", "not there", ignored, "not there", "not there"]
    layers = envelope(terminal("hosts", "path", "--json"))["data"]["layers"]
    assert [layer["kind"] for layer in layers] == ["user", "user", "project", "project", "project", "project"]


def test_p29_a_project_file_is_inert(terminal: Terminal) -> None:
    (terminal.project / ".opencode").mkdir()
    (terminal.project / ".opencode" / "hosts.json").write_text('{"hosts": {"dev": "me@203.0.113.7"}}')
    completed = terminal("hosts", "list", "--names")
    assert (completed.returncode, completed.stdout) == (0, "")
    assert "note: " in completed.stderr
    assert terminal("hosts", "show", "dev").returncode == 10


def test_p35_problems_are_warnings_of_list_with_exit_code_3(terminal: Terminal) -> None:
    terminal.write('{"hosts": {"good": "x",\n"bad": {"host": "me@10.0.0.5",\n"port": "x"}}}')
    completed = terminal("hosts", "list", "--json")
    assert completed.returncode == 3
    assert completed.stderr == (
        f"warning: {terminal.file}:3: host `bad`: `port`: expected a whole number from 1 to 65535\n"
    )
    (problem,) = envelope(completed)["data"]["problems"]
    assert (problem["line"], problem["host"], problem["field"]) == (3, "bad", "port")


def test_p35_a_bad_entry_is_an_error_when_used(terminal: Terminal) -> None:
    terminal.write('{"hosts": {"bad": {"host": "x",\n"prot": 1}}}')
    completed = terminal("hosts", "show", "bad")
    assert (completed.returncode, completed.stdout) == (11, "")
    assert completed.stderr == (
        f"error: {terminal.file}:2: host `bad`: `prot`: unknown field; did you mean `port`?\n"
        "\n"
        "hint: correct the file, then see `remote-dispatch hosts validate`\n"
    )


def test_p37_an_edit_counts_at_the_next_command(terminal: Terminal) -> None:
    terminal.write('{"hosts": {"a": "x"}}')
    assert terminal("hosts", "list", "--names").stdout == "a\n"
    terminal.write('{"hosts": {"b": "x"}}')
    assert terminal("hosts", "list", "--names").stdout == "b\n"


def test_an_unknown_name_is_exit_10_with_a_guess(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    completed = terminal("hosts", "show", "labb", "--json")
    assert completed.returncode == 10
    assert envelope(completed)["error"] == {
        "kind": "unknown-name",
        "message": "no host is named `labb`; known: `dev`, `lab`, `pi`",
        "hint": "did you mean `lab`?",
        "exit_code": 10,
    }


def test_an_alias_of_ssh_is_offered(terminal: Terminal) -> None:
    (terminal.path / ".ssh").mkdir()
    (terminal.path / ".ssh" / "config").write_text("Host gpu\n  HostName 203.0.113.7\n")
    completed = terminal("hosts", "show", "gpu")
    assert "remote-dispatch hosts add gpu gpu" in completed.stderr
    assert "203.0.113.7" not in completed.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("a b", "me@box.example"),
        ("all", "me@box.example"),
        ("lab", "me@@box.example"),
        ("lab", "box.example", "--port", "0"),
    ],
)
def test_bad_input_of_add_is_exit_2_and_changes_nothing(terminal: Terminal, words: tuple[str, ...]) -> None:
    terminal.write(HOSTS)
    completed = terminal("hosts", "add", *words)
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr.startswith("error: ")
    assert terminal.file.read_text() == HOSTS


def test_a_named_file_is_used_alone(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    other = terminal.path / "other.json"
    assert terminal("hosts", "add", "x", "box", "--hosts", str(other)).returncode == 0
    assert terminal("hosts", "list", "--names", "--hosts", str(other)).stdout == "x\n"
    terminal.environment = {"REMOTE_DISPATCH_HOSTS": str(other)}
    assert terminal("hosts", "list", "--names").stdout == "x\n"


def test_reveal_prints_the_address_on_a_terminal(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    status, output = on_a_terminal(terminal, "hosts", "show", "pi", "--reveal")
    assert status == 0
    assert "me@pi.lan" in output
    assert "2222" in output
    assert "me@pi.lan" not in on_a_terminal(terminal, "hosts", "show", "pi")[1]


def test_reveal_is_refused_elsewhere(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    for words in ((), ("--json",)):
        completed = terminal("hosts", "show", "pi", "--reveal", *words)
        assert completed.returncode == 2
        assert "terminal only" in completed.stderr
    status, output = on_a_terminal(terminal, "hosts", "show", "pi", "--reveal", "--json")
    assert status == 2
    assert "pi.lan" not in output


def test_p30_no_output_of_any_command_contains_an_address(terminal: Terminal) -> None:
    commands = [
        *(("list", *more) for more in ((), ("--json",), ("--names",))),
        *(("show", name) for name in ("dev", "pi", "lab", "bad", "nix", "10.0.0.5")),
        *(("show", name, more) for name in ("dev", "pi", "bad", "nix") for more in ("--json", "--reveal")),
        ("path",),
        ("path", "--json"),
        ("add", "dev", "me@box.example"),
        ("add", "me@box.example", "x", "--json"),
        ("add", "y", "me@@box.example"),
    ]
    project = terminal.project / "hosts.json"
    project.write_text('{"hosts": {"theirs": "me@203.0.113.7"}}')
    broken = HOSTS.replace(
        '"dev": "', '"bad": { "host": "me@10.0.0.5 x", "me@box.example": 1 }, "me@box.example": 1, "dev": "'
    )
    for text in (HOSTS, broken, HOSTS.replace('"me@10.0.0.5"', "me@10.0.0.5"), '{"hosts": "me@10.0.0.5"}'):
        terminal.write(text)
        for words in commands:
            completed = terminal("hosts", *words)
            output = completed.stdout + completed.stderr
            assert not [secret for secret in SECRETS if secret in output], (words, output)
            assert "Traceback" not in output


def test_the_table_becomes_blocks_on_a_narrow_terminal(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    terminal.environment = {"COLUMNS": "30", "NO_COLOR": "1"}
    output = on_a_terminal(terminal, "hosts", "list")[1].replace("\r\n", "\n")
    assert output.startswith("dev\n  agent: -\n  model: -\n")


@pytest.mark.parametrize(
    ("variables", "is_colored"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_color_is_for_terminals_that_want_it(terminal: Terminal, variables: dict[str, str], is_colored: bool) -> None:
    terminal.environment = {"TERM": "xterm", **variables}
    assert ("\x1b[" in on_a_terminal(terminal, "hosts", "show", "x")[1]) == is_colored
    assert "\x1b[" not in terminal("hosts", "show", "x").stderr


def test_names_are_completed_and_a_broken_file_completes_nothing(terminal: Terminal) -> None:
    terminal.write(HOSTS)
    terminal.environment = {
        "_REMOTE_DISPATCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "remote-dispatch hosts show l",
        "COMP_CWORD": "3",
    }
    assert terminal.process().stdout.split() == ["lab"]
    terminal.write("{")
    completed = terminal.process()
    assert (completed.stdout.strip(), completed.stderr) == ("", "")
