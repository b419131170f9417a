"""Reading and writing a transcript."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.errors import IntegrityError
from remote_dispatch.transcript import Transcript, count, digest, dump, parse
from tests.transcript.samples import DATA, SESSION, assistant, exported, session, thawed, transcripts, user


@pytest.mark.parametrize("name", ["open-call", "killed", "refused", "denied", "child"])
def test_a_real_export_is_read_and_written_without_a_change(name: str) -> None:
    data = (DATA / f"{name}.json").read_bytes()
    assert json.loads(dump(parse(data))) == json.loads(data)


@given(transcripts(most=3))
def test_unknown_fields_and_lone_surrogates_survive(transcript: Transcript) -> None:
    assert parse(dump(transcript)) == transcript


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_and_a_line_before_the_json_are_skipped(encoding: str) -> None:
    text = f"Exporting session: {SESSION}\r\n" + json.dumps(session(user(1)), indent=2) + "\n"
    assert parse(text.encode(encoding)) == session(user(1))


def test_an_export_cut_anywhere_is_refused() -> None:
    data = dump(exported("open-call")).rstrip()
    for length in range(0, len(data), 97):
        with pytest.raises(IntegrityError):
            parse(data[:length])


def test_a_cut_export_is_called_cut() -> None:
    data = dump(exported("open-call"))
    for length in range(100, len(data) - 2, 1009):
        with pytest.raises(IntegrityError, match="ends too early"):
            parse(data[:length])


def _damaged(**info: object) -> Transcript:
    return session(user(1), **info)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (b"", "is empty"),
        (b"Session not found", "is not JSON"),
        (b'{"info": {}} trailing', "is not JSON"),
        (b'{"messages": []}', "has no `info`"),
        (dump({"info": {"id": SESSION}}), "has no `messages`"),
        (dump(_damaged(id="ses_x; rm -rf")), "no valid session id"),
        (dump(_damaged(id="msg_1fbba616f001WmEaUHz8eLs5Wm")), "no valid session id"),
        (dump(session(user(1, id="../x"))), "without a valid id"),
        (dump(session(user(1, role="system"))), "unknown role"),
        (dump(session(user(1, time={"created": "now"}))), "without a time of creation"),
        (dump(session(user(1), user(1))), "message id twice"),
        (dump(session({**user(1), "parts": [{"id": "prt_1"}]})), "part without a type"),
        (dump(session(user(1), {**user(2), "parts": user(1)["parts"]})), "part id twice"),
        (dump(session(user(1))).replace(b"1000", b"NaN"), "a number that JSON does not know"),
        (dump(session(user(1))).replace(b"1000", b"1e999"), "a number that JSON does not know"),
        (b'{"info":' + b"[" * 200_000, "nested too deeply"),
        (b'{"info":"\xff"}', "is not text"),
    ],
)
def test_what_is_no_whole_transcript_is_refused(broken: bytes, problem: str) -> None:
    with pytest.raises(IntegrityError, match=problem):
        parse(broken)


def test_the_digest_ignores_formatting_order_and_the_time_of_the_last_import() -> None:
    transcript = session(user(1), assistant(2))
    reordered = parse(json.dumps(transcript, sort_keys=True, indent=7).encode())
    imported = session(user(1), assistant(2), time={"created": 500, "updated": 999})
    assert digest(transcript) == digest(reordered) == digest(imported)


@pytest.mark.parametrize(
    "path", [("info", "title"), ("messages", 0, "info", "agent"), ("messages", 1, "parts", 0, "text")]
)
def test_the_digest_sees_any_other_change(path: tuple[str | int, ...]) -> None:
    transcript = session(user(1), assistant(2))
    changed = thawed(transcript)
    place = changed
    for step in path[:-1]:
        place = place[step]  # type: ignore[index] # a path of keys and positions
    place[path[-1]] = "other"  # type: ignore[index] # likewise
    assert digest(changed) != digest(transcript)


@given(st.integers(0, 5))
def test_messages_and_parts_are_counted(number: int) -> None:
    assert count(session(*[user(one + 1) for one in range(number)])) == (number, number)
