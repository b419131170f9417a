"""New ids, fresh ids for a family of transcripts, and the way back."""

from __future__ import annotations

import itertools
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.model import SESSION_ID
from remote_dispatch.transcript import (
    Transcript,
    dump,
    fresh_ids,
    inverted,
    message_ids,
    new_message_id,
    new_part_id,
    new_session_id,
    part_ids,
    rename,
)
from remote_dispatch.transcript.identity import part_id_after
from tests.transcript.samples import NOW, SESSION, assistant, exported, part, session, tool, transcripts, user

CHILD = "ses_e04456fb6ffeyf2KDGUDGrFvGw"


def test_ids_have_the_form_and_the_clock_of_real_ones() -> None:
    assert re.fullmatch(r"msg_1fbba6162001[0-9A-Za-z]{14}", new_message_id(1795224658274))
    assert re.fullmatch(r"prt_1fbba6162002[0-9A-Za-z]{14}", new_part_id(1795224658274, 2))
    assert re.fullmatch(r"ses_e04459e9dffe[0-9A-Za-z]{14}", new_session_id(1795224658274))
    assert SESSION_ID.fullmatch(new_session_id(NOW))


@given(st.integers(NOW, NOW + 10_000), st.integers(NOW, NOW + 10_000))
def test_newer_messages_and_parts_sort_last_and_newer_sessions_first(one: int, other: int) -> None:
    if one < other:
        assert new_message_id(one) < new_message_id(other)
        assert new_part_id(one) < new_part_id(other)
        assert new_session_id(one) > new_session_id(other)


@given(st.lists(st.integers(1, 2**35).map(new_part_id), max_size=5), st.integers(1, 2**35))
def test_a_later_part_id_is_later_whatever_the_clock_says(ids: list[str], now_ms: int) -> None:
    assert all(part_id_after(ids, now_ms) > one for one in ids)


def test_a_renamed_real_session_shares_no_id_and_keeps_every_order() -> None:
    before = exported("killed")
    after = rename(before, fresh_ids([before], NOW))
    assert not {*message_ids(before), *part_ids(before)} & {*message_ids(after), *part_ids(after)}
    assert sorted(part_ids(after)) == list(part_ids(after))
    assert [one[:16] for one in message_ids(after)] == [one[:16] for one in message_ids(before)]
    assert SESSION.encode() not in dump(after)


def test_a_family_is_renamed_consistently() -> None:
    parent, child = exported("killed"), exported("child")
    mapping = fresh_ids([parent, child], NOW)
    task = rename(parent, mapping)["messages"][9]["parts"][1]["state"]
    assert rename(child, mapping)["info"]["id"] == mapping[CHILD] == task["metadata"]["sessionId"]
    assert rename(child, mapping)["info"]["parentID"] == mapping[SESSION] == task["metadata"]["parentSessionId"]
    assert f'<task id="{mapping[CHILD]}"' in task["output"]


def test_a_session_outside_the_family_keeps_its_id() -> None:
    parent = exported("killed")
    mapping = fresh_ids([parent], NOW)
    assert CHILD not in mapping
    assert rename(parent, mapping)["messages"][9]["parts"][1]["state"]["metadata"]["sessionId"] == CHILD


def test_ids_are_found_inside_texts_but_not_inside_longer_words() -> None:
    text = f"see {SESSION}, {SESSION}x and\n{SESSION}"
    transcript = session(
        assistant(2, part(200, 2, text=text), tool(201, 2, "bash", input={SESSION: f"a/{SESSION}.json"}))
    )
    renamed = rename(transcript, fresh_ids([transcript], NOW))
    new, parts = renamed["info"]["id"], renamed["messages"][0]["parts"]
    assert parts[0]["text"] == f"see {new}, {SESSION}x and\n{new}"
    assert parts[1]["state"]["input"] == {new: f"a/{new}.json"}


def test_ids_of_an_unusual_form_are_renamed_too() -> None:
    transcript = session(user(1, id="msg_my.own-id"), assistant(2, parentID="msg_my.own-id"))
    mapping = fresh_ids([transcript], NOW)
    renamed = rename(transcript, mapping)
    assert (
        renamed["messages"][1]["info"]["parentID"] == renamed["messages"][0]["info"]["id"] == mapping["msg_my.own-id"]
    )
    assert rename(renamed, inverted(mapping)) == transcript


@given(transcripts())
def test_the_inverted_mapping_brings_everything_back(transcript: Transcript) -> None:
    mapping = fresh_ids([transcript], NOW)
    assert len(set(mapping.values())) == len(mapping)
    assert rename(rename(transcript, mapping), inverted(mapping)) == transcript


@given(transcripts())
def test_fresh_ids_keep_the_order_by_id(transcript: Transcript) -> None:
    mapping = fresh_ids([transcript], NOW)
    for kind in ("msg_", "prt_"):
        old = sorted(one for one in mapping if one.startswith(kind))
        assert all(mapping[one] < mapping[other] for one, other in itertools.pairwise(old))


def test_ids_of_one_clock_tick_keep_their_order() -> None:
    stem = "msg_1fbba6162001"
    messages = [user(number, id=f"{stem}{letter * 14}") for number, letter in enumerate("azAZ09", start=1)]
    mapping = fresh_ids([session(*messages)], NOW)
    old = sorted(one for one in mapping if one.startswith(stem))
    assert sorted(mapping[one] for one in old) == [mapping[one] for one in old]


def _renamed_as_text(transcript: Transcript, mapping: dict[str, str]) -> Transcript:
    """The definition: every longest run of an id's characters that is an id of the mapping, wherever it stands."""
    text = re.sub(
        r"(?:ses|msg|prt)_[0-9A-Za-z]+", lambda match: mapping.get(match[0], match[0]), json.dumps(transcript)
    )
    renamed: Transcript = json.loads(text)
    return renamed


@given(transcripts(), st.integers(0, 5))
def test_values_are_renamed_as_their_text_would_be(transcript: Transcript, left_out: int) -> None:
    mapping = dict(itertools.islice(fresh_ids([transcript], NOW).items(), left_out, None))
    assert dump(rename(transcript, mapping)) == dump(_renamed_as_text(transcript, mapping))


def test_what_holds_no_id_is_shared() -> None:
    call = tool(200, 2, "bash", input={"command": ["ls"]}, output="x" * 100)
    transcript = session(assistant(2, call))
    renamed = rename(transcript, fresh_ids([transcript], NOW))
    assert renamed["messages"][0]["parts"][0]["state"] is call["state"]


def test_ids_are_found_at_any_depth() -> None:
    deep = json.loads("[" * 900 + json.dumps(SESSION) + "]" * 900)
    transcript = session(user(1, unknown=deep))
    renamed = rename(transcript, fresh_ids([transcript], NOW))
    assert SESSION.encode() not in dump(renamed)
    assert renamed["info"]["id"].encode() in dump(renamed).partition(b"unknown")[2]


def test_names_of_fields_that_change_places_are_renamed_too() -> None:
    one, other = "ses_" + "a" * 26, "ses_" + "b" * 26
    transcript = session(user(1, unknown={one: 1, other: 2}))
    mapping = {one: other, other: one}
    assert dump(rename(transcript, mapping)) == dump(_renamed_as_text(transcript, mapping)) != dump(transcript)
