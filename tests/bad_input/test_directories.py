"""field.md section 6, "Directory": it is refused, or it is exactly the directory that was meant, and never a command.

Hosts are POSIX: names of Windows are names like any other there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bad_input.values import COMMANDS, ESCAPES, controls_in, named

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bad_input.terminal import Terminal
    from tests.rig.world import World

REFUSED = (2, 9)
NO_DIRECTORIES = {
    "a newline": "a\nb",
    "CRLF": "a\r\n",
    "NUL": "a\0b",
    "a tab": "a\tb",
    "empty": "",
    "over 4,096 characters": "x" * 5000,
    "a name over 255 characters": "x" * 300,
    "bytes that are not UTF-8": "\udcff\udcfe",
    "a file": "a-file",
    "a directory in a file": "a-file/below",
    "a loop of symlinks": "a-loop",
    "a place where nothing can be made": "/proc/here",
}
PLAIN = {
    "another user's home": ("~root", "~root"),
    "a drive of Windows": ("C:\\a'b", "C:\\a'b"),
    "a share of Windows": ("\\\\server\\x", "\\\\server\\x"),
    "a device of Windows": ("CON", "CON"),
    "no ASCII": ("~/gr\u00fc\u00dfe \U0001f600", "gr\u00fc\u00dfe \U0001f600"),
    "the home": ("~", ""),
    "blanks": ("~/a b", "a b"),
    "two dashes": ("--", "--"),
    "many slashes": ("~//project///", "project"),
}
"""Looked at by `--dry-run`."""
MEANT = {
    "an option": ("-rf", "-rf"),
    "a wildcard": ("*", "*"),
    "the directory above, behind a symlink": ("to-project/..", ""),
    "a symlink to a system directory": ("to-usr", "/usr"),
    "a quote that is closed": (COMMANDS["a quote that is closed"],) * 2,
    "a command in $()": (COMMANDS["a command in $()"],) * 2,
    "a command in backticks": (COMMANDS["a command in backticks"],) * 2,
    "two commands": (COMMANDS["two commands"],) * 2,
}
ODD_TO_SEE = ("C1 controls", "right-to-left override")
"""Legal in names of directories: used as they are, and shown without them."""


@pytest.fixture
def home(shared_world: World) -> Path:
    """The host's home, with a file, a loop and two symlinks in it."""
    home = shared_world.host.home
    if not (home / "a-file").exists():
        (home / "a-file").write_text("a file")
        (home / "a-loop").symlink_to("a-loop")
        (home / "to-project").symlink_to("project")
        (home / "to-usr").symlink_to("/usr")
    return home


def send_into(laptop: Terminal, directory: str) -> tuple[int, str | None]:
    """Send a new session into a directory; return the exit code, and the directory in which it ran."""
    options = ("--new", "--model=test/model", f"--directory={directory}", "--json")
    ran = laptop.run("send", "pi", "!say done", *options)
    return ran.exit_code, ran.data["remote_directory"] if ran.envelope["data"] else None


@pytest.mark.parametrize(
    "directory", named({**NO_DIRECTORIES, **{name: text for name, text in ESCAPES.items() if name not in ODD_TO_SEE}})
)
def test_what_is_no_directory_is_refused_and_nothing_runs(
    laptop: Terminal, shared_world: World, home: Path, directory: str
) -> None:
    runs, directories = shared_world.count_runs(), shared_world.run_directories()
    exit_code, _ = send_into(laptop, directory)
    assert exit_code in REFUSED
    assert (shared_world.count_runs(), shared_world.run_directories()) == (runs, directories)


@pytest.mark.parametrize(("directory", "meant"), [pytest.param(*pair, id=name) for name, pair in PLAIN.items()])
def test_an_odd_name_of_a_directory_means_that_directory(
    laptop: Terminal, home: Path, directory: str, meant: str
) -> None:
    options = ("--new", "--model=test/model", f"--directory={directory}", "--dry-run", "--json")
    ran = laptop.run("send", "pi", "!say done", *options)
    assert (ran.exit_code, ran.data["remote_directory"]) == (0, str(home / meant))


@pytest.mark.parametrize(("directory", "meant"), [pytest.param(*pair, id=name) for name, pair in MEANT.items()])
def test_a_directory_is_only_a_directory(
    laptop: Terminal, shared_world: World, home: Path, directory: str, meant: str
) -> None:
    assert send_into(laptop, directory) == (0, str(home / meant))
    assert not list(shared_world.directory.rglob("canary"))


@pytest.mark.parametrize("name", ODD_TO_SEE)
def test_a_directory_that_is_odd_to_see_is_used_as_it_is_and_shown_without_that(
    laptop: Terminal, home: Path, name: str
) -> None:
    exit_code, shown = send_into(laptop, ESCAPES[name])
    assert exit_code == 0
    assert (home / ESCAPES[name]).is_dir()
    assert controls_in(str(shown)) == ""
