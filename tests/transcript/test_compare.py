"""Do two copies of one conversation hold the same, message by message?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.model import Mode, Model, Origin
from remote_dispatch.transcript import (
    Standing,
    Transcript,
    close_open_calls,
    compare,
    content_digest,
    fit,
    fresh_ids,
    inverted,
    newest_ms,
    rename,
    restore,
    retarget,
    shift,
)
from tests.transcript.samples import (
    NOW,
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from remote_dispatch.transcript import Message

ORIGIN = Origin(agent="plan", model="local/small", variant="high", directory="/home/ada")
ENDINGS = ["completed", "tools", "error", "aborted"]


def _standings(here: Transcript, there: Transcript) -> list[str]:
    return [one.standing.value for one in compare(here, there)]


def _differing(here: Transcript, there: Transcript) -> list[str]:
    return [one.id for one in compare(here, there) if one.standing is not Standing.EQUAL]


def _outgoing(transcript: Transcript, ids: dict[str, str]) -> Transcript:
    """As `send` prepares it: closed, retargeted, moved in time, under other ids."""
    closed = close_open_calls(transcript, host="gpu", mode=Mode.ROUND_TRIP, now_ms=NOW)
    aimed = retarget(closed, agent="build", model=Model("remote", "large"), variant="low")
    return rename(shift(aimed, -3_600_000), ids)


def _home(messages: list[Message]) -> list[Message]:
    """As `collect` places them."""
    return fit(restore(messages, ORIGIN), delta_ms=77, after_ms=NOW, before_ms=NOW + 100)


def _sample() -> Transcript:
    done = {"status": "completed", "input": {"command": "ls", "time": {"start": 1}}, "output": "a", "title": "ls"}
    wrong = {"status": "error", "input": {}, "error": "no such file"}
    return session(
        {**user(1), "parts": [part(100, 1, text="see"), part(101, 1, "file", mime="image/png", url="data:a")]},
        assistant(
            2,
            part(200, 2, "reasoning", text="so", time={"start": 1, "end": 2}),
            part(201, 2, text="well", time={"start": 1, "end": 2}),
            tool(202, 2, "bash", **done, metadata={"exit": 0}, time={"start": 1, "end": 2}),
            tool(203, 2, "read", **wrong),
            part(204, 2, "step-finish", reason="stop", tokens={"input": 1}),
            finish="stop",
            error={"name": "APIError", "data": {"message": "busy"}},
        ),
    )


EDITS: dict[str, Callable[[list[Any]], Any]] = {
    "user text": lambda messages: messages[0]["parts"][0].update(text="edited"),
    "file url": lambda messages: messages[0]["parts"][1].update(url="data:b"),
    "reasoning": lambda messages: messages[1]["parts"][0].update(text="edited"),
    "answer": lambda messages: messages[1]["parts"][1].update(text="edited"),
    "tool input": lambda messages: messages[1]["parts"][2]["state"]["input"].update(command="rm"),
    "time inside a tool input": lambda messages: messages[1]["parts"][2]["state"]["input"].update(time={"start": 2}),
    "tool output": lambda messages: messages[1]["parts"][2]["state"].update(output="b"),
    "tool metadata": lambda messages: messages[1]["parts"][2]["state"]["metadata"].update(exit=1),
    "tool status": lambda messages: messages[1]["parts"][2]["state"].update(status="error"),
    "tool error": lambda messages: messages[1]["parts"][3]["state"].update(error="another"),
    "end of a step": lambda messages: messages[1]["parts"][4].update(reason="length"),
    "finish": lambda messages: messages[1]["info"].update(finish="length"),
    "error": lambda messages: messages[1]["info"]["error"]["data"].update(message="slow"),
    "model": lambda messages: messages[1]["info"].update(modelID="other"),
    "compaction": lambda messages: messages[1]["info"].update(summary=True),
    "parent": lambda messages: messages[1]["info"].update(parentID=message_id(9)),
    "a part is gone": lambda messages: messages[1]["parts"].pop(1),
    "a part is new": lambda messages: messages[1]["parts"].append(part(205, 2, text="more")),
    "another order of parts": lambda messages: messages[1]["parts"].reverse(),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_every_edit_is_seen_in_its_message_alone(edit: Callable[[list[Any]], Any]) -> None:
    sample = _sample()
    edited = thawed(sample)
    edit(edited["messages"])
    touched = [
        before["info"]["id"]
        for before, after in zip(sample["messages"], edited["messages"], strict=True)
        if before != after
    ]
    assert len(touched) == 1
    assert _differing(sample, edited) == _differing(edited, sample) == touched


def _with_times(messages: list[Any]) -> None:
    messages[1]["info"]["time"]["completed"] += 1
    messages[1]["parts"][1]["time"]["end"] = 99
    messages[1]["parts"][2]["state"]["time"]["compacted"] = 99


REWRITES: dict[str, Callable[[list[Any]], Any]] = {
    "times": _with_times,
    "diffs": lambda messages: messages[0]["info"].update(summary={"diffs": [{"file": "a"}]}),
    "sums": lambda messages: messages[1]["info"].update(cost=3, tokens={"input": 9}),
    "who answers": lambda messages: messages[0]["info"].update(
        agent="plan", model={}, variant="x", tools={"bash": False}
    ),
    "an unknown field": lambda messages: messages[1]["parts"][2]["state"].update(novelty=1),
}


@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES.keys())
def test_what_opencode_and_the_journey_rewrite_is_no_difference(rewrite: Callable[[list[Any]], Any]) -> None:
    sample = _sample()
    rewritten = thawed(sample)
    rewrite(rewritten["messages"])
    assert rewritten != sample
    assert _differing(sample, rewritten) == []


def test_messages_that_one_copy_lacks_are_named_on_their_side() -> None:
    here, there = session(user(1), assistant(2), user(5)), session(user(1), assistant(2), user(3))
    assert [(one.id, one.role, one.standing) for one in compare(here, there)] == [
        (message_id(1), "user", Standing.EQUAL),
        (message_id(2), "assistant", Standing.EQUAL),
        (message_id(5), "user", Standing.MISSING_THERE),
        (message_id(3), "user", Standing.MISSING_HERE),
    ]


@given(transcripts(), st.integers(-10_000, 10_000))
def test_no_transformation_of_the_journey_is_a_difference(transcript: Transcript, delta_ms: int) -> None:
    ids = fresh_ids([transcript], NOW)
    there = _outgoing(shift(transcript, delta_ms), ids)
    assert _differing(transcript, rename(there, inverted(ids))) == []
    assert _differing(transcript, {**transcript, "messages": _home(transcript["messages"])}) == []


@given(transcripts())
def test_a_digest_is_the_same_under_fresh_ids(transcript: Transcript) -> None:
    renamed = rename(transcript, fresh_ids([transcript], NOW))
    digests = [content_digest(message) for message in transcript["messages"]]
    assert [content_digest(message) for message in renamed["messages"]] == digests


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_real_message_that_dispatched_ends_in_its_own_way_on_each_side(ending: str) -> None:
    sent, home = exported(f"turn-{ending}-open"), exported(f"turn-{ending}")
    ids = fresh_ids([sent], NOW)
    there = rename(_outgoing(sent, ids), inverted(ids))
    later = len(home["messages"]) - len(sent["messages"])
    assert _standings(home, there) == ["equal"] * len(sent["messages"]) + ["missing there"] * later
    assert _standings(there, home) == ["equal"] * len(sent["messages"]) + ["missing here"] * later
    assert _differing(sent, there) == []


HANDED_OVER: dict[str, Callable[[Any], Any]] = {
    "text": lambda message: message["parts"][1].update(text="edited"),
    "text is gone": lambda message: message["parts"].pop(1),
    "another call": lambda message: message["parts"][2].update(callID="call_9"),
    "model": lambda message: message["info"].update(modelID="other"),
}


@pytest.mark.parametrize("edit", HANDED_OVER.values(), ids=HANDED_OVER.keys())
def test_what_was_finished_in_the_message_that_dispatched_counts(edit: Callable[[Any], Any]) -> None:
    there = _outgoing(exported("turn-completed-open"), {})
    home = {**exported("turn-completed"), "messages": exported("turn-completed")["messages"][: len(there["messages"])]}
    assert _differing(home, there) == []
    edited = thawed(home)
    edit(edited["messages"][-1])
    assert _differing(edited, there) == _differing(there, edited) == [edited["messages"][-1]["info"]["id"]]


def test_a_call_beside_the_dispatch_ends_in_its_own_way_on_each_side() -> None:
    ours = tool(201, 2, "remote_dispatch", status="running", input={"host": "gpu"})
    sent = session(user(1), assistant(2, ours, tool(202, 2, "bash", status="pending", input={}), time={"created": 2}))
    ended = {"status": "completed", "input": {"command": "ls"}, "output": "a", "title": "ls"}
    home = thawed(sent)
    home["messages"][1]["parts"][1]["state"] = ended
    assert _differing(home, _outgoing(sent, {})) == []


def test_the_tails_of_ids_are_not_compared() -> None:
    here, there = session(user(1, f"see {message_id(7)}")), session(user(1, f"see {message_id(7)[:16]}{'x' * 14}"))
    assert here != there
    assert _differing(here, there) == []


def test_twenty_megabytes_are_compared_in_a_few_seconds() -> None:
    text = "All work and no play makes a long transcript. " * 200
    here = session(*[assistant(number, part(number, number, text=f"{number} {text}")) for number in range(1, 2200)])
    there = rename(shift(here, 1000), fresh_ids([here], NOW))
    back = rename(there, inverted(dict(zip(_ids(here), _ids(there), strict=True))))
    started = time.monotonic()
    assert _differing(here, back) == []
    assert time.monotonic() - started < 5
    assert newest_ms(back) == newest_ms(here) + 1000


def _ids(transcript: Transcript) -> list[str]:
    ids = [transcript["info"]["id"]]
    for message in transcript["messages"]:
        ids += [message["info"]["id"], *(one["id"] for one in message["parts"])]
    return ids
