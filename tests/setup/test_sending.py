from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import pytest

from remote_dispatch.model import Host
from remote_dispatch.remote.ssh import connect
from remote_dispatch.setup import Wishes, carry_out, make_plan
from tests.opencode.conftest import UnderShell
from tests.rig.sshd import Sshd

if TYPE_CHECKING:
    from remote_dispatch.setup import Installed
    from tests.setup.conftest import Pair

SIZE = 3_100_000


@pytest.mark.parametrize("sftp", ["external", "off"])
async def test_every_byte_that_arrives_is_told_and_so_is_what_was_there(
    tmp_path: Path, private_home: Path, sftp: Literal["external", "off"]
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(SIZE))
    place = PurePosixPath(tmp_path / "there")
    with Sshd(tmp_path / "sshd", sftp=sftp) as server:
        server.write_client_home(private_home)
        told: list[list[int]] = [[], []]
        for is_resumed in (False, True):
            async with connect(server.host(host="box", port=None)) as connection:
                await connection.upload(
                    place, {"x": source}, timeout_s=30, is_resumed=is_resumed, on_sent=told[is_resumed].append
                )

    assert sum(told[0]) == SIZE
    assert len(told[0]) > 0
    assert told[1] == [SIZE]


@pytest.mark.thorough
@pytest.mark.parametrize("shell", ["busybox", "bash", "dash", "zsh"])
async def test_the_scripts_run_in_every_shell_that_may_be_sh(machine: Pair, shell: str) -> None:
    installed = await _set_up_under(machine, shell)

    assert installed.version == "1.18.33"
    assert installed.warnings == ()
    machine.assert_tidy()


async def _set_up_under(machine: Pair, shell: str) -> Installed:
    """Set up a host whose sh is this shell; with busybox all of its tools are busybox's."""
    program = next((path for path in (Path("/bin") / shell, Path("/usr/bin") / shell) if path.exists()), None)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    machine.only_tools()
    for tool in machine.tools.iterdir() if shell == "busybox" else ():
        if tool.name not in ("getconf", "ldd", "perl", "openssl", "bash", "shasum"):
            tool.unlink()
            tool.symlink_to(program)
    (machine.tools / "sh").unlink()
    (machine.tools / "sh").symlink_to(program)
    variables = {"HOME": str(machine.there), "PATH": str(machine.tools), "SHELL": "/bin/sh"}
    connection = UnderShell(machine.tools / "sh", variables)
    plan = await make_plan(connection, Host(name="box", host="nowhere"), machine.here, Wishes())
    return await carry_out(connection, plan, machine.root / "cache", lambda *_: None)
