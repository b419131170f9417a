"""Which code is meant, and how it travels, before anything is asked of the host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.dispatch.code_out import can_unpack_bundle, code_choice, find_code
from remote_dispatch.dispatch.store import Store
from remote_dispatch.errors import UsageError
from remote_dispatch.model import Code
from remote_dispatch.workspace.git import find_git
from remote_dispatch.workspace.repository import Repository, adopt_directory
from tests.dispatch.values import a_host, a_request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NOTHING: Mapping[str, Any] = {}
EXISTING, CARRY, NONE = Code.EXISTING, Code.CARRY, Code.NONE


@pytest.mark.parametrize(
    ("fields", "entry", "chosen"),
    [
        (NOTHING, NOTHING, None),
        (NOTHING, {"directory": "/src"}, NONE),
        ({"directory": "/src"}, NOTHING, NONE),
        (NOTHING, {"code": "carry", "directory": "/src"}, CARRY),
        ({"directory": "/src"}, {"code": "carry"}, NONE),
        ({"directory": "/src"}, {"code": "existing"}, EXISTING),
        ({"code": EXISTING}, {"directory": "/src"}, EXISTING),
        ({"code": NONE}, {"code": "carry"}, NONE),
        ({"code": CARRY}, {"code": "none", "directory": "/src"}, CARRY),
    ],
)
def test_the_users_word_counts_before_the_entry_and_a_directory_there_before_none(
    fields: dict[str, Any], entry: dict[str, Any], chosen: Code | None
) -> None:
    assert code_choice(a_request(**fields), a_host(**entry)) is chosen


@pytest.mark.parametrize(
    ("fields", "entry", "why"),
    [
        ({"code": CARRY, "directory": "/src"}, NOTHING, "a directory of its own"),
        ({"code": EXISTING}, NOTHING, "in which directory"),
        (NOTHING, {"code": "existing"}, "in which directory"),
        ({"code": NONE, "include": (".env",)}, NOTHING, "code that travels"),
        ({"include": (".env",)}, {"directory": "/src"}, "code that travels"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(fields: dict[str, Any], entry: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        code_choice(a_request(**fields), a_host(**entry))


async def test_of_a_directory_that_is_gone_no_code_travels_and_none_can_be_asked_for(tmp_path: Path) -> None:
    folder, gone = Store(tmp_path / "store").folder("20260101-000000-abcdefgh"), tmp_path / "gone"
    assert await find_code(a_request(local_directory=gone), a_host(), folder) is None
    with pytest.raises(UsageError, match="not there any more"):
        await find_code(a_request(local_directory=gone, code=CARRY), a_host(), folder)


@pytest.fixture
async def repository(tmp_path: Path) -> Repository:
    (tmp_path / "project").mkdir()
    (tmp_path / "folder").mkdir()
    return await adopt_directory(await find_git(), tmp_path / "project", tmp_path / "folder")


@pytest.mark.parametrize(
    ("version", "takes_sha1", "takes_sha256"),
    [
        (None, False, False),
        ("1.8.3.1", False, False),
        ("2.9.5", False, False),
        ("2.20.1", True, False),
        ("2.29.0.windows.1", True, True),
        ("2.39.5 (Apple Git-154)", True, True),
        ("what is this", False, False),
    ],
)
async def test_a_git_too_old_for_a_repository_gets_an_archive(
    version: str | None, takes_sha1: bool, takes_sha256: bool, repository: Repository
) -> None:
    formats = {"sha1": takes_sha1, "sha256": takes_sha256}
    assert formats == {one: can_unpack_bundle(version, replace(repository, object_format=one)) for one in formats}
