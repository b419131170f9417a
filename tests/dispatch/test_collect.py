"""What comes from the host is untrusted: bounded, hashed, parsed."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.dispatch.collect import read_todos
from remote_dispatch.dispatch.packing import read_back
from remote_dispatch.errors import IntegrityError
from remote_dispatch.model import Todo
from tests.dispatch.values import SESSION
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from pathlib import Path


def _packed(path: Path, data: bytes) -> str:
    path.write_bytes(gzip.compress(data))
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def back(tmp_path: Path) -> Path:
    return tmp_path / "back.json.gz"


def test_a_back_file_is_read_and_its_hash_compared(back: Path) -> None:
    transcript = a_transcript("hello", "hi \ud800")
    digest = _packed(back, json.dumps(transcript).encode())
    assert read_back(back, digest) == transcript
    assert read_back(back, None) == transcript


def test_another_hash_is_refused(back: Path) -> None:
    _packed(back, json.dumps(a_transcript("hello")).encode())
    with pytest.raises(IntegrityError, match="differs from what the host wrote"):
        read_back(back, "0" * 64)


@pytest.mark.parametrize("left", [0, 5, 11, 60, -1, -9])
def test_a_cut_file_is_refused(back: Path, left: int) -> None:
    digest = _packed(back, json.dumps(a_transcript("hello " * 100)).encode())
    back.write_bytes(back.read_bytes()[:left])
    with pytest.raises(IntegrityError):
        read_back(back, digest)


@pytest.mark.parametrize("position", [0, 10, 40, -6])
def test_a_damaged_file_is_refused(back: Path, position: int) -> None:
    digest = _packed(back, json.dumps(a_transcript("hello " * 100)).encode())
    data = bytearray(back.read_bytes())
    data[position] ^= 0xFF
    back.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"damaged|differs"):
        read_back(back, digest)


def test_a_file_that_unpacks_to_more_than_the_limit_is_refused(back: Path) -> None:
    digest = _packed(back, b"\0" * 50_000_000)
    assert back.stat().st_size < 100_000
    with pytest.raises(IntegrityError, match="absurdly large"):
        read_back(back, digest, limit_bytes=4_000_000)


def test_what_is_no_transcript_is_refused(back: Path) -> None:
    for data in (b"", b"[]", b'{"info": {}}', b'{"info": {"id": "ses_../../etc"}, "messages": []}', b"{" * 100_000):
        with pytest.raises(IntegrityError):
            read_back(back, _packed(back, data))


# --- todos


def _row(**fields: Any) -> dict[str, Any]:
    return {"session_id": SESSION, "content": "one", "status": "pending", "priority": "low", "position": 0, **fields}


def _todos(rows: object) -> tuple[Todo, ...]:
    return read_todos(json.dumps(rows).encode(), SESSION)


def test_todos_are_those_of_the_session_in_order() -> None:
    rows = [_row(), _row(content="another's", session_id="ses_other"), _row(content="two", status="completed")]
    assert _todos(rows) == (Todo("one", "pending", "low"), Todo("two", "completed", "low"))


def test_odd_rows_are_left_out() -> None:
    assert _todos([None, 1, "x", [], _row()]) == (Todo("one", "pending", "low"),)


@pytest.mark.parametrize("data", [b"", b"null", b"{}", b"[", b'"x"', b"\xff\xfe\x00", b"[" * 200_000])
def test_what_is_no_list_holds_no_todos(data: bytes) -> None:
    assert read_todos(data, SESSION) == ()


def test_todos_are_bounded_and_cleaned() -> None:
    assert len(_todos([_row()] * 1000)) == 200
    [todo] = _todos([_row(content="a\x1b[2Jb" + "x" * 5000, status={"odd": 1}, priority=None)])
    assert todo.content.startswith("abxxx")
    assert len(todo.content) == 2000
    assert isinstance(todo.status, str)
