"""What is learned of the repository around a directory, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from remote_dispatch.errors import ConfigurationError, UsageError
from remote_dispatch.workspace.git import find_git
from remote_dispatch.workspace.repository import Repository, adopt_directory, find_repository
from tests.workspace.places import commit, everything, sh


async def found(directory: Path) -> Repository:
    repository = await find_repository(await find_git(), directory)
    assert repository is not None
    return repository


async def test_a_directory_without_git_has_none(tmp_path: Path) -> None:
    assert await find_repository(await find_git(), tmp_path) is None


async def test_a_directory_below_the_top_is_known_by_its_place(top: Path) -> None:
    (top / "a/b").mkdir(parents=True)
    repository = await found(top / "a/b")
    assert (repository.top, repository.prefix) == (top, PurePosixPath("a/b"))
    assert repository.head == sh(top, "rev-parse", "HEAD")
    assert repository.branch == "refs/heads/main"
    assert repository.project == repository.head


async def test_a_repository_without_commits_has_no_head_and_a_project_of_its_own(tmp_path: Path) -> None:
    sh(tmp_path, "init", "-q", "--object-format=sha256")
    repository = await found(tmp_path)
    assert repository.head is None
    assert len(repository.project) == 64


async def test_the_oldest_of_several_roots_is_the_project(top: Path) -> None:
    root = sh(top, "rev-parse", "HEAD")
    younger = sh(top, "commit-tree", "-m", "root", "HEAD^{tree}", GIT_COMMITTER_DATE="2099-01-01T00:00:00Z")
    sh(top, "merge", "-q", "--allow-unrelated-histories", "--no-edit", "-s", "ours", younger)
    assert (await found(top)).project == root


async def test_a_linked_worktree_has_the_index_of_its_own_and_the_objects_of_all(top: Path, tmp_path: Path) -> None:
    sh(top, "worktree", "add", "-q", "-b", "side", tmp_path / "linked")
    repository = await found(tmp_path / "linked")
    assert repository.objects == top / ".git/objects"
    assert repository.index == top / ".git/worktrees/linked/index"
    assert repository.branch == "refs/heads/side"


async def test_shallow_clones_cut_at_other_places_are_other_projects(top: Path, tmp_path: Path) -> None:
    for number in range(3):
        commit(top, {"n": str(number)})
    for depth in ("1", "2"):
        sh(tmp_path, "clone", "-q", "--depth", depth, f"file://{top}", f"depth-{depth}")
    one, two = await found(tmp_path / "depth-1"), await found(tmp_path / "depth-2")
    assert one.is_shallow
    assert len({one.project, two.project, (await found(top)).project}) == 3


async def test_a_bare_repository_is_refused(top: Path, tmp_path: Path) -> None:
    sh(tmp_path, "clone", "-q", "--bare", top, "bare.git")
    with pytest.raises(UsageError, match="bare repository"):
        await found(tmp_path / "bare.git")


async def test_a_directory_whose_repository_works_elsewhere_is_refused(top: Path, tmp_path: Path) -> None:
    sh(top, "config", "core.worktree", tmp_path)
    with pytest.raises(UsageError, match="not found from its own top"):
        await found(top)
    (tmp_path / "elsewhere").mkdir()
    sh(top, "config", "core.worktree", tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="outside of the working tree"):
        await found(top)


async def test_the_inside_of_a_git_directory_is_refused(top: Path) -> None:
    with pytest.raises(UsageError, match=r"inside a `\.git` directory"):
        await found(top / ".git/objects")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
async def test_a_repository_of_another_user_is_refused_with_what_to_do(top: Path) -> None:
    for place in (top, top / ".git"):
        os.chown(place, 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to another user") as caught:
        await found(top)
    assert "safe.directory" in str(caught.value.hint)


async def test_a_merge_under_way_is_noticed(top: Path) -> None:
    sh(top, "checkout", "-q", "-b", "side")
    commit(top, {"edited.txt": "side\n"})
    sh(top, "checkout", "-q", "main")
    commit(top, {"edited.txt": "main\n"})
    with pytest.raises(AssertionError):
        sh(top, "merge", "side")
    assert (await found(top)).operation == "merge"


async def test_a_directory_without_git_gets_a_repository_outside_of_it(tmp_path: Path) -> None:
    place, folder = tmp_path / "plain", tmp_path / "folder"
    for one in (place, folder):
        one.mkdir()
    (place / "a").write_text("a")
    before = everything(place)
    repository = await adopt_directory(await find_git(), place, folder)
    assert repository.is_adopted
    assert repository.git_dir.is_relative_to(folder)
    assert await repository.git.names("ls-files", "-z", "-o") == ["a"]
    assert everything(place) == before


async def test_a_directory_that_holds_our_own_files_is_too_wide(tmp_path: Path) -> None:
    folder = tmp_path / "state/code"
    folder.mkdir(parents=True)
    with pytest.raises(UsageError, match="too wide"):
        await adopt_directory(await find_git(), tmp_path, folder)
