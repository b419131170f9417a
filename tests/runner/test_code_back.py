"""What may have become of the code by the time it is packed. Packing is tried as `partial` does it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.runner.code import BRANCH, Home, git, tree_of
from tests.runner.conftest import Host, under_two_shells, wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def unpacked_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Host, Home]:
    """A host on which code was unpacked, for copies of it."""
    place = tmp_path_factory.mktemp("unpacked")
    host, home = Host(place / "host", "dash"), Home.make(place / "home" / "my app")
    assert host.dispatch(code=home.carried()).problem is None
    return host, home


@pytest.fixture
def copied(unpacked_once: tuple[Host, Home], tmp_path: Path) -> tuple[Host, Home]:
    """A host with unpacked code, and its home: both may be changed."""
    shutil.copytree(unpacked_once[0].root.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    host = unpacked_once[0].beside(unpacked_once[0].id)
    host.root = tmp_path / "host"
    host.environment = host.environment | {"HOME": str(host.root / "home")}
    return host, Home(tmp_path / "home" / "my app")


def do(host: Host, commands: str) -> None:
    """Do this in the tree, as the model would."""
    environment = host.environment | {"HOME": "/nonexistent"}
    subprocess.run(["sh", "-ec", commands], cwd=tree_of(host), env=environment, check=True, capture_output=True)


def packed_now(host: Host) -> Path:
    """Pack the code as it is now."""
    made = host.partial()
    assert (made.problem, made.is_there) == (None, True)
    assert made.directory is not None
    place = host.run_directory / made.directory
    subprocess.run(["sha256sum", "-c", "back-sums"], cwd=place, check=True, capture_output=True)
    return place


pytestmark = pytest.mark.thorough
COMMIT = "git commit -qam"
OTHER = f"git checkout -qb other && echo 2 >a.txt && {COMMIT} other"
AS_X = "git -c user.name=x -c user.email=x@x"
WITHIN = "git init -q {0} && echo 1 >{0}/x && git init -q {0}/er && echo 2 >{0}/er/y && echo 3 >{0}/er/z.log"
HOSTILE = (
    "mkdir .git/hooks && printf '#!/bin/sh\\ntouch hooked\\n' >.git/hooks/pre-commit && "
    "chmod +x .git/hooks/pre-commit && git config core.fsmonitor 'touch watched' && "
    "git config filter.f.clean 'touch filtered; cat' && echo '* filter=f' >.gitattributes && echo 2 >a.txt"
)
MOVES = {
    "another branch": (f"git checkout -qb other && echo 2 >a.txt && {COMMIT} other", {"a.txt": "2"}, {}),
    "detached": (f"git checkout -q --detach && echo 2 >a.txt && {COMMIT} loose", {"a.txt": "2"}, {}),
    "back again": (
        f"{OTHER} && git checkout -q {BRANCH} && echo 3 >c",
        {"a.txt": "one", "c": "3"},
        {"other": "other"},
    ),
    "stashed": ("echo 2 >a.txt && git stash -q", {"a.txt": "one"}, {"stash": f"WIP on {BRANCH}: {{}} work"}),
    "merging": (
        f"{OTHER} && git checkout -q {BRANCH} && echo 3 >a.txt && {COMMIT} mine && ! git merge -q other",
        {"a.txt": "<<<<<<< HEAD\n3\n=======\n2\n>>>>>>> other"},
        {"other": "other"},
    ),
    "orphan": ("git checkout -q --orphan new && echo 2 >a.txt", {"a.txt": "2"}, {}),
    "index locked": ("echo 2 >a.txt && touch .git/index.lock", {"a.txt": "2"}, {}),
    "index broken": ("echo 2 >a.txt && echo rubbish >.git/index", {"a.txt": "2"}, {}),
    "repository gone": ("echo 2 >a.txt && rm -rf .git", {"a.txt": "2"}, {}),
    "repository anew": (
        f"echo 2 >a.txt && rm -rf .git && git init -q && git add a.txt && {AS_X} commit -qm x",
        {"a.txt": "2"},
        {},
    ),
    "objects lost": (f"echo 2 >a.txt && {COMMIT} lost && rm -rf .git/objects/??", {"a.txt": "2"}, {}),
    "a repository within": (
        WITHIN.format("deep/in"),
        {"a.txt": "one", "deep/in/x": "1", "deep/in/er/y": "2", "deep/in/er/z.log": "3"},
        {},
    ),
    "a repository with a commit within": (
        f"{WITHIN.format('in')} && cd in && git add x && {AS_X} commit -qm x",
        {"a.txt": "one", "in/x": "1", "in/er/y": "2", "in/er/z.log": "3"},
        {},
    ),
    "a file became a directory": ("rm a.txt && mkdir a.txt && echo 1 >a.txt/x", {"a.txt/x": "1"}, {}),
    "a directory became a file": ("rm -r sub && echo 1 >sub", {"a.txt": "one", "sub": "1"}, {}),
    "hooks and filters": (HOSTILE, {"a.txt": "2", ".gitattributes": "* filter=f"}, {}),
}


@pytest.mark.parametrize("case", MOVES)
def test_whatever_became_of_the_repository_the_files_come_back(copied: tuple[Host, Home], case: str) -> None:
    host, home = copied
    commands, wanted, branches = MOVES[case]
    do(host, commands)
    back = home.receive(packed_now(host))
    short = git(home.top, "rev-parse", "--short", "HEAD")
    unchanged = {".gitignore": "*.log"} | ({} if "sub" in wanted else {"sub/b.txt": "two"})
    assert home.files(back.result) == unchanged | wanted
    further = {name: git(home.top, "log", "-1", "--format=%s", tip) for name, tip in back.branches.items()}
    assert further == {name: subject.format(short) for name, subject in branches.items()}
    assert back.left_out == 0
    assert not [*host.root.rglob("hooked"), *host.root.rglob("watched"), *host.root.rglob("filtered")]


def test_what_stands_only_in_the_index_or_nowhere_counts_as_it_is_in_the_tree(copied: tuple[Host, Home]) -> None:
    host, home = copied
    do(
        host,
        "echo 2 >a.txt; git add a.txt; echo 3 >a.txt; git add -N sub; git rm -q --cached sub/b.txt; chmod +x a.txt",
    )
    back = home.receive(packed_now(host))
    assert home.files(back.result) == {".gitignore": "*.log", "a.txt": "3", "sub/b.txt": "two"}
    assert git(home.top, "ls-tree", back.result, "a.txt").startswith("100755")


def test_a_file_changed_within_the_second_of_its_checkout_is_seen(copied: tuple[Host, Home]) -> None:
    host, home = copied
    do(host, "git reset -q --hard; echo owt >a.txt; touch -r sub/b.txt a.txt")
    assert home.files(home.receive(packed_now(host)).result)["a.txt"] == "owt"


def test_a_tree_that_is_gone_is_said_to_be(copied: tuple[Host, Home]) -> None:
    host, _ = copied
    shutil.rmtree(tree_of(host))
    assert host.partial().problem == "gone"
    assert not list(host.run_directory.glob("partial.*"))


def test_the_commits_of_a_submodule_stay_and_are_counted(copied: tuple[Host, Home]) -> None:
    host, home = copied
    add = f"git init -q lib; cd lib; echo 1 >m; git add m; {AS_X} commit -qm 1"
    do(host, f"({add}); git add lib 2>/dev/null")
    place = packed_now(host)
    back = home.receive(place)
    assert git(home.top, "ls-tree", back.result, "lib").startswith("160000 commit")
    assert back.left_out == 1
    assert (place / "back-left-out").read_text() == "lib\n"


# --- while the work goes on


@under_two_shells
def test_packing_in_between_disturbs_nothing(host: Host, tmp_path: Path) -> None:
    home, gate = Home.make(tmp_path / "home" / "my app"), host.root / "gate"
    host.stage(f"!write first 1\n!wait {gate}\n!write second 2", code=home.carried())
    host.launch()
    tree = tree_of(host)
    wait_until((tree / "sub" / "first").exists)
    (tree / ".git" / "index.lock").touch()
    before = (tree / ".git" / "index").stat()
    place = packed_now(host)
    assert "sub/first" in home.files(home.receive(place).result)
    after = (tree / ".git" / "index").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    gate.touch()
    assert host.outcome().problem is None
    assert home.files(home.receive(host.run_directory).result).keys() >= {"sub/first", "sub/second"}


def test_without_code_or_a_run_directory_nothing_is_packed_in_between(one_host: Host) -> None:
    made = one_host.partial()
    assert (made.directory, made.problem, made.is_there) == (None, None, False)
    one_host.stage()
    made = one_host.partial()
    assert (made.directory, made.problem, made.is_there) == (None, None, True)


# --- too much


@under_two_shells
def test_what_is_too_much_stays_and_is_named(host: Host, tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home" / "my app")
    host.stage("!bash head -c 5000 /dev/zero >big; echo 1 >small; ln -s big link", code=home.carried())
    host.change_runner("PACK_BYTES=2147483648", "PACK_BYTES=3000")
    host.launch()
    host.outcome()
    back = home.receive(host.run_directory)
    assert home.files(back.result).keys() == {".gitignore", "a.txt", "sub/b.txt", "sub/small", "sub/link"}
    assert back.left_out == 1
    assert (host.run_directory / "back-left-out").read_text() == "sub/big\n"
