"""field.md section 6, "Transcript": refused as no whole transcript, or carried byte for byte and obeyed by nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch import transcript as transcripts
from remote_dispatch.errors import IntegrityError
from tests.bad_input.terminal import assert_refused
from tests.bad_input.values import ESCAPES, named
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bad_input.terminal import Terminal
    from tests.bad_input.values import Trap

Transcript = dict[str, Any]
SESSION = f"ses_{'0' * 12}{'S' * 14}"
OTHER = f"ses_{'1' * 12}{'S' * 14}"
SECRETS = "AKIAIOSFODNN7EXAMPLE ghp_0123456789abcdefghijABCDEFGHIJ012345 -----BEGIN OPENSSH PRIVATE KEY-----"


def a_session(*texts: str) -> Transcript:
    """Return a transcript of two messages."""
    return a_transcript(*(texts or ("hello", "hi")), session_id=SESSION)


def _set(*path: Any) -> Callable[[Transcript], object]:
    """Return what puts a value (the last one) at a place of a transcript."""

    def change(transcript: Transcript) -> None:
        *way, key, value = path
        place: Any = transcript
        for step in way:
            place = place[step]
        place[key] = value

    return change


def _drop(*path: Any) -> Callable[[Transcript], object]:
    """Return what removes a place of a transcript."""

    def change(transcript: Transcript) -> None:
        *way, key = path
        place: Any = transcript
        for step in way:
            place = place[step]
        del place[key]

    return change


def _twice(what: str) -> Callable[[Transcript], object]:
    """Return what gives the second message, or its part, the id of the first."""

    def change(transcript: Transcript) -> None:
        first, second = transcript["messages"]
        if what == "message":
            second["info"]["id"] = first["info"]["id"]
        else:
            second["parts"][0]["id"] = first["parts"][0]["id"]

    return change


REFUSED: dict[str, Callable[[Transcript], object]] = {
    "no info": _drop("info"),
    "no messages": _drop("messages"),
    "messages that are an object": _set("messages", {}),
    "a message that is null": _set("messages", 0, None),
    "no info of a message": _drop("messages", 0, "info"),
    "no parts of a message": _drop("messages", 0, "parts"),
    "no id of the session": _drop("info", "id"),
    "a session id that leaves its directory": _set("info", "id", "ses_../../x"),
    "a session id that is an option": _set("info", "id", "-rf"),
    "a session id with a newline": _set("info", "id", f"{SESSION}\n"),
    "a session id that is a number": _set("info", "id", 1),
    "times that are a list": _set("info", "time", []),
    "a message id that leaves its directory": _set("messages", 0, "info", "id", "msg_../../x"),
    "a message id that is a query": _set("messages", 0, "info", "id", "msg_' or 1"),
    "a message without a role": _drop("messages", 0, "info", "role"),
    "a message of a role from the future": _set("messages", 0, "info", "role", "oracle"),
    "a message without a time": _drop("messages", 0, "info", "time"),
    "a message made at true": _set("messages", 0, "info", "time", "created", True),
    "a part id that leaves its directory": _set("messages", 0, "parts", 0, "id", "prt_../../x"),
    "a part without an id": _drop("messages", 0, "parts", 0, "id"),
    "a part without a type": _drop("messages", 0, "parts", 0, "type"),
    "a part that is a text": _set("messages", 0, "parts", 0, "hello"),
    "a message id twice": _twice("message"),
    "a part id twice": _twice("part"),
}
FILE_PART = {
    "type": "file",
    "mime": "text/plain",
    "filename": "../../../.ssh/authorized_keys",
    "url": "file:///../../etc/passwd",
}
KEPT: dict[str, Callable[[Transcript], object]] = {
    "the prototype of JavaScript": _set("info", "__proto__", {"polluted": True}),
    "the prototype in a part": _set("messages", 0, "parts", 0, "__proto__", {"type": "tool"}),
    "a version from the future": _set("info", "version", "99.0.0"),
    "a field from the future": _set("messages", 0, "info", "quantum", [1, {"a": None}]),
    "a part of a type from the future": _set("messages", 0, "parts", 0, "type", "hologram"),
    "strings like secrets": _set("messages", 0, "parts", 0, "text", SECRETS),
    "a path that leaves its directory in a file part": lambda one: one["messages"][0]["parts"][0].update(FILE_PART),
    "a number of 4,000 digits": _set("messages", 0, "info", "huge", int("9" * 4000)),
    "a number below all": _set("messages", 0, "info", "time", "created", -(2**63)),
    "a time in 2100": _set("messages", 0, "info", "time", "created", 4_102_444_800_000),
    "a lone surrogate": _set("messages", 0, "parts", 0, "text", "a \ud800 b"),
    "NUL": _set("messages", 0, "parts", 0, "text", "a\0b"),
    "an empty key": _set("messages", 0, "parts", 0, "", ""),
    "two keys that look alike": lambda one: one["info"].update({"caf\u00e9": 1, "cafe\u0301": 2}),
    **{f"{name} in a text": _set("messages", 0, "parts", 0, "text", text) for name, text in ESCAPES.items()},
}
NO_TRANSCRIPTS = {
    "empty": b"",
    "blanks": b"  \n",
    "null": b"null",
    "a list": b"[]",
    "a help page": b"opencode export [sessionID]\n\nexport session data as JSON\n",
    "binary": bytes(range(256)),
    "NaN": json.dumps(a_session()).replace("1700000000000", "NaN").encode(),
    "Infinity": json.dumps(a_session()).replace("1700000000000", "1e999").encode(),
    "nested 100,000 times": b'{"info": ' + b"[" * 100_000,
    "a number of 100,000 digits": json.dumps(a_session()).replace("1700000000000", "9" * 100_000).encode(),
    "two in one": json.dumps(a_session()).encode() * 2,
    "not UTF-8": json.dumps(a_session()).encode().replace(b"hello", b"\xff\xfe\xff"),
}


@pytest.mark.parametrize("change", named(REFUSED))
def test_what_is_no_whole_transcript_is_refused(change: Callable[[Transcript], object]) -> None:
    transcript = a_session()
    change(transcript)
    with pytest.raises(IntegrityError):
        transcripts.parse(json.dumps(transcript).encode())


@pytest.mark.parametrize("data", named(NO_TRANSCRIPTS))
def test_what_is_no_transcript_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        transcripts.parse(data)


@pytest.mark.parametrize("change", named(KEPT))
def test_what_is_odd_and_whole_is_carried_unchanged(change: Callable[[Transcript], object]) -> None:
    transcript = a_session()
    change(transcript)
    read = transcripts.parse(json.dumps(transcript).encode())
    assert read == transcript
    assert transcripts.parse(transcripts.dump(read)) == transcript


@pytest.mark.parametrize("change", named(KEPT))
def test_what_is_odd_and_whole_survives_fresh_ids_and_back(change: Callable[[Transcript], object]) -> None:
    transcript = a_session()
    change(transcript)
    mapping = transcripts.fresh_ids([transcript], 1_700_000_000_000)
    away = transcripts.rename(transcript, mapping)
    assert transcripts.rename(away, transcripts.inverted(mapping)) == transcript


def test_a_sample_of_two_kilobytes_cut_at_every_byte_is_refused() -> None:
    data = json.dumps(a_session("hello \U0001f600" * 20, "hi")).encode()
    assert len(data) >= 1500
    for length in range(len(data)):
        with pytest.raises(IntegrityError):
            transcripts.parse(data[:length])


def test_a_hundred_thousand_parts_are_read() -> None:
    transcript = a_session()
    part = transcript["messages"][0]["parts"][0]
    transcript["messages"][0]["parts"] = [{**part, "id": f"prt_{number:026d}"} for number in range(100_000)]
    assert transcripts.count(transcripts.parse(json.dumps(transcript).encode())) == (2, 100_001)


# --- what came back


FOREIGN: dict[str, Callable[[Transcript], object]] = {
    "another session": _set("info", "id", OTHER),
    "a message of another session": _set("messages", 1, "info", "sessionID", OTHER),
    "a part of another session": _set("messages", 1, "parts", 0, "sessionID", OTHER),
    "a part of another message": _set("messages", 1, "parts", 0, "messageID", f"msg_{'9' * 26}"),
    "nothing of what was sent": _set("messages", []),
    "a message twice": _twice("message"),
    "a part twice": _twice("part"),
}


@pytest.mark.parametrize("change", named(FOREIGN))
def test_what_came_back_and_is_not_ours_is_refused(change: Callable[[Transcript], object]) -> None:
    sent = a_session()
    back = json.loads(json.dumps(sent))
    change(back)
    with pytest.raises(IntegrityError):
        transcripts.check_back(back, session_id=SESSION, base_ids=transcripts.message_ids(sent))


# --- an OpenCode on this machine that exports it


@pytest.mark.parametrize("data", named(NO_TRANSCRIPTS))
def test_a_session_that_exports_as_no_transcript_is_not_sent(
    terminal: Terminal, trap: Trap, tmp_path: Path, data: bytes
) -> None:
    """The host is asked at the same time: that it was called is no harm."""
    _export_as(terminal, tmp_path, data)
    ran = terminal.run("send", "pi", "do it", "--session", SESSION, "--json")
    trap.was_called()
    assert_refused(terminal, trap, ran, 9, 12)


SESSION_ROW = {"id": SESSION, "title": "t", "directory": "/", "updated": 1, "messages": 2}
ANSWERS = {
    "a help page": b"opencode db [query]\n",
    "an object": b"{}",
    "a list of numbers": b"[1]",
    "a row without fields": b"[{}]",
    "a time that is a word": json.dumps([SESSION_ROW | {"updated": "soon"}]).encode(),
    "a time beyond all": json.dumps([SESSION_ROW | {"updated": 10**30}]).encode(),
    "a time that is no number": json.dumps([SESSION_ROW | {"updated": None}]).encode(),
    "a directory that is none": json.dumps([SESSION_ROW | {"directory": 1}]).encode(),
    "NaN": b'[{"id": NaN}]',
    "nested 100,000 times": b"[" * 100_000,
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("answer", named(ANSWERS))
def test_a_database_that_answers_oddly_is_an_opencode_that_is_not_ready(
    terminal: Terminal, trap: Trap, tmp_path: Path, answer: bytes
) -> None:
    _export_as(terminal, tmp_path, b"")
    (tmp_path / "row").write_bytes(answer)
    assert_refused(terminal, trap, terminal.run("send", "pi", "do it", "--session", SESSION, "--json"), 9)
    assert_refused(terminal, trap, terminal.run("send", "pi", "do it", "--last"), 9)


def _export_as(terminal: Terminal, tmp_path: Path, data: bytes) -> None:
    """Let OpenCode on this machine have one session, and export it as these bytes."""
    (tmp_path / "data").write_bytes(data)
    (tmp_path / "row").write_text(json.dumps([SESSION_ROW]))
    (tmp_path / "around").write_text(json.dumps([{"kind": "data", "a": str(tmp_path / "opencode.db")}]))
    cases = (("export", "data"), ("as kind", "around"), ("db", "row"))
    body = " ".join(f'*"{word}"*) cat {tmp_path / name} ;;' for word, name in cases)
    (tmp_path / "bin/opencode").write_text(f'#!/bin/sh\ncase "$*" in {body} esac\n')
