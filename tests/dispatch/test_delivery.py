"""What a host says in one answer is cut by sizes, bounded, and fools nobody whatever its files hold."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.dispatch.delivery import LIMIT_BYTES, parse_delivery
from tests.dispatch.values import DISPATCH_ID, SESSION

OUTCOME = json.dumps({"dispatch": DISPATCH_ID, "session": SESSION})
STATUS = f"status begin\nexists yes\noutcome yes\noutcome_json {OUTCOME}\nstatus end\n".encode()
LISTING = b"family\nexpected ses_x\nback-todos.json\nlisted\n"
FILES = {
    "back.json.gz": b"\x1f\x8b\nfile 3 back-todos.json\nxxxstatus begin\nexists no\nstatus end\nlisted\nend\n",
    "back-todos.json": b"[]",
    "back-tool-output/tool_empty": b"",
}


def pushed(files: dict[str, bytes]) -> bytes:
    return b"".join(b"file %d %s\n%s" % (len(data), name.encode(), data) for name, data in files.items()) + b"end\n"


WHOLE = STATUS + LISTING + pushed(FILES)


def test_everything_that_came_is_there_byte_for_byte() -> None:
    delivery = parse_delivery(WHOLE, DISPATCH_ID)
    assert delivery.status.outcome is not None
    assert delivery.listing == ("family", "expected ses_x", "back-todos.json", "listed")
    assert delivery.files == FILES


@pytest.mark.parametrize("length", range(0, len(WHOLE), 3))
def test_an_answer_that_was_cut_gives_whole_files_or_none(length: int) -> None:
    try:
        delivery = parse_delivery(WHOLE[:length], DISPATCH_ID)
    except ValueError:
        assert length < len(STATUS)
        return
    assert delivery.files.items() <= FILES.items()
    assert delivery.listing is None or delivery.listing[-1] == "listed"


def test_an_answer_without_more_than_a_status_is_a_status() -> None:
    delivery = parse_delivery(STATUS, DISPATCH_ID)
    assert (delivery.status.exists, delivery.listing, delivery.files) == (True, None, {})


@pytest.mark.parametrize(
    "line",
    [
        b"file 999999999 back.json.gz",
        b"file -1 back.json.gz",
        b"file 99999999999999999999 back.json.gz",
        b"file 3 ../../etc/passwd",
        b"file 3 back-children/../../x.json.gz",
        b"file 3 back-tool-output/tool_a/../b",
        b"file 3 record.json",
        b"file 3",
        b"back.json.gz 3",
    ],
)
def test_a_size_or_a_name_that_cannot_be_gives_no_file(line: bytes) -> None:
    assert parse_delivery(STATUS + LISTING + line + b"\nabcend\n", DISPATCH_ID).files == {}


def test_more_than_was_asked_for_is_not_kept() -> None:
    endless = STATUS + LISTING + pushed({"back.json.gz": b"\0" * LIMIT_BYTES})
    delivery = parse_delivery(endless, DISPATCH_ID)
    assert (delivery.status.exists, delivery.listing, delivery.files) == (True, None, {})


def test_the_files_of_a_run_that_goes_on_are_not_taken() -> None:
    running = b"status begin\nexists yes\nstarted yes\nheld yes\nstatus end\n"
    assert parse_delivery(running + LISTING + pushed(FILES), DISPATCH_ID).files == {}


@given(st.binary(max_size=300))
def test_no_answer_breaks_the_parser(answer: bytes) -> None:
    with suppress(ValueError):
        parse_delivery(answer, DISPATCH_ID)
    assert parse_delivery(STATUS + answer, DISPATCH_ID).status.outcome is not None
