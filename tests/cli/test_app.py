"""The whole command line from outside: quick to start, helpful, and with an envelope at the end of every `--json`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remote_dispatch import __version__, cli
from remote_dispatch.cli.app import main as run_the_library
from tests.rig.world import commands

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("hosts", "list", "--names")
COMMANDS = [
    *((name,) for name, below in commands().items() if not below),
    *((name, one) for name, below in commands().items() for one in sorted(below)),
    *(("session", "server", one) for one in ("start", "status", "stop", "restart")),
]
WITHOUT_JSON = {("hosts", "path"), ("hosts", "edit"), ("session", "server"), ("acp", "bridge")}


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    return _run("-m", "remote_dispatch", *arguments)


def test_a_group_has_its_commands_wherever_its_name_stands() -> None:
    assert "install" in _cli("plugin", "--help").stdout
    assert _cli("hosts").stdout.count("hosts file") > 0


@pytest.fixture
def hosts_file(private_home: Path) -> Path:
    file = private_home / ".config/opencode/hosts.jsonc"
    file.parent.mkdir(parents=True)
    file.write_text('{"hosts": {"pi": "me@10.0.0.5", "lab": {"host": "lab"}}}')
    return file


@pytest.mark.parametrize(
    "further", [(), ("--json",), ("--hosts", "{file}"), ("--json", "--hosts", "{file}")], ids=" ".join
)
def test_the_quick_list_of_names_is_that_of_the_library(
    hosts_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], further: tuple[str, ...]
) -> None:
    arguments = [*NAMES, *(word.format(file=hosts_file) for word in further)]
    quick = _cli(*arguments)
    monkeypatch.setattr(sys, "argv", ["remote-dispatch", *arguments])
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit) as ended:
        run_the_library()
    assert (quick.returncode, quick.stdout, quick.stderr) == (ended.value.code or 0, *capsys.readouterr())


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("--names", (False, None)),
        ("--json --names", (True, None)),
        ("--names --hosts f --json", (True, Path("f"))),
        ("--hosts f --names", (False, Path("f"))),
        ("", None),
        ("--json", None),
        ("--names --names", None),
        ("--names --help", None),
        ("--names --hosts", None),
        ("--names --hosts --json", None),
        ("--hosts f --hosts g --names", None),
        ("--names --hosts=f", None),
        ("--names lab", None),
    ],
)
def test_only_a_plain_call_is_answered_quickly(words: str, asked: object) -> None:
    assert cli._asked(words.split()) == asked


def test_what_is_to_be_told_besides_the_names_is_told(hosts_file: Path) -> None:
    hosts_file.write_text('{"hosts": {"pi": "x", "bad": 7}}')
    done = _cli(*NAMES)
    assert (done.returncode, done.stdout) == (3, "pi\n")
    assert "`bad`" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_names_that_cannot_be_written_are_a_failure_like_any_other(hosts_file: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "remote_dispatch", *NAMES],
            cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30,
            check=False,
        )  # fmt: skip
    assert done.returncode == 11
    assert "no space left" in done.stderr


def test_the_version_is_told() -> None:
    assert _cli("--version").stdout.strip() == __version__


@pytest.fixture(scope="module")
def helps() -> dict[tuple[str, ...], str]:
    """What `--help` says of every command, asked in one process."""
    program = f"""
import contextlib, io, json, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from typer.main import get_command
from remote_dispatch.cli.app import app
command, said = get_command(app), {{}}
for words in {COMMANDS!r}:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        command([*words, "--help"], prog_name="remote-dispatch", standalone_mode=False)
    said[" ".join(words)] = out.getvalue()
print(json.dumps(said))
"""
    done = _run("-c", program)
    assert done.returncode == 0, done.stderr
    return {tuple(name.split()): text for name, text in json.loads(done.stdout).items()}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_json(helps: dict[tuple[str, ...], str], words: tuple[str, ...]) -> None:
    text = helps[words]
    assert f"Usage: remote-dispatch {' '.join(words)}" in text
    _, _, rest = text.partition("Usage:")
    described = next(line.strip() for line in rest.splitlines()[1:] if line.strip())
    assert described[0].isupper()
    assert ("--json" in text) or words in WITHOUT_JSON


@pytest.mark.parametrize(
    ("arguments", "command", "message"),
    [
        (("send", "--bogus"), "send", "no such option: --bogus"),
        (("send",), "send", "missing argument 'HOST'"),
        (("list", "extra"), "list", "got unexpected extra argument"),
        (("hosts", "add"), "hosts add", "missing argument"),
        (("nonsense",), "remote-dispatch", "no such command 'nonsense'"),
        (("hosts", "show", "a", "me@10.0.0.5"), "hosts show", "<address>"),
    ],
)
def test_a_call_that_makes_no_sense_still_ends_with_an_envelope(
    arguments: tuple[str, ...], command: str, message: str
) -> None:
    done = _cli(*arguments, "--json")
    assert done.returncode == 2
    envelope: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (envelope["schema"], envelope["command"], envelope["ok"], envelope["data"]) == (1, command, False, None)
    assert message in envelope["error"]["message"]
    assert envelope["error"]["exit_code"] == done.returncode
    assert "Traceback" not in done.stderr
    assert "10.0.0.5" not in done.stdout + done.stderr


def test_people_get_a_usage_line_and_exit_code_2() -> None:
    done = _cli("send", "--bogus")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: remote-dispatch send" in done.stderr


def test_without_arguments_help_is_shown() -> None:
    done = _cli()
    assert "Usage: remote-dispatch" in done.stdout + done.stderr
