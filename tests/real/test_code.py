"""The working tree goes to a host without any checkout, the real OpenCode works on it, and one branch comes home."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.main_path.test_code import Tree, fill
from tests.real.conftest import LAPTOP_MODEL
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]
"""Slow: tests/main_path/test_code.py shows the same with the stand-in, and a working tree is nothing to OpenCode."""


def test_two_edits_a_commit_and_an_uncommitted_file_come_home_as_one_branch(machines: Machines) -> None:
    tree = fill(Tree(machines.laptop.home / "carried"))
    transcript = a_transcript("fix it", "where?")
    for message in transcript["messages"]:
        message["info"].update({"model": LAPTOP_MODEL} if message["info"]["role"] == "user" else LAPTOP_MODEL)
    session = machines.laptop.bring_in(transcript, cwd=tree.top)
    before = tree.look()
    work = (
        "!bash test ! -e build.log && test ! -e id_rsa && cat notes.md new.txt",
        "!bash echo three >> auth.ts && echo 3 >> sub/x.py && git commit --quiet --all --message 'Fix it'",
        "!bash echo more > sub/extra.txt",
        "!say repaired",
    )
    ran = machines.send("\n".join(work), "--code", "carry", "--name", "code", session=session, cwd=tree.top)
    assert (ran.exit_code, ran.data["answer"], ran.data["code"]["home"]) == (0, "repaired", "home"), ran.stderr
    assert tree.look() == before

    assert tree.git("log", "--format=%s", "dispatch/code").splitlines()[1::2] == ["Fix it", "First"]
    assert tree.git("diff", "--name-only", "dispatch/code~2", "dispatch/code~1").split() == ["auth.ts", "sub/x.py"]
    assert tree.git("diff", "--name-only", "dispatch/code~1", "dispatch/code").split() == ["sub/extra.txt"]
    assert tree.git("ls-tree", "-r", "--name-only", "dispatch/code").split() == [
        *(".gitignore", "auth.ts", "new.txt", "notes.md", "sub/extra.txt", "sub/x.py"),
    ]
    applied = machines.world.cli("apply", "code")
    assert applied.stdout.split() == ["auth.ts", "sub/extra.txt", "sub/x.py"]
    assert (tree.top / "sub/x.py").read_text() == "2\n3\n"
