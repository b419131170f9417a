"""Reading and writing a transcript piece by piece: the same as at once, whatever the bytes are."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.errors import IntegrityError
from remote_dispatch.transcript import PIECE_BYTES, Message, Transcript, dump, dumped, parse, read
from tests.transcript.samples import assistant, exported, part, session, transcripts, user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def as_opencode(transcript: Transcript) -> bytes:
    """As OpenCode's export lays it out; its strings are UTF-8, lone surrogates escaped."""
    text = json.dumps(transcript, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogatepass")


def unlike_any(transcript: Transcript) -> bytes:
    return json.dumps(transcript, indent=1).encode()


class Source:
    """Bytes in pieces of one size, which count how often they were asked for."""

    def __init__(self, data: bytes, size: int = 100) -> None:
        self.data = data
        self.size = size
        self.calls = 0

    def __call__(self) -> Iterator[bytes]:
        self.calls += 1
        return (self.data[start : start + self.size] for start in range(0, len(self.data), self.size))


def outcome(work: Callable[[], Transcript]) -> bytes | str:
    """What a reader made of it: the transcript with its types and orders, or the words of the error."""
    try:
        return dump(work())
    except IntegrityError as error:
        return error.message


def agrees(data: bytes, size: int) -> bool:
    return outcome(lambda: read(Source(data, size))) == outcome(lambda: parse(data))


# --- reading


@pytest.mark.parametrize("layout", [as_opencode, dump])
@given(transcripts(), st.integers(1, 3000))
def test_both_known_layouts_are_read_at_one_go(
    layout: Callable[[Transcript], bytes], transcript: Transcript, size: int
) -> None:
    source = Source(layout(transcript), size)
    assert dump(read(source)) == dump(transcript)
    assert source.calls == 1


@pytest.mark.parametrize("name", ["open-call", "killed", "refused", "denied", "child"])
def test_a_real_session_is_read_at_one_go(name: str) -> None:
    source = Source(as_opencode(exported(name)))
    assert read(source) == exported(name)
    assert source.calls == 1


@given(transcripts(most=3), st.integers(1, 500))
def test_any_other_layout_is_read_as_a_whole(transcript: Transcript, size: int) -> None:
    source = Source(unlike_any(transcript), size)
    assert read(source) == transcript
    assert source.calls == 2


@pytest.mark.parametrize("layout", [as_opencode, dump])
@given(st.data())
def test_whatever_is_damaged_gets_the_same_verdict(layout: Callable[[Transcript], bytes], data: st.DataObject) -> None:
    whole = bytearray(layout(data.draw(transcripts(most=3))))
    at = data.draw(st.integers(0, len(whole) - 1))
    until = data.draw(st.sampled_from([at, at + 1, at + 7, len(whole)]))
    whole[at:until] = data.draw(
        st.sampled_from([b"", b"{", b"}", b"[", b"]", b",", b'"', b"\n", b"NaN", b"\xff", b"\n    },\n    {", b"},\n{"])
    )
    assert agrees(bytes(whole), data.draw(st.integers(1, 400)))


_MESSAGE = json.dumps(user(1))
_OTHER = json.dumps(user(2))
_INFO = json.dumps(session()["info"])


@pytest.mark.parametrize(
    "text",
    [
        '{"info":INFO,"messages":[\nONE\n],"messages":[]}',
        '{"info":INFO,"messages":[],"messages":[\nONE,\nTWO\n]}',
        '{"info":INFO,"more":{"messages":[\nONE\n]},"messages":[TWO]}',
        '{"info":INFO,"messages":[TWO],"more":{"messages":[\nONE\n]}}',
        '{"info":INFO,"messages":[\nONE\n],"more":NaN}',
        '{"info":INFO,"messages":[\nONE\n,NaN]}',
        '{"info":INFO,"messages":[\nONE\n,TWO]}',
        '{"info":INFO,"messages":[\nONE],[TWO\n]}',
        '{"info":INFO,"messages":[\nONE]],[[TWO\n]}',
        '{"info":INFO,"messages":[\nONE,\nTWO\n]} x',
        '{"info":INFO,"messages":[\nONE,,\nTWO\n]}',
        '{"info":INFO,"messages":[\nONE,\nONE\n]}',
        '{"info":INFO,"messages":[\n{"parts":[{"a":[\n{"b":1},\n{"c":2}\n]}]}\n]}',
        '{"messages":[\nONE,\nTWO\n],"info":INFO,"more":1}',
        '[{"info":INFO,"messages":[\nONE\n]}]',
        'Exporting session\n{"info":INFO,"messages":[\nONE\n]}',
        '{"info":INFO,"messages":[]}',
        "",
    ],
)
def test_what_only_looks_like_a_known_layout_is_read_as_it_is(text: str) -> None:
    data = text.replace("INFO", _INFO).replace("ONE", _MESSAGE).replace("TWO", _OTHER).encode()
    assert all(agrees(data, size) for size in (1, 50, 10_000))


def test_a_message_that_is_nested_too_deeply_is_refused_in_pieces_too() -> None:
    deep = b'{"info":' + _INFO.encode() + b',"messages":[\n{"info":' + b"[" * 100_000 + b"\n]}"
    with pytest.raises(IntegrityError, match="nested too deeply"):
        read(Source(deep, 50_000))


@pytest.mark.parametrize("layout", [as_opencode, dump, unlike_any])
def test_each_message_is_handed_out_once_it_is_checked(layout: Callable[[Transcript], bytes]) -> None:
    def bare(message: Message) -> Message:
        return {"info": {"id": message["info"]["id"]}, "parts": []}

    wanted = [bare(user(1)), bare(assistant(2))]
    assert read(Source(layout(session(user(1), assistant(2)))), each=bare)["messages"] == wanted


def test_an_id_that_stands_twice_is_found_although_nothing_is_kept() -> None:
    with pytest.raises(IntegrityError, match="message id twice"):
        read(Source(dump(session(user(1), user(1)))), each=lambda _: {})


# --- writing


def _long(count: int, text: str) -> Transcript:
    return session(*[assistant(number, part(number * 10, number, text=text)) for number in range(1, count + 1)])


def test_a_large_transcript_is_written_in_pieces_of_one_size() -> None:
    pieces = list(dumped(_long(40, "x" * 90_000)))
    assert len(pieces) == 4
    assert max(map(len, pieces)) < PIECE_BYTES * 1.2
    assert json.loads(b"".join(pieces)) == _long(40, "x" * 90_000)


def test_every_message_has_a_line_of_its_own() -> None:
    lines = dump(session(user(1), assistant(2))).splitlines()
    assert [json.loads(line.removesuffix(b",")) for line in lines[1:-1]] == [user(1), assistant(2)]


@pytest.mark.parametrize("value", [session(), {"info": {"id": "x"}}, {}, {"messages": [], "info": {}, "more": None}])
def test_what_has_no_messages_is_written_too(value: dict[str, Any]) -> None:
    assert json.loads(dump(value)) == value


# --- memory


@pytest.mark.thorough
@pytest.mark.parametrize("layout", [as_opencode, dump])
def test_a_large_export_takes_little_more_than_its_size(layout: Callable[[Transcript], bytes]) -> None:
    source = Source(layout(_long(200, "a line of an output, and \u00e4nother one\n" * 2500)), PIECE_BYTES)
    tracemalloc.start()
    try:
        transcript = read(source)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        size = sum(map(len, dumped(transcript)))
        held, peak_of_dump = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * len(source.data)
    assert peak_of_dump - held < size / 2
