"""There and back: every kind of file travels, the result is one branch, and nothing else here changes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from remote_dispatch.workspace.apply import apply
from tests.workspace.places import Far, Home, commit, contents, everything, sh, write

if TYPE_CHECKING:
    from pathlib import Path


def busy(top: Path) -> None:
    """Staged, unstaged, untracked, ignored, deleted, renamed, executable, linked and oddly named files."""
    write(top, {".gitignore": "build/\n*.log\n", "staged.txt": "staged\n"})
    sh(top, "add", ".gitignore", "staged.txt")
    sh(top, "mv", "old name.txt", "new name.txt")
    write(top, {"edited.txt": "one\nTWO\nthree\n", "fresh/untracked.txt": "new\n", "build/out.o": "o", "a.log": "l"})
    write(top, {"staged.txt": "staged, then edited\n", "empty": "", "-rf": "dash", ":(glob)*": "magic", "a\nb": "line"})
    write(top, {os.fsdecode(b"latin-\xe9"): "bytes", 'quote".txt': "q"})
    (top / "gone").unlink()
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "link").symlink_to("kept.txt")
    (top / "away").symlink_to("/nowhere/at all")


async def test_the_whole_story_of_a_working_tree_with_everything_in_it(home: Home, far: Far) -> None:
    busy(home.top)
    status = sh(home.top, "status", "--porcelain=v2", "-z")
    before = everything(home.top)
    before_git = everything(home.top / ".git")
    snapshot = await home.send(far)
    there = {name: one for name, one in contents(home.top).items() if name not in ("build/out.o", "a.log")}
    assert contents(far.top) == there
    assert everything(home.top) == before

    commit(far.top, {"edited.txt": "one\nTWO\nTHREE\n"}, "the work")
    write(far.top, {"left.txt": "not committed\n"})
    arrived = await home.receive(far, snapshot)
    landed = await home.land(arrived)

    assert landed.branch == "dispatch/kumo"
    assert sh(home.top, "log", "--format=%s", "HEAD..dispatch/kumo").splitlines()[:2] == ["the rest", "the work"]
    assert sh(home.top, "show", "dispatch/kumo:left.txt") == "not committed"
    new = {name for name, one in everything(home.top / ".git").items() if before_git.get(name) != one}
    assert {name for name in new if not name.startswith("objects/")} == {
        "refs/heads/dispatch/kumo",
        "logs/refs/heads/dispatch/kumo",
    }
    assert not before_git.keys() - everything(home.top / ".git").keys()

    assert sh(home.top, "status", "--porcelain=v2", "-z") == status
    applied = await apply(home.repository, arrived, home.folder)
    assert set(applied.paths) == {"edited.txt", "left.txt"}
    assert contents(home.top) == there | contents(far.top) | {
        name: one for name, one in contents(home.top).items() if name in ("build/out.o", "a.log")
    }
    assert sh(home.top, "diff", "--cached", "--name-only", "--no-renames").splitlines() == [
        ".gitignore",
        "new name.txt",
        "old name.txt",
        "staged.txt",
    ]
    assert (await apply(home.repository, arrived, home.folder)).paths == ()
