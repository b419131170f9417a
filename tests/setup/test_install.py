from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import HostNotReadyError, IntegrityError
from remote_dispatch.model import Host
from remote_dispatch.opencode.probe import probe_script, read_answer
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.setup import Action, Wishes, given, make_plan
from remote_dispatch.setup.survey import read_survey
from tests.setup.programs import ARM64, GLIBC_ARM64, ILLEGAL_INSTRUCTION, linked_program, put, tiny_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.setup.conftest import Pair


async def test_a_host_without_opencode_gets_this_machines(machine: Pair) -> None:
    installed = await machine.set_up()

    assert installed.version == "1.18.33"
    assert installed.warnings == ()
    assert machine.installed.read_bytes() == machine.program.read_bytes()
    assert machine.installed.stat().st_mode & 0o777 == 0o755
    machine.assert_tidy()


async def test_what_was_installed_is_found_by_the_probe_of_a_dispatch(machine: Pair) -> None:
    await machine.set_up()

    done = await machine.connection.run(probe_script(), "", "", "", "", timeout_s=60)

    assert read_answer(done.stdout)[0]["opencode"] == str(machine.installed)


async def test_the_steps_are_reported_up_to_the_last_byte(machine: Pair) -> None:
    await machine.set_up()

    assert [phase for phase, _, _ in machine.steps if phase != "send"] == ["pack", "check"]
    sent = [(sent, total) for phase, sent, total in machine.steps if phase == "send"]
    assert sent == sorted(sent)
    assert sent[-1][0] == sent[-1][1] > 1_900_000


async def test_a_host_without_gzip_gets_it_unpacked(machine: Pair) -> None:
    connection = machine.only_tools("gzip")

    await machine.set_up(connection)

    assert machine.installed.read_bytes() == machine.program.read_bytes()
    assert machine.steps[-2][2] == machine.program.stat().st_size
    machine.assert_tidy()


@pytest.mark.thorough
@pytest.mark.parametrize("missing", [["sha256sum"], ["sha256sum", "shasum"], ["sha256sum", "shasum", "openssl"]])
async def test_any_tool_that_computes_a_hash_will_do(machine: Pair, missing: list[str]) -> None:
    await machine.set_up(machine.only_tools(*missing))

    machine.assert_tidy()


async def test_a_host_that_cannot_compute_a_hash_is_left_alone(machine: Pair) -> None:
    connection = machine.only_tools("sha256sum", "shasum", "openssl", "busybox")

    with pytest.raises(HostNotReadyError, match="nothing there computes a SHA-256"):
        await machine.set_up(connection)

    assert not machine.bin.exists()


async def test_an_opencode_that_is_there_is_kept(machine: Pair) -> None:
    put(machine.installed, tiny_program("1.2.3"))

    plan = await machine.plan()
    installed = await machine.set_up()

    assert (plan.action, plan.candidate, installed.version) == (Action.KEEP, None, "1.2.3")
    assert machine.installed.read_bytes() == tiny_program("1.2.3")
    assert machine.steps == []


async def test_force_replaces_it_and_leaves_no_old_one(machine: Pair) -> None:
    put(machine.installed, tiny_program("1.2.3"))

    plan = await machine.plan(is_forced=True)
    installed = await machine.set_up(is_forced=True)

    assert (plan.action, installed.version) == (Action.REPLACE, "1.18.33")
    assert machine.installed.read_bytes() == machine.program.read_bytes()
    machine.assert_tidy()


@pytest.mark.parametrize("content", [tiny_program("1.2.3", status=3), b"#!/bin/sh\necho broken\n"])
async def test_one_that_does_not_answer_is_replaced_by_force_only(machine: Pair, content: bytes) -> None:
    put(machine.installed, content)

    with pytest.raises(HostNotReadyError, match=r"does not answer \(`~/.opencode/bin/opencode`\)") as raised:
        await machine.set_up()
    assert machine.installed.read_bytes() == content
    assert "`remote-dispatch hosts setup box --force`" in (raised.value.hint or "")

    await machine.set_up(is_forced=True)
    assert machine.installed.read_bytes() == machine.program.read_bytes()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (tiny_program(status=3), "does not run"),
        (tiny_program(code=ILLEGAL_INSTRUCTION), "its processor cannot run this build"),
        (tiny_program("hello"), "does not run"),
    ],
)
async def test_a_program_that_does_not_answer_there_takes_nobodys_place(
    machine: Pair, content: bytes, why: str
) -> None:
    put(machine.program, content)
    put(machine.installed, tiny_program("1.2.3"))

    with pytest.raises(HostNotReadyError, match=why):
        await machine.set_up(is_forced=True)

    assert machine.installed.read_bytes() == tiny_program("1.2.3")
    machine.assert_tidy()


async def test_one_that_answers_from_its_temporary_name_alone_gives_the_place_back(machine: Pair) -> None:
    put(machine.installed, b"#!/bin/sh\necho 1.2.3\n")
    fickle = b"#!/bin/sh\ncase $0 in ./opencode) exit 5 ;; esac\necho 1.18.33\n"
    put(machine.bin / "opencode.setup-x", fickle)
    done = await machine.connection.run('sha256sum <"$1"', str(machine.bin / "opencode.setup-x"), timeout_s=10)
    script = files("remote_dispatch.setup").joinpath("install.sh").read_text()

    said = await machine.connection.run(
        script, str(machine.bin), "opencode.setup-x", "", done.stdout.decode()[:64], timeout_s=20
    )

    assert b"status 5\n" in said.stdout
    assert b"result mute\n" in said.stdout
    assert machine.installed.read_bytes() == b"#!/bin/sh\necho 1.2.3\n"
    machine.assert_tidy()


async def test_another_one_that_is_found_first_is_a_warning_with_its_cure(machine: Pair) -> None:
    machine.tool("opencode", "echo 1.2.3")

    installed = await machine.set_up(is_forced=True)

    (warning,) = installed.warnings
    assert "another OpenCode is found first" in warning
    assert "`remote-dispatch hosts set box opencode '~/.opencode/bin/opencode'`" in warning


async def test_an_entry_that_names_another_file_is_a_warning_with_its_cure(machine: Pair) -> None:
    installed = await machine.set_up(opencode="~/elsewhere/opencode")

    (warning,) = installed.warnings
    assert "`remote-dispatch hosts unset box opencode`" in warning
    assert machine.installed.exists()


async def test_an_earlier_upload_of_another_content_is_found_out_and_sent_again(machine: Pair) -> None:
    plan = await machine.plan()
    machine.bin.mkdir(parents=True)
    first = '[ -e "$HOME/once" ] || { : >"$HOME/once"; head -c 50; exit; }'
    machine.tool("gzip", f'case $1 in -dc) {first} ;; esac\nexec /usr/bin/gzip "$@"')

    installed = await machine.set_up()

    assert (machine.there / "once").exists()
    assert installed.version == plan.version
    machine.assert_tidy()


async def test_a_copy_that_is_never_equal_is_an_error_and_takes_no_place(machine: Pair) -> None:
    machine.tool("gzip", "head -c 50")

    with pytest.raises(IntegrityError, match="box: the copy of OpenCode is not equal"):
        await machine.set_up()

    assert list(machine.bin.iterdir()) == []


async def test_a_disk_without_room_is_refused_before_anything_is_sent(machine: Pair) -> None:
    machine.tool("df", 'printf "head\\nx 100 50 50 50%% /\\n"')

    with pytest.raises(HostNotReadyError, match=r"box: 3 MiB are needed in the home directory, and 1 are free"):
        await machine.set_up()

    assert not machine.bin.exists()


async def test_a_disk_that_fills_up_while_unpacking_leaves_no_half(machine: Pair) -> None:
    machine.tool("gzip", 'echo "gzip: stdout: No space left on device" >&2; head -c 50; exit 1')

    with pytest.raises(HostNotReadyError, match="could not be unpacked: gzip: stdout: No space left on device"):
        await machine.set_up()

    assert not machine.installed.exists()
    assert not list(machine.bin.glob("*.part"))


async def test_a_directory_that_takes_nothing_is_an_error(machine: Pair) -> None:
    machine.there.joinpath(".opencode").write_text("a file")

    with pytest.raises(HostNotReadyError):
        await machine.set_up()


async def test_a_host_of_another_kind_gets_a_command_instead(machine: Pair) -> None:
    machine.tool("uname", "case $1 in -m) echo aarch64 ;; *) echo Linux ;; esac")
    machine.tool("npm", "true")

    with pytest.raises(
        HostNotReadyError, match="cannot run there: it is built for Linux x64, and the host is Linux"
    ) as raised:
        await machine.set_up()

    hint = raised.value.hint or ""
    assert "`npm install -g opencode-ai`" in hint
    assert "`opencode-linux-arm64`" in hint
    assert not machine.bin.exists()


async def test_a_file_of_the_wrong_kind_is_refused_by_its_header(machine: Pair, tmp_path: Path) -> None:
    file = put(tmp_path / "theirs", linked_program(ARM64, GLIBC_ARM64))
    host = Host(name="box", host="nowhere")

    with pytest.raises(HostNotReadyError, match="`theirs` cannot run there: it is built for Linux arm64, glibc"):
        await make_plan(machine.connection, host, machine.here, Wishes(given(file)))


async def test_without_avx2_a_build_that_may_need_it_is_not_sent(machine: Pair) -> None:
    machine.tool("grep", 'case "$*" in "-qw avx2 /proc/cpuinfo") exit 1 ;; esac\nexec /usr/bin/grep "$@"')

    with pytest.raises(HostNotReadyError, match="may need AVX2") as raised:
        await machine.set_up()
    assert "`opencode-linux-x64-baseline`" in (raised.value.hint or "")

    put(machine.program, tiny_program(tail=b"/bun-linux-x64-baseline.zip"))
    assert (await machine.set_up()).version == "1.18.33"


@pytest.mark.thorough
@pytest.mark.parametrize("tool", ["gzip", "sha256sum", "chmod", "ln", "mv"])
async def test_whatever_moment_the_host_dies_at_what_is_in_place_is_whole(machine: Pair, tool: str) -> None:
    old = tiny_program("1.2.3")
    put(machine.installed, old)
    machine.tool(tool, "head -c 50; kill -9 0")

    with pytest.raises(HostNotReadyError, match="ended before it was done"):
        await machine.set_up(is_forced=True)
    assert machine.installed.read_bytes() == old

    (machine.tools / tool).unlink()
    await machine.set_up(is_forced=True)
    assert machine.installed.read_bytes() == machine.program.read_bytes()
    machine.assert_tidy()


async def test_what_an_interrupted_setup_left_goes_once_opencode_is_there_by_other_means(machine: Pair) -> None:
    put(machine.installed, tiny_program("1.2.3"))
    (machine.bin / "opencode.setup-0123456789abcdef.gz.part").write_bytes(b"x")

    await machine.set_up()

    machine.assert_tidy()


async def test_an_interrupt_while_packing_leaves_nothing_here(machine: Pair) -> None:
    plan_task = asyncio.create_task(machine.set_up())
    while not machine.steps:
        await asyncio.sleep(0)

    plan_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await plan_task

    assert not list((machine.root / "cache").glob("*"))


async def test_a_shell_that_says_nothing_is_an_error(machine: Pair) -> None:
    machine.tool("uname", 'kill -9 "$PPID"')

    with pytest.raises(HostNotReadyError, match="did not say what it has"):
        await make_plan(
            LocalConnection(environment={"HOME": "relative", "PATH": "/usr/bin:/bin"}),
            Host(name="box", host="nowhere"),
            machine.here,
            Wishes(),
        )


SURVEYED = dict(
    line.split(" ")
    for line in """\
system Linux
machine x86_64
home /home/me
config /home/me/.config
data /home/me/.local
free_kib 99
opencode /usr/bin/opencode
status 0
version 1.18.33
surveyed yes""".splitlines()
)


def surveyed_of(answer: Mapping[str, str | None]) -> str | None:
    """What is shown of a host that answers so; None for one that is refused."""
    said = "".join(f"{key} {value}\n" for key, value in answer.items() if value is not None)
    try:
        seen = read_survey("box", said.encode())
    except HostNotReadyError:
        return None
    return f"{seen.system} {seen.shown} {seen.opencode_version}"


@pytest.mark.parametrize("lie", [None, "", "me@203.0.113.7", "/me@203.0.113.7", "9" * 5_000, "\N{SUPERSCRIPT TWO}"])
def test_a_host_that_lies_is_refused_or_believed_and_shows_no_address(lie: str | None) -> None:
    shown = {key: surveyed_of({**SURVEYED, key: lie}) for key in SURVEYED}

    assert {key for key, text in shown.items() if text is None} <= {"home", "config", "data", "surveyed"}
    assert "203.0.113.7" not in str(shown)
