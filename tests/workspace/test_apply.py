"""The result comes into the working tree three-way, or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import DivergedError
from remote_dispatch.workspace.apply import Applied, apply, apply_as_commit
from remote_dispatch.workspace.changes import Changed, diff, diffstat
from tests.workspace.places import Far, Home, commit, contents, everything, sh, write

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.workspace.arrival import Arrived


async def worked(home: Home, far: Far, files: dict[str, str | bytes], *include: str) -> Arrived:
    snapshot = await home.send(far, include)
    commit(far.top, files, "the work")
    return await home.receive(far, snapshot)


async def applied(home: Home, arrived: Arrived) -> Applied:
    return await apply((await home.again()).repository, arrived, home.folder)


async def refused(home: Home, arrived: Arrived) -> str:
    """Why it does not go; nothing was changed."""
    before = everything(home.top)
    with pytest.raises(DivergedError) as caught:
        await applied(home, arrived)
    assert everything(home.top) == before
    assert "--branch" in str(caught.value.hint)
    return caught.value.message


async def test_both_sides_of_one_file_are_merged_and_the_index_stays(home: Home, far: Far) -> None:
    write(home.top, {"edited.txt": "ONE\ntwo\nthree\n"})
    sh(home.top, "add", "edited.txt")
    arrived = await worked(home, far, {"edited.txt": "ONE\ntwo\nthree\nfour\n", "new.txt": "n", "deep/er.txt": "d"})
    write(home.top, {"edited.txt": "ONE\nand a half\ntwo\nthree\n", "mine.txt": "m"})
    index = everything(home.top)[".git/index"]
    assert set((await applied(home, arrived)).paths) == {"edited.txt", "new.txt", "deep/er.txt"}
    assert everything(home.top)[".git/index"] == index
    assert (home.top / "edited.txt").read_text() == "ONE\nand a half\ntwo\nthree\nfour\n"
    assert sh(home.top, "status", "--porcelain").splitlines() == [
        "MM edited.txt",
        "?? deep/",
        "?? mine.txt",
        "?? new.txt",
    ]
    assert await applied(home, arrived) == Applied(())


async def test_deletions_renames_modes_and_links_come_too(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    sh(far.top, "mv", "old name.txt", "new name.txt")
    sh(far.top, "rm", "-q", "gone")
    (far.top / "kept.txt").chmod(0o755)
    (far.top / "link").symlink_to("kept.txt")
    commit(far.top, {os.fsdecode(b"odd\n\xe9"): "odd"})
    arrived = await home.receive(far, snapshot)
    await applied(home, arrived)
    assert contents(home.top) == contents(far.top)


async def test_a_conflict_changes_nothing_and_names_the_paths(home: Home, far: Far) -> None:
    arrived = await worked(home, far, {"edited.txt": "theirs\n", "other": "o"})
    write(home.top, {"edited.txt": "mine\n"})
    assert await refused(home, arrived) == "both sides changed the same: `edited.txt`"


async def test_an_ignored_or_secret_file_here_is_never_overwritten(home: Home, far: Far) -> None:
    commit(home.top, {".gitignore": "out\n"})
    arrived = await worked(await home.again(), far, {".gitignore": "", "out": "theirs", ".env": "theirs"})
    write(home.top, {"out": "mine", ".env": "mine"})
    assert await refused(home, arrived) == "both sides changed the same: `.env`, `out`"


async def test_an_ignored_file_where_a_directory_comes_is_in_the_way(home: Home, far: Far) -> None:
    commit(home.top, {".gitignore": "out\n"})
    arrived = await worked(await home.again(), far, {".gitignore": "", "out/inside": "theirs"})
    write(home.top, {"out": "mine"})
    assert "`out" in await refused(home, arrived)


async def test_an_ignored_directory_where_a_file_comes_is_in_the_way(home: Home, far: Far) -> None:
    commit(home.top, {".gitignore": "out/\n"})
    arrived = await worked(await home.again(), far, {"out": "theirs"})
    write(home.top, {"out/inside": "mine"})
    assert "out" in await refused(home, arrived)


async def test_an_ignored_file_that_is_the_same_on_both_sides_is_no_conflict(home: Home, far: Far) -> None:
    commit(home.top, {".gitignore": "out\n"})
    arrived = await worked(await home.again(), far, {".gitignore": "", "out": "same"})
    write(home.top, {"out": "same"})
    assert (await applied(home, arrived)).paths == (".gitignore",)


async def test_a_file_that_was_written_anew_with_the_same_contents_is_no_change(home: Home, far: Far) -> None:
    arrived = await worked(home, far, {"edited.txt": "changed\n"})
    (home.top / "edited.txt").unlink()
    write(home.top, {"edited.txt": "one\ntwo\nthree\n"})
    os.utime(home.top / "edited.txt", (1, 1))
    assert (await applied(home, arrived)).paths == ("edited.txt",)


async def test_an_included_file_comes_back_changed(home: Home, far: Far) -> None:
    commit(home.top, {".gitignore": ".env\n"})
    write(home.top, {".env": "A=1\n"})
    arrived = await worked(await home.again(), far, {".env": "A=2\n"}, ".env")
    await applied(home, arrived)
    assert (home.top / ".env").read_text() == "A=2\n"


async def test_it_comes_into_a_head_that_moved_on(home: Home, far: Far) -> None:
    arrived = await worked(home, far, {"edited.txt": "one\ntwo\nthree\nfour\n"})
    commit(home.top, {"edited.txt": "zero\none\ntwo\nthree\n"})
    await applied(home, arrived)
    assert (home.top / "edited.txt").read_text() == "zero\none\ntwo\nthree\nfour\n"


async def test_a_result_with_another_history_is_merged_by_what_was_sent(home: Home, far: Far) -> None:
    write(home.top, {"mine.txt": "m"})
    snapshot = await home.send(far)
    sh(far.top, "checkout", "-q", "--orphan", "fresh")
    commit(far.top, {"edited.txt": "changed\n"})
    arrived = await home.receive(far, snapshot)
    assert (await applied(home, arrived)).paths == ("edited.txt",)
    assert (home.top / "mine.txt").read_text() == "m"


async def test_no_link_here_is_followed_out_of_the_tree(home: Home, far: Far, tmp_path: Path) -> None:
    commit(home.top, {".gitignore": "out\n"})
    arrived = await worked(await home.again(), far, {".gitignore": "", "out/inside": "theirs"})
    (tmp_path / "outside").mkdir()
    (home.top / "out").symlink_to(tmp_path / "outside")
    assert "`out" in await refused(home, arrived)
    assert not list((tmp_path / "outside").iterdir())


async def test_line_ends_come_as_the_users_git_writes_them(home: Home, far: Far) -> None:
    commit(home.top, {".gitattributes": "*.crlf text eol=crlf\n", "a.crlf": "one\r\n"})
    arrived = await worked(await home.again(), far, {"a.crlf": "one\r\ntwo\r\n"})
    await applied(home, arrived)
    assert (home.top / "a.crlf").read_bytes() == b"one\r\ntwo\r\n"


async def test_what_a_sparse_checkout_leaves_out_is_refused_and_what_is_new_beside_it_comes(
    home: Home, far: Far
) -> None:
    commit(home.top, {"in/a": "a", "out/b": "b"})
    sh(home.top, "sparse-checkout", "set", "in")
    home = await home.again()
    assert (await applied(home, await worked(home, far, {"out/new": "n", "in/a": "2"}))).paths == ("in/a", "out/new")
    assert (home.top / "out/new").read_text() == "n"
    home.folder = home.folder / "second"
    home.folder.mkdir()
    arrived = await worked(await Home.at(home.top, home.folder), far, {"out/b": "changed"})
    assert "sparse checkout leaves out: `out/b`" in await refused(home, arrived)


# --- as commits


async def test_commits_are_put_on_head_without_the_snapshot(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    commit(far.top, {"work.txt": "1"}, "first")
    sh(far.top, "commit", "-q", "--amend", "--no-edit", "--author=Bob <bob@example.org>")
    commit(far.top, {"work.txt": "2"}, "second")
    arrived = await home.receive(far, snapshot)
    head = sh(home.top, "rev-parse", "HEAD")
    done = await apply_as_commit(home.repository, arrived)
    assert (done.paths, done.commits) == (("work.txt",), 2)
    assert sh(home.top, "log", "--format=%an %s", f"{head}..HEAD").splitlines() == ["Ada second", "Bob first"]
    assert sh(home.top, "rev-parse", "main~2") == head
    assert sh(home.top, "status", "--porcelain") == ""
    assert await apply_as_commit((await home.again()).repository, arrived) == Applied(())


async def test_commits_fit_on_a_head_that_has_committed_what_was_sent(home: Home, far: Far) -> None:
    write(home.top, {"mine.txt": "m"})
    arrived = await worked(home, far, {"work.txt": "w"})
    commit(home.top, {}, "what was sent")
    assert (await apply_as_commit((await home.again()).repository, arrived)).commits == 1
    assert sh(home.top, "log", "--format=%s", "-2").splitlines() == ["the work", "what was sent"]


async def test_commits_are_refused_on_changes_and_on_another_head(home: Home, far: Far) -> None:
    arrived = await worked(home, far, {"work.txt": "w"})
    before = sh(home.top, "rev-parse", "HEAD")
    write(home.top, {"edited.txt": "mine"})
    with pytest.raises(DivergedError, match=r"not committed: `edited.txt`"):
        await apply_as_commit(home.repository, arrived)
    assert sh(home.top, "rev-parse", "HEAD") == before
    commit(home.top, {})
    with pytest.raises(DivergedError, match="HEAD is not what was sent"):
        await apply_as_commit((await home.again()).repository, arrived)


@pytest.mark.parametrize("ignored", ["", "work.txt\n"], ids=["untracked", "ignored"])
async def test_commits_are_refused_where_a_file_is_in_the_way(home: Home, far: Far, ignored: str) -> None:
    arrived = await worked(home, far, {"work.txt": "w"})
    write(home.top, {"work.txt": "mine", ".git/info/exclude": ignored})
    head = sh(home.top, "rev-parse", "HEAD")
    with pytest.raises(DivergedError, match="in the way"):
        await apply_as_commit(home.repository, arrived)
    assert (sh(home.top, "rev-parse", "HEAD"), (home.top / "work.txt").read_text()) == (head, "mine")


# --- shown


async def test_the_changes_are_counted_and_the_patch_brings_them(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    sh(far.top, "mv", "old name.txt", "new\nname.txt")
    commit(far.top, {"edited.txt": "one\n2\nthree\nfour\n", "binary": b"\0\1\2", "kept.txt": "kept\n"})
    arrived = await home.receive(far, snapshot)
    stat = await diffstat(home.git, arrived)
    assert stat.files == (
        Changed("binary", None, None),
        Changed("edited.txt", 2, 1),
        Changed("new\nname.txt", 0, 0, "old name.txt"),
    )
    assert (stat.added, stat.removed) == (2, 1)
    sh(home.top, "apply", input=await diff(home.git, arrived))
    assert contents(home.top) == contents(far.top)


async def test_the_patch_is_made_without_the_users_programs(home: Home, far: Far) -> None:
    write(home.folder, {"attributes": "*.txt diff=shout\n"})
    sh(home.top, "config", "--global", "core.attributesFile", home.folder / "attributes")
    sh(home.top, "config", "--global", "diff.shout.textconv", "echo shouted")
    sh(home.top, "config", "--global", "color.ui", "always")
    patch = await diff(home.git, await worked(home, far, {"edited.txt": "changed\n"}))
    assert b"+changed" in patch
    assert b"\x1b" not in patch


async def test_the_patch_applies_whatever_patches_the_user_likes(home: Home, far: Far) -> None:
    sh(home.top, "config", "--global", "diff.context", "0")
    sh(home.top, "config", "--global", "diff.submodule", "log")
    patch = await diff(home.git, await worked(home, far, {"edited.txt": "one\n2\nthree\n"}))
    sh(home.top, "apply", "-", input=patch)
    assert (home.top / "edited.txt").read_text() == "one\n2\nthree\n"
