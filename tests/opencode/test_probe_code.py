"""What the probe tells of a project's objects that earlier dispatches left on the host."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from remote_dispatch.opencode.probe import read_answer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.opencode.conftest import Box

PROJECT = "a" * 40


def git(place: Path, *arguments: str) -> str:
    """Run git there; returns what it prints."""
    argv = ["git", "-C", str(place), "-c", "user.name=x", "-c", "user.email=x@invalid", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout.strip()


def store_with(box: Box, dispatches: int) -> list[str]:
    """Make the project's repository; returns what its dispatches brought, the newest first, each before its parent."""
    store = box.home / ".local/state/remote-dispatch/projects" / f"{PROJECT}.git"
    store.mkdir(parents=True)
    git(store, "init", "-q", "--bare")
    tree = git(store, "hash-object", "-t", "tree", "-w", "/dev/null")
    found: list[str] = []
    for number in range(dispatches):
        base = git(store, "commit-tree", tree, "-m", f"base {number}")
        snapshot = git(store, "commit-tree", tree, "-m", f"snapshot {number}", "-p", base)
        git(store, "update-ref", f"refs/dispatch/2026010{number + 1}-030405-abcdefgh", snapshot)
        found = [snapshot, base, *found]
    return found


async def test_what_earlier_dispatches_brought_is_known_newest_first(box: Box) -> None:
    box.install_quick()
    found = store_with(box, 2)
    assert (await box.probe(project=PROJECT)).code_known == tuple(found)


async def test_nothing_is_known_of_another_project_or_without_one(one_box: Box) -> None:
    one_box.install_quick()
    store_with(one_box, 1)
    assert (await one_box.probe(project="b" * 40)).code_known == ()
    assert (await one_box.probe(project="../../x")).code_known == ()
    assert (await one_box.probe()).code_known == ()


async def test_the_environment_of_the_entry_stands_behind_the_project(one_box: Box) -> None:
    one_box.install()
    answer = await one_box.answer("", "", "", "", PROJECT, "STUB_MODELS=mine/model")
    assert b"mine/model" in read_answer(answer)[1]["models"]


async def test_what_is_no_id_is_passed_over(one_box: Box) -> None:
    one_box.install_quick()
    store_with(one_box, 1)
    answer = f"printf '%s\\n' --all {PROJECT} ../x 'a b'; yes {PROJECT}1"
    one_box.put_program(one_box.bin / "git", f"#!/bin/sh\ncase $* in *for-each-ref*) {answer} ;; esac\n")
    assert (await one_box.probe(project=PROJECT)).code_known == (PROJECT,)
