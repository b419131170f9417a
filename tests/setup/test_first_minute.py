"""A new user, and a ~/.ssh/config with three hosts: one lacks OpenCode, one is behind it, one is dead.

From nothing to a first `send` by what the tool prints, and by nothing else.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.demo.home import OpencodeHome
from remote_dispatch.demo.provider import ScriptedModel
from tests.rig.sshd import Sshd, free_port
from tests.rig.stub import OPENCODE_STUB
from tests.rig.world import Machine, World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.rig.world import Ran
    from tests.rig.zygote import Zygote

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]
"""Slow: test_command.py, tests/cli/test_doctor.py and tests/hosts/test_import.py show each step with the stand-in."""

PATIENCE_S = 120


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel() as model:
        yield model


@pytest.fixture
def world(tmp_path: Path, real_opencode: Path, model: ScriptedModel, zygote: Zygote | None) -> Iterator[World]:
    """`bare` lacks OpenCode, `inner` is reached through it, `dead` listens no more; no host key is known."""
    url = model.url.replace("127.0.0.1", "localhost")
    with World(tmp_path, real_opencode, url, starter=zygote) as world, served(tmp_path / "inner") as inner:
        (world.host.bin / "opencode").unlink()
        (world.laptop.opencode.configuration / "hosts.json").unlink()
        for name in ("config", "known_hosts"):
            (world.laptop.home / ".ssh" / name).unlink()
        world.sshd.write_client_home(world.laptop.home, alias="bare", knows_host=False)
        inner.write_client_home(world.laptop.home, alias="inner", extra="ProxyJump bare", knows_host=False)
        with (world.laptop.home / ".ssh/config").open("a") as config:
            config.write(f"Host dead\n  HostName 127.0.0.1\n  Port {free_port()}\n")
        yield world


def served(directory: Path) -> Sshd:
    """A host with an OpenCode in its PATH, a stand-in."""
    machine = Machine(OpencodeHome(directory / "home", OPENCODE_STUB))
    machine.make(None)
    environment = dict(machine.opencode.environment)
    return Sshd(directory, home=machine.home, path=environment.pop("PATH"), environment=environment)


def typed(world: World, command: str, *more: str) -> Ran:
    """Type a command as it was printed."""
    program, *words = shlex.split(command)
    assert program == "remote-dispatch"
    return world.cli(*words, *more, "--json", timeout_s=PATIENCE_S)


def suggested(said: str) -> str:
    """The one command that a text names."""
    (command,) = re.findall(r"`(remote-dispatch [^`]+)`", said)
    return str(command)


def errors_of(ran: Ran) -> dict[str, dict[str, Any]]:
    """What is wrong with each host, as far as something is: the first error."""
    return {
        report["host"]: next(one for one in report["findings"] if one["severity"] == "error")
        for report in ran.data["reports"]
        if report["severity"] == "error"
    }


def fingerprint_of(sshd_directory: Path) -> str:
    """What the owner of the host says of its key."""
    argv = ["ssh-keygen", "-lf", str(sshd_directory / "host_key.pub")]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.split()[1]


def test_a_new_user_gets_to_a_first_send_by_what_is_printed(world: World, model: ScriptedModel) -> None:
    asked = world.cli("hosts", "import", "--json")
    assert (asked.exit_code, "`bare`, `inner`, `dead`" in asked.error["hint"]) == (7, True)
    imported = world.cli("hosts", "import", "--all", "--json")
    assert imported.data["hosts"] == ["bare", "inner", "dead"]

    errors = errors_of(typed(world, suggested(imported.stderr)))
    assert {host: error["check"] for host, error in errors.items()} == {
        "bare": "host-key",
        "inner": "host-key",
        "dead": "port",
    }
    keys = [word for name in ("sshd", "inner") for word in ("--accept-key", fingerprint_of(world.directory / name))]
    seen = errors_of(typed(world, errors["bare"]["command"], *keys))
    typed(world, errors["inner"]["command"], *keys)
    assert seen["bare"]["check"] == "opencode"

    installed = typed(world, seen["bare"]["command"])
    assert (installed.exit_code, installed.data["opencode"]["action"]) == (0, "install"), installed.stderr
    assert installed.data["opencode"]["size_bytes"] > 50_000_000
    looked = world.cli("doctor", "--json", timeout_s=PATIENCE_S)
    assert errors_of(looked).keys() == {"dead"}

    sent = world.cli("send", "bare", "--new", "!say hello from there", "--json", timeout_s=PATIENCE_S)
    assert (sent.exit_code, sent.data["state"]) == (0, "running"), sent.stderr
    world.await_end(timeout_s=PATIENCE_S)
    assert [call for call in model.calls if call.session_id == sent.data["session_id"]]
    (world.host.home / ".opencode/bin/opencode").unlink()
