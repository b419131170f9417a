"""Transcripts for tests: real exports of OpenCode 1.18.33 with paths replaced, and small ones made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from remote_dispatch.transcript import Message, Part, Transcript, parse

DATA = Path(__file__).parent / "data"
SESSION = "ses_e04459f12ffedVRTXXQ8b9xFYV"
NOW = 1_795_224_690_000


def exported(name: str) -> Transcript:
    return parse((DATA / f"{name}.json").read_bytes())


def thawed(transcript: Transcript) -> Transcript:
    copy: Transcript = json.loads(json.dumps(transcript))
    return copy


def part(number: int, message: int, kind: str = "text", **fields: Any) -> Part:
    identity = f"prt_{number:012x}{'p' * 14}"
    return {"id": identity, "sessionID": SESSION, "messageID": message_id(message), "type": kind, **fields}


def message_id(number: int) -> str:
    return f"msg_{number:012x}{'m' * 14}"


def user(number: int, text: str = "do it", **fields: Any) -> Message:
    said = part(number * 100, number, text=text)
    return {
        "info": {
            "id": message_id(number),
            "sessionID": SESSION,
            "role": "user",
            "time": {"created": number * 1000},
            "agent": "build",
            "model": {"providerID": "remote", "modelID": "big"},
            **fields,
        },
        "parts": [said],
    }


def aside(number: int) -> Message:
    """What is shown to the user and sent to no model."""
    return {**user(number), "parts": [part(number * 100, number, text="by the way", ignored=True)]}


def assistant(number: int, *parts: Part, parent: int = 1, **fields: Any) -> Message:
    return {
        "info": {
            "id": message_id(number),
            "sessionID": SESSION,
            "role": "assistant",
            "parentID": message_id(parent),
            "agent": "build",
            "providerID": "remote",
            "modelID": "big",
            "time": {"created": number * 1000, "completed": number * 1000 + 500},
            **fields,
        },
        "parts": list(parts) or [part(number * 100, number, text="done")],
    }


def tool(number: int, message: int, name: str, **state: Any) -> Part:
    return part(number, message, "tool", tool=name, callID=f"call_{number}", state=state)


def session(*messages: Message, **info: Any) -> Transcript:
    times = {"created": 500, "updated": 600}
    return {
        "info": {"id": SESSION, "directory": "/home/ada/src/demo", "title": "A title", "time": times, **info},
        "messages": list(messages),
    }


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
_TIMES = st.integers(1, 10_000_000)


@st.composite
def transcripts(draw: st.DrawFn, *, most: int = 6) -> Transcript:
    """Sessions with times in any order, unknown fields, lone surrogates, and texts that name ids."""
    numbers = draw(st.lists(st.integers(1, 2**46), min_size=1, max_size=most, unique=True))
    return session(*[_drawn_message(draw, number, numbers) for number in numbers], unknown=draw(_JSON))


def _drawn_message(draw: st.DrawFn, number: int, numbers: list[int]) -> Message:
    other = draw(st.sampled_from(numbers))
    before, after = (
        draw(st.text(st.characters(), max_size=6)),
        draw(st.sampled_from(["", "x", "_", "\n", '"', "\ud800"])),
    )
    text = before + message_id(other) + after
    said = part(number * 2, number, text=text, time={"start": draw(_TIMES), "end": draw(_TIMES)}, unknown=draw(_JSON))
    if draw(st.booleans()):
        return {**user(number), "parts": [said]} | {"info": {**user(number)["info"], "time": {"created": draw(_TIMES)}}}
    call = tool(
        number * 2 + 1, number, "bash", status="completed", input={"time": {"start": 1}}, time={"start": draw(_TIMES)}
    )
    return assistant(number, said, call, parent=other, time={"created": draw(_TIMES), "completed": draw(_TIMES)})
