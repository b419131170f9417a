"""Any small repository state survives there and back, by bundle and by archive, with an equal tree."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote_dispatch.workspace.apply import apply
from tests.workspace.places import Far, Home, contents, everything, sh, write

EXAMPLES = int(os.environ.get("REMOTE_DISPATCH_TEST_EXAMPLES", "6"))

PATHS = st.sampled_from(
    ["a", "b.txt", "d/e", "d/f/g", "d", "-n", ":(top)x", "sp ace", "new\nline", os.fsdecode(b"\xff"), "\u00e9", 'q"']
)
CONTENTS = st.sampled_from([b"", b"one\n", b"one\r\ntwo\r\n", b"\0binary", b"no end", b"x" * 5000])
FORMS = st.sampled_from(["file", "program", "link", "gone"])
LAYER = st.dictionaries(PATHS, st.tuples(FORMS, CONTENTS), max_size=4)
"""What is put on top of what is there; a path may be a file in one layer and a directory in the next."""


def put(top: Path, layer: dict[str, tuple[str, bytes]]) -> None:
    for name, (form, content) in layer.items():
        place = top / name
        for parent in reversed(place.relative_to(top).parents[:-1]):
            clear(top / parent, is_directory_fine=True)
        clear(place)
        if form == "link":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to("a")
        elif form != "gone":
            write(top, {name: content})
            place.chmod(0o755 if form == "program" else 0o644)


def clear(place: Path, *, is_directory_fine: bool = False) -> None:
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.is_dir() and not is_directory_fine:
        shutil.rmtree(place)


async def there_and_back(root: Path, layers: list[dict[str, tuple[str, bytes]]], *, has_git: bool) -> None:
    top, (committed, staged, unstaged, work) = root / "top", layers
    top.mkdir()
    sh(top, "init", "-q")
    for layer, how in (
        (committed, ("commit", "-q", "--allow-empty", "-m", "c")),
        (staged, ("status",)),
        (unstaged, ()),
    ):
        put(top, layer)
        if how:
            sh(top, "add", "-A")
            sh(top, *how)
    before, here = everything(top), contents(top)
    home = await Home.at(top, root / "folder")
    there = Far(root / "there")
    snapshot = await (home.send(there) if has_git else home.send_archive(there.top))
    assert contents(there.top) == here
    put(there.top, work)
    result = contents(there.top)
    arrived = await (home.receive(there, snapshot) if has_git else home.receive_archive(there.top, snapshot))
    assert everything(top) == before
    assert arrived.is_changed == (result != here)
    await apply(home.repository, arrived, home.folder)
    assert contents(top) == result
    assert everything(top)[".git/index"] == before[".git/index"]


@pytest.mark.thorough
@pytest.mark.parametrize("has_git", [True, False], ids=["bundle", "archive"])
@given(layers=st.lists(LAYER, min_size=4, max_size=4))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_small_state_survives_there_and_back(has_git: bool, layers: list[dict[str, tuple[str, bytes]]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        asyncio.run(there_and_back(Path(root).resolve(), layers, has_git=has_git))
