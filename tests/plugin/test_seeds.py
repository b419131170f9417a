"""The plugin tends the seeds that spare OpenCode the wait for a package registry. Run in node, without OpenCode."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.plugin import seed
from remote_dispatch.plugin.install import uninstall
from remote_dispatch.plugin.places import project_place, user_place
from tests.rig.world import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = REPOSITORY / "remote_dispatch/plugin/remote-dispatch.js"
PROGRAM = """
const { default: plugin } = await import(process.argv[1])
const [directory, worktree, config] = [process.argv[2], process.argv[3], JSON.parse(process.argv[4])]
const hooks = await plugin.server({ directory, worktree, client: {} }, { command: ["true"] })
await hooks.config(config)
"""
OURS: dict[str, Any] = {"spec": ["file:///x/remote-dispatch.js", {}], "scope": "global"}
NPM: dict[str, Any] = {"spec": "opencode-other@1", "scope": "global"}
THEIRS: dict[str, Any] = {"spec": "file:///p/x.js", "scope": "local"}


@pytest.fixture
def directories(private_home: Path, tmp_path: Path) -> dict[str, Path]:
    """Those that OpenCode would fill with packages: the user's two, a project's, and one of a part of the project."""
    found = {
        "user": private_home / ".config/opencode",
        "home": private_home / ".opencode",
        "project": tmp_path / "project/.opencode",
        "part": tmp_path / "project/part/.opencode",
    }
    for directory in found.values():
        directory.mkdir(parents=True)
    return found


def start(directories: dict[str, Path], origins: list[dict[str, Any]], **environment: str) -> None:
    """What OpenCode does with the plugin once its wait is over, in the part of the project."""
    config = json.dumps({"plugin": [one["spec"] for one in origins], "plugin_origins": origins})
    places = [str(directories[name].parent) for name in ("part", "project")]
    argv = ["node", "--input-type=module", "-e", PROGRAM, PLUGIN.as_uri(), *places, config]
    subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, timeout=30, env={**os.environ, **environment})


def seeded(directories: dict[str, Path]) -> set[str]:
    return {name for name, directory in directories.items() if seed.is_seeded(directory)}


def test_what_is_without_packages_after_the_wait_is_seeded(directories: dict[str, Path], tmp_path: Path) -> None:
    start(directories, [OURS])
    assert seeded(directories) == {"user", "home", "project", "part"}
    assert (directories["part"] / seed.PACKAGES / seed.NOTE_FILE).read_text() == seed.NOTE_TEXT
    assert not (tmp_path / ".opencode").exists()


def test_a_missing_directory_is_not_made(directories: dict[str, Path]) -> None:
    directories["part"].rmdir()
    directories["home"].rmdir()
    start(directories, [OURS])
    assert seeded(directories) == {"user", "project"}
    assert not directories["part"].exists()
    assert not directories["home"].exists()


@pytest.mark.parametrize("name", ["node_modules/x/package.json", "package-lock.json", "package.json", "tool/mine.ts"])
def test_packages_and_tools_keep_the_seed_away(directories: dict[str, Path], name: str) -> None:
    file = directories["project"] / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
    start(directories, [OURS])
    assert seeded(directories) == {"user", "home", "part"}
    assert file.read_text() == "{}"


def test_a_project_that_opencode_does_not_read_is_left_alone(directories: dict[str, Path]) -> None:
    start(directories, [OURS], OPENCODE_DISABLE_PROJECT_CONFIG="1")
    assert seeded(directories) == {"user", "home"}


@pytest.mark.parametrize(
    ("origins", "kept"),
    [([OURS, NPM], {"project", "part"}), ([OURS, THEIRS], {"user"}), ([OURS, NPM, THEIRS], set())],
)
def test_the_seed_goes_where_another_plugin_is(
    directories: dict[str, Path], origins: list[dict[str, Any]], kept: set[str]
) -> None:
    start(directories, [OURS])
    start(directories, origins)
    assert seeded(directories) == kept
    gone = set(directories) - kept
    assert not [name for name in gone if list(directories[name].iterdir())]


def test_the_seed_goes_where_a_tool_is_and_packages_stay(directories: dict[str, Path]) -> None:
    start(directories, [OURS])
    for directory in directories.values():
        (directory / "tool").mkdir()
        (directory / "tool" / "mine.ts").touch()
    (directories["user"] / "node_modules" / "real").mkdir()
    start(directories, [OURS])
    assert (directories["user"] / "node_modules" / "real").exists()
    assert not (directories["project"] / "node_modules").exists()


def test_an_interrupted_seed_is_completed(directories: dict[str, Path]) -> None:
    (directories["project"] / seed.LOCK_FILE).write_text(seed.LOCK_TEXT)
    assert seed.packages_of(directories["project"]) is seed.Packages.MISSING
    start(directories, [OURS])
    assert seed.packages_of(directories["project"]) is seed.Packages.SEEDED


def test_uninstall_takes_the_plugins_own_seeds_away(directories: dict[str, Path]) -> None:
    start(directories, [OURS])
    done = uninstall(user_place(os.environ), os.environ)
    assert set(done.removed) == {directory / seed.PACKAGES for directory in directories.values()}
    assert not [directory for directory in directories.values() if list(directory.iterdir())]
    assert seed.planted_by_plugin(os.environ) == {}


def test_uninstall_of_a_project_leaves_what_the_users_plugin_needs(
    directories: dict[str, Path], tmp_path: Path
) -> None:
    start(directories, [OURS])
    user = user_place(os.environ)
    user.receipt.parent.mkdir(parents=True)
    user.receipt.write_text("{}")
    uninstall(project_place(os.environ, tmp_path / "other"), os.environ)
    assert seeded(directories) == set(directories)
