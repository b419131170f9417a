"""The working tree goes along, and what was done to it comes back as one branch; nothing else here changes."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rig.world import Ran, World

CARRY = ("--code", "carry")


@dataclass(frozen=True, slots=True)
class Tree:
    """A repository here with every kind of change in it."""

    top: Path

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=Me", "-c", "user.email=me@example.org")
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "HOME": str(self.top.parent)}
        ran = subprocess.run(
            ["git", *who, *arguments],
            cwd=self.top,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=30,
        )
        return ran.stdout.decode()

    def write(self, name: str, text: str) -> None:
        (self.top / name).parent.mkdir(parents=True, exist_ok=True)
        (self.top / name).write_text(text)

    def look(self) -> tuple[str, dict[str, bytes]]:
        """What must not change: the status, and every file outside the objects and the branches of dispatches."""
        files = {
            str(path.relative_to(self.top)): path.read_bytes()
            for path in self.top.rglob("*")
            if path.is_file() and "objects" not in path.parts and "dispatch" not in path.parts
        }
        return self.git("status", "--porcelain=v2", "--branch"), files


def fill(tree: Tree) -> Tree:
    """Begin the repository, with a commit, a staged, an unstaged and an untracked file, an ignored one and a rename."""
    tree.top.mkdir(exist_ok=True)
    tree.git("init", "--quiet", "--initial-branch", "main")
    for name, text in (
        ("auth.ts", "one\n"),
        ("old.txt", "same\n" * 20),
        (".gitignore", "*.log\n"),
        ("sub/x.py", "1\n"),
    ):
        tree.write(name, text)
    tree.git("add", "--all")
    tree.git("commit", "--quiet", "--message", "First")
    tree.write("auth.ts", "two\n")
    tree.git("add", "auth.ts")
    tree.git("mv", "old.txt", "new.txt")
    tree.write("sub/x.py", "2\n")
    tree.write("notes.md", "untracked\n")
    tree.write("build.log", "ignored\n")
    tree.write("id_rsa", "a secret\n")
    return tree


@pytest.fixture
def tree(world: World) -> Tree:
    return fill(Tree(world.laptop.project))


def send(world: World, prompt: str, *arguments: str, exit_code: int = 0) -> Ran:
    ran = world.send(prompt, "--session", world.local_session(), *CARRY, *arguments)
    assert ran.exit_code == exit_code, ran.stderr
    return ran


def test_a_round_trip_brings_one_branch_home_and_changes_nothing_else(world: World, tree: Tree) -> None:
    before = tree.look()
    ran = send(
        world,
        "!bash cat auth.ts sub/x.py new.txt notes.md; test ! -e build.log; test ! -e id_rsa\n"
        "!bash echo three >> auth.ts && git commit --quiet --all --message 'Fix it'\n"
        "!bash echo more > sub/extra.txt; echo ignored > there.log\n!say repaired",
        *("--mode", "round-trip", "--name", "kumo"),
    )
    assert (ran.data["answer"], ran.data["code"]["home"]) == ("repaired", "home")
    assert tree.look() == before
    assert ran.data["code"]["branch"] == "dispatch/kumo"
    assert ran.data["code"]["left_out"] == ["id_rsa: secret"]
    subjects = tree.git("log", "--format=%s", "dispatch/kumo").splitlines()
    assert subjects[1] == "Fix it"
    assert subjects[-1] == "First"
    assert len(subjects) == 4
    names = tree.git("ls-tree", "-r", "--name-only", "dispatch/kumo").splitlines()
    assert names == [".gitignore", "auth.ts", "new.txt", "notes.md", "sub/extra.txt", "sub/x.py"]
    assert tree.git("show", "dispatch/kumo:auth.ts") == "two\nthree\n"
    assert not list((world.host.home / ".local/state/remote-dispatch/work").iterdir())


def test_the_session_works_at_the_same_place_within_the_repository(world: World, tree: Tree) -> None:
    session = world.local_session(directory=tree.top / "sub")
    ran = world.send("!bash pwd > where.txt\n!say done", "--session", session, *CARRY, "--name", "kumo")
    assert f"`{tree.top}`" in world.brief()
    assert ran.data["remote_directory"].removesuffix("/sub") in world.brief()
    assert world.cli("collect", "kumo", "--json").exit_code == 0
    assert tree.git("show", "dispatch/kumo:sub/where.txt").strip() == ran.data["remote_directory"]


def test_a_further_branch_is_kept_with_the_command_that_fetches_it(world: World, tree: Tree) -> None:
    made = "git checkout --quiet -b aside && echo aside > aside.txt && git add --all && git commit --quiet -m Aside"
    brief = f"!bash {made} && git checkout --quiet -\n!say done"
    send(world, brief, "--mode", "round-trip", "--name", "kumo", exit_code=3)
    (fetch,) = [line for line in world.cli("show", "kumo").stdout.splitlines() if "git fetch" in line]
    command = fetch.partition("git ")[2].rpartition(" further branch")[0]
    tree.git(*command.split())
    assert tree.git("show", "kumo-aside:aside.txt") == "aside\n"
    assert world.cli("prune", "--json").data["removed"] == []


def test_diff_and_apply_bring_it_into_the_working_tree_three_way(world: World, tree: Tree) -> None:
    send(world, "!bash echo three >> auth.ts\n!say done", "--mode", "round-trip", "--name", "kumo")
    diff = world.cli("diff", "kumo")
    assert "+three" in diff.stdout
    tree.write("notes.md", "changed here meanwhile\n")
    staged = tree.git("diff", "--cached")
    applied = world.cli("apply", "kumo")
    assert (applied.exit_code, applied.stdout) == (0, "auth.ts\n")
    assert (tree.top / "auth.ts").read_text() == "two\nthree\n"
    assert (tree.top / "notes.md").read_text() == "changed here meanwhile\n"
    assert tree.git("diff", "--cached") == staged
    assert world.cli("apply", "kumo", "--json").data["paths"] == []


def test_a_conflict_changes_nothing_and_is_named(world: World, tree: Tree) -> None:
    send(world, "!bash echo there > auth.ts\n!say done", "--mode", "round-trip", "--name", "kumo")
    tree.write("auth.ts", "here\n")
    before = tree.look()
    ran = world.cli("apply", "kumo", "--json")
    assert (ran.exit_code, "auth.ts" in ran.error["message"]) == (8, True)
    assert tree.look() == before


def test_a_one_way_dispatch_can_be_looked_at_while_it_runs(world: World, tree: Tree, gate: Path) -> None:
    send(
        world, f"!bash echo begun > begun.txt\n!wait {gate}\n!bash echo ended > ended.txt\n!say done", "--name", "kumo"
    )
    work = next((world.host.home / ".local/state/remote-dispatch/work").glob("*/project"))
    world.await_file(work / "begun.txt")
    partial = world.cli("collect", "kumo", "--partial", "--json")
    assert (partial.exit_code, partial.data["code"]["home"], partial.data["state"]) == (0, "partial", "running")
    assert "begun.txt" in tree.git("ls-tree", "--name-only", "dispatch/kumo")
    gate.touch()
    whole = world.cli("collect", "kumo", "--json")
    assert (whole.exit_code, whole.data["code"]["home"], whole.data["code"]["branch"]) == (0, "home", "dispatch/kumo")
    assert "ended.txt" in tree.git("ls-tree", "--name-only", "dispatch/kumo")


def test_two_dispatches_of_one_repository_at_once_both_return_right(world: World, tree: Tree, gate: Path) -> None:
    moment = 'GIT_AUTHOR_DATE="@1700000000 +0000" GIT_COMMITTER_DATE="@1700000000 +0000"'
    world.laptop.put_program("git", f'#!/bin/sh\n{moment} exec {shutil.which("git")} "$@"\n')
    for name in ("kumo", "lima"):
        made = f"echo {name} > {name}.txt && git add --all && git commit --quiet -m {name}"
        send(
            world,
            f"!bash git checkout --quiet -b work && {made}\n!wait {gate}\n!say {name}",
            "--mode",
            "round-trip",
            "--detach",
            "--name",
            name,
        )
    gate.touch()
    assert world.cli("wait", "kumo", "lima", "--json").exit_code == 0
    for name, other in (("kumo", "lima"), ("lima", "kumo")):
        names = tree.git("ls-tree", "--name-only", f"dispatch/{name}").splitlines()
        assert (f"{name}.txt" in names, f"{other}.txt" in names) == (True, False)


def test_the_second_dispatch_sends_only_what_the_host_lacks(world: World, tree: Tree) -> None:
    tree.write("large.bin", os.urandom(200_000).hex())
    tree.git("add", "--all")
    tree.git("commit", "--quiet", "--message", "Large")
    first = send(world, "!say done", "--mode", "round-trip")
    second = send(world, "!say done", "--mode", "round-trip")
    assert first.data["code"]["sent_bytes"] > 200_000
    assert second.data["code"]["sent_bytes"] < 20_000
    assert (first.data["code"]["home"], first.data["code"]["branch"]) == ("unchanged", None)


def test_a_host_without_git_gets_an_archive_and_the_branch_comes_back_all_the_same(world: World, tree: Tree) -> None:
    world.host.put_program("git", "#!/bin/sh\nexit 127\n")
    ran = send(
        world, "!bash echo three >> auth.ts\n!bash rm notes.md\n!say done", "--mode", "round-trip", "--name", "kumo"
    )
    assert (ran.data["code"]["transport"], ran.data["code"]["home"]) == ("archive", "home")
    assert any("pi has no git" in line.get("text", "") for line in ran.streams)
    names = tree.git("ls-tree", "-r", "--name-only", "dispatch/kumo").splitlines()
    assert names == [".gitignore", "auth.ts", "new.txt", "sub/x.py"]


def test_a_directory_without_git_travels_when_it_is_asked_for(world: World) -> None:
    project = world.laptop.project
    (project / "main.py").write_text("print(1)\n")
    ran = send(world, "!bash echo 'print(2)' > main.py\n!say done", "--mode", "round-trip", "--name", "kumo")
    assert ran.data["code"]["branch"] is None
    assert "+print(2)" in world.cli("diff", "kumo").stdout
    assert (project / "main.py").read_text() == "print(1)\n"
    assert world.cli("apply", "kumo").stdout == "main.py\n"
    assert (project / "main.py").read_text() == "print(2)\n"
    assert [path.name for path in project.iterdir()] == ["main.py"]


def test_by_default_code_travels_unless_a_directory_there_is_named(world: World, tree: Tree) -> None:
    dry = world.cli("send", "pi", "--session", world.local_session(), "--dry-run", "--json")
    assert dry.data["code"] is None
    world.write_hosts(pi={"directory": None})
    dry = world.cli("send", "pi", "--session", world.local_session(), "--dry-run", "--json")
    assert {one["path"]: one["kind"] for one in dry.data["code"]["files"]} == {
        "auth.ts": "staged",
        "new.txt": "renamed",
        "notes.md": "untracked",
        "sub/x.py": "unstaged",
    }
    assert dry.data["code"]["left_out"] == ["id_rsa: secret"]
    without = world.cli("send", "pi", "--session", world.local_session(), "--dry-run", "--json", "--code", "none")
    assert without.data["code"] is None


def test_ignored_files_and_secrets_travel_by_explicit_wish(world: World, tree: Tree) -> None:
    send(world, "!bash cat build.log id_rsa > seen\n!say done", "--include", "*.log", "--include", "id_rsa", "--json")
    unknown = send(world, "!say done", "--include", "nothing-like-this", exit_code=2)
    assert "nothing-like-this" in unknown.error["message"]


def test_much_code_is_sent_only_after_a_yes(world: World, tree: Tree) -> None:
    with (tree.top / "huge.bin").open("wb") as file:
        file.truncate(201 * 1024 * 1024)
    ran = send(world, "!say done", exit_code=7)
    assert "--yes" in ran.error["hint"]
    assert world.count_runs() == 0


def test_work_that_is_only_there_is_neither_pruned_nor_removed_unsaid(world: World, tree: Tree, gate: Path) -> None:
    brief = f"!bash echo x > made.txt\n!wait {gate}\n!say done"
    send(world, brief, "--mode", "round-trip", "--detach", "--name", "kumo")
    repository, elsewhere = tree.top / ".git", tree.top.with_name("elsewhere")
    repository.rename(elsewhere)
    gate.touch()
    away = world.cli("wait", "kumo", "--json")
    assert (away.exit_code, away.data["dispatches"][0]["collected"]) == (11, "whole")
    assert world.cli("prune", "--json").data["removed"] == []
    refused = world.cli("remove", "kumo", "--json")
    assert (refused.exit_code, "to the code is only on pi" in refused.stdout) == (7, True)
    elsewhere.rename(repository)
    home = world.cli("collect", "kumo", "--json")
    assert (home.exit_code, home.data["code"]["home"]) == (0, "home")
    assert world.cli("prune", "--json").data["removed"] == ["kumo"]


def test_a_bundle_that_was_damaged_there_is_refused_and_the_work_stays_there(world: World, tree: Tree) -> None:
    send(world, "!bash echo three >> auth.ts\n!say done", "--name", "kumo")
    world.await_end()
    bundle = world.run_directories()[-1] / "back.bundle"
    whole, before = bundle.read_bytes(), tree.look()
    bundle.write_bytes(whole[:-30] + b"?" + whole[-29:])
    refused = world.cli("collect", "kumo", "--json")
    assert (refused.exit_code, "differs from what was written there" in refused.error["message"]) == (12, True)
    assert tree.look() == before
    assert "dispatch/kumo" not in tree.git("branch", "--list")
    assert list((world.host.home / ".local/state/remote-dispatch/work").glob("*/project"))
    bundle.write_bytes(whole)
    assert world.cli("collect", "kumo", "--json").data["code"]["home"] == "home"
