"""Copies of one conversation share what is equal in them, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_dispatch.transcript import Transcript, alike, dump, shift
from tests.transcript.samples import assistant, part, session, thawed, tool, transcripts, user


def _shared(copy: Transcript, *others: Transcript | None) -> Transcript:
    each = alike(*others)
    return {**copy, "messages": [each(message) for message in copy["messages"]]}


def test_equal_messages_become_the_same_objects() -> None:
    here = session(user(1), assistant(2))
    copy = _shared(thawed(here), here)
    assert all(one is other for one, other in zip(copy["messages"], here["messages"], strict=True))


def test_the_first_that_has_a_message_gives_it() -> None:
    first, second = session(user(1)), session(user(1), assistant(2))
    copy = _shared(thawed(second), None, first, second)
    assert copy["messages"][0] is first["messages"][0]
    assert copy["messages"][1] is second["messages"][1]


def test_of_a_message_that_was_moved_in_time_the_rest_is_shared() -> None:
    here = session(
        assistant(2, part(20, 2, text="x" * 1000), tool(21, 2, "bash", input={"a": ["b" * 50]}, time={"start": 1}))
    )
    copy = _shared(thawed(shift(here, 5)), here)
    theirs, ours = copy["messages"][0]["parts"], here["messages"][0]["parts"]
    assert copy == shift(here, 5)
    assert theirs[0] is ours[0]
    assert theirs[1]["state"]["input"] is ours[1]["state"]["input"]


@pytest.mark.parametrize(
    ("one", "other"),
    [(True, 1), (1.0, 1), (0.0, -0.0), (False, 0), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ([1], [1, 1]), ("1", 1)],
)
def test_what_is_only_nearly_the_same_stays_as_it_is(one: object, other: object) -> None:
    for value, known in ((one, other), (other, one)):
        copy = _shared(thawed(session(user(1, unknown=value))), session(user(1, unknown=known)))
        assert dump(copy) == dump(session(user(1, unknown=value)))


@given(transcripts(most=3), transcripts(most=3), st.integers(0, 2))
def test_nothing_is_changed_by_sharing(one: Transcript, other: Transcript, moved: int) -> None:
    before = dump(other)
    assert dump(_shared(thawed(one), other)) == dump(one)
    assert dump(_shared(thawed(shift(one, moved)), one, other)) == dump(shift(one, moved))
    assert dump(other) == before


def test_deep_values_are_left_alone_instead_of_failing() -> None:
    deep = json.loads("[" * 900 + "]" * 900)
    copy = session(user(1, unknown=deep, finish="later"))
    assert dump(_shared(thawed(copy), session(user(1, unknown=deep)))) == dump(copy)


def test_what_is_too_deep_to_be_compared_is_left_alone_too() -> None:
    def deep() -> list[object]:
        """As Python 3.13's parser makes it, and earlier ones do not."""
        value: list[object] = []
        for _ in range(3000):
            value = [value]
        return value

    copy = _shared(session(user(1, unknown=deep())), session(user(1, unknown=deep())))
    assert copy["messages"][0]["info"]["id"] == user(1)["info"]["id"]
