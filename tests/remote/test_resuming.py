"""Uploads and downloads that break: the next one moves the rest only, and the result is equal byte for byte."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import ConnectionLostError, DeadlinePassedError, IntegrityError
from remote_dispatch.remote.files import (
    BLOCK_BYTES,
    BLOCKS_IN_FLIGHT,
    LARGE_BYTES,
    appearing,
    chunks_of,
    proved_bytes,
)
from remote_dispatch.remote.ssh import connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.remote.conftest import Road
    from tests.rig.sshd import Sshd

pytestmark = pytest.mark.thorough

SIZE = 12_000_000
CUTS = [5_000_000, 8_000_000, 11_900_000]
WINDOW = BLOCK_BYTES * BLOCKS_IN_FLIGHT
OVERHEAD = 400_000
"""Login, packets' own bytes, and what the kernel and sshd still held when the link broke."""


@pytest.fixture(scope="session")
def content() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture(params=["sftp", "shell"])
def road(
    request: pytest.FixtureRequest, proxied: Callable[[Sshd], Road], server: Sshd, server_without_sftp: Sshd
) -> Road:
    return proxied(server if request.param == "sftp" else server_without_sftp)


async def upload(road: Road, place: Path, files: dict[str, bytes | Path], *, is_resumed: bool = True) -> int:
    """Upload over a connection of its own and return how many bytes went up."""
    before = road.proxy.bytes_up
    async with connect(road.host) as connection:
        await connection.upload(PurePosixPath(place), files, timeout_s=60, is_resumed=is_resumed)
    return road.proxy.bytes_up - before


async def download(road: Road, source: Path, target: Path, *, limit: int = SIZE, is_resumed: bool = True) -> int:
    """Download over a connection of its own and return how many bytes came down."""
    before = road.proxy.bytes_down
    async with connect(road.host) as connection:
        await connection.download(PurePosixPath(source), target, limit_bytes=limit, timeout_s=60, is_resumed=is_resumed)
    return road.proxy.bytes_down - before


async def broken_upload(road: Road, place: Path, files: dict[str, bytes | Path], cut: int) -> None:
    road.proxy.cut_after(cut, "up")
    with pytest.raises(ConnectionLostError, match="box: the connection was lost"):
        await upload(road, place, files, is_resumed=False)
    assert road.proxy.cuts


async def settled(part: Path) -> int:
    """Return the size of a part once the process that writes it has ended: twice the same, a moment apart."""
    size = -1
    while size != (now := part.stat().st_size if part.exists() else 0):
        size = now
        await asyncio.sleep(0.1)
    return size


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("cut", CUTS)
async def test_an_upload_that_broke_goes_on_where_it_was(road: Road, tmp_path: Path, content: bytes, cut: int) -> None:
    place, source = tmp_path / "up", tmp_path / "source"
    source.write_bytes(content)
    await broken_upload(road, place, {"large": source, "small": b"1"}, cut)
    part = await settled(place / "large.part")
    assert mode(place / "large.part") == 0o600
    moved = await upload(road, place, {"large": source, "small": b"1"})
    assert moved < SIZE - part + WINDOW + OVERHEAD
    assert moved < SIZE - 500_000
    assert (place / "large").read_bytes() == content
    assert sorted((path.name, mode(path)) for path in place.iterdir()) == [("large", 0o600), ("small", 0o600)]


async def test_an_upload_that_breaks_again_and_again_arrives(road: Road, tmp_path: Path, content: bytes) -> None:
    """No try gets further than five of twelve megabytes."""
    place = tmp_path / "up"
    for _ in range(8):
        road.proxy.cut_after(5_000_000, "up")
        try:
            await upload(road, place, {"large": content})
            break
        except ConnectionLostError:
            await settled(place / "large.part")
    assert (place / "large").read_bytes() == content


async def test_what_is_there_already_is_not_sent_again(road: Road, tmp_path: Path, content: bytes) -> None:
    files: dict[str, bytes | Path] = {"deep/large": content, "small": b"old"}
    await upload(road, tmp_path / "up", files)
    (tmp_path / "up/deep/large.part").write_bytes(b"left by yet another try")
    assert await upload(road, tmp_path / "up", {**files, "small": b"new"}) < OVERHEAD
    assert (tmp_path / "up/deep/large").read_bytes() == content
    assert (tmp_path / "up/small").read_bytes() == b"new"
    if road.server.sftp != "off":
        assert not (tmp_path / "up/deep/large.part").exists()


async def test_without_the_flag_everything_is_sent_again(road: Road, tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "up"
    await broken_upload(road, place, {"large": content}, 8_000_000)
    other = content[::-1]
    assert await upload(road, place, {"large": other}, is_resumed=False) > SIZE
    assert (place / "large").read_bytes() == other
    assert await upload(road, place, {"large": content}, is_resumed=False) > SIZE
    assert (place / "large").read_bytes() == content


@pytest.mark.parametrize("left", [SIZE + 1, 10 * LARGE_BYTES + 1])
async def test_a_part_of_something_else_never_survives_a_call_without_the_flag(
    road: Road, tmp_path: Path, content: bytes, left: int
) -> None:
    (tmp_path / "large.part").write_bytes(b"x" * left)
    await upload(road, tmp_path, {"large": content}, is_resumed=left > SIZE)
    assert (tmp_path / "large").read_bytes() == content
    assert not (tmp_path / "large.part").exists()


@pytest.mark.parametrize("cut", CUTS)
async def test_a_download_that_broke_goes_on_where_it_was(road: Road, tmp_path: Path, content: bytes, cut: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    road.proxy.cut_after(cut, "down")
    with pytest.raises(ConnectionLostError, match="box: the connection was lost"):
        await download(road, source, target)
    part = tmp_path / "target.part"
    assert (mode(part), target.exists()) == (0o600, False)
    assert part.stat().st_size > cut - WINDOW - OVERHEAD
    assert await download(road, source, target) < SIZE - cut + WINDOW + 2 * OVERHEAD
    assert target.read_bytes() == content
    assert (mode(target), part.exists()) == (0o600, False)


async def test_a_download_without_the_flag_leaves_no_part(road: Road, tmp_path: Path, content: bytes) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    road.proxy.cut_after(8_000_000, "down")
    with pytest.raises(ConnectionLostError):
        await download(road, source, target, is_resumed=False)
    assert not list(tmp_path.glob("target*"))


async def test_a_part_larger_than_the_file_on_the_host_is_thrown_away(road: Road, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"short")
    (tmp_path / "target.part").write_bytes(b"longer than that")
    await download(road, tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"short"
    assert not (tmp_path / "target.part").exists()


async def test_a_part_that_is_a_link_is_not_followed(road: Road, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    (tmp_path / "elsewhere").write_bytes(b"con")
    (tmp_path / "target.part").symlink_to(tmp_path / "elsewhere")
    await download(road, tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"content"
    assert (tmp_path / "elsewhere").read_bytes() == b"con"


async def test_a_download_that_fails_for_a_reason_of_its_own_leaves_no_part(road: Road, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 11)
    with pytest.raises(IntegrityError, match="larger than 10 bytes"):
        await download(road, tmp_path / "source", tmp_path / "target", limit=10)
    with pytest.raises(FileNotFoundError):
        await download(road, tmp_path / "missing", tmp_path / "target")
    assert not list(tmp_path.glob("target*"))


async def test_a_deadline_breaks_a_download_that_can_go_on(road: Road, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "source").write_bytes(content)
    async with connect(road.host) as connection:
        await connection.run("true", timeout_s=10)
        source, target = PurePosixPath(tmp_path / "source"), tmp_path / "target"
        bringing = asyncio.create_task(
            connection.download(source, target, limit_bytes=SIZE, timeout_s=3, is_resumed=True)
        )
        async with asyncio.timeout(10):
            while not (part := tmp_path / "target.part").exists() or part.stat().st_size < 1_000_000:
                await asyncio.sleep(0)
        road.proxy.stall()
        with pytest.raises(DeadlinePassedError, match="a download did not end in 3 s"):
            await bringing
        road.proxy.flow()
    assert part.stat().st_size >= 1_000_000
    assert await download(road, tmp_path / "source", target) < SIZE
    assert target.read_bytes() == content


def test_what_a_part_proves_is_whole_blocks_that_were_confirmed() -> None:
    in_flight = BLOCKS_IN_FLIGHT * BLOCK_BYTES
    assert proved_bytes(-1, SIZE) == proved_bytes(0, SIZE) == proved_bytes(SIZE + 1, SIZE) == 0
    assert proved_bytes(in_flight, SIZE) == 0
    # One byte of the block after these, and the first of them is confirmed.
    assert proved_bytes(in_flight + 1, SIZE) == BLOCK_BYTES
    assert proved_bytes(SIZE, SIZE) == SIZE - in_flight


@pytest.mark.parametrize("start", [0, 3, 4, 10, 11])
def test_pieces_start_in_the_middle(tmp_path: Path, start: int) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    for source in (b"0123456789", tmp_path / "file"):
        assert b"".join(chunks_of(source, start, 4)) == b"0123456789"[start:]


def test_a_copy_that_a_full_local_disk_ended_leaves_no_part(small_disk: Path) -> None:
    target = small_disk / "target"
    with pytest.raises(OSError, match="No space"), appearing(target, is_continued=True) as stream:
        stream.write(b"x" * 1_000_000)
    assert not list(small_disk.iterdir())
