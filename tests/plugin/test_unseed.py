"""The plugin takes the installer's seed away when something else may need packages. Run in node, without OpenCode."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.plugin import seed
from tests.rig.world import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = REPOSITORY / "remote_dispatch/plugin/remote-dispatch.js"
PROGRAM = """
const { default: plugin } = await import(process.argv[1])
const [project, config] = [process.argv[2], JSON.parse(process.argv[3])]
const hooks = await plugin.server({ directory: project, worktree: project, client: {} }, { command: ["true"] })
await hooks.config(config)
"""
OURS: dict[str, Any] = {"spec": ["file:///x/remote-dispatch.js", {}], "scope": "global"}
NPM: dict[str, Any] = {"spec": "opencode-other@1", "scope": "global"}
THEIRS: dict[str, Any] = {"spec": "file:///p/x.js", "scope": "local"}


@pytest.fixture
def directories(private_home: Path, tmp_path: Path) -> dict[str, Path]:
    """Both seeded: the user's directory and a project's."""
    found = {"user": private_home / ".config/opencode", "project": tmp_path / ".opencode"}
    for directory in found.values():
        assert seed.plant(directory)
    return found


def start(project: Path, origins: list[dict[str, Any]]) -> None:
    config = json.dumps({"plugin": [one["spec"] for one in origins], "plugin_origins": origins})
    argv = ["node", "--input-type=module", "-e", PROGRAM, PLUGIN.as_uri(), str(project), config]
    subprocess.run(argv, stdin=subprocess.DEVNULL, check=True, timeout=30, env=dict(os.environ))


@pytest.mark.parametrize(
    ("origins", "kept"),
    [([OURS], {"user", "project"}), ([OURS, NPM], {"project"}), ([OURS, THEIRS], {"user"})],
)
def test_the_seed_goes_where_another_plugin_is(
    directories: dict[str, Path], tmp_path: Path, origins: list[dict[str, Any]], kept: set[str]
) -> None:
    start(tmp_path, origins)
    assert {name for name, directory in directories.items() if seed.is_seeded(directory)} == kept
    gone = set(directories) - kept
    assert not [name for name in gone if (directories[name] / "node_modules").exists()]


def test_the_seed_goes_where_a_tool_is_and_packages_stay(directories: dict[str, Path], tmp_path: Path) -> None:
    for directory in directories.values():
        (directory / "tool").mkdir()
        (directory / "tool" / "mine.ts").touch()
    (directories["user"] / "node_modules" / "real").mkdir()
    start(tmp_path, [OURS])
    assert (directories["user"] / "node_modules" / "real").exists()
    assert not (directories["project"] / "node_modules").exists()
