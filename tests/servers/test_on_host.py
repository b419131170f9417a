"""Our server on a host: found, started once, stopped whole; with a stand-in, by every shell."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.demo.processes import end_processes_of
from remote_dispatch.errors import HostNotReadyError
from remote_dispatch.model import Host
from remote_dispatch.remote.bootstrap import command_line, opening
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.servers import on_host
from tests.rig.sshd import wait_until
from tests.rig.world import REPOSITORY
from tests.servers.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = Host(name="pi", host="pi-lan")
INNER = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"], "zsh": ["zsh", "--emulate", "sh"]}


@pytest.fixture
def there(tmp_path: Path) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path / "home")
    yield stand_in
    end_processes_of(stand_in.home)


@pytest.fixture
def connection(there: StandIn) -> LocalConnection:
    return LocalConnection(environment=there.variables, directory=there.home)


async def test_where_nothing_was_started_nothing_is_found_and_nothing_is_made(
    there: StandIn, connection: LocalConnection
) -> None:
    assert await on_host.find(connection) is None
    assert not await on_host.stop(connection, None, None)
    assert not (there.home / ".local").exists()


async def test_a_second_start_returns_the_running_server(there: StandIn, connection: LocalConnection) -> None:
    first = await on_host.start(connection, HOST)
    second = await on_host.start(connection, HOST)
    assert second == first == await on_host.find(connection)
    assert (first.is_new, second.is_new) == (True, False)
    assert there.serving() == [first.pid]
    assert (first.version, first.directory, first.home) == ("1.18.33", str(there.home), str(there.home))
    assert first.is_loopback_only is not False


async def test_nobody_else_can_read_the_password(there: StandIn, connection: LocalConnection) -> None:
    running = await on_host.start(connection, HOST, idle_stop_s=600)
    assert running.password not in repr(running)
    assert str(running.port) not in repr(running)
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            assert running.password.encode() not in place.read_bytes()
    for path in (there.place, *there.place.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


async def test_a_server_has_its_entrys_directory_and_environment_and_no_address(
    there: StandIn, connection: LocalConnection
) -> None:
    (there.home / "work here").mkdir()
    host = HOST.model_copy(update={"directory": "~/work here", "env": {"ODD": 'it\'s "odd" $HOME'}})
    running = await on_host.start(connection, host)
    place = Path(f"/proc/{running.pid}")
    environment = dict(one.split("=", 1) for one in (place / "environ").read_text().split("\0") if one)
    assert environment["ODD"] == 'it\'s "odd" $HOME'
    assert (
        environment["PWD"]
        == str(place.joinpath("cwd").readlink())
        == running.directory
        == str(there.home / "work here")
    )
    assert not [name for name in environment if name.startswith("SSH_")]
    assert os.getsid(running.pid) == running.pid
    assert [(place / "fd" / number).readlink().name for number in "012"] == ["null", "log", "log"]


@pytest.mark.thorough
async def test_ten_starts_at_once_make_one_server(there: StandIn, connection: LocalConnection) -> None:
    found = await asyncio.gather(*(on_host.start(connection, HOST) for _ in range(10)))
    assert len({one.pid for one in found}) == 1
    assert [one.is_new for one in found].count(True) == 1
    assert len(there.calls()) == 1


async def test_a_stop_leaves_no_process_and_no_file(there: StandIn, connection: LocalConnection) -> None:
    there.set("orphans")
    running = await on_host.start(connection, HOST, idle_stop_s=600)
    wait_until((there.home / "orphan").exists, "the stand-in made no orphan")
    assert int((there.home / "orphan").read_text()) in there.marked()
    assert await on_host.stop(connection, running, None)
    assert there.marked() == []
    assert list(there.place.iterdir()) == []
    assert not await on_host.stop(connection, running, None)


@pytest.mark.thorough
async def test_a_server_that_was_started_meanwhile_is_not_the_one_to_stop(
    there: StandIn, connection: LocalConnection
) -> None:
    old = await on_host.start(connection, HOST)
    await on_host.stop(connection, old, None)
    new = await on_host.start(connection, HOST)
    assert not await on_host.stop(connection, old, None)
    assert await on_host.find(connection) == new


@pytest.mark.thorough
async def test_a_server_that_does_not_heed_term_is_killed(there: StandIn, connection: LocalConnection) -> None:
    there.set("stubborn")
    assert await on_host.stop(connection, await on_host.start(connection, HOST), None)
    assert there.marked() == []


async def test_what_a_killed_server_left_is_recognised_and_removed(there: StandIn, connection: LocalConnection) -> None:
    dead = await on_host.start(connection, HOST)
    os.kill(dead.pid, signal.SIGKILL)
    wait_until(lambda: not there.serving(), "the server lives")
    assert await on_host.find(connection) is None
    assert not (there.place / "server").exists()
    assert (await on_host.start(connection, HOST)).password != dead.password


async def test_a_process_that_is_no_server_is_not_taken_for_one(there: StandIn, connection: LocalConnection) -> None:
    running = await on_host.start(connection, HOST)
    content = (there.place / "server").read_text()
    await on_host.stop(connection, running, None)
    other = subprocess.Popen(["sleep", "60"], env=there.variables, start_new_session=True)
    try:
        boot, _, _ = content.split("\n", 1)[0].split()
        start = Path(f"/proc/{other.pid}/stat").read_text().rpartition(") ")[2].split()[19]
        rest = content.split("\n", 1)[1]
        (there.place / "server").write_text(f"{boot} {other.pid} {start}\n{rest}")
        assert await on_host.find(connection) is None
        await on_host.stop(connection, None, None)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait(10)


async def test_a_port_that_was_taken_meanwhile_is_given_up(there: StandIn, connection: LocalConnection) -> None:
    there.set("taken")
    running = await on_host.start(connection, HOST)
    ports = [line.split()[-1] for line in there.calls()]
    assert ports[1:] == [str(running.port)]


async def test_a_start_that_fails_says_why_without_an_address_and_leaves_nothing(
    there: StandIn, connection: LocalConnection
) -> None:
    there.set("broken")
    with pytest.raises(HostNotReadyError, match=r"cannot open the database of <address> / giving up") as caught:
        await on_host.start(connection, HOST)
    assert caught.value.hint
    assert there.marked() == []
    assert await on_host.find(connection) is None


async def test_without_opencode_the_hint_says_how_it_gets_there(there: StandIn) -> None:
    bare = LocalConnection(environment=there.variables | {"PATH": "/usr/bin:/bin"}, directory=there.home)
    with pytest.raises(HostNotReadyError, match="OpenCode was not found") as caught:
        await on_host.start(bare, HOST)
    assert "hosts setup pi" in str(caught.value.hint)
    named = HOST.model_copy(update={"opencode": "~/programs/opencode"})
    assert (await on_host.start(bare, named)).version == "1.18.33"


async def test_a_start_that_was_broken_off_is_taken_over(there: StandIn, connection: LocalConnection) -> None:
    there.set("hanging")
    broken = asyncio.create_task(on_host.start(connection, HOST))
    await asyncio.to_thread(wait_until, (there.place / "process").exists, "nothing was started")
    broken.cancel()
    with suppress(asyncio.CancelledError):
        await broken
    there.set("")
    running = await on_host.start(connection, HOST)
    assert there.serving() == [running.pid]


async def test_what_makes_no_sense_is_an_error_that_shows_nothing_of_it(
    there: StandIn, connection: LocalConnection
) -> None:
    running = await on_host.start(connection, HOST)
    file = there.place / "server"
    file.write_text(file.read_text().replace(running.password, "odd password"))
    with pytest.raises(HostNotReadyError) as caught:
        await on_host.find(connection)
    assert "odd" not in str(caught.value)
    assert "session server restart" in str(caught.value.hint)


async def test_the_log_is_bounded(there: StandIn, connection: LocalConnection) -> None:
    await on_host.start(connection, HOST)
    with (there.place / "log").open("a") as log:
        log.write("a line of the log\n" * 100_000)
    await on_host.find(connection)
    assert (there.place / "log").stat().st_size <= 100_000


@pytest.mark.thorough
async def test_an_idle_server_ends_by_itself_and_so_does_its_watchdog(
    there: StandIn, connection: LocalConnection
) -> None:
    await on_host.start(connection, HOST)
    running = await on_host.start(connection, HOST, idle_stop_s=1)
    assert running.idle_stop_s == 1
    await asyncio.to_thread(wait_until, lambda: not there.marked(), "something lives", timeout_s=30)
    assert list(there.place.iterdir()) == []


@pytest.mark.thorough
async def test_a_server_that_somebody_was_just_told_of_is_not_ended_for_idleness(
    there: StandIn, connection: LocalConnection
) -> None:
    """The watchdog has decided and waits for the lock, which a start holds that answers: it runs."""
    running = await on_host.start(connection, HOST, idle_stop_s=1)
    (there.place / "lock").symlink_to(_lock_words())
    waiting = f"{there.place}/watch.sh"
    await asyncio.to_thread(wait_until, lambda: _children_of(waiting, "sleep 0.2"), "nobody waits", timeout_s=30)
    (there.place / "asked").touch()
    (there.place / "lock").unlink()
    await asyncio.to_thread(wait_until, lambda: not (there.place / "asked").exists(), "it was not seen", timeout_s=30)
    assert running.pid in there.serving()


def _lock_words() -> str:
    """This process as the owner of a lock."""
    common = (REPOSITORY / "remote_dispatch/runner/common.sh").read_text()
    words = f'{common}\necho "$(boot_id) {os.getpid()} $(start_time {os.getpid()})"'
    ran = subprocess.run(
        ["sh", "-c", words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=True
    )
    return ran.stdout.strip()


def _children_of(parent: str, child: str) -> bool:
    """Whether a process with these words in its command line has a child with those."""
    ran = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,args="],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    lines = [line.split(None, 2) for line in ran.stdout.splitlines()]
    parents = {pid for pid, _, words in lines if parent in words}
    return any(ppid in parents and words == child for _, ppid, words in lines)


async def test_idle_stop_is_taken_back(there: StandIn, connection: LocalConnection) -> None:
    await on_host.start(connection, HOST, idle_stop_s=600)
    assert (await on_host.start(connection, HOST)).idle_stop_s == 600
    assert (await on_host.start(connection, HOST, idle_stop_s=0)).idle_stop_s is None


@pytest.mark.thorough
@pytest.mark.parametrize("inner", INNER)
def test_every_shell_that_may_be_bin_sh_starts_finds_and_stops(inner: str, there: StandIn) -> None:
    if shutil.which(inner) is None:
        pytest.skip(f"{inner} is not installed")
    texts = (on_host._text("ask.js"), on_host.server_script("watch"))

    def run(script: str, *values: str) -> str:
        argv = [*INNER[inner], "-c", script, "sh", *values]
        return subprocess.run(
            argv, env=there.variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        ).stdout

    said = run(on_host.server_script("start"), "", "", "600", *texts, "A=b c")
    assert "state running" in said
    assert run(on_host.server_script("find")) == said.replace("\nnew yes\n", "", 1)
    assert "state stopped" in run(on_host.server_script("stop"), "")
    assert there.marked() == []


@pytest.mark.thorough
@pytest.mark.parametrize("shell", ["fish", "tcsh", "zsh"])
def test_the_login_shell_does_not_matter(shell: str, there: StandIn) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    script = on_host.server_script("start")
    values = ["", "", "", on_host._text("ask.js"), on_host.server_script("watch")]
    done = subprocess.run(
        [program, "-c", command_line("0123456789abcdef", script, values)],
        env=there.variables | {"SHELL": program},
        input=opening("0123456789abcdef", script, values),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"\nstate running\n" in done.stdout
    assert len(there.serving()) == 1
