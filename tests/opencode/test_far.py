"""What one remote command reads out of the OpenCode of a host."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.errors import HostNotReadyError, UnknownNameError
from remote_dispatch.opencode.far import Far, export_far, list_far, read_far
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from pathlib import Path

    from tests.opencode.conftest import Box


async def bring_in(box: Box, *sessions: dict[str, Any]) -> str:
    """Import sessions, the parent first, and return its id."""
    file = box.root / "import.json"
    for session in sessions:
        file.write_text(json.dumps(session))
        await box.program.import_(file, session["info"]["id"], box.home)
    return str(sessions[0]["info"]["id"])


async def test_a_family_is_exported_whole_under_every_shell(box: Box) -> None:
    session = a_transcript("one", "two", "three" * 50_000)
    child = a_transcript("four", parent_id=session["info"]["id"])
    name = await bring_in(box, session, child)
    far = await export_far(box.connection, str(box.install()), name, {})
    assert far.messages == {name: 3, child["info"]["id"]: 1}
    assert [message["parts"] for message in far.exports[name]["messages"]] == [
        message["parts"] for message in session["messages"]
    ]
    assert far.unreadable == frozenset()
    assert box.kept() == []
    box.await_quiet()


@pytest.mark.parametrize("fault", ["reader-refuses", "reader-killed", "reader-elsewhere", "no-reader"])
async def test_where_nothing_can_be_read_fast_opencode_is_asked_and_says_the_same(one_box: Box, fault: str) -> None:
    session = a_transcript("one", "two")
    name = await bring_in(one_box, session, a_transcript("three", parent_id=session["info"]["id"]))
    binary = str(one_box.install())
    fast = await export_far(one_box.connection, binary, name, {})
    assert (len(fast.exports), one_box.calls()[2:]) == (2, ["reader rows tsv", *fast_exports(fast)])
    one_box.set(STUB_FAULT=fault)
    assert await export_far(one_box.connection, binary, name, {}) == fast


def fast_exports(far: Far) -> list[str]:
    return [f"reader export {session}" for session in far.messages]


async def test_counting_exports_nothing(one_box: Box) -> None:
    name = await bring_in(one_box, a_transcript("one", "two"))
    assert await list_far(one_box.connection, str(one_box.install()), name, {}) == Far({name: 2})
    assert not [call for call in one_box.calls() if call.startswith("--pure export")]


async def test_a_session_that_is_not_there_is_nothing(one_box: Box) -> None:
    await bring_in(one_box, a_transcript("another"))
    missing = a_transcript()["info"]["id"]
    assert (await export_far(one_box.connection, str(one_box.install()), missing, {})).messages == {}


async def test_where_opencode_has_no_database_none_is_made(one_box: Box) -> None:
    binary = one_box.install()
    assert (await list_far(one_box.connection, str(binary), a_transcript()["info"]["id"], {})).messages == {}
    assert one_box.calls() == []


async def test_the_entrys_environment_reaches_opencode(one_box: Box, tmp_path: Path) -> None:
    name = await bring_in(one_box, a_transcript("one"))
    elsewhere = {"XDG_DATA_HOME": str(tmp_path / "a b 'c'")}
    assert (await list_far(one_box.connection, str(one_box.install()), name, elsewhere)).messages == {}


async def test_a_missing_opencode_is_told(one_box: Box) -> None:
    with pytest.raises(HostNotReadyError, match="OpenCode was not found"):
        await list_far(one_box.connection, "/nowhere/opencode", a_transcript()["info"]["id"], {})


async def test_a_database_that_cannot_be_read_is_told(one_box: Box) -> None:
    name = await bring_in(one_box, a_transcript("one"))
    one_box.set(STUB_FAULT="db-fails")
    with pytest.raises(HostNotReadyError, match="could not show its sessions"):
        await export_far(one_box.connection, str(one_box.install()), name, {})
    assert one_box.kept() == []


@pytest.mark.parametrize("fault", ["export-fails", "export-cut"])
async def test_a_session_that_cannot_be_exported_is_counted_and_unreadable(one_box: Box, fault: str) -> None:
    name = await bring_in(one_box, a_transcript("one"))
    one_box.set(STUB_FAULT=fault)
    far = await export_far(one_box.connection, str(one_box.install()), name, {})
    assert (far.messages, far.exports, far.unreadable) == ({name: 1}, {}, frozenset({name}))


async def test_an_odd_id_never_reaches_the_host(one_box: Box) -> None:
    with pytest.raises(UnknownNameError):
        await list_far(one_box.connection, str(one_box.install()), "ses_' or 1 = 1", {})


ONE = a_transcript("one")
NAME = ONE["info"]["id"]
PACKED = gzip.compress(json.dumps(ONE).encode())


def answer(*, noise: bytes = b"", name: str = NAME, packed: bytes = PACKED, size: int | None = None) -> bytes:
    """What a host prints of one session."""
    head = f"\nfar begin\nsession {NAME} 1\nexport {name} {len(packed) if size is None else size}\n".encode()
    return noise + head + packed + b"\nfar end\n"


@pytest.mark.parametrize("noise", [b"", b"welcome\n", b"far end\nno newline at the end", b"\xff\xfe"])
def test_what_a_login_shell_says_before_is_skipped(noise: bytes) -> None:
    assert list(read_far("box", answer(noise=noise)).exports) == [NAME]


@pytest.mark.parametrize(
    "odd",
    [
        {"packed": b"no gzip"},
        {"packed": PACKED[:-9]},
        {"packed": gzip.compress(b"{}")},
        {"packed": gzip.compress(json.dumps(a_transcript("another session")).encode())},
        {"name": a_transcript()["info"]["id"]},
    ],
)
def test_an_export_that_is_not_what_it_should_be_is_unreadable(odd: dict[str, Any]) -> None:
    assert read_far("box", answer(**odd)).unreadable == {NAME}


@pytest.mark.parametrize("cut", [0, 1, 12, 60, len(answer()) - 2])
def test_a_broken_answer_is_no_answer(cut: int) -> None:
    with pytest.raises(HostNotReadyError):
        read_far("box", answer()[:cut])


def test_a_size_that_is_not_true_ends_in_a_refusal() -> None:
    with pytest.raises(HostNotReadyError):
        read_far("box", answer(size=10**9))
