"""What one remote command learns of a host: the binary, the directory, the clock, the old copy of a session."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import HostNotReadyError
from remote_dispatch.opencode.probe import probe_script
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from tests.opencode.conftest import Box

pytestmark = pytest.mark.thorough

USUAL_PLACES = [
    ".opencode/bin",
    ".local/bin",
    "bin",
    ".bun/bin",
    ".npm-global/bin",
    ".nvm/versions/node/v22.1.0/bin",
    ".volta/bin",
    ".local/share/pnpm",
    ".local/share/mise/shims",
    ".asdf/shims",
    ".nix-profile/bin",
]
TOOLS = ["awk", "cat", "cksum", "date", "df", "dirname", "env", "git", "grep", "head", "ls",
         "mkdir", "mv", "rm", "sed", "sleep", "sort", "tail", "tr", "uname", "wc"]  # fmt: skip


async def test_every_posix_shell_gives_the_whole_answer(box: Box) -> None:
    binary = box.install()
    probed = await box.probe("~/my 'odd' \"dir\"")
    facts, catalogue = probed.facts, probed.catalogue
    assert (facts.system, facts.machine) == (os.uname().sysname, os.uname().machine)
    assert (facts.home, facts.opencode) == (PurePosixPath(box.home), PurePosixPath(binary))
    assert facts.opencode_version == "1.18.33"
    assert facts.state_directory == PurePosixPath(box.home / ".local/state/remote-dispatch/runs")
    assert facts.directory == PurePosixPath(box.home / "my 'odd' \"dir\"")
    assert not facts.is_directory_there
    assert facts.path is not None
    assert facts.path.startswith("/")
    assert facts.free_bytes is not None
    assert facts.free_bytes > 0
    assert abs(facts.clock_offset_ms) < 5000
    assert catalogue.models == ("test/model", "test/other", "scripted/large", "scripted/small")
    assert catalogue.primary_agents == ("build", "plan")
    assert not probed.holds_session


async def test_nothing_is_left_behind(box: Box) -> None:
    box.install()
    assert b"probed yes" in await box.answer("", "", "ses_000000000001TTTTTTTTTTTTTT", "")
    box.await_quiet()
    assert box.kept() == []
    assert [path.name.partition("-")[0] for path in box.cache.iterdir()] == ["catalogue"]


async def test_without_the_program_timeout_nothing_is_left_behind_either(one_box: Box) -> None:
    box = one_box
    for name in TOOLS:
        (box.bin / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    box.environment["PATH"] = str(box.bin)
    box.install()
    assert b"probed yes" in await box.answer("", "", "", "")
    box.await_quiet()


async def test_without_the_program_timeout_a_start_up_file_that_hangs_is_ended(one_box: Box) -> None:
    box = one_box
    box.install_quick()
    short = (
        probe_script().replace("limited 10 ", "limited 1 ").replace("command -v timeout", "command -v no-such-program")
    )
    assert short.count("limited 1 ") == 1
    (box.home / ".profile").write_text("exec sleep 300\n")
    done = await box.connection.run(short, "", "", "", "", timeout_s=30)
    assert b"probed yes" in done.stdout
    box.await_quiet()


# --- the binary


async def test_the_entry_names_the_binary_relative_to_the_home(box: Box) -> None:
    box.install_quick()
    binary = box.install_quick(box.home / "tools with 'quotes'")
    probed = await box.probe(opencode="~/tools with 'quotes'/opencode")
    assert probed.facts.opencode == PurePosixPath(binary)


@pytest.mark.usefixtures("needs_no_opencode_beside")
@pytest.mark.parametrize("place", USUAL_PLACES)
async def test_the_binary_is_found_where_installers_put_it(one_box: Box, place: str) -> None:
    binary = one_box.install_quick(one_box.home / place)
    assert (await one_box.probe()).facts.opencode == PurePosixPath(binary)


@pytest.mark.usefixtures("needs_no_opencode_beside")
async def test_the_binary_is_found_where_a_login_shell_finds_it(box: Box) -> None:
    binary = box.install_quick(box.home / "somewhere of my own")
    (box.home / ".profile").write_text(f'echo hello; PATH="{binary.parent}:$PATH"; export PATH\n')
    probed = await box.probe()
    assert probed.facts.opencode == PurePosixPath(binary)
    assert probed.facts.path is not None
    assert probed.facts.path.startswith(f"{binary.parent}:")


# What each login shell reads, and a line that adds a directory to PATH in its language.
LOGIN_SHELLS = [
    ("bash", ".bash_profile", "export PATH='{}':$PATH"),
    ("bash", ".bashrc", "case $- in *i*) ;; *) return ;; esac; echo hello; export PATH='{}':$PATH"),
    ("zsh", ".zprofile", "export PATH='{}':$PATH"),
    ("zsh", ".zshrc", "[[ -o interactive ]] || return; echo hello; read answer; export PATH='{}':$PATH"),
    ("fish", ".config/fish/config.fish", "set -gx PATH '{}' $PATH"),
    ("tcsh", ".tcshrc", "setenv PATH '{}':$PATH"),
]


@pytest.mark.usefixtures("needs_no_opencode_beside")
@pytest.mark.parametrize(("shell", "file", "line"), LOGIN_SHELLS)
async def test_what_a_start_up_file_of_the_login_shell_adds_is_found(
    one_box: Box, shell: str, file: str, line: str
) -> None:
    binary = one_box.install_quick(one_box.home / "somewhere of my own")
    one_box.use_login_shell(shell, file, line.format(binary.parent))
    facts = (await one_box.probe()).facts
    assert facts.opencode == PurePosixPath(binary)
    assert facts.path is not None
    assert str(binary.parent) in facts.path.split(":")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("trouble", ["exec true", "exit 3", "sleep 300 &"])
async def test_a_start_up_file_for_people_at_a_terminal_does_no_harm(one_box: Box, shell: str, trouble: str) -> None:
    one_box.install_quick()
    one_box.use_login_shell(shell, f".{shell}rc", trouble)
    profile = one_box.home / {"bash": ".bash_profile", "zsh": ".zprofile"}[shell]
    profile.write_text("export PATH=/mine:$PATH\n")
    began = time.monotonic()
    path = (await one_box.probe()).facts.path
    assert path is not None
    assert path.startswith("/mine:")
    assert time.monotonic() - began < 8


@pytest.mark.usefixtures("needs_no_opencode_beside")
async def test_a_missing_binary_is_an_error_that_says_where_to_name_it(box: Box) -> None:
    with pytest.raises(HostNotReadyError, match="OpenCode was not found there") as caught:
        await box.probe()
    assert "`remote-dispatch hosts setup box`" in str(caught.value.hint)
    assert "`remote-dispatch hosts set box opencode PATH`" in str(caught.value.hint)


async def test_a_named_binary_that_is_not_there_is_not_replaced_by_another(one_box: Box) -> None:
    one_box.install_quick()
    with pytest.raises(HostNotReadyError, match="not found"):
        await one_box.probe(opencode="~/gone/opencode")


async def test_a_login_shell_that_hangs_or_fails_leaves_the_path_unknown(one_box: Box) -> None:
    one_box.install_quick()
    one_box.environment["SHELL"] = str(one_box.put_program(one_box.bin / "odd-shell", "#!/bin/sh\nexit 3\n"))
    assert (await one_box.probe()).facts.path is None


# --- the directory


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (None, ""),
        ("~", ""),
        ("~/x", "x"),
        ("src/app", "src/app"),
        ("~/a b", "a b"),
        ('~/it\'s "so" $HOME `x`', 'it\'s "so" $HOME `x`'),
        ("-n", "-n"),
        ("~other/x", "~other/x"),
    ],
)
async def test_the_directory_is_expanded_on_the_host(one_box: Box, asked: str | None, found: str) -> None:
    one_box.install_quick()
    facts = (await one_box.probe(asked)).facts
    assert facts.directory == PurePosixPath(one_box.home / found)
    assert facts.is_directory_there == (found == "")


async def test_an_absolute_directory_stays_as_it_is(box: Box) -> None:
    box.install_quick()
    place = box.root / "an odd 'place'"
    place.mkdir()
    facts = (await box.probe(str(place))).facts
    assert (facts.directory, facts.is_directory_there) == (PurePosixPath(place), True)


async def test_a_file_in_the_place_of_the_directory_is_refused(box: Box) -> None:
    box.install_quick()
    (box.home / "notes").write_text("")
    with pytest.raises(HostNotReadyError, match="notes` is not a directory there"):
        await box.probe("~/notes")


# --- the session


def _family(box: Box) -> list[dict[str, object]]:
    parent = a_transcript("hello", "hi there")
    child = a_transcript("look", "seen", parent_id=parent["info"]["id"])
    grandchild = a_transcript("deeper", parent_id=child["info"]["id"])
    return [parent, child, grandchild, a_transcript("another", "session")]


async def test_what_the_host_holds_of_a_session_and_its_children_is_told_by_id(box: Box) -> None:
    program = box.program
    family = _family(box)
    for one in family:
        source = box.root / "import.json"
        source.write_text(json.dumps(one))
        await program.import_(source, one["info"]["id"], box.home)  # type: ignore[index]  # plain JSON
    session = family[0]["info"]["id"]  # type: ignore[index]
    probed = await box.probe(session_id=session)
    ours = json.dumps(family[:3])
    assert probed.holds_session
    for kind, prefix in (("session", "ses"), ("message", "msg"), ("part", "prt")):
        assert probed.held[kind] == frozenset(re.findall(rf"{prefix}_[0-9A-Za-z]+", ours))


async def test_a_host_without_a_database_holds_nothing_and_gets_none(one_box: Box) -> None:
    one_box.install_quick()
    probed = await one_box.probe(session_id="ses_000000000001TTTTTTTTTTTTTT")
    assert not probed.holds_session
    assert not any(call.startswith("--pure db") for call in one_box.calls())


async def test_a_database_that_cannot_be_read_is_an_error(one_box: Box) -> None:
    one_box.install()
    (one_box.home / ".local/share/opencode").mkdir(parents=True)
    (one_box.home / ".local/share/opencode/opencode.db").write_bytes(b"")
    one_box.set(STUB_FAULT="db-fails")
    with pytest.raises(HostNotReadyError, match="database there could not be read"):
        await one_box.probe(session_id="ses_000000000001TTTTTTTTTTTTTT")


# --- the clock


@pytest.mark.parametrize("ahead_s", [3600, -90])
async def test_the_clock_of_the_host_is_compared_with_ours(one_box: Box, ahead_s: int) -> None:
    one_box.install_quick()
    sign = f"{ahead_s:+d} seconds"
    wrapper = f'#!/bin/sh\n[ "$1" = +%s%3N ] && exec /usr/bin/date -d "{sign}" +%s%3N\nexec /usr/bin/date "$@"\n'
    one_box.put_program(one_box.bin / "date", wrapper)
    began = time.time()
    offset = (await one_box.probe()).facts.clock_offset_ms
    assert abs(offset - ahead_s * 1000) <= (time.time() - began) * 1000


async def test_a_date_without_milliseconds_is_good_to_the_second(one_box: Box) -> None:
    one_box.install_quick()
    one_box.put_program(one_box.bin / "date", '#!/bin/sh\n[ "$1" = +%s%3N ] && set -- +%s3N\nexec /usr/bin/date "$@"\n')
    assert abs((await one_box.probe()).facts.clock_offset_ms) < 2500


# --- the environment


async def test_the_entrys_environment_reaches_opencode_whatever_its_values(box: Box) -> None:
    box.install_quick()
    probed = await box.probe(env={"STUB_MODELS": "own/one\nown/two", "ODD": "a'b\"c $(touch oops)\n*"})
    assert probed.catalogue.models == ("own/one", "own/two")
    assert not list(Path(box.home).rglob("oops"))


async def test_opencode_writes_nothing_into_the_shared_temporary_directory(one_box: Box) -> None:
    binary = one_box.install_quick()
    one_box.put_program(binary, binary.read_text().replace("#!/bin/sh\n", '#!/bin/sh\n: >"$TMPDIR/left"\n'))
    await one_box.probe()
    assert one_box.kept() == []
