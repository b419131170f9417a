from __future__ import annotations

from pathlib import Path

import pytest

from tests.workspace.places import Far, Home, commit, sh

HERE = f"{Path(__file__).parent}/"
"""Compared as text: a path that is taken apart for each of thousands of tests costs every worker half a second."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each runs git a dozen times or more: too slow for the inner loop."""
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.thorough)


@pytest.fixture(autouse=True)
def user(private_home: Path) -> None:
    """The user's own settings: what would stop or change our calls is in them."""
    (private_home / ".gitconfig").write_text(
        "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n"
        "[commit]\n\tgpgSign = false\n[status]\n\tshort = true\n[diff]\n\tnoprefix = true\n\texternal = false\n"
        "[core]\n\tquotePath = true\n"
    )


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A repository with one commit."""
    place = tmp_path / "project"
    place.mkdir()
    sh(place, "init", "-q")
    commit(place, {"kept.txt": "kept\n", "edited.txt": "one\ntwo\nthree\n", "old name.txt": "moves\n" * 9, "gone": "x"})
    return place


@pytest.fixture
async def home(top: Path, tmp_path: Path) -> Home:
    return await Home.at(top, tmp_path / "folder")


@pytest.fixture
def far(tmp_path: Path) -> Far:
    return Far(tmp_path / "host" / "project")
