"""git as a program: no other repository, no hook, no endless output, a clear word where it is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import CommandError, HostNotReadyError
from remote_dispatch.workspace.git import find_git, make_store
from tests.workspace.places import commit, sh

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_machine_without_git_is_told_so() -> None:
    with pytest.raises(HostNotReadyError, match="git is not installed"):
        await find_git("no-such-program")


@pytest.mark.parametrize("said", ["git version 2.37.9", "no git at all"])
async def test_a_git_that_cannot_merge_without_a_working_tree_is_too_old(tmp_path: Path, said: str) -> None:
    old = tmp_path / "git"
    old.write_text(f"#!/bin/sh\necho '{said}'\n")
    old.chmod(0o755)
    with pytest.raises(HostNotReadyError, match=r"git 2\.38 or later"):
        await find_git(str(old))


async def test_variables_of_the_caller_lead_to_no_other_repository(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "nonsense")
    git = (await find_git()).at(top)
    assert await git.line("rev-parse", "--show-toplevel") == str(top)


async def test_no_hook_runs(top: Path) -> None:
    hook = top / ".git/hooks/reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    git = (await find_git()).at(top)
    await git.run("update-ref", "refs/heads/other", "HEAD")
    assert sh(top, "rev-parse", "other") == sh(top, "rev-parse", "HEAD")


async def test_output_beyond_the_limit_ends_it(top: Path) -> None:
    commit(top, {"large": "x" * 3_000_000})
    git = (await find_git()).at(top)
    with pytest.raises(CommandError, match="printed over 1000000 bytes"):
        await git.run("cat-file", "blob", "HEAD:large", limit_bytes=1_000_000)


async def test_a_passed_deadline_ends_it_and_what_it_started(top: Path) -> None:
    git = (await find_git()).at(top).with_settings("alias.wait=!sleep 60 & sleep 60")
    with pytest.raises(CommandError, match="did not end in time"):
        await git.run("wait", timeout_s=0.2)


async def test_a_failure_says_what_git_said_without_addresses(top: Path) -> None:
    git = (await find_git()).at(top)
    with pytest.raises(CommandError, match=r"git rev-parse.*exit status 128") as caught:
        await git.run("rev-parse", "user@example.org")
    assert "example.org" not in caught.value.message


async def test_a_store_reads_a_repository_whose_path_has_a_line_end(tmp_path: Path) -> None:
    place = tmp_path / 'with\n"line"\\end'
    place.mkdir()
    sh(place, "init", "-q")
    head = commit(place, {"a": "a"})
    store = await make_store(await find_git(), tmp_path / "store.git", "sha1", place / ".git/objects")
    assert await store.line("cat-file", "-t", head) == "commit"
