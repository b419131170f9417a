"""Compare what left, what is here now, and what came back; bring the new messages in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from remote_dispatch.errors import IntegrityError
from remote_dispatch.model import Mode
from remote_dispatch.transcript import (
    Message,
    Transcript,
    additions,
    as_copy,
    check_back,
    close_open_calls,
    message_ids,
    moved_on,
    new_messages,
    part_ids,
    read_back_problems,
)
from tests.transcript.samples import (
    NOW,
    SESSION,
    assistant,
    exported,
    message_id,
    part,
    session,
    thawed,
    tool,
    transcripts,
    user,
)

OTHER = "ses_e04456fb6ffeyf2KDGUDGrFvGw"


def _with(transcript: Transcript, *messages: Message) -> Transcript:
    return {**transcript, "messages": [*transcript["messages"], *messages]}


def _changed(transcript: Transcript, message: int, **info: Any) -> Transcript:
    copy = thawed(transcript)
    copy["messages"][message]["info"].update(info)
    return copy


def test_only_messages_that_were_not_sent_are_new() -> None:
    back = session(user(1), assistant(2), user(3), assistant(4))
    assert new_messages(message_ids(session(user(1), assistant(2))), back) == [user(3), assistant(4)]


# --- has the local session moved on?


def test_the_same_real_session_later_in_its_own_turn_has_not_moved_on() -> None:
    assert not moved_on(exported("open-call"), exported("killed"))


def test_the_dispatching_turn_may_end_with_further_parts_and_answers() -> None:
    base = exported("open-call")
    ended = thawed(base)
    call = ended["messages"][-1]["parts"][2]
    call["state"] = {**call["state"], "status": "completed", "output": "sent", "title": "sent", "metadata": {}}
    ended["messages"][-1]["parts"].append(part(2**47, 1, "step-finish", reason="tool-calls"))
    ended["messages"][-1]["info"].update(finish="tool-calls", cost=1, tokens={"input": 9})
    ended["messages"][-1]["info"]["time"]["completed"] = NOW
    asked = base["messages"][-2]["info"]["id"]
    assert not moved_on(base, _with(ended, assistant(2, parentID=asked, finish="stop")))


def test_sums_times_and_diffs_that_opencode_rewrites_do_not_count() -> None:
    base = session(user(1), assistant(2, finish="stop"))
    current = _changed(base, 0, summary={"diffs": [{"file": "a"}]})
    current["info"].update(cost=5, tokens={"input": 1}, summary={"files": 3}, time={"created": 500, "updated": 9999})
    assert not moved_on(base, current)


def test_an_old_output_that_opencode_marks_as_compacted_does_not_count() -> None:
    base = session(user(1), assistant(2, tool(201, 2, "bash", status="completed", time={"start": 1, "end": 2})))
    current = thawed(base)
    current["messages"][1]["parts"][0]["state"]["time"]["compacted"] = NOW
    assert not moved_on(base, current)


def _edited_text(transcript: Transcript) -> Transcript:
    copy = thawed(transcript)
    copy["messages"][0]["parts"][0]["text"] = "edited"
    return copy


def _removed_part(transcript: Transcript) -> Transcript:
    copy = thawed(transcript)
    copy["messages"][1]["parts"].pop()
    return copy


def _added_part(transcript: Transcript) -> Transcript:
    copy = thawed(transcript)
    copy["messages"][1]["parts"].append(part(2**47, 2, text="more"))
    return copy


def _removed_last(transcript: Transcript) -> Transcript:
    return {**transcript, "messages": transcript["messages"][:-1]}


def _taken_back(transcript: Transcript) -> Transcript:
    return {**transcript, "info": {**transcript["info"], "revert": {"messageID": message_id(1)}}}


@pytest.mark.parametrize(
    "change",
    [
        _edited_text,
        _removed_part,
        _added_part,
        _removed_last,
        _taken_back,
        lambda base: _changed(base, 1, agent="other"),
        lambda base: _with(base, user(2**47)),
        lambda base: _with(base, assistant(2**47, parent=2**47)),
    ],
    ids=["edited", "part removed", "part added", "message removed", "taken back", "agent", "new prompt", "other turn"],
)
@pytest.mark.parametrize(
    "base", [session(user(1), assistant(2, finish="stop")), exported("open-call")], ids=["idle", "open"]
)
def test_anything_that_the_user_did_counts(base: Transcript, change: Any) -> None:
    assert moved_on(base, change(base))


def test_a_finished_call_of_the_open_message_may_not_change() -> None:
    base = exported("open-call")
    current = thawed(base)
    current["messages"][-1]["parts"][1]["state"]["output"] = "rewritten"
    assert moved_on(base, current)


# --- is what came back ours?


def test_a_transcript_of_our_session_with_every_sent_message_is_accepted() -> None:
    base = exported("open-call")
    check_back(exported("killed"), session_id=SESSION, base_ids=message_ids(base))


@pytest.mark.parametrize(
    ("back", "problem"),
    [
        (session(user(1), id=OTHER), "another session"),
        (session(user(3)), "lacks 2 of the 2 messages"),
        (session(user(1), assistant(2), user(3, sessionID=OTHER)), "messages of another session"),
        (session(user(1), assistant(2, {**part(200, 2), "sessionID": OTHER})), "messages of another session"),
        (session(user(1), assistant(2, {**part(200, 2), "messageID": message_id(9)})), "messages of another session"),
    ],
)
def test_what_is_not_ours_or_not_whole_is_refused(back: Transcript, problem: str) -> None:
    with pytest.raises(IntegrityError, match=problem):
        check_back(back, session_id=SESSION, base_ids=(message_id(1), message_id(2)))


# --- bring it in


def test_additions_hold_the_local_info_and_only_the_new_messages() -> None:
    current = session(user(1), assistant(2), agent="build")
    assert additions(current, [user(3)]) == session(user(3), agent="build")


def test_a_copy_is_independent_complete_and_named_after_its_host() -> None:
    base = close_open_calls(exported("open-call"), host="gpu", mode=Mode.ROUND_TRIP, now_ms=NOW)
    base = {**base, "info": {**base["info"], "parentID": OTHER, "share": {"url": "x"}}}
    [copy] = as_copy(base, [user(2**47, text="brief")], host="gpu", now_ms=NOW)
    times = [message["info"]["time"] for message in base["messages"]]
    assert not {*message_ids(base), *part_ids(base), SESSION} & {
        *message_ids(copy),
        *part_ids(copy),
        copy["info"]["id"],
    }
    assert [message["info"]["time"] for message in copy["messages"][:-1]] == times
    assert copy["info"]["title"] == "A title (from gpu)"
    assert not {"parentID", "share"} & set(copy["info"])
    assert copy["messages"][-1]["parts"][0]["text"] == "brief"
    assert copy["messages"][-1]["info"]["sessionID"] == copy["info"]["id"]


# --- is everything there?


@given(transcripts())
def test_a_transcript_that_is_all_there_has_no_problems(transcript: Transcript) -> None:
    more = _with(transcript, user(2**47))
    assert read_back_problems(transcript, more) == []


def test_fields_that_opencode_does_not_know_may_be_dropped() -> None:
    call = tool(201, 2, "bash", status="completed", input={"any": 1}, time={"start": 1}, novelty=1)
    expected = session(user(1, novelty={"a": 1}), assistant(2, call, time={"created": 1, "novelty": 2}))
    actual = thawed(expected)
    del actual["messages"][0]["info"]["novelty"], actual["messages"][1]["info"]["time"]["novelty"]
    del actual["messages"][1]["parts"][0]["state"]["novelty"]
    assert read_back_problems(expected, actual) == []


def test_each_missing_or_different_thing_is_named() -> None:
    call = tool(201, 2, "bash", status="completed", input={"any": 1})
    expected = session(user(1), assistant(2, call, part(202, 2, text="a")), user(3))
    actual = thawed(expected)
    del (
        actual["messages"][2],
        actual["messages"][1]["parts"][1],
        actual["messages"][1]["parts"][0]["state"]["input"]["any"],
    )
    del actual["messages"][0]["info"]["agent"]
    assert read_back_problems(expected, actual) == [
        f"message {message_id(1)} is different",
        f"part {call['id']} of message {message_id(2)} is different",
        f"part {part(202, 2)['id']} of message {message_id(2)} is missing",
        f"message {message_id(3)} is missing",
    ]


def test_another_order_is_a_problem() -> None:
    one, other = part(200, 2, text="a"), part(201, 2, text="b")
    assert read_back_problems(session(user(1), user(2)), session(user(2), user(1))) == [
        "the messages are in another order"
    ]
    (problem,) = read_back_problems(session(assistant(2, one, other)), session(assistant(2, other, one)))
    assert problem == f"the parts of message {message_id(2)} are in another order"
