"""A damaged or hostile bundle is refused, and neither the repository nor an earlier result is touched by it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import IntegrityError
from remote_dispatch.workspace.arrival import Limits, read_arrived, receive_bundle
from remote_dispatch.workspace.claim import Claim, read_claim, write_claim
from tests.workspace.places import Far, Home, commit, everything, sh

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from remote_dispatch.workspace.snapshot import Snapshot

SMALL = Limits(parcel_bytes=100_000, unpacked_bytes=200_000, files=50, name_bytes=10_000)


async def refused(
    home: Home, snapshot: Snapshot, bundle: Path | None, claim: Claim, limits: Limits | None = None
) -> str:
    """Why it is refused; nothing here was changed, and an earlier result is still there."""
    before, earlier = everything(home.top), await read_arrived(home.repository, home.folder)
    with pytest.raises(IntegrityError) as caught:
        await receive_bundle(home.repository, snapshot, bundle, claim, home.folder, limits)
    assert everything(home.top) == before
    assert await read_arrived(home.repository, home.folder) == earlier
    return caught.value.message


def tree_of(far: Far, *entries: tuple[str, str, str]) -> str:
    """A tree that git itself would not make; entries are mode, name and id."""
    raw = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(one) for mode, name, one in entries)
    return sh(far.top, "hash-object", "-t", "tree", "--literally", "-w", "--stdin", input=raw)


def blob_of(far: Far, content: str) -> str:
    return sh(far.top, "hash-object", "-w", "--stdin", input=content.encode())


def packed(far: Far, snapshot: Snapshot, tree: str) -> tuple[Path, Claim]:
    """A bundle of a commit with this tree."""
    result = sh(far.top, "commit-tree", "-p", snapshot.commit, "-m", "hostile", tree)
    sh(far.top, "update-ref", "refs/heads/hostile", result)
    bundle = far.top.parent / "hostile.bundle"
    sh(far.top, "bundle", "create", "-q", bundle, "hostile", f"^{snapshot.commit}")
    return bundle, Claim(result)


async def test_no_name_that_leads_elsewhere_is_taken(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    hook = tree_of(far, ("100755", "post-checkout", blob_of(far, "#!/bin/sh\ntouch /tmp/never\n")))
    for name in (".git", ".GIT", "git~1", ".g\u200cit", "..", ".", "a/b"):
        bundle, claim = packed(far, snapshot, tree_of(far, ("40000", name, hook)))
        assert "refused" in await refused(home, snapshot, bundle, claim), name


async def test_submodules_that_would_run_something_are_refused(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    for name, url, more in (
        ("a", "-u./payload", ""),
        ("../../x", "https://example.org/a", ""),
        ("a", "https://example.org/a", "\tupdate = !touch /tmp/never\n"),
    ):
        modules = f'[submodule "{name}"]\n\tpath = a\n\turl = {url}\n{more}'
        bundle, claim = packed(far, snapshot, tree_of(far, ("100644", ".gitmodules", blob_of(far, modules))))
        assert "gitmodules" in await refused(home, snapshot, bundle, claim), modules


async def test_settings_of_git_that_are_links_are_refused(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    bundle, claim = packed(far, snapshot, tree_of(far, ("120000", ".gitmodules", blob_of(far, "/etc/passwd"))))
    assert "gitmodulesSymlink" in await refused(home, snapshot, bundle, claim)


async def test_a_submodule_with_a_foreign_transport_is_never_fetched(home: Home, far: Far, tmp_path: Path) -> None:
    snapshot = await home.send(far)
    modules = f'[submodule "a"]\n\tpath = a\n\turl = ext::touch {tmp_path}/fetched\n'
    tree = tree_of(far, ("100644", ".gitmodules", blob_of(far, modules)), ("160000", "a", "1" * 40))
    bundle, claim = packed(far, snapshot, tree)
    arrived = await receive_bundle(home.repository, snapshot, bundle, claim, home.folder)
    await home.land(arrived)
    assert not (tmp_path / "fetched").exists()


def flipped(content: bytes) -> bytes:
    return content[:-60] + bytes([content[-60] ^ 1]) + content[-59:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "text": lambda content: b"not a bundle",
    "half": lambda content: content[: len(content) // 2],
    "cut": lambda content: content[:-1],
    "flipped": flipped,
    "filter": lambda content: content.replace(b"# v2 git bundle\n", b"# v3 git bundle\n@filter=blob:none\n"),
    "format": lambda content: content.replace(b"# v2 git bundle\n", b"# v3 git bundle\n@object-format=sha256\n"),
    "prerequisite": lambda content: content.replace(
        b"# v2 git bundle\n", b"# v2 git bundle\n-" + b"1" * 40 + b" gone\n"
    ),
    "another tip": lambda content: content.replace(
        b"# v2 git bundle\n", b"# v2 git bundle\n" + b"1" * 40 + b" refs/heads/x\n"
    ),
    "endless": lambda content: b"# v2 git bundle\n" * 100_000,
}


async def test_a_damaged_bundle_is_refused(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    commit(far.top, {"work.txt": "whole"})
    await home.receive(far, snapshot)
    commit(far.top, {"more.txt": "more" * 50})
    bundle, claim = far.pack(snapshot)
    assert bundle is not None
    whole = bundle.read_bytes()
    for damage in DAMAGES.values():
        bundle.write_bytes(damage(whole))
        await refused(home, snapshot, bundle, claim)


async def test_a_bundle_without_what_was_claimed_is_refused(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    commit(far.top, {"work.txt": "w"})
    bundle, claim = far.pack(snapshot)
    assert "names did not come" in await refused(home, snapshot, bundle, replace(claim, branches={"x": "2" * 40}))
    assert "did not come" in await refused(home, snapshot, None, claim)
    assert "does not say" in await refused(home, snapshot, None, Claim())


async def test_another_commit_of_the_user_is_no_result(home: Home, far: Far) -> None:
    sh(home.top, "checkout", "-q", "-b", "private")
    private = commit(home.top, {"private.txt": "not sent\n"})
    sh(home.top, "checkout", "-q", "main")
    snapshot = await home.send(far)
    assert "did not come" in await refused(home, snapshot, None, Claim(private))
    result = commit(far.top, {"work.txt": "w"})
    bundle, claim = far.pack(snapshot)
    assert "did not come" in await refused(home, snapshot, bundle, replace(claim, branches={"x": private}))
    on_top = sh(home.top, "commit-tree", "-p", private, "-m", "claimed", f"{private}^{{tree}}")
    assert "did not come" in await refused(home, snapshot, bundle, replace(claim, result=on_top, head=result))


async def test_what_was_there_before_what_was_sent_may_be_the_result(home: Home, far: Far) -> None:
    commit(home.top, {"kept.txt": "later\n"})
    home = await home.again()
    snapshot = await home.send(far)
    earlier = sh(far.top, "rev-parse", f"{snapshot.base}~1")
    arrived = await receive_bundle(home.repository, snapshot, None, Claim(earlier, earlier), home.folder)
    assert (await home.land(arrived)).commit == sh(home.top, "rev-parse", "main~1")


async def test_a_result_of_which_an_object_is_missing_is_refused(home: Home, far: Far, tmp_path: Path) -> None:
    snapshot = await home.send(far)
    result = commit(far.top, {"work.txt": "not packed"})
    ids = f"{result}\n{sh(far.top, 'rev-parse', f'{result}^{{tree}}')}\n".encode()
    pack = sh(far.top, "pack-objects", "-q", tmp_path / "pack", input=ids)
    head = f"# v2 git bundle\n{result} refs/heads/x\n\n".encode()
    bundle = tmp_path / "holes.bundle"
    bundle.write_bytes(head + (tmp_path / f"pack-{pack}.pack").read_bytes())
    assert "refused" in await refused(home, snapshot, bundle, Claim(result))


async def test_what_is_too_large_packed_or_unpacked_is_refused(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    commit(far.top, {"zeros": "0" * 300_000})
    bundle, claim = far.pack(snapshot)
    assert bundle is not None
    assert bundle.stat().st_size < 2_000
    assert "unpacked it is too large" in await refused(home, snapshot, bundle, claim, SMALL)
    assert "larger than 100 bytes" in await refused(home, snapshot, bundle, claim, replace(SMALL, parcel_bytes=100))


async def test_a_small_tree_that_unfolds_to_countless_files_is_refused(home: Home, far: Far) -> None:
    snapshot = await home.send(far)
    tree = tree_of(far, *(("100644", f"f{number}", blob_of(far, "x")) for number in range(9)))
    for _ in range(9):
        tree = tree_of(far, *(("40000", f"d{number}", tree) for number in range(9)))
    bundle, claim = packed(far, snapshot, tree)
    assert "printed over 10000 bytes" in await refused(home, snapshot, bundle, claim, SMALL)
    flat = tree_of(far, *(("100644", f"f{number}", blob_of(far, "x")) for number in range(10, 61)))
    bundle, claim = packed(far, snapshot, flat)
    assert "over 50 files" in await refused(home, snapshot, bundle, claim, SMALL)


# --- what the host claims


@pytest.mark.parametrize(
    "text",
    [
        "result 123\n",
        f"result {'g' * 40}\n",
        f"head --all\nresult {'1' * 40}\n",
        f"branch ../x {'1' * 40}\n",
        f"branch -x {'1' * 40}\n",
        f"branch refs/heads/../x {'1' * 40}\n",
        f"branch a\x1b]0;x\x07 {'1' * 40}\n",
        f"branch x.lock {'1' * 40}\n",
        "left_out -1\n",
        "left_out 1e9\n",
        "x" * 1_000_001,
        "".join(f"branch b{number} {'1' * 40}\n" for number in range(1001)),
    ],
)
def test_a_malformed_claim_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        read_claim(text.encode())


def test_a_claim_survives_writing_and_unknown_lines_are_passed_over() -> None:
    claim = Claim("1" * 40, "2" * 64, {"feature/x": "3" * 40, "\u00fc": "4" * 40}, 7)
    assert read_claim(write_claim(claim) + b"future a b c d\nnews 1\n") == claim
