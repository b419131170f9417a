"""The snapshot is the working tree as it is, whatever git thinks of its files, and nothing of the user's is written."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import IntegrityError
from remote_dispatch.workspace.snapshot import read_snapshot
from tests.workspace.places import Home, commit, everything, sh, write

if TYPE_CHECKING:
    from pathlib import Path


async def taken(home: Home, *include: str) -> dict[str, str]:
    """What is in the snapshot; taking it writes nothing of the user's."""
    before = everything(home.top)
    tree = home.tree(await (await home.again()).snapshot(include))
    assert everything(home.top) == before
    return tree


async def test_a_snapshot_of_a_repository_without_commits_has_no_parent(tmp_path: Path) -> None:
    top = tmp_path / "new"
    write(top, {"staged": "s", "untracked": "u"})
    sh(top, "init", "-q")
    sh(top, "add", "staged")
    home = await Home.at(top, tmp_path / "folder")
    snapshot = await home.snapshot()
    assert snapshot.base is None
    assert home.tree(snapshot) == {"staged": "100644 s", "untracked": "100644 u"}


async def test_the_snapshots_only_parent_is_head_and_it_tells_nothing_of_the_user(home: Home) -> None:
    snapshot = await home.snapshot()
    content = sh(snapshot.store, "cat-file", "commit", snapshot.commit)
    assert f"parent {sh(home.top, 'rev-parse', 'HEAD')}" in content
    assert not re.search(r"\bada\b", content, re.IGNORECASE)  # ids are hexadecimal: they may hold the letters


async def test_it_is_found_again_in_a_later_process(home: Home) -> None:
    assert await read_snapshot(home.repository, home.folder) is None
    snapshot = await home.snapshot()
    found = await read_snapshot(home.repository, home.folder)
    assert found is not None
    assert (found.commit, found.tree, found.base) == (snapshot.commit, snapshot.tree, snapshot.base)


async def test_it_holds_what_was_staged_only_though_the_user_prunes_it(home: Home) -> None:
    write(home.top, {"staged": "staged"})
    sh(home.top, "add", "staged")
    snapshot = await home.snapshot()
    sh(home.top, "rm", "-q", "-f", "staged")
    sh(home.top, "gc", "-q", "--prune=now")
    assert sh(snapshot.store, "show", f"{snapshot.commit}:staged") == "staged"


async def test_a_file_that_was_changed_within_the_same_tick_as_the_index_is_seen(home: Home) -> None:
    sh(home.top, "config", "core.trustCtime", "false")
    tick = (10**18, 10**18)
    os.utime(home.top / "edited.txt", ns=tick)
    sh(home.top, "add", "edited.txt")
    write(home.top, {"edited.txt": "ONE\ntwo\nthree\n"})
    # Size and time are those that the index has: only the index's own time shows that it may have changed since.
    os.utime(home.top / "edited.txt", ns=tick)
    os.utime(home.top / ".git/index", ns=tick)
    assert (await taken(home))["edited.txt"] == "100644 ONE\ntwo\nthree"


async def test_files_that_were_only_announced_travel_with_their_contents(home: Home) -> None:
    write(home.top, {"meant": "content"})
    sh(home.top, "add", "-N", "meant")
    assert (await taken(home))["meant"] == "100644 content"


async def test_what_was_removed_from_the_index_only_is_an_untracked_file(home: Home) -> None:
    sh(home.top, "rm", "-q", "--cached", "gone")
    assert "gone" in await taken(home)
    write(home.top, {".git/info/exclude": "gone\n"})
    assert "gone" not in await taken(home)


async def test_files_of_which_git_shall_not_look_at_travel_as_in_the_index(home: Home) -> None:
    sh(home.top, "update-index", "--assume-unchanged", "edited.txt")
    write(home.top, {"edited.txt": "local only"})
    assert (await taken(home))["edited.txt"] == "100644 one\ntwo\nthree"


async def test_what_a_sparse_checkout_leaves_out_travels_all_the_same(home: Home) -> None:
    commit(home.top, {"in/a": "a", "out/b": "b"})
    sh(home.top, "sparse-checkout", "set", "--sparse-index", "in")
    write(home.top, {"in/a": "changed"})
    tree = await taken(home)
    assert (tree["in/a"], tree["out/b"]) == ("100644 changed", "100644 b")


async def test_conflicted_files_travel_with_their_markers(home: Home) -> None:
    sh(home.top, "checkout", "-q", "-b", "side")
    commit(home.top, {"edited.txt": "side\n", "gone": "kept"})
    sh(home.top, "checkout", "-q", "main")
    sh(home.top, "rm", "-q", "gone")
    commit(home.top, {"edited.txt": "main\n"})
    with pytest.raises(AssertionError):
        sh(home.top, "merge", "side")
    (home.top / "gone").unlink()
    tree = await taken(home)
    assert "<<<<<<< HEAD\nmain\n=======\nside\n" in tree["edited.txt"]
    assert "gone" not in tree


async def test_line_ends_and_filters_are_those_of_the_users_own_git(home: Home) -> None:
    sh(home.top, "config", "filter.upper.clean", "tr a-z A-Z")
    write(home.top, {".gitattributes": "*.up filter=upper\n*.crlf text eol=crlf\n"})
    write(home.top, {"a.up": "loud", "b.crlf": "one\r\ntwo\r\n", "c.txt": "kept\r\n"})
    tree = await taken(home)
    assert (tree["a.up"], tree["b.crlf"], tree["c.txt"]) == ("100644 LOUD", "100644 one\ntwo", "100644 kept\r")


async def test_a_file_may_have_become_a_directory_and_a_directory_a_file_or_a_link(home: Home) -> None:
    commit(home.top, {"file": "f", "directory/a": "a", "linked/b": "b"})
    (home.top / "file").unlink()
    for name in ("directory/a", "linked/b"):
        (home.top / name).unlink()
        (home.top / name).parent.rmdir()
    write(home.top, {"file/inside": "i", "directory": "d", "target/b": "b"})
    (home.top / "linked").symlink_to("target")
    tree = await taken(home)
    assert {name: tree[name] for name in tree if name[:2] in ("fi", "di", "li", "ta")} == {
        "file/inside": "100644 i",
        "directory": "100644 d",
        "linked": "120000 target",
        "target/b": "100644 b",
    }


async def test_executable_bits_and_links_alone_are_changes(home: Home) -> None:
    (home.top / "kept.txt").chmod(0o755)
    (home.top / "gone").unlink()
    (home.top / "gone").symlink_to("../outside")
    tree = await taken(home)
    assert (tree["kept.txt"], tree["gone"]) == ("100755 kept", "120000 ../outside")


async def test_the_index_of_a_linked_worktree_is_the_one_that_counts(home: Home, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    sh(home.top, "worktree", "add", "-q", linked)
    write(linked, {"there": "t"})
    before = everything(home.top)
    other = await Home.at(linked, tmp_path / "folder-2")
    assert "there" in other.tree(await other.snapshot())
    assert everything(home.top) == before


async def test_a_split_index_is_read_and_stays_as_it_is(home: Home) -> None:
    sh(home.top, "update-index", "--split-index")
    write(home.top, {"edited.txt": "changed"})
    before = {name: one[2] for name, one in everything(home.top).items()}
    assert home.tree(await home.snapshot())["edited.txt"] == "100644 changed"
    assert {name: one[2] for name, one in everything(home.top).items()} == before


def _growing(home: Home, times: int) -> None:
    """Have another file grow while files are taken, so many times."""
    script = f'cat; if [ "$(wc -l <growing)" -lt {times} ]; then echo more >>growing; fi'
    sh(home.top, "config", "filter.grow.clean", script)
    write(home.top, {"growing": "", ".gitattributes": "*.g filter=grow\n", "a.g": "a"})


async def test_a_file_that_grows_meanwhile_is_taken_once_more(home: Home) -> None:
    _growing(home, 2)
    snapshot = await home.snapshot()
    assert home.tree(snapshot)["growing"] == f"100644 {(home.top / 'growing').read_text().strip()}"
    assert snapshot.survey is not None
    assert {entry.path: entry.bytes for entry in snapshot.survey.entries}["growing"] == 10


async def test_a_tree_that_never_rests_is_an_error(home: Home) -> None:
    _growing(home, 1000)
    with pytest.raises(IntegrityError, match="changed all the time"):
        await home.snapshot()
