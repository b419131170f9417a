"""What is packed: small against what the host knows, the same from the same tree, refused where it would be broken."""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import UsageError
from remote_dispatch.workspace.parcel import make_archive, make_bundle
from remote_dispatch.workspace.survey import history_bytes
from tests.workspace.places import Far, Home, commit, contents, sh, write

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_second_bundle_holds_only_what_the_host_lacks(home: Home, far: Far) -> None:
    commit(home.top, {"large": os.urandom(300_000)})
    home = await home.again()
    snapshot = await home.send(far)
    assert (home.folder / "code.bundle").stat().st_size > 300_000
    commit(home.top, {"small": "s"})
    home = await home.again()
    second = await home.send(far, known=[snapshot.commit, str(snapshot.base), "0" * 40, "--all", "HEAD"])
    assert (home.folder / "code.bundle").stat().st_size < 2_000
    assert sh(far.top, "rev-parse", "HEAD") == second.commit
    assert contents(far.top) == contents(home.top)


async def test_the_same_tree_sent_twice_within_a_second_travels_both_times(home: Home, far: Far) -> None:
    """Both snapshots are the same commit then; git makes no bundle of nothing."""
    commit(home.top, {"large": os.urandom(300_000)})
    home = await home.again()
    first = await home.send(far)
    bundle = home.folder / "code.bundle"
    await make_bundle(home.git, first, bundle, [first.commit])
    assert 0 < bundle.stat().st_size < 2_000
    sh(far.top, "bundle", "verify", "-q", bundle)


async def test_the_bundle_has_one_ref_and_its_digest_is_told(home: Home, tmp_path: Path) -> None:
    parcel = await make_bundle(home.git, await home.snapshot(), tmp_path / "b")
    assert sh(tmp_path, "bundle", "list-heads", parcel.path).endswith(" refs/dispatch/snapshot")
    assert "\n" not in sh(tmp_path, "bundle", "list-heads", parcel.path)
    assert (parcel.kind, parcel.bytes, len(parcel.sha256)) == ("bundle", parcel.path.stat().st_size, 64)


async def test_a_shallow_clone_travels_with_where_it_is_cut(top: Path, tmp_path: Path, far: Far) -> None:
    commit(top, {"second": "2"})
    sh(tmp_path, "clone", "-q", "--depth", "1", f"file://{top}", "shallow")
    home = await Home.at(tmp_path / "shallow", tmp_path / "folder")
    write(home.top, {"third": "3"})
    snapshot = await home.send(far)
    assert contents(far.top) == contents(home.top)
    commit(far.top, {"fourth": "4"})
    landed = await home.land(await home.receive(far, snapshot))
    assert sh(home.top, "show", f"{landed.branch}:fourth") == "4"


async def test_a_partial_clone_that_lacks_history_is_refused(top: Path, tmp_path: Path) -> None:
    commit(top, {"edited.txt": "later\n"})
    sh(top, "config", "uploadpack.allowFilter", "true")
    sh(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{top}", "partial")
    home = await Home.at(tmp_path / "partial", tmp_path / "folder")
    snapshot = await home.snapshot()
    assert await history_bytes(home.repository) > 0
    with pytest.raises(UsageError, match="partial clone"):
        await make_bundle(home.git, snapshot, tmp_path / "b")


async def test_a_partial_clone_travels_where_the_host_has_the_rest(top: Path, tmp_path: Path, far: Far) -> None:
    commit(top, {"edited.txt": "later\n"})
    sh(top, "config", "uploadpack.allowFilter", "true")
    sh(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{top}", "partial")
    sh(tmp_path, "clone", "-q", f"file://{top}", far.top)
    home = await Home.at(tmp_path / "partial", tmp_path / "folder")
    write(home.top, {"new": "n"})
    snapshot = await home.send(far, known=[str(home.repository.head)])
    assert (home.folder / "code.bundle").stat().st_size < 2_000
    commit(far.top, {"work.txt": "w"})
    landed = await home.land(await home.receive(far, snapshot))
    assert sh(home.top, "show", f"{landed.branch}:work.txt") == "w"


async def test_a_repository_of_the_newer_format_travels_too(tmp_path: Path, far: Far) -> None:
    top = tmp_path / "new"
    top.mkdir()
    sh(top, "init", "-q", "--object-format=sha256")
    commit(top, {"a": "a"})
    home = await Home.at(top, tmp_path / "folder")
    snapshot = await home.send(far)
    commit(far.top, {"b": "b"})
    landed = await home.land(await home.receive(far, snapshot))
    assert sh(top, "show", f"{landed.branch}:b") == "b"


async def test_equal_trees_make_equal_archives(home: Home, tmp_path: Path) -> None:
    write(home.top, {"run": "#!/bin/sh", os.fsdecode(b"latin-\xe9"): "l", "empty": "", "a" * 200: "long"})
    (home.top / "run").chmod(0o700)
    (home.top / "link").symlink_to("kept.txt")
    first = await make_archive(home.git, await home.snapshot(), tmp_path / "1.tar.gz")
    second = await make_archive(home.git, await home.snapshot(), tmp_path / "2.tar.gz")
    assert first.sha256 == second.sha256
    with tarfile.open(first.path) as tar:
        owners = {(member.uid, member.gid, member.uname, member.mtime) for member in tar}
    assert owners == {(0, 0, "", 0)}


async def test_an_archive_unpacks_to_the_working_tree(home: Home, tmp_path: Path) -> None:
    write(
        home.top, {"deep/run": "#!/bin/sh", os.fsdecode(b"latin-\xe9"): "l", "empty": "", "a" * 200: "long", "a\nb": ""}
    )
    (home.top / "deep/run").chmod(0o755)
    (home.top / "deep/link").symlink_to("../kept.txt")
    await home.send_archive(tmp_path / "there")
    assert contents(tmp_path / "there") == contents(home.top)


async def test_an_archive_takes_no_link_out_of_the_tree(home: Home, tmp_path: Path) -> None:
    (home.top / "deep").mkdir()
    for name, target in (
        ("one", "/etc/passwd"),
        ("two", "../../outside"),
        ("three", "x/../../../y"),
        ("fine", "../gone"),
    ):
        (home.top / "deep" / name).symlink_to(target)
    with pytest.raises(UsageError, match=r"lead out of the directory.*: `deep/one`, `deep/three`, `deep/two`$"):
        await make_archive(home.git, await home.snapshot(), tmp_path / "a.tar.gz")
    assert not list(tmp_path.glob("a.tar*"))
