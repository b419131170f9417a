"""A transcript is packed by several threads and read while it is unpacked."""

from __future__ import annotations

import gzip
import hashlib
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.dispatch.packing import packed, read_back, read_export
from remote_dispatch.errors import IntegrityError
from remote_dispatch.transcript import dump, dumped
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def large() -> dict[str, Any]:
    return a_transcript(*(f"{number} " + "some words " * 30_000 for number in range(10)))


def _members(data: bytes) -> int:
    return data.count(gzip.compress(b"", compresslevel=1, mtime=0)[:10])


def test_a_large_one_goes_into_a_file_that_only_its_owner_reads(tmp_path: Path, large: dict[str, Any]) -> None:
    target = tmp_path / "session.gz"
    file = packed(large, target)
    assert file.packed.content == target
    assert file.packed.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert (file.id, file.messages, file.parts) == (large["info"]["id"], 10, 10)


def test_every_gunzip_reads_the_members_as_one(tmp_path: Path, large: dict[str, Any]) -> None:
    target = tmp_path / "session.gz"
    packed(large, target)
    assert _members(target.read_bytes()) == len(list(dumped(large))) > 1
    told = subprocess.run(
        ["gzip", "-dc", target], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True
    )
    assert told.stdout == gzip.decompress(target.read_bytes()) == dump(large)


def test_a_small_one_stays_in_memory(tmp_path: Path) -> None:
    small = a_transcript("hello")
    assert packed(small, tmp_path / "session.gz").packed == packed(small).packed
    assert list(tmp_path.iterdir()) == []


def test_without_a_file_a_large_one_stays_in_memory_too(large: dict[str, Any]) -> None:
    content = packed(large).packed.content
    assert isinstance(content, bytes)
    assert gzip.decompress(content) == dump(large)


def test_what_was_packed_is_read_back(tmp_path: Path, large: dict[str, Any]) -> None:
    target = tmp_path / "session.gz"
    packed(large, target)
    assert read_back(target, hashlib.sha256(dump(large)).hexdigest()) == large
    with pytest.raises(IntegrityError, match="differs from what the host wrote"):
        read_back(target, "0" * 64)


@pytest.mark.parametrize("end", [b"", b"\x1f\x8b", b"no gzip", b"\0" * 30])
@pytest.mark.parametrize("left", [-1, -8, -100, None])
def test_members_that_are_cut_or_followed_by_something_else_are_refused(
    tmp_path: Path, large: dict[str, Any], left: int | None, end: bytes
) -> None:
    target = tmp_path / "session.gz"
    packed(large, target)
    target.write_bytes(target.read_bytes()[:left] + end)
    if (left, end) == (None, b""):
        assert read_back(target, None) == large
    else:
        with pytest.raises(IntegrityError, match="damaged"):
            read_back(target, None)


def test_a_small_file_that_unpacks_to_gigabytes_is_given_up_at_the_limit(tmp_path: Path) -> None:
    target = tmp_path / "back.gz"
    target.write_bytes(gzip.compress(b" " * 3_000_000) * 50)
    with pytest.raises(IntegrityError, match="absurdly large"):
        read_back(target, None, limit_bytes=4_000_000)


def test_an_export_is_read_from_its_file(tmp_path: Path, large: dict[str, Any]) -> None:
    file = tmp_path / "session.json"
    file.write_bytes(dump(large))
    assert read_export(file) == large
    with pytest.raises(FileNotFoundError):
        read_export(tmp_path / "other.json")
