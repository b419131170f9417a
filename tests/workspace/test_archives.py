"""Without git there, or here: archives both ways, read with suspicion."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import IntegrityError
from remote_dispatch.workspace.apply import apply
from remote_dispatch.workspace.arrival import Arrived, Limits, read_arrived, receive_archive
from remote_dispatch.workspace.changes import diff
from remote_dispatch.workspace.claim import Claim
from remote_dispatch.workspace.unpack import Listing, list_archive
from tests.workspace.places import Home, commit, contents, everything, sh, write

if TYPE_CHECKING:
    from pathlib import Path


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", content: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    return info, content


def packed(place: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(place, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return place


def listed(archive: Path) -> Listing:
    return list_archive(archive, unpacked_bytes=100_000, files=20, is_case_blind=False)


async def received(home: Home, archive: Path, limits: Limits | None = None) -> Arrived:
    return await receive_archive(home.repository, await home.snapshot(), archive, Claim(), home.folder, limits)


async def test_a_directory_without_git_goes_and_comes_back_as_a_patch(tmp_path: Path) -> None:
    write(tmp_path / "plain", {"a.txt": "one\n", "deep/b": "b", ".gitignore": "cache/\n", "cache/x": "x"})
    home = await Home.at(tmp_path / "plain", tmp_path / "folder")
    before = everything(home.top)
    snapshot = await home.send_archive(tmp_path / "there")
    assert not (tmp_path / "there/cache").exists()
    write(tmp_path / "there", {"a.txt": "one\ntwo\n", "new": "n", "cache/y": "y"})
    (tmp_path / "there/deep/b").unlink()
    arrived = await home.receive_archive(tmp_path / "there", snapshot)
    assert everything(home.top) == before
    assert arrived.left_out == 1
    assert b"+two" in await diff(home.git, arrived)
    await home.land(arrived)
    assert everything(home.top) == before
    assert set((await apply(home.repository, arrived, home.folder)).paths) == {"a.txt", "new", "deep/b"}
    assert contents(home.top) == {
        **{name: one for name, one in contents(tmp_path / "there").items() if name != "cache/y"},
        "cache/x": contents(home.top)["cache/x"],
    }
    assert await read_arrived((await home.again()).repository, home.folder) == arrived


async def test_an_unchanged_tree_is_no_change(home: Home, tmp_path: Path) -> None:
    (home.top / "run").write_text("#!/bin/sh")
    (home.top / "run").chmod(0o755)
    (home.top / "link").symlink_to("run")
    write(home.top, {os.fsdecode(b"latin-\xe9"): "l", "a\nb": "", 'quote".txt': "", "tab\tback\\slash": ""})
    snapshot = await home.send_archive(tmp_path / "there")
    assert not (await home.receive_archive(tmp_path / "there", snapshot)).is_changed


async def test_a_repository_whose_host_has_no_git_gets_one_commit_on_a_branch(home: Home, tmp_path: Path) -> None:
    snapshot = await home.send_archive(tmp_path / "there")
    write(tmp_path / "there", {"work.txt": "w"})
    landed = await home.land(await home.receive_archive(tmp_path / "there", snapshot))
    assert sh(home.top, "rev-parse", f"{landed.branch}~") == snapshot.commit
    assert sh(home.top, "show", f"{landed.branch}:work.txt") == "w"


async def test_submodules_stay_what_they_were(home: Home, tmp_path: Path) -> None:
    sh(home.top, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},library")
    sh(home.top, "commit", "-q", "-m", "with a submodule")
    (home.top / "library").mkdir()
    home = await home.again()
    snapshot = await home.send_archive(tmp_path / "there")
    assert not (await home.receive_archive(tmp_path / "there", snapshot)).is_changed


async def test_links_out_of_the_tree_devices_and_repositories_stay_out_and_are_named(
    home: Home, tmp_path: Path
) -> None:
    archive = packed(
        tmp_path / "a.tar.gz",
        member("fine", content=b"f"),
        member("out", tarfile.SYMTYPE, "/etc/passwd"),
        member("deep/up", tarfile.SYMTYPE, "../../x"),
        member("pipe", tarfile.FIFOTYPE),
        member("disk", tarfile.BLKTYPE),
        member("sub/.git/hooks/post-checkout", content=b"#!/bin/sh"),
        member(".GIT/config", content=b"[core]"),
        member("same", tarfile.LNKTYPE, "fine"),
    )
    arrived = await received(home, archive)
    listed = sh(arrived.store, "ls-tree", "-r", "--name-only", arrived.result).splitlines()
    assert listed == ["fine", "same"]
    assert set(arrived.refused) == {
        "out", "deep/up", "pipe", "disk", "sub/.git/hooks/post-checkout", ".GIT/config",
    }  # fmt: skip


async def test_ignore_files_at_places_that_no_disk_here_can_hold_are_refused(home: Home, tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", member("a" * 300 + "/.gitignore", content=b"*"), member("b"))
    with pytest.raises(IntegrityError, match="a name in it is too long"):
        await received(home, archive)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([member("/etc/passwd")], "no name within"),
        ([member("../outside")], "no name within"),
        ([member("a/../../b")], "no name within"),
        ([member("../d", tarfile.DIRTYPE)], "no name within"),
        ([member("a" * 5000)], "no name within"),
        ([member("a"), member("./a")], "in it twice"),
        ([member("a", tarfile.SYMTYPE, "b"), member("a/x")], "below a file or a symlink"),
        ([member("a", tarfile.LNKTYPE, "/etc/passwd")], "hard link"),
        ([member("a", tarfile.LNKTYPE, "later"), member("later")], "hard link"),
        ([member(f"f{number}") for number in range(21)], "over 20 names"),
        ([member("zeros", content=bytes(200_000))], "too large"),
    ],
    ids=[
        "absolute", "parent", "hidden parent", "directory", "long", "twice", "through a link", "hard link out",
        "hard link ahead", "many", "large",
    ],
)  # fmt: skip
def test_an_archive_that_no_honest_program_packs_is_refused(
    tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]], why: str
) -> None:
    with pytest.raises(IntegrityError, match=why):
        listed(packed(tmp_path / "a.tar.gz", *members))


async def test_what_git_takes_for_its_own_on_some_disk_is_refused_and_nothing_was_touched(
    home: Home, tmp_path: Path
) -> None:
    before = everything(home.top)
    with pytest.raises(IntegrityError, match="hasDotgit"):
        await received(home, packed(tmp_path / "a.tar.gz", member("git~1/config", content=b"x")))
    assert everything(home.top) == before
    assert await read_arrived(home.repository, home.folder) is None


async def test_names_that_differ_in_case_only_are_refused_where_the_disk_knows_no_difference(
    home: Home, tmp_path: Path
) -> None:
    sh(home.top, "config", "core.ignoreCase", "true")
    with pytest.raises(IntegrityError, match="twice"):
        await received(home, packed(tmp_path / "a.tar.gz", member("Readme"), member("README")))


@pytest.mark.parametrize("damage", ["cut", "text", "flipped", "large header", "holes"])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: str) -> None:
    archive = packed(tmp_path / "a.tar.gz", member("a", content=os.urandom(50_000)))
    content = archive.read_bytes()
    header, _ = member("x", tarfile.XHDTYPE)
    header.size = 90_000_000
    holes, _ = member("x", tarfile.GNUTYPE_SPARSE)
    archive.write_bytes(
        {
            "cut": content[:20_000],
            "text": b"no archive",
            "flipped": content[:-2_000] + b"\0" + content[-1_999:],
            "large header": gzip.compress(header.tobuf() + bytes(90_000_000), 1),
            "holes": gzip.compress(holes.tobuf(tarfile.GNU_FORMAT) + bytes(1024)),
        }[damage]
    )
    with pytest.raises(IntegrityError, match="archive from the host is refused"):
        listed(archive)


async def test_an_archive_larger_than_the_limit_is_not_opened(home: Home, tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", member("a", content=os.urandom(5_000)))
    with pytest.raises(IntegrityError, match="larger than 1000 bytes"):
        await received(home, archive, Limits(parcel_bytes=1000))


async def test_ignored_files_that_were_sent_come_back(home: Home, tmp_path: Path) -> None:
    commit(home.top, {".gitignore": "*.log\n"})
    write(home.top, {"a.log": "a"})
    home = await home.again()
    snapshot = await home.snapshot(["a.log"])
    archive = packed(
        tmp_path / "a.tar.gz",
        member(".gitignore", content=b"*.log\n"),
        member("a.log", content=b"longer"),
        member("b.log", content=b"new"),
    )
    arrived = await receive_archive(home.repository, snapshot, archive, Claim(left_out=2), home.folder)
    assert sh(arrived.store, "show", f"{arrived.result}:a.log") == "longer"
    assert arrived.left_out == 3
