"""What every connection must do: one suite, run against this machine and against a real sshd."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import DeadlinePassedError, HostNotReadyError, IntegrityError
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.remote.ssh import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from remote_dispatch.remote.connection import Connection
    from tests.rig.sshd import Sshd

HOSTILE = [
    "",
    " ",
    "a b",
    "ends with newlines\n\n\n",
    "\n",
    "'",
    '"',
    'it\'s "quoted"',
    "$(touch gone)",
    "`touch gone`",
    "$HOME ~ ~root *",
    "\\",
    "\\n \\0101 %s %d",
    "a;b|c&d>e<f",
    "!!",
    "-n",
    "--",
    ".",
    "..",
    "é 漢字 🦊 \u202e",
    "\x01\x1b[31m\x7f\r\t",
    "not utf-8: \udcff\udcc3",
    "{a,b}[x](y)#z",
    "EOF\nEOF",
]
TICK = "while sleep 0.1; do echo tick; done"
"""Endless, and ended by SIGPIPE once nobody listens."""
PRINT_VALUES = 'for value do printf "%s\\0" "$value"; done'


@asynccontextmanager
async def open_connection(kind: str, server: Sshd, home: Path) -> AsyncIterator[Connection]:
    if kind == "local":
        yield LocalConnection(environment={**os.environ, "HOME": str(server.remote_home)})
        return
    server.write_client_home(home)
    async with connect(server.host(host="box", port=None)) as connection:
        yield connection


@pytest.fixture(params=["local", "ssh", "ssh without sftp"])
async def connection(
    request: pytest.FixtureRequest, server: Sshd, server_without_sftp: Sshd, client_home: Path
) -> AsyncIterator[Connection]:
    used = server_without_sftp if "without" in request.param else server
    async with open_connection(request.param, used, client_home) as opened:
        yield opened


async def test_values_arrive_byte_for_byte(connection: Connection) -> None:
    done = await connection.run(PRINT_VALUES, *HOSTILE, timeout_s=10)
    assert done.stdout.split(b"\0")[:-1] == [value.encode("utf-8", "surrogateescape") for value in HOSTILE]
    assert done.exit_status == 0


async def test_a_script_without_values_has_none(connection: Connection) -> None:
    assert (await connection.run('echo "$#"', timeout_s=10)).stdout == b"0\n"


async def test_a_value_of_a_hundred_kilobytes_arrives_whole(connection: Connection) -> None:
    value = "0123456789" * 10_000
    assert (await connection.run('printf %s "$1"', value, timeout_s=10)).stdout == value.encode()


async def test_a_value_with_a_nul_is_refused(connection: Connection) -> None:
    with pytest.raises(ValueError, match="NUL"):
        await connection.run("true", "a\0b", timeout_s=10)


async def test_a_script_may_hold_every_kind_of_quote_and_line(connection: Connection) -> None:
    script = "x='it is'\nprintf '%s\\n' \"$x\"\ncat <<'END'\n$x `id` \\\nEND\necho é # a comment"
    assert (await connection.run(script, timeout_s=10)).stdout == "it is\n$x `id` \\\né\n".encode()


async def test_output_errors_and_exit_status_are_kept_apart(connection: Connection) -> None:
    done = await connection.run("echo out; echo err >&2; exit 42", timeout_s=10)
    assert (done.exit_status, done.stdout, done.stderr) == (42, b"out\n", b"err\n")


async def test_a_signal_is_a_negative_status(connection: Connection) -> None:
    assert (await connection.run("kill -9 $$", timeout_s=10)).exit_status == -9


async def test_without_input_stdin_is_at_its_end(connection: Connection) -> None:
    assert (await connection.run("cat; echo end", timeout_s=10)).stdout == b"end\n"


async def test_stdin_starts_at_the_first_byte_of_the_input(connection: Connection) -> None:
    assert (await connection.run("cat", "value", timeout_s=10, input=b"\nfirst\0\xff")).stdout == b"\nfirst\0\xff"


@pytest.mark.thorough
@pytest.mark.parametrize("size", [1_000_000, 20_000_000])
async def test_large_input_arrives_whole(connection: Connection, size: int) -> None:
    data = os.urandom(1000) * (size // 1000)
    done = await connection.run("sha256sum", timeout_s=30, input=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


@pytest.mark.thorough
async def test_large_input_and_output_at_once_do_not_block_each_other(connection: Connection) -> None:
    data = os.urandom(1000) * 8000
    assert (await connection.run("cat", timeout_s=30, input=data)).stdout == data


async def test_a_script_that_reads_none_of_its_input_still_ends(connection: Connection) -> None:
    assert (await connection.run("exec <&-; exit 3", timeout_s=10, input=b"x" * 5_000_000)).exit_status == 3


async def test_large_output_on_both_streams_arrives_whole(connection: Connection) -> None:
    script = "head -c 4000000 /dev/zero >&2 & head -c 20000000 /dev/zero; wait"
    done = await connection.run(script, timeout_s=30)
    assert (len(done.stdout), len(done.stderr)) == (20_000_000, 4_000_000)


async def test_a_deadline_ends_the_waiting(connection: Connection) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlinePassedError, match=r"did not end in 0\.3 s"):
        await connection.run(TICK, timeout_s=0.3)
    assert time.monotonic() - began < 5


async def test_a_connection_is_usable_after_a_deadline(connection: Connection) -> None:
    with pytest.raises(DeadlinePassedError):
        await connection.run(TICK, timeout_s=0.3)
    assert (await connection.run("echo still here", timeout_s=10)).stdout == b"still here\n"


async def test_twelve_commands_at_once_all_end(connection: Connection) -> None:
    done = await asyncio.gather(*(connection.run('echo "$1"', str(number), timeout_s=20) for number in range(12)))
    assert [one.stdout for one in done] == [b"%d\n" % number for number in range(12)]


async def test_a_detached_process_outlives_the_command_that_started_it(connection: Connection, tmp_path: Path) -> None:
    gate, proof = tmp_path / "gate", tmp_path / "proof"
    work = 'until [ -e "$1" ]; do sleep 0.02; done; : >"$2"'
    script = '(setsid sh -c "$3" sh "$1" "$2" >/dev/null 2>&1 </dev/null &)'
    await connection.run(script, str(gate), str(proof), work, timeout_s=5)
    gate.touch()
    await until(proof.exists)


async def test_output_can_be_read_while_the_script_runs(connection: Connection, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = 'echo first; until [ -e "$1" ]; do sleep 0.02; done; echo second; exit 5'
    async with asyncio.timeout(10), connection.open(script, str(gate)) as channel:
        output = channel.stdout()
        assert await anext(output) == b"first\n"
        gate.touch()
        assert b"".join([chunk async for chunk in output]) == b"second\n"
        assert b"".join([chunk async for chunk in channel.stderr()]) == b""
        assert await channel.wait() == 5


async def test_an_open_script_has_no_stdin(connection: Connection) -> None:
    async with asyncio.timeout(10), connection.open("cat; echo end") as channel:
        assert b"".join([chunk async for chunk in channel.stdout()]) == b"end\n"


async def test_waiting_reads_what_nobody_asked_for(connection: Connection) -> None:
    script = "head -c 6000000 /dev/zero; head -c 6000000 /dev/zero >&2; exit 4"
    async with asyncio.timeout(20), connection.open(script) as channel:
        assert await channel.wait() == 4


async def test_leaving_an_open_script_early_ends_one_that_prints(connection: Connection, tmp_path: Path) -> None:
    proof = tmp_path / "pid"
    async with asyncio.timeout(10):
        async with connection.open('echo $$ >"$1"; while echo tick; do sleep 0.02; done', str(proof)) as channel:
            await anext(channel.stdout())
        pid = int(proof.read_text())
        await until(lambda: not is_alive(pid))


async def test_uploaded_files_are_private_whatever_the_umask(connection: Connection, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"from a file")
    source.chmod(0o644)
    target = PurePosixPath(tmp_path) / "deep" / "run dir"
    old = os.umask(0)
    try:
        await connection.upload(target, {"a": b"1", "sub dir/é/b": b"", "param/c": source}, timeout_s=10)
    finally:
        os.umask(old)
    found = {str(path.relative_to(target)): path for path in Path(target).rglob("*")}
    assert {name for name, path in found.items() if path.is_file()} == {"a", "sub dir/é/b", "param/c"}
    assert {path.stat().st_mode & 0o777 for path in found.values() if path.is_file()} == {0o600}
    directories = [Path(target).parent, Path(target), *(path for path in found.values() if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in directories} == {0o700}
    assert found["param/c"].read_bytes() == b"from a file"


async def test_an_upload_replaces_files_and_their_modes(connection: Connection, tmp_path: Path) -> None:
    old = tmp_path / "file"
    old.write_bytes(b"old and longer")
    old.chmod(0o644)
    (tmp_path / "file.part").write_bytes(b"an earlier try, much longer than the new content")
    (tmp_path / "file.part").chmod(0o666)
    await connection.upload(PurePosixPath(tmp_path), {"file": b"new"}, timeout_s=10)
    assert old.read_bytes() == b"new"
    assert old.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]


@pytest.mark.thorough
async def test_what_stands_where_a_part_belongs_is_never_written_through(
    connection: Connection, tmp_path: Path
) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.write_text("mine")
    (place / "a.part").symlink_to(elsewhere)
    await connection.upload(PurePosixPath(place), {"a": b"new", "deep/b": b"2"}, timeout_s=10)
    assert (place / "a").read_bytes() == b"new"
    assert (place / "deep/b").read_bytes() == b"2"
    assert elsewhere.read_text() == "mine"
    assert sorted(path.name for path in place.iterdir()) == ["a", "deep"]


async def test_small_files_are_on_their_way_before_they_have_arrived(
    server: Sshd, client_home: Path, tmp_path: Path
) -> None:
    told: list[str] = []
    async with open_connection("ssh", server, client_home) as connection:
        await connection.upload(
            PurePosixPath(tmp_path / "new/place"),
            {"a": b"1" * 300_000, "deep/b": b"2"},
            timeout_s=10,
            on_sent=lambda size: told.append(str(size)),
            on_gone=lambda: told.append("gone"),
        )
    assert told == ["gone", "250000", "50000", "1"]
    assert (tmp_path / "new/place/a").read_bytes() == b"1" * 300_000


async def test_many_small_files_and_a_large_one_arrive_equal(connection: Connection, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(1000) * 9000)
    files: dict[str, bytes | Path] = {f"param/{number}": b"%d" % number for number in range(60)}
    await connection.upload(PurePosixPath(tmp_path / "up"), {**files, "large": large}, timeout_s=30)
    assert all((tmp_path / "up" / name).read_bytes() == content for name, content in files.items())
    assert (tmp_path / "up" / "large").read_bytes() == large.read_bytes()


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", "."])
async def test_an_upload_outside_its_directory_is_refused(connection: Connection, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a relative file name"):
        await connection.upload(PurePosixPath(tmp_path / "up"), {name: b""}, timeout_s=10)
    assert not (tmp_path / "up").exists()


async def test_a_full_disk_is_called_that(connection: Connection, small_disk: Path) -> None:
    target = PurePosixPath(small_disk / "run")
    with pytest.raises(HostNotReadyError, match="no space left"):
        await connection.upload(target, {"small": b"1", "large": b"x" * 1_000_000}, timeout_s=10)
    assert [path.name for path in small_disk.rglob("*") if path.is_file() and path.name != "small"] == []


async def test_a_full_disk_leaves_the_older_file_as_it_is(connection: Connection, small_disk: Path) -> None:
    (large := small_disk / "large").write_bytes(b"older")
    with pytest.raises(HostNotReadyError, match="no space left"):
        await connection.upload(PurePosixPath(small_disk), {"large": b"x" * 900_000}, timeout_s=10)
    assert large.read_bytes() == b"older"


async def test_a_name_that_cannot_be_written_is_an_error_of_the_host(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "file.part").mkdir()
    with pytest.raises(HostNotReadyError):
        await connection.upload(PurePosixPath(tmp_path), {"file": b"x"}, timeout_s=10)
    assert not (tmp_path / "file").exists()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
async def test_a_name_that_is_taken_leaves_no_file_open_there(connection: Connection, tmp_path: Path) -> None:
    (place := tmp_path / "up").mkdir()
    for number in range(3):
        (place / f"{number}.part").write_bytes(b"left")
    files = {f"{number}": b"x" for number in range(6)}
    await connection.upload(PurePosixPath(place), files, timeout_s=10)
    assert {path.name for path in place.iterdir()} == set(files)
    assert [name for name in map(_target, Path("/proc").glob("[0-9]*/fd/*")) if name.startswith(f"{place}/")] == []


def _target(descriptor: Path) -> str:
    """The file behind a descriptor; nothing where its process has gone."""
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""


async def test_a_place_that_is_no_directory_is_an_error_of_the_host(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HostNotReadyError, match=r"directory|exists"):
        await connection.upload(PurePosixPath(tmp_path / "file" / "sub"), {"x": b"x"}, timeout_s=10)


async def test_a_missing_local_file_is_no_error_of_the_host(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connection.upload(PurePosixPath(tmp_path / "up"), {"x": tmp_path / "missing"}, timeout_s=10)
    assert not (tmp_path / "up" / "x").exists()


async def test_a_download_is_whole_private_and_replaces(connection: Connection, tmp_path: Path) -> None:
    content = os.urandom(1000) * 9000
    (tmp_path / "source").write_bytes(content)
    (tmp_path / "target").write_bytes(b"old")
    source = PurePosixPath(tmp_path / "source")
    await connection.download(source, tmp_path / "target", limit_bytes=len(content), timeout_s=10)
    assert (tmp_path / "target").read_bytes() == content
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source", "target"]


async def test_an_empty_file_comes_home_empty(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "source").touch()
    await connection.download(PurePosixPath(tmp_path / "source"), tmp_path / "target", limit_bytes=0, timeout_s=10)
    assert (tmp_path / "target").read_bytes() == b""


@pytest.mark.parametrize("name", ["missing", "a directory", "a fifo"])
async def test_a_download_of_no_file_leaves_nothing(connection: Connection, tmp_path: Path, name: str) -> None:
    (tmp_path / "a directory").mkdir()
    os.mkfifo(tmp_path / "a fifo")
    with pytest.raises(FileNotFoundError):
        await connection.download(PurePosixPath(tmp_path / name), tmp_path / "target", limit_bytes=10, timeout_s=10)
    assert not list(tmp_path.glob("target*"))


async def test_a_download_over_its_limit_leaves_nothing(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 11)
    with pytest.raises(IntegrityError, match="larger than 10 bytes"):
        await connection.download(PurePosixPath(tmp_path / "source"), tmp_path / "target", limit_bytes=10, timeout_s=10)
    assert not list(tmp_path.glob("target*"))


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        # It ended in between, or this system has no /proc.
        return not Path("/proc/self").exists()
    return state.rpartition(")")[2].split(maxsplit=1)[0] != "Z"
