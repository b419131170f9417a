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
    lacking,
    left_there,
    message_ids,
    moved_on,
    new_messages,
    part_ids,
    read_back_problems,
    was_taken_back,
    without_reverted,
)
from tests.transcript.samples import (
    NOW,
    SESSION,
    aside,
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


ENDINGS = ["completed", "tools", "error", "aborted"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_real_dispatching_turn_may_end_in_every_way(ending: str) -> None:
    assert not moved_on(exported(f"turn-{ending}-open"), exported(f"turn-{ending}"))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_prompt_after_the_end_of_the_real_turn_counts(ending: str) -> None:
    assert moved_on(exported(f"turn-{ending}-open"), _with(exported(f"turn-{ending}"), user(2**47)))


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_edit_before_the_real_turn_counts_whatever_its_end(ending: str) -> None:
    assert moved_on(exported(f"turn-{ending}-open"), _edited_text(exported(f"turn-{ending}")))


def test_what_is_shown_to_the_user_alone_does_not_count() -> None:
    base = session(user(1), assistant(2, finish="stop"))
    assert not moved_on(base, _with(base, aside(3)))
    assert not moved_on(_with(base, aside(3)), _with(base, aside(3), aside(4)))
    assert moved_on(_with(base, aside(3)), _with(base, aside(3), assistant(2**46, parent=3)))
    asked = user(3)
    asked["parts"] += aside(3)["parts"]
    assert moved_on(base, _with(base, asked))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_line_that_stood_in_the_open_call_is_no_change(ending: str) -> None:
    live, ended = exported(f"turn-{ending}-open"), exported(f"turn-{ending}")
    for part_ in live["messages"][-1]["parts"]:
        if part_["type"] == "tool":
            part_["state"]["input"]["status"] = "copying the session"
    assert not moved_on(live, ended)


def test_text_after_the_open_call_is_the_end_of_the_turn() -> None:
    base = exported("turn-completed-open")
    current = thawed(base)
    current["messages"][-1]["parts"].append(part(2**47, 1, text="sent", time={"start": NOW, "end": NOW}))
    assert not moved_on(base, current)


def test_a_message_that_was_interrupted_long_ago_may_not_change() -> None:
    interrupted = assistant(2, tool(201, 2, "bash", status="running", input={}), time={"created": 2000})
    base = session(user(1), interrupted, user(3), assistant(4, parent=3, finish="stop"))
    assert moved_on(base, _changed(base, 1, finish="stop"))
    more = thawed(base)
    more["messages"][1]["parts"].append(part(2**47, 2, text="more"))
    assert moved_on(base, more)


@pytest.mark.parametrize("end", [{"finish": "stop"}, {"finish": "length"}, {"error": {"name": "APIError"}}])
def test_another_answer_where_the_turn_was_over_counts(end: dict[str, Any]) -> None:
    base = session(user(1), assistant(2, **end))
    assert moved_on(base, _with(base, assistant(2**46, finish="stop")))


@pytest.mark.parametrize("finish", [None, "tool-calls", "unknown"])
def test_another_answer_where_the_turn_was_not_over_is_its_end(finish: str | None) -> None:
    base = session(user(1), assistant(2, finish=finish))
    assert not moved_on(base, _with(base, assistant(2**46, finish="stop")))


def test_an_open_message_may_not_become_one_of_another_model() -> None:
    base = exported("turn-completed-open")
    assert moved_on(base, _changed(exported("turn-completed"), -2, modelID="other"))


@pytest.mark.parametrize(
    "info",
    [
        {"title": "New title"},
        {"permission": [{"permission": "bash", "pattern": "*", "action": "deny"}]},
        {"share": {"url": "https://example.org/s/1"}},
        {"time": {"created": 500, "updated": 9999, "archived": NOW}},
        {"metadata": {"note": 1}},
        {"agent": "plan", "model": {"id": "other", "providerID": "remote", "variant": "default"}},
    ],
    ids=["title", "permission", "share", "archived", "metadata", "agent and model"],
)
def test_what_is_no_part_of_the_conversation_does_not_count(info: dict[str, Any]) -> None:
    base = exported("open-call")
    assert not moved_on(base, {**base, "info": {**base["info"], **info}})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("compaction-before", "compaction-by-hand"),
        ("compaction-before", "compaction-prompted"),
        ("overflow-before", "overflow"),
        ("three-turns", "three-turns-taken-back"),
        ("three-turns", "three-turns-prompted"),
        ("part", "part-taken-back"),
        ("part", "part-prompted"),
    ],
)
def test_a_real_compaction_or_revert_counts(before: str, after: str) -> None:
    assert moved_on(exported(before), exported(after))
    assert not moved_on(exported(before), exported(before))


# --- was something taken back on the host?


@pytest.mark.parametrize("name", ["three-turns", "part"])
def test_opencode_leaves_at_the_next_prompt_what_we_keep_of_a_pending_revert(name: str) -> None:
    kept, prompted = without_reverted(exported(f"{name}-taken-back")), exported(f"{name}-prompted")
    assert prompted["messages"][: len(kept["messages"])] == kept["messages"]
    assert left_there(exported(name), prompted) == {**exported(name), "messages": kept["messages"]}
    assert left_there(exported(name), exported(f"{name}-taken-back"))["messages"] == kept["messages"]


@pytest.mark.parametrize("name", ["three-turns", "part"])
@pytest.mark.parametrize("state", ["taken-back", "prompted"])
def test_a_real_revert_on_the_host_is_seen(name: str, state: str) -> None:
    assert was_taken_back(exported(f"{name}-{state}"), exported(name))


def test_a_revert_of_the_last_parts_of_a_message_is_seen_after_the_next_prompt_too() -> None:
    sent = session(user(1), assistant(2, part(200, 2, text="a"), part(201, 2, text="b")))
    back = session(user(1), assistant(2, part(200, 2, text="a")), user(3))
    assert was_taken_back(back, sent)
    assert left_there(sent, back)["messages"] == back["messages"][:2]


@pytest.mark.parametrize(
    ("sent", "back"),
    [
        ("open-call", "killed"),
        ("turn-tools-open", "turn-tools"),
        ("compaction-before", "compaction-prompted"),
        ("overflow-before", "overflow"),
    ],
)
def test_new_messages_and_a_compaction_on_the_host_are_no_revert(sent: str, back: str) -> None:
    assert not was_taken_back(exported(back), exported(sent))
    assert left_there(exported(sent), exported(back)) == exported(sent)


@pytest.mark.parametrize(
    ("before", "after"), [("compaction-before", "compaction-prompted"), ("overflow-before", "overflow")]
)
def test_a_real_compaction_leaves_the_messages_before_it_as_they_were(before: str, after: str) -> None:
    old = exported(before)["messages"]
    assert exported(after)["messages"][: len(old)] == old


def test_a_revert_of_a_message_that_does_not_exist_takes_nothing_back() -> None:
    base = session(user(1), assistant(2))
    assert not was_taken_back({**base, "info": {**base["info"], "revert": {"messageID": message_id(9)}}}, base)


# --- what is not here yet?


def test_a_message_that_arrived_without_a_part_is_not_here_yet() -> None:
    fresh = [user(3), assistant(4, part(400, 4), part(401, 4))]
    half = [user(3), assistant(4, part(400, 4))]
    assert lacking(session(*half), fresh) == fresh[1:]
    assert lacking(session(), fresh) == fresh
    assert lacking(session(*fresh), fresh) == []


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


def test_what_lacks_some_messages_is_ours_all_the_same() -> None:
    check_back(session(user(3)), session_id=SESSION, base_ids=(message_id(1), message_id(2)))


@pytest.mark.parametrize(
    ("back", "problem"),
    [
        (session(user(1), id=OTHER), "another session"),
        (session(), "lacks all of the 2 messages"),
        (session(user(1), user(1)), "the same id twice"),
        (session(assistant(2, part(200, 2), part(200, 2))), "the same id twice"),
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
    archived = {**base["info"]["time"], "archived": NOW}
    base = {**base, "info": {**base["info"], "parentID": OTHER, "share": {"url": "x"}, "time": archived}}
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
    assert set(copy["info"]["time"]) == {"created", "updated"}
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
