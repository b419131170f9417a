"""The command line and the opening of stdin, given to real login shells; and what their start-up files may do."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import HostNotReadyError
from remote_dispatch.remote.bootstrap import NoiseFilter, command_line, opening
from remote_dispatch.remote.ssh import connect
from tests.remote.test_connection import HOSTILE, PRINT_VALUES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rig.sshd import Sshd

MARKER = "0123456789abcdef"
SHELLS = {name: [name] for name in ("bash", "dash", "zsh", "fish", "tcsh", "ksh", "mksh")} | {
    "busybox": ["busybox", "sh"],
    "bash as sh": ["bash", "--posix"],
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    argv = SHELLS[request.param]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{argv[0]} is not installed")
    return argv


def through(shell: list[str], script: str, values: list[str], rest: bytes = b"") -> bytes:
    argv = [*shell, "-c", command_line(MARKER, script, values)]
    done = subprocess.run(
        argv, input=opening(MARKER, script, values) + rest, capture_output=True, timeout=20, check=True
    )
    noise = NoiseFilter(MARKER)
    return noise.feed(done.stdout)


def test_values_and_input_pass_every_login_shell(shell: list[str]) -> None:
    output = through(shell, f"{PRINT_VALUES}; cat", HOSTILE, b"the input\n")
    parts = output.split(b"\0")
    assert parts[:-1] == [value.encode("utf-8", "surrogateescape") for value in HOSTILE]
    assert parts[-1] == b"the input\n"


@pytest.mark.parametrize("inner", [["dash"], ["bash", "--posix"], ["busybox", "sh"], ["zsh", "--emulate", "sh"]])
def test_values_pass_every_shell_that_may_be_bin_sh(inner: list[str]) -> None:
    if shutil.which(inner[0]) is None:
        pytest.skip(f"{inner[0]} is not installed")
    line = command_line(MARKER, f"{PRINT_VALUES}; cat", HOSTILE).replace("/bin/sh", " ".join(inner), 1)
    feed = opening(MARKER, f"{PRINT_VALUES}; cat", HOSTILE) + b"in"
    for locale in ("C", "C.UTF-8"):
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": locale}
        done = subprocess.run(
            ["dash", "-c", line], input=feed, capture_output=True, timeout=20, check=True, env=environment
        )
        parts = NoiseFilter(MARKER).feed(done.stdout).split(b"\0")
        assert parts == [*(value.encode("utf-8", "surrogateescape") for value in HOSTILE), b"in"]


def test_the_command_line_holds_nothing_but_a_fixed_text_and_numbers() -> None:
    line = command_line(MARKER, PRINT_VALUES, HOSTILE)
    inner = re.fullmatch(rf"exec /bin/sh -c '([^'\\\n!]+)' sh {MARKER}(?: [0-9]+)+", line)
    assert inner is not None
    assert command_line(MARKER, "other", ["x"]).split("'")[1] == inner[1]


@pytest.mark.parametrize("missing", range(1, 40, 4))
def test_a_script_that_arrives_cut_does_not_run_at_all(missing: int, tmp_path: Path) -> None:
    script, values = 'echo ran >"$1"\n# a longer end', [str(tmp_path / "proof")]
    argv = ["sh", "-c", command_line(MARKER, script, values)]
    cut = opening(MARKER, script, values)[:-missing]
    assert subprocess.run(argv, input=cut, capture_output=True, timeout=20, check=False).returncode == 70
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_noise_before_the_marker_is_dropped_however_it_is_cut(size: int) -> None:
    text = b"welcome\n" * 300 + MARKER.encode() + b"\nthe output\n" + MARKER.encode() + b"\n"
    noise = NoiseFilter(MARKER)
    kept = b"".join(noise.feed(text[start : start + size]) for start in range(0, len(text), size))
    assert kept == b"the output\n" + MARKER.encode() + b"\n"


async def noisy(own_server: Callable[..., Sshd], client_home: Path, rc: str, **options: object) -> Sshd:
    server = own_server(**options)
    (server.remote_home / ".bashrc").write_text(rc)
    shell = await asyncio.to_thread(Path("/etc/passwd").read_text)
    if f":{'/bin/bash'}" not in shell:
        pytest.skip("the login shell is not bash")
    server.write_client_home(client_home)
    return server


async def test_what_a_start_up_file_prints_is_not_output(own_server: Callable[..., Sshd], client_home: Path) -> None:
    rc = "echo welcome; echo $SSH_CONNECTION; echo oops >&2; printf 'no end of line'"
    server = await noisy(own_server, client_home, rc)
    async with connect(server.host(host="box", port=None)) as connection:
        done = await connection.run("echo out; echo err >&2", timeout_s=10)
        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
        async with connection.open("echo streamed") as channel:
            assert [chunk async for chunk in channel.stdout()] == [b"streamed\n"]


async def test_a_start_up_file_that_spoils_sftp_spoils_no_transfer(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path
) -> None:
    server = await noisy(own_server, client_home, "echo welcome", sftp="external")
    async with connect(server.host(host="box", port=None)) as connection:
        await connection.upload(PurePosixPath(tmp_path / "up"), {"a/b": b"content"}, timeout_s=10)
        await connection.download(PurePosixPath(tmp_path / "up/a/b"), tmp_path / "down", limit_bytes=7, timeout_s=10)
    assert (tmp_path / "down").read_bytes() == b"content"


async def test_a_start_up_file_that_changes_path_and_directory_changes_nothing(
    own_server: Callable[..., Sshd], client_home: Path
) -> None:
    server = await noisy(own_server, client_home, "cd /; PATH=/nowhere")
    async with connect(server.host(host="box", port=None)) as connection:
        done = await connection.run('echo "$PWD"; echo "$PATH"', timeout_s=10)
    assert done.stdout.decode().splitlines() == [str(server.remote_home), "/nowhere"]


async def test_an_account_without_a_shell_is_said_so_in_its_own_words(
    own_server: Callable[..., Sshd], client_home: Path
) -> None:
    server = await noisy(own_server, client_home, "printf 'not \\033[31mavailable\\n'; exit 1")
    async with connect(server.host(host="box", port=None)) as connection:
        with pytest.raises(HostNotReadyError, match=r"did not start a command: not .*available"):
            await connection.run("echo out", timeout_s=10)


async def test_endless_noise_is_given_up(own_server: Callable[..., Sshd], client_home: Path) -> None:
    server = await noisy(own_server, client_home, "yes welcome")
    async with connect(server.host(host="box", port=None)) as connection:
        with pytest.raises(HostNotReadyError, match="did not start a command"):
            await connection.run("echo out", timeout_s=10)


async def test_a_start_up_file_that_eats_stdin_starts_nothing(
    own_server: Callable[..., Sshd], client_home: Path, tmp_path: Path
) -> None:
    server = await noisy(own_server, client_home, "read -r -n 3 answer")
    async with connect(server.host(host="box", port=None)) as connection:
        with pytest.raises(HostNotReadyError, match="did not start a command"):
            await connection.run('echo ran >"$1"', str(tmp_path / "proof"), timeout_s=10)
    assert not (tmp_path / "proof").exists()
