from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.rig.proxy import Proxy
from tests.rig.sshd import wait_until
from tests.rig.world import REPOSITORY, World
from tests.setup.conftest import RUNS_TINY_PROGRAMS
from tests.setup.programs import ARM64, GLIBC_ARM64, linked_program, put, tiny_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.rig.world import Ran
    from tests.rig.zygote import Zygote

pytestmark = pytest.mark.skipif(not RUNS_TINY_PROGRAMS, reason="needs Linux on x86-64")

SECRET = "sk-abcdefghijklmnop1234"


@pytest.fixture
def world(tmp_path: Path, zygote: Zygote | None) -> Iterator[World]:
    """A laptop with OpenCode, and the host `pi`, which lacks it."""
    with World(tmp_path, starter=zygote) as world:
        (world.host.bin / "opencode").unlink()
        put(tmp_path / "opencode", tiny_program(tail=os.urandom(6_000_000)))
        (world.laptop.opencode.configuration / "opencode.json").unlink(missing_ok=True)
        yield world


def variables(world: World) -> Mapping[str, str]:
    return {"REMOTE_DISPATCH_OPENCODE": str(world.directory / "opencode")}


def set_up(world: World, *arguments: str) -> Ran:
    return world.cli("hosts", "setup", "pi", *arguments, "--json", variables=variables(world))


def installed(world: World) -> Path:
    return world.host.home / ".opencode/bin/opencode"


def test_setting_up_a_host_gives_it_the_opencode_of_this_machine(world: World) -> None:
    ran = set_up(world)

    assert ran.exit_code == 0, ran.stderr
    assert installed(world).read_bytes() == (world.directory / "opencode").read_bytes()
    assert ran.data["opencode"] == {
        "action": "install",
        "path": "~/.opencode/bin/opencode",
        "version": "1.18.33",
        "size_bytes": installed(world).stat().st_size,
        "earlier": None,
    }
    assert ran.data["is_done"]
    assert [line["phase"] for line in ran.streams if line["type"] == "step"] == ["pack", "check"]
    progress = [line for line in ran.streams if line["type"] == "progress"]
    assert progress[-1]["sent_bytes"] == progress[-1]["total_bytes"]


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(world: World) -> None:
    ran = world.cli("hosts", "setup", "pi", "--dry-run", variables=variables(world))

    assert ran.exit_code == 0
    assert "OpenCode 1.18.33 (6 MiB) suits pi: Linux x64" in ran.stderr
    assert not (world.host.home / ".opencode").exists()


def test_without_a_terminal_progress_is_lines_with_percent(world: World) -> None:
    ran = world.cli("hosts", "setup", "pi", variables=variables(world))

    assert "sent 100 % (6 of 6 MiB)" in ran.stderr.splitlines()
    assert ran.stdout == ""
    assert ran.stderr.splitlines()[-1] == "OpenCode 1.18.33 is on pi: ~/.opencode/bin/opencode"


def test_an_upload_that_breaks_goes_on_where_it_broke(world: World) -> None:
    with Proxy(world.sshd.port) as proxy:
        _go_through(world, proxy)
        proxy.cut_after(5_000_000, "up")
        broken = set_up(world)

        assert (broken.exit_code, broken.error["kind"]) == (5, "connection-lost")
        assert "`remote-dispatch hosts setup pi` goes on" in broken.error["hint"]
        assert not installed(world).exists()

        before = proxy.bytes_up
        assert set_up(world).exit_code == 0
        # Of the five megabytes two may not have arrived, and two more are sent again because of servers with holes.
        assert proxy.bytes_up - before < 5_500_000
    assert installed(world).read_bytes() == (world.directory / "opencode").read_bytes()
    assert [path.name for path in installed(world).parent.iterdir()] == ["opencode"]


def test_a_command_that_is_killed_while_it_sends_goes_on_too(world: World) -> None:
    with Proxy(world.sshd.port) as proxy:
        _go_through(world, proxy)
        proxy.cut_after(10**9, "up")
        running = world.start("hosts", "setup", "pi", "--json", variables=variables(world))
        wait_until(lambda: proxy.bytes_up > 1_000_000, "nothing was sent", timeout_s=20)
        running.kill()

        assert not installed(world).exists()
        assert set_up(world).exit_code == 0
    assert installed(world).read_bytes() == (world.directory / "opencode").read_bytes()


def test_a_given_program_is_sent_where_its_header_suits(world: World) -> None:
    file = put(world.directory / "theirs", linked_program(ARM64, GLIBC_ARM64))

    refused = set_up(world, "--binary", str(file))

    assert refused.exit_code == 9
    assert refused.error["message"].startswith("pi: `theirs` cannot run there: it is built for Linux arm64, glibc")
    assert "on the host" in refused.error["hint"]

    file = put(world.directory / "another", tiny_program("2.0.0"))

    ran = set_up(world, "--binary", str(file))

    assert ran.data["opencode"]["version"] == "2.0.0"
    assert installed(world).read_bytes() == file.read_bytes()


def test_a_script_is_never_sent_as_if_it_were_the_program(world: World) -> None:
    ran = set_up(world, "--binary", str(world.laptop.bin / "opencode"))

    assert ran.exit_code == 2
    assert not (world.host.home / ".opencode").exists()


def test_a_misspelt_name_gets_suggestions_and_nothing_is_run(world: World) -> None:
    ran = world.cli("hosts", "setup", "pii", "--json")

    assert ran.exit_code == 10
    assert "`pi`" in ran.error["hint"]
    assert world.connections() == 0


def test_the_configuration_goes_on_request_and_says_what_stays(world: World) -> None:
    config = world.laptop.opencode.configuration
    (config / "opencode.json").write_text('{"plugin": ["file:///x/mine.js"], "model": "a/b"}')
    (config / "AGENTS.md").write_text("be kind")

    ran = set_up(world, "--with-config")

    there = world.host.home / ".config/opencode"
    assert ran.exit_code == 0, ran.stderr
    assert json.loads((there / "opencode.json").read_text()) == {"plugin": [], "model": "a/b"}
    assert (there / "AGENTS.md").read_text() == "be kind"
    assert [one["name"] for one in ran.data["config"]["left_out"]] == ["opencode.json: plugin `mine.js`"]
    assert not (there / "hosts.json").exists()


def test_an_address_in_the_names_of_files_plugins_and_providers_is_not_shown(world: World) -> None:
    config = world.laptop.opencode.configuration
    (config / "agents").mkdir()
    (config / "agents/me@203.0.113.7.md").write_text("be kind")
    (config / "opencode.json").write_text('{"plugin": ["/x/me@203.0.113.7"], "x@203.0.113.7": {"token": "a"}}')
    data = world.laptop.home / ".local/share/opencode"
    data.mkdir(parents=True, exist_ok=True)
    (data / "auth.json").write_text('{"me@203.0.113.7": {"key": "k"}}')

    seen = [set_up(world, "--with-config"), set_up(world, "--with-config", "--with-credentials", "--yes")]

    assert [one.exit_code for one in seen] == [0, 0]
    assert (world.host.home / ".config/opencode/agents/me@203.0.113.7.md").read_text() == "be kind"
    for one in seen:
        assert "agents/<address>" in one.stderr + one.stdout
        assert "203.0.113.7" not in one.stderr + one.stdout


def test_configuration_that_is_there_is_replaced_after_a_yes_only(world: World) -> None:
    there = world.host.home / ".config/opencode/AGENTS.md"
    there.write_text("theirs")
    (world.laptop.opencode.configuration / "AGENTS.md").write_text("ours")

    asked = set_up(world, "--with-config")
    assert (asked.exit_code, asked.error["kind"]) == (7, "answer-needed")
    assert "`--yes`" in asked.error["hint"]
    assert asked.data["config"]["replace"] == ["AGENTS.md"]
    assert there.read_text() == "theirs"
    assert not installed(world).exists()

    agreed = set_up(world, "--with-config", "--yes")
    assert agreed.exit_code == 0
    assert there.read_text() == "ours"
    assert there.with_name("AGENTS.md.before-setup").read_text() == "theirs"


def _with_credentials(world: World) -> None:
    data = world.laptop.home / ".local/share/opencode"
    data.mkdir(parents=True, exist_ok=True)
    (data / "auth.json").write_text(json.dumps({"anthropic": {"type": "api", "key": SECRET}}))
    config: dict[str, Any] = {"provider": {"x": {"options": {"apiKey": SECRET}}}}
    (world.laptop.opencode.configuration / "opencode.json").write_text(json.dumps(config))


def test_credentials_never_go_by_default(world: World) -> None:
    _with_credentials(world)

    ran = set_up(world, "--with-config", "--yes")

    assert ran.exit_code == 0
    assert "holds a secret" in ran.data["config"]["left_out"][0]["why"]
    for path in world.host.home.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_credentials_go_after_a_plain_warning_and_a_yes(world: World) -> None:
    _with_credentials(world)

    asked = set_up(world, "--with-config", "--with-credentials")
    assert asked.exit_code == 7
    assert "this sends credentials to pi" in asked.stderr
    assert "anthropic, those in opencode.json" in asked.stderr
    assert not list(world.host.home.rglob("auth.json"))

    agreed = set_up(world, "--with-config", "--with-credentials", "--yes")
    auth = world.host.home / ".local/share/opencode/auth.json"
    assert agreed.exit_code == 0
    assert SECRET in auth.read_text()
    assert auth.stat().st_mode & 0o777 == 0o600
    assert agreed.data["credentials"]["providers"] == ["anthropic"]
    for ran in (asked, agreed):
        assert SECRET not in ran.stdout + ran.stderr


def test_without_a_login_the_keys_in_the_configuration_go_alone(world: World) -> None:
    _with_credentials(world)
    (world.laptop.home / ".local/share/opencode/auth.json").unlink()

    alone = set_up(world, "--with-credentials", "--yes")
    assert (alone.exit_code, "--with-config" in alone.error["hint"]) == (2, True)
    both = set_up(world, "--with-config", "--with-credentials", "--yes")
    assert both.exit_code == 0
    assert "those in opencode.json" in both.stderr
    assert SECRET in (world.host.home / ".config/opencode/opencode.json").read_text()


def test_on_a_terminal_it_shows_a_bar_and_asks(world: World) -> None:
    _with_credentials(world)
    words = ("hosts", "setup", "pi", "--with-credentials")

    said, status = _on_a_terminal(world, words, {"Send them?": "y\n"})

    assert status == 0, said
    assert "packing" in said or "sending" in said
    assert "sent 10 %" not in said
    assert "OpenCode 1.18.33 is on pi" in said
    assert (world.host.home / ".local/share/opencode/auth.json").exists()


def test_a_no_does_nothing(world: World) -> None:
    _with_credentials(world)

    said, status = _on_a_terminal(world, ("hosts", "setup", "pi", "--with-credentials"), {"Send them?": "n\n"})

    assert (status, "nothing was done" in said) == (2, True), said
    assert not installed(world).exists()


def _go_through(world: World, proxy: Proxy) -> None:
    """Have the laptop reach the host through a proxy."""
    for name in ("config", "known_hosts"):
        path = world.laptop.home / ".ssh" / name
        path.write_text(path.read_text().replace(str(world.sshd.port), str(proxy.port)))


def _on_a_terminal(world: World, words: tuple[str, ...], answers: dict[str, str]) -> tuple[str, int]:
    """Run the command line on a pseudo-terminal; each answer is typed once its question stands there."""
    environment = {**world.laptop.opencode.environment, **variables(world), "PYTHONPATH": str(REPOSITORY)}
    terminal, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "remote_dispatch", *words],
        cwd=world.laptop.project,
        env={**environment, "TERM": "xterm", "COLUMNS": "100"},
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    said = b""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            try:
                said += os.read(terminal, 65536)
            except OSError:
                break
        for question in [one for one in answers if one.encode() in said]:
            os.write(terminal, answers.pop(question).encode())
    os.close(terminal)
    return said.decode(errors="replace"), process.wait(timeout=20)
