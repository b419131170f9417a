"""`remote-dispatch doctor` as a user meets it: reports, exit codes, the envelope, fixes, and no address."""

from __future__ import annotations

import os
import pty
import re
import select
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.cli.doctor import failure_of
from remote_dispatch.cli.doctor_board import lines_of
from remote_dispatch.doctor.finding import Check, Finding, Report, Severity
from tests.rig.sshd import Sshd, free_port
from tests.rig.world import REPOSITORY, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.world import Ran
    from tests.rig.zygote import Zygote

STRANGER = "stranger-lan"
DEADLINE_S = 60
ON_HOST = list(Check)[list(Check).index(Check.RUN_DIRECTORY) :]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote | None) -> Iterator[World]:
    """A laptop, the host `pi`, the host `stranger` whose key is unknown, and `dead`, where nothing listens."""
    directory = tmp_path_factory.mktemp("doctor")
    with World(directory, starter=zygote) as world, Sshd(directory / "stranger") as stranger:
        stranger.write_client_home(world.laptop.home, alias=STRANGER, knows_host=False)
        world.write_hosts(
            pi={"model": "test/model"}, stranger={"host": STRANGER}, dead={"host": f"me@127.0.0.1:{free_port()}"}
        )
        yield world


@pytest.fixture
def known_hosts(world: World) -> Iterator[Path]:
    """The file as it is; what a test adds goes again."""
    path = world.laptop.home / ".ssh/known_hosts"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


def findings_of(ran: Ran, host: str | None) -> dict[str, dict[str, object]]:
    """Findings by check; of several the last."""
    (report,) = [one for one in ran.data["reports"] if one["host"] == host]
    return {one["check"]: one for one in report["findings"]}


def fingerprint_of(world: World) -> str:
    """The fingerprint of the stranger's host key, as `ssh-keygen -lf` prints it on its console."""
    key = world.directory / "stranger/host_key.pub"
    completed = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True, timeout=20)
    return completed.stdout.split()[1]


def test_a_host_in_order_is_fine_and_everything_was_looked_at(world: World) -> None:
    ran = world.cli("doctor", "pi", "--json")
    assert ran.exit_code == 0, ran.stdout
    assert ran.envelope["error"] is None
    assert [one["host"] for one in ran.data["reports"]] == [None, "pi"]
    assert set(findings_of(ran, "pi")) >= {"login", "sftp", *ON_HOST} - {"entry"}
    assert {one["severity"] for one in findings_of(ran, "pi").values()} <= {"ok", "note"}
    assert "fixes" not in ran.data


def test_each_host_has_its_report_with_cures_and_what_is_fine_is_one_line(world: World) -> None:
    ran = world.cli("doctor")
    assert ran.exit_code == 4
    assert {line for line in ran.stdout.splitlines() if line and not line.startswith(" ")} == {
        "this machine: 1 note",
        "pi: everything is fine",
        "stranger: 1 error",
        "dead: 1 error",
    }
    assert re.search(
        r"^  error    host-key +.+\n +.+\n +\$ remote-dispatch doctor stranger --fix$", ran.stdout, re.MULTILINE
    )
    assert len(re.findall(r"^  ok       .*\bgit\b", ran.stdout, re.MULTILINE)) == 1
    assert ran.stderr.startswith("error: stranger: ")
    assert "hint: run `remote-dispatch doctor stranger --fix`" in ran.stderr


@pytest.mark.thorough
def test_from_a_directory_that_is_gone_hosts_are_looked_at_all_the_same(world: World) -> None:
    gone = world.directory / "gone"
    gone.mkdir()
    leave = ("/bin/sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh")
    ran = world.start("doctor", "pi", "--json", cwd=gone, prefix=leave).finish()
    assert findings_of(ran, "pi")["login"]["severity"] == "ok"


def test_verbose_shows_what_is_fine_as_well(world: World) -> None:
    ran = world.cli("doctor", "pi", "-v")
    assert re.search(r"^  ok +git +git \d", ran.stdout, re.MULTILINE)
    assert ran.stderr == ""


def test_a_misspelt_name_gets_a_suggestion_and_nothing_is_looked_at(world: World) -> None:
    before = world.connections()
    ran = world.cli("doctor", "pi", "strangr", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (10, "unknown-name")
    assert "`stranger`" in ran.error["hint"]
    assert world.connections() == before


@pytest.mark.parametrize("words", [("--yes",), ("--accept-key", "SHA256:x")])
def test_an_answer_without_a_question_is_refused(world: World, words: tuple[str, ...]) -> None:
    before = world.connections()
    assert world.cli("doctor", "pi", *words).exit_code == 2
    assert world.connections() == before


def test_without_a_terminal_no_fix_is_taken_for_granted(world: World, known_hosts: Path) -> None:
    before = known_hosts.read_bytes()
    for words in (("--fix",), ("--fix", "--yes")):
        ran = world.cli("doctor", "stranger", *words, "--json")
        assert ran.exit_code == 7
        assert "--accept-key" in ran.error["hint"]
        assert [(one["fix"], one["outcome"]) for one in ran.data["fixes"]] == [("accept-host-key", "unanswered")]
        assert fingerprint_of(world) not in ran.stdout + ran.stderr
    assert known_hosts.read_bytes() == before


def test_another_fingerprint_than_the_named_one_is_refused(world: World, known_hosts: Path) -> None:
    before = known_hosts.read_bytes()
    ran = world.cli("doctor", "stranger", "--fix", "--accept-key", f"SHA256:{'A' * 43}")
    assert ran.exit_code == 4
    assert "another key than the one that `--accept-key` names" in ran.stderr
    assert known_hosts.read_bytes() == before


def test_the_named_fingerprint_is_accepted_and_the_host_looked_at_again(world: World, known_hosts: Path) -> None:
    fingerprint = fingerprint_of(world)
    ran = world.cli("doctor", "stranger", "--fix", "--accept-key", fingerprint, "--json")
    assert findings_of(ran, "stranger")["host-key"]["severity"] == "ok"
    assert findings_of(ran, "stranger")["login"]["severity"] == "ok"
    assert ran.data["fixes"][0].items() >= {"host": "stranger", "outcome": "done"}.items()
    assert fingerprint in ran.data["fixes"][0]["text"]


@pytest.mark.thorough
def test_yes_takes_the_hosts_file_from_others(world: World) -> None:
    hosts = world.write_hosts(pi={"model": "test/model", "env": {"TOKEN": "s3cret"}}, stranger={"host": STRANGER})
    hosts.chmod(0o644)
    try:
        seen = world.cli("doctor", "pi", "--json")
        assert (seen.exit_code, findings_of(seen, None)["hosts-file"]["fix"]) == (3, "file-mode")
        assert world.cli("doctor", "pi", "--fix", "--json").exit_code == 7
        assert stat.S_IMODE(hosts.stat().st_mode) == 0o644
        fixed = world.cli("doctor", "pi", "--fix", "--yes")
        assert fixed.exit_code == 0
        assert fixed.stdout.index("this machine: 1 warning") < fixed.stdout.index("this machine: 1 note")
        assert stat.S_IMODE(hosts.stat().st_mode) == 0o600
        assert "s3cret" not in seen.stdout + fixed.stdout
    finally:
        world.write_hosts(
            pi={"model": "test/model"}, stranger={"host": STRANGER}, dead={"host": f"me@127.0.0.1:{free_port()}"}
        )


@pytest.mark.thorough
@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_terminal_the_fingerprint_is_shown_and_asked_for(world: World, known_hosts: Path, answer: str) -> None:
    before = known_hosts.read_bytes()
    output = on_a_terminal(world, ("doctor", "stranger", "--fix"), answers=[answer, "n"])
    assert fingerprint_of(world) in output
    assert output.index(fingerprint_of(world)) < output.index("[y/N]")
    assert (known_hosts.read_bytes() != before) is (answer == "y")
    assert ("accepted the ED25519 key of stranger" in output) is (answer == "y")
    assert ("Put the OpenCode of this machine on stranger? [y/N]: " in output) is (answer == "y")
    assert "127.0.0.1" not in output


@pytest.mark.thorough
def test_on_a_terminal_a_host_in_order_comes_with_the_next_thing_to_type(world: World) -> None:
    output = on_a_terminal(world, ("doctor", "pi"), answers=[])
    assert "remote-dispatch send pi --new" in output
    assert "waiting for" in output


def on_a_terminal(world: World, words: tuple[str, ...], *, answers: list[str]) -> str:
    """Run the command line on a terminal and give an answer to each question; return all that the terminal got."""
    leader, follower = pty.openpty()
    environment = {**world.laptop.opencode.environment, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "remote_dispatch", *words],
        cwd=world.laptop.project,
        env=environment,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    ) as process:
        os.close(follower)
        output, given, end = b"", 0, time.monotonic() + DEADLINE_S
        while time.monotonic() < end and select.select([leader], [], [], DEADLINE_S)[0]:
            try:
                output += os.read(leader, 4096)
            except OSError:  # Linux: the other end is closed
                break
            while given < output.count(b"[y/N]: "):
                os.write(leader, f"{answers[given]}\n".encode())
                given += 1
        os.close(leader)
        process.kill()
    return output.decode(errors="replace")


# --- pure


def a_report(host: str | None, *found: tuple[Check, Severity]) -> Report:
    return Report(host, tuple(Finding(check, severity, "it is so", command="do this") for check, severity in found))


@pytest.mark.parametrize(
    ("checks", "code"),
    [
        ([Check.HOSTS_FILE], 11),
        ([Check.ENTRY], 11),
        ([Check.HOST_KEY], 4),
        ([Check.LOGIN], 4),
        ([Check.NAME], 5),
        ([Check.PORT], 5),
        ([Check.OPENCODE], 9),
        ([Check.OPENCODE_HERE], 9),
        ([Check.OPENCODE, Check.PORT], 5),
        ([Check.OPENCODE, Check.PORT, Check.LOGIN], 4),
        ([Check.OPENCODE, Check.LOGIN, Check.HOSTS_FILE], 11),
    ],
)
def test_the_worst_class_of_errors_makes_the_exit_code(checks: list[Check], code: int) -> None:
    reports = [a_report("box" if check is not Check.HOSTS_FILE else None, (check, Severity.ERROR)) for check in checks]
    error = failure_of(reports)
    assert error is not None
    assert error.exit_code == code
    assert error.hint == "run `do this`"


@pytest.mark.parametrize("severity", [Severity.OK, Severity.NOTE, Severity.WARNING, Severity.SKIPPED])
def test_what_is_no_error_makes_none(severity: Severity) -> None:
    assert failure_of([a_report("box", (Check.LOGIN, severity))]) is None


def test_a_command_for_the_host_says_so_and_is_never_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    command = "sudo timedatectl set-ntp true && " * 5
    finding = Finding(Check.CLOCK, Severity.WARNING, "its clock " * 12, "set it " * 20, command, is_there=True)
    lines = lines_of(Report("pi", (finding,)), is_verbose=False, width=80)
    assert f"on pi: $ {command.strip()}" in [line.strip() for line in lines]
    assert all(len(line) <= 80 for line in lines if "$" not in line)
    assert lines[1].startswith("  warning  clock          its clock")


@pytest.mark.parametrize("width", [20, 40, 71, 72, 200, None])
def test_narrow_terminals_show_all_the_words(width: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    report = Report("pi", (Finding(Check.NAME, Severity.ERROR, "one two three", "four five six", "seven eight"),))
    text = " ".join(" ".join(lines_of(report, is_verbose=False, width=width)).split())
    assert text == "pi: 1 error error name-resolves one two three four five six $ seven eight"


def test_what_hosts_say_cannot_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    report = Report("pi", (Finding(Check.SHELL, Severity.ERROR, "a\x1b[2Jb\nc", "d\x07", "e\x1b]0;x\x07f"),))
    text = "\n".join(lines_of(report, is_verbose=True, width=80))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "ab c" in text
