"""What travels beside the history, what is left out, and what has to be wished."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import UsageError
from remote_dispatch.workspace.status import Kind
from remote_dispatch.workspace.survey import Reason, history_bytes, survey
from tests.workspace.places import Home, commit, sh, write

if TYPE_CHECKING:
    from pathlib import Path

KEY = "-----BEGIN OPENSSH PRIVATE " + "KEY-----\n"


async def kinds(home: Home, *include: str) -> dict[str, str]:
    found = await survey((await home.again()).repository, include)
    return {entry.path: entry.kind.value for entry in found.entries}


async def reasons(home: Home, *include: str) -> dict[str, str]:
    found = await survey((await home.again()).repository, include)
    return {one.path: one.reason.value for one in found.left_out}


async def test_nothing_travels_beside_the_history_of_a_clean_tree(home: Home) -> None:
    assert await kinds(home) == {}
    assert (await survey(home.repository)).total_bytes == 0


async def test_every_file_is_listed_once_with_its_kind_and_size(home: Home) -> None:
    sh(home.top, "mv", "old name.txt", "new name.txt")
    write(home.top, {"staged": "12345", "fresh/deep": "123", "edited.txt": "1234", ".gitignore": "ignored\n"})
    sh(home.top, "add", "staged", ".gitignore")
    write(home.top, {"ignored": "x", "meant": "1"})
    sh(home.top, "add", "-N", "meant")
    (home.top / "gone").unlink()
    found = await survey(home.repository)
    sizes = {entry.path: (entry.kind, entry.bytes) for entry in found.entries}
    assert sizes == {
        ".gitignore": (Kind.STAGED, 8),
        "staged": (Kind.STAGED, 5),
        "new name.txt": (Kind.RENAMED, 54),
        "fresh/deep": (Kind.UNTRACKED, 3),
        "edited.txt": (Kind.UNSTAGED, 4),
        "meant": (Kind.UNSTAGED, 1),
        "gone": (Kind.DELETED, 0),
    }
    assert found.total_bytes == 75
    assert next(entry.origin for entry in found.entries if entry.kind is Kind.RENAMED) == "old name.txt"


async def test_an_untracked_file_with_the_name_of_a_secret_is_left_out(home: Home) -> None:
    names = (".env", "deep/.env.local", "server.PEM", "id_ed25519", "x.kdbx", ".netrc", "credentials.json", "a.tfstate")
    write(home.top, dict.fromkeys(names, "secret"))
    assert await reasons(home) == dict.fromkeys(names, "secret")
    assert await kinds(home) == {}


async def test_contents_betray_a_secret_whatever_its_name(home: Home) -> None:
    aws, token = "AKIA" + "ABCDEFGHIJKLMNOP", "ghp_" + "a1" * 18
    write(home.top, {"notes": f"my {KEY}", "conf.yml": f"key: {aws}", "t": token, "deep/.npmrc": "//r/:_authToken=x"})
    assert set(await reasons(home)) == {"notes", "conf.yml", "t", "deep/.npmrc"}


async def test_what_only_sounds_like_a_secret_travels(home: Home) -> None:
    write(home.top, {".env.example": "A=", "id_rsa.pub": "ssh-rsa", "credentials.ts": "export {}", ".npmrc": "audit=0"})
    assert await reasons(home) == {}


async def test_a_tracked_secret_travels_for_it_is_in_the_history_anyway(home: Home) -> None:
    commit(home.top, {".env": "A=1"})
    write(home.top, {".env": "A=2"})
    assert await kinds(home) == {".env": "unstaged"}


async def test_what_the_user_includes_travels_secret_or_ignored(home: Home) -> None:
    write(home.top, {".gitignore": ".env\nout/\n", ".env": "A", "key.pem": KEY, "out/a/b.txt": "b", "out/c.bin": "c"})
    sh(home.top, "add", ".gitignore")
    found = await kinds(home, ".env", "*.pem", "/out/**/*.txt")
    assert found == {".gitignore": "staged", ".env": "included", "key.pem": "untracked", "out/a/b.txt": "included"}
    assert await reasons(home, "*.pem") == {}


async def test_a_pattern_that_matches_nothing_is_an_error_that_names_it(home: Home) -> None:
    for pattern in ("*.nothing", "", "!kept.txt"):
        with pytest.raises(UsageError) as caught:
            await kinds(home, pattern)
        assert f"{pattern}`" in caught.value.message


async def test_a_pattern_may_match_what_travels_anyway(home: Home) -> None:
    assert await kinds(home, "kept.txt") == {}


async def test_repositories_within_and_what_is_no_file_are_named_and_stay(home: Home) -> None:
    inner = home.top / "inner"
    inner.mkdir()
    sh(inner, "init", "-q")
    commit(inner, {"a": "a"})
    (home.top / "kept.txt").unlink()
    os.mkfifo(home.top / "kept.txt")
    assert await reasons(home) == {"inner/": "repository", "kept.txt": "special"}


async def test_a_submodule_travels_as_its_pointer_and_changes_in_it_are_named(home: Home, tmp_path: Path) -> None:
    origin = tmp_path / "library"
    origin.mkdir()
    sh(origin, "init", "-q")
    commit(origin, {"a": "a"})
    sh(home.top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(origin), "library")
    commit(home.top, {})
    write(home.top, {"library/a": "changed"})
    assert (await kinds(home), await reasons(home)) == ({}, {"library": "submodule"})
    commit(home.top / "library", {"a": "committed"})
    assert (await kinds(home), await reasons(home)) == ({"library": "unstaged"}, {})


async def test_files_of_git_lfs_are_named(home: Home) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    commit(home.top, {".gitattributes": "*.bin filter=lfs diff=lfs\n", "a.bin": pointer, "b.txt": "b"})
    assert (await survey(home.repository)).lfs == ("a.bin",)


async def test_our_own_records_never_travel(home: Home) -> None:
    write(home.top, {"state/dispatch/session.json": "{}", "other": "o"})
    found = await survey(home.repository, private=home.top / "state")
    assert [(one.path, one.reason) for one in found.left_out] == [("state/dispatch/session.json", Reason.PRIVATE)]


async def test_the_history_is_weighed_without_what_the_host_knows(home: Home) -> None:
    first = sh(home.top, "rev-parse", "HEAD")
    commit(home.top, {"large": os.urandom(200_000)})
    repository = (await home.again()).repository
    assert await history_bytes(repository) > 200_000
    assert await history_bytes(repository, [first, "0" * 40]) > 200_000
    assert await history_bytes(repository, [str(repository.head)]) == 0
