"""One JSON object a line, however the bytes are cut and whatever stands between."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_dispatch.acp.lines import LineReader, LineTooLongError, line_of

if TYPE_CHECKING:
    from collections.abc import Iterable

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # lone surrogates too
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.dictionaries(TEXT, VALUES, max_size=4)
NOISE = st.sampled_from([b"[]", b"5", b"null", b"[{}]", b'"x"', b'{"cut":', b"\xff\xfe{}", b"log: done", b"[" * 5000])
BLANKS = st.sampled_from([b"", b" ", b"\r", b"\t\r"])


def read(pieces: Iterable[bytes], reader: LineReader) -> list[Any]:
    return [message for piece in pieces for message in reader.feed(piece)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], list[Any], int]:
    """Chunks, the messages in them, and how many lines were noise."""
    lines: list[bytes] = []
    messages: list[Any] = []
    skipped = 0
    for kind in draw(st.lists(st.sampled_from(["message", "windows", "noise", "blank"]), max_size=8)):
        if kind == "noise":
            skipped += 1
            lines.append(draw(NOISE) + b"\n")
        elif kind == "blank":
            lines.append(draw(BLANKS) + b"\n")
        else:
            messages.append(draw(MESSAGES))
            line = line_of(messages[-1])
            lines.append(line[:-1] + b"\r\n" if kind == "windows" else line)
    data = b"".join(lines)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)], messages, skipped


@given(streams())
@settings(max_examples=60, deadline=None)
def test_messages_arrive_in_order_wherever_the_stream_is_cut(stream: tuple[list[bytes], list[Any], int]) -> None:
    pieces, messages, skipped = stream
    reader = LineReader()
    assert read(pieces, reader) == messages
    assert reader.skipped == skipped


@given(MESSAGES)
@settings(max_examples=40, deadline=None)
def test_a_message_is_one_line_of_ascii(message: Any) -> None:
    line = line_of(message)
    assert line.isascii()
    assert line.endswith(b"\n")
    assert len(line.splitlines()) == 1
    assert json.loads(line) == message


def test_a_line_that_is_not_whole_waits() -> None:
    reader = LineReader()
    assert reader.feed(b'{"a":') == []
    assert reader.feed(b"1}") == []
    assert reader.feed(b"\n") == [{"a": 1}]


def test_two_hundred_bytes_of_a_line_that_is_no_message_are_kept_for_the_log() -> None:
    heard: list[bytes] = []
    reader = LineReader(on_noise=heard.append)
    reader.feed(b"x" * 1000 + b"\n\n[1]\n")
    assert heard == [b"x" * 200, b"[1]"]


def test_a_line_of_megabytes_in_small_pieces_is_joined_once() -> None:
    piece = b"x" * 1000
    reader = LineReader()
    for _ in range(5000):
        reader.feed(b"" if _ else b'{"t":"')
        reader.feed(piece)
    assert len(reader._pieces) > 5000, "pieces are kept apart until the line is whole"
    (message,) = reader.feed(b'"}\n')
    assert len(message["t"]) == 5_000_000


@pytest.mark.parametrize("pieces", [[b"x" * 101], [b"x" * 60, b"x" * 41], [b"{}\n" + b"x" * 101 + b"\n{}\n"]])
def test_a_line_above_the_limit_is_an_error_before_it_is_whole(pieces: list[bytes]) -> None:
    with pytest.raises(LineTooLongError, match="longer than 100 bytes"):
        read(pieces, LineReader(limit_bytes=100))


def test_lines_up_to_the_limit_are_fine() -> None:
    line = b'{"a":"' + b"x" * 92 + b'"}'
    assert len(line) == 100
    assert len(LineReader(limit_bytes=100).feed((line + b"\n") * 3)) == 3
