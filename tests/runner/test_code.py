"""Code that travels with a conversation: it is unpacked on the host, and what became of it is packed."""

from __future__ import annotations

import hashlib
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.runner.job import Payload
from tests.runner.code import BRANCH, Home, an_archive, git, hide_git, state_of, tree_of, unpacked, use_busybox
from tests.runner.conftest import Host, under_two_shells

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.runner.job import Code


pytestmark = pytest.mark.thorough


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home" / "my app")


def work(host: Host, home: Home, *lines: str) -> None:
    """Send the code, let the model do this in `sub`, and bring back what came of it."""
    outcome = host.dispatch("\n".join(lines), code=home.carried())
    assert (outcome.problem, outcome_field(host, "code"), outcome_field(host, "code_problem")) == (
        None,
        '"packed"',
        "null",
    )


def outcome_field(host: Host, name: str) -> str:
    text = (host.run_directory / "outcome.json").read_text()
    return text.split(f'"{name}":')[1].split(",")[0]


# --- there


def test_the_code_is_a_repository_of_its_own_at_the_same_place(host: Host, home: Home) -> None:
    snapshot = git(home.top, "rev-parse", "HEAD")
    outcome = host.dispatch("!record ../seen.json", code=home.carried())
    tree = tree_of(host)
    assert outcome.problem is None
    assert host.status().directory == PurePosixPath(tree / "sub")
    assert (tree / "sub" / "b.txt").read_text() == "two\n"
    assert git(tree, "symbolic-ref", "HEAD") == f"refs/heads/{BRANCH}"
    assert git(tree, "rev-parse", "HEAD") == snapshot
    assert git(tree, "status", "--porcelain") == "?? seen.json"
    assert git(tree, "config", "user.name") == "OpenCode on box"
    assert not (tree / ".git" / "hooks").exists()
    assert not list(host.run_directory.glob("code.bundle"))


def test_a_commit_stays_as_it_is_and_the_rest_becomes_the_last_one(host: Host, home: Home) -> None:
    snapshot = git(home.top, "rev-parse", "HEAD")
    work(
        host,
        home,
        "!bash echo edited >b.txt; chmod +x b.txt; git commit -qam 'my words'",
        """!bash echo new >"$(printf '../ne\\nw ü.txt')"; rm ../a.txt; echo noise >x.log; ln -s b.txt link""",
    )
    back = home.receive(host.run_directory)
    assert home.parents(back.result) == [back.head]
    assert home.parents(back.head) == [snapshot]
    assert git(home.top, "log", "-1", "--format=%s %an", back.head) == "my words OpenCode on box"
    assert (
        git(home.top, "log", "-1", "--format=%s %an", back.result)
        == "Work left uncommitted by dispatch kumo OpenCode on box"
    )
    assert home.files(back.result) == {
        ".gitignore": "*.log",
        "ne\nw ü.txt": "new",
        "sub/b.txt": "edited",
        "sub/link": "b.txt",
    }
    assert "100755" in git(home.top, "ls-tree", back.result, "sub/b.txt")
    assert (back.branches, back.left_out) == ({}, 0)


def test_what_is_packed_has_its_digest(one_host: Host, home: Home) -> None:
    work(one_host, home, "!write new.txt hello")
    sums = (one_host.run_directory / "back-sums").read_text().splitlines()
    for name in ("back-code", "back.bundle"):
        assert f"{hashlib.sha256((one_host.run_directory / name).read_bytes()).hexdigest()}  {name}" in sums


def test_where_nothing_was_changed_there_is_no_bundle(one_host: Host, home: Home) -> None:
    snapshot = git(home.top, "rev-parse", "HEAD")
    work(one_host, home, "!bash git checkout -q -b same")
    back = home.receive(one_host.run_directory)
    assert (back.result, back.head, back.branches) == (snapshot, snapshot, {})
    assert not (one_host.run_directory / "back.bundle").exists()


def test_packing_leaves_the_repository_there_as_it_is(one_host: Host, home: Home) -> None:
    work(
        one_host,
        home,
        "!bash echo x >new; echo y >>b.txt; echo z >staged; git add staged; git -C .. status --short -- sub >seen.log",
    )
    tree = tree_of(one_host)
    assert git(tree, "status", "--short", "--", "sub") == (tree / "sub" / "seen.log").read_text().removesuffix("\n")
    assert git(tree, "rev-list", "--all", "--count") == "1"


def test_without_code_nothing_of_it_is_made(one_host: Host) -> None:
    one_host.dispatch()
    assert (outcome_field(one_host, "code"), outcome_field(one_host, "code_problem")) == ("null", "null")
    assert not (state_of(one_host) / "work").exists()
    assert not (one_host.run_directory / "back-code").exists()


def test_the_settings_of_the_user_there_change_nothing_of_ours(one_host: Host, home: Home) -> None:
    place = one_host.root / "home"
    place.mkdir()
    (place / "bad").write_text("#!/bin/sh\nexit 1\n")
    (place / "bad").chmod(0o755)
    (place / ".gitconfig").write_text(
        f"[core]\n hooksPath = {place}\n fsmonitor = {place}/bad\n autocrlf = true\n excludesFile = {place}/ignore\n"
        f"[commit]\n gpgSign = true\n[gpg]\n program = {place}/bad\n[init]\n templateDir = {place}\n"
        "[user]\n name = Somebody\n email = somebody@there.invalid\n[safe]\n bareRepository = explicit\n"
    )
    (place / "ignore").write_text("*.bak\n")
    (place / "post-checkout").symlink_to(place / "bad")
    one_host.environment["GIT_DIR"] = "/nowhere"
    one_host.environment["GIT_INDEX_FILE"] = "/nowhere/index"
    outcome = one_host.dispatch("!bash echo 1 >x; echo 2 >x.bak", code=home.carried())
    assert outcome.problem is None
    back = home.receive(one_host.run_directory)
    assert home.files(back.result).keys() == {".gitignore", "a.txt", "sub/b.txt", "sub/x"}
    assert b"\r" not in (tree_of(one_host) / "a.txt").read_bytes()
    del one_host.environment["GIT_DIR"]
    assert "user" not in (tree_of(one_host) / ".git" / "config").read_text()


# --- several dispatches of a project


def test_the_second_one_brings_only_what_is_new(one_host: Host, home: Home) -> None:
    first = git(home.top, "rev-parse", "HEAD")
    work(one_host, home, "!say done")
    second = home.commit({"c": "3"})
    later = one_host.beside("20260103-030405-abcdefgh")
    code = home.carried(without=first)
    assert later.dispatch(code=code).problem is None
    assert git(tree_of(later), "rev-parse", "HEAD") == second
    assert git(tree_of(one_host), "rev-parse", "HEAD") == first
    store = state_of(one_host) / "projects" / f"{code.project}.git"
    assert len(list((store / "objects" / "pack").glob("*.pack"))) == 2
    assert git(tree_of(later), "count-objects", "-v").splitlines()[0] == "count: 0"


@under_two_shells
def test_two_at_once_that_are_the_first_of_their_project_meet_nowhere(host: Host, home: Home) -> None:
    both = [host, host.beside("20260103-030405-abcdefgh")]
    for number, one in enumerate(both):
        one.stage(f"!write which {number}", code=home.carried())
    with ThreadPoolExecutor() as pool:
        list(pool.map(Host.launch, both))
    assert [one.outcome().problem for one in both] == [None, None]
    results = [home.files(home.receive(one.run_directory).result)["sub/which"] for one in both]
    assert results == ["0", "1"]
    assert len(list((state_of(host) / "projects").iterdir())) == 1


def test_without_what_the_bundle_counts_on_the_code_is_refused(one_host: Host, home: Home) -> None:
    first = git(home.top, "rev-parse", "HEAD")
    home.commit({"c": "3"})
    refuses(one_host, home.carried(without=first), "missing")


def test_a_history_that_was_cut_at_home_is_cut_there(one_host: Host, home: Home) -> None:
    home.commit({"c": "3"})
    home.commit({"c": "4"})
    top = home.top.with_name("cut")
    git(home.top, "clone", "-q", "--depth=2", f"file://{home.top}", top)
    cut = Home(top)
    shallow = tuple((top / ".git" / "shallow").read_text().split())
    outcome = one_host.dispatch("!write c 5", code=cut.carried(shallow=shallow))
    assert outcome.problem is None
    assert git(tree_of(one_host), "rev-list", "--count", "HEAD") == "2"
    back = cut.receive(one_host.run_directory)
    assert cut.files(back.result)["sub/c"] == "5"


def test_a_repository_with_long_ids_travels_as_well(one_host: Host, tmp_path: Path) -> None:
    home = Home.make(tmp_path / "long" / "app", object_format="sha256")
    work(one_host, home, "!write c 5")
    assert home.files(home.receive(one_host.run_directory).result)["sub/c"] == "5"


# --- without git


def test_without_git_a_directory_goes_and_comes_as_an_archive(host: Host, home: Home) -> None:
    hide_git(host)
    outcome = host.dispatch(
        "!bash echo edited >b.txt; rm ../a.txt; echo 1 >'-n w'; ln -s b.txt link\n"
        "!bash mkfifo pipe; mkdir -p x/.git; echo 1 >x/.git/y",
        code=home.archived(),
    )
    assert (outcome.problem, outcome_field(host, "code")) == (None, '"packed"')
    assert host.status().directory == PurePosixPath(tree_of(host) / "sub")
    assert unpacked(host.run_directory) == {
        ".gitignore": "*.log\n",
        "sub/b.txt": "edited\n",
        "sub/-n w": "1\n",
        "sub/link": "-> b.txt",
    }
    assert (host.run_directory / "back-code").read_text() == "left_out 1\n"
    assert (host.run_directory / "back-left-out").read_text() == "./sub/pipe\n"


def test_with_the_tools_of_a_busybox_code_goes_and_comes_too(one_host: Host, home: Home) -> None:
    use_busybox(one_host)
    commands = (
        "!bash echo 1 >new; yes | head -n 3000 >long; ln -s new link; rm ../a.txt; echo 2 >\"$(printf 'two\\nlines')\""
    )
    outcome = one_host.dispatch(commands, code=home.carried())
    assert (outcome.problem, outcome_field(one_host, "code")) == (None, '"packed"')
    files = home.files(home.receive(one_host.run_directory).result)
    assert files.keys() == {".gitignore", "sub/b.txt", "sub/new", "sub/link", "sub/long", "sub/two\nlines"}
    later = one_host.beside("20260103-030405-abcdefgh")
    assert later.dispatch(commands, code=home.archived()).problem is None
    assert unpacked(later.run_directory).keys() == files.keys()
    assert unpacked(later.run_directory)["sub/long"] == "y\n" * 3000


def test_a_bundle_on_a_host_without_git_is_refused_before_anything_runs(one_host: Host, home: Home) -> None:
    hide_git(one_host)
    refuses(one_host, home.carried(), "no-git")


# --- what is refused


def refuses(host: Host, code: Code, word: str) -> None:
    outcome = host.dispatch(code=code)
    assert (outcome.problem, outcome.is_started) == ("code-refused", False)
    assert (outcome_field(host, "code"), outcome_field(host, "code_problem")) == ('"refused"', f'"{word}"')
    assert not (state_of(host) / "work" / host.id).exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ".."},
        {"name": "a/b"},
        {"name": ".git"},
        {"name": ""},
        {"prefix": PurePosixPath("../..")},
        {"prefix": PurePosixPath("/etc")},
        {"project": "../../x"},
        {"project": ""},
        {"branch": "../../config"},
        {"branch": "-x.lock"},
        {"snapshot": "--all"},
        {"kind": "archive", "name": "."},
    ],
)
def test_a_value_that_would_lead_elsewhere_is_refused(one_host: Host, home: Home, changes: dict[str, Any]) -> None:
    refuses(one_host, replace(home.carried(), **changes), "values")
    assert not (state_of(one_host) / "projects").exists()


def test_a_place_in_the_tree_that_is_a_link_out_of_it_is_not_entered(one_host: Host, home: Home) -> None:
    (home.top / "out").symlink_to("/etc")
    home.commit({})
    outcome = one_host.dispatch(code=home.carried(prefix=PurePosixPath("out")))
    assert (outcome.problem, outcome.is_started) == ("directory", False)


def test_a_bundle_that_is_none_or_holds_something_else_is_refused(one_host: Host, home: Home) -> None:
    refuses(one_host, replace(home.carried(), payload=Payload.of(b"# v2 git bundle\nrubbish\n")), "bundle")
    other = replace(home.carried(), snapshot="1" * 40)
    refuses(one_host.beside("20260103-030405-abcdefgh"), other, "snapshot")


@pytest.mark.parametrize(
    "members",
    [
        [("../x", tarfile.REGTYPE, "1")],
        [("/tmp/x", tarfile.REGTYPE, "1")],
        [("a/../../x", tarfile.REGTYPE, "1")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("out", tarfile.SYMTYPE, "/etc")],
        [("a/b/out", tarfile.SYMTYPE, "../../../x")],
        [],
    ],
)
def test_an_archive_that_leads_out_of_its_tree_is_refused(
    one_host: Host, home: Home, members: list[tuple[str, bytes, str]]
) -> None:
    payload = an_archive(*members) if members else Payload.of(b"rubbish")
    refuses(one_host, replace(home.archived(), payload=payload), "archive")
