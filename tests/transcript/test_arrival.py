"""How a result comes home: every combination of what changed here and what changed there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from remote_dispatch.transcript import (
    Arrival,
    Journey,
    Message,
    Transcript,
    Way,
    additions,
    as_copy,
    continued,
    decide,
    fit,
    inverted,
    message_ids,
    newest_ms,
    part_ids,
    rename,
    without_reverted,
)
from tests.transcript.samples import NOW, assistant, exported, part, session, thawed, user

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

CHILD = "ses_e04456fb6ffeyf2KDGUDGrFvGw"
BASE = session(user(1), assistant(2, finish="stop"), user(3), assistant(4, parent=3, finish="tool-calls"))
FRESH = [user(11, "brief"), assistant(12, part(1200, 12, text="a"), part(1201, 12, text="b"), parent=11, finish="stop")]


def _with(transcript: Transcript, *messages: Message) -> Transcript:
    return {**transcript, "messages": [*transcript["messages"], *messages]}


def _cut(transcript: Transcript, count: int) -> Transcript:
    return {**transcript, "messages": transcript["messages"][:count]}


def _taken_back(transcript: Transcript, index: int) -> Transcript:
    return {**transcript, "info": {**transcript["info"], "revert": {"messageID": message_ids(transcript)[index]}}}


def _edited(transcript: Transcript) -> Transcript:
    copy = thawed(transcript)
    copy["messages"][0]["parts"][0]["text"] = "edited"
    return copy


HERE: dict[str, Transcript | None] = {
    "unchanged": BASE,
    "turn ended": _with(BASE, assistant(5, parent=3, finish="stop")),
    "renamed": {**BASE, "info": {**BASE["info"], "title": "New", "share": {"url": "x"}}},
    "prompted": _with(BASE, user(5)),
    "compacted": _with(
        BASE, {**user(5), "parts": [part(500, 5, "compaction", auto=False)]}, assistant(6, summary=True)
    ),
    "edited": _edited(BASE),
    "message removed": _cut(BASE, 3),
    "taken back": _taken_back(BASE, 2),
    "deleted": None,
}
THERE: dict[str, Transcript] = {
    "grown": _with(BASE, *FRESH),
    "compacted": _with(BASE, user(7), assistant(8, summary=True), *FRESH),
    "nothing new": BASE,
    "taken back": _taken_back(_with(BASE, *FRESH), 2),
    "new ones taken back": _taken_back(_with(BASE, *FRESH, user(13)), 6),
    "prompted after taking back": _with(_cut(BASE, 2), *FRESH),
    "only taken back": _cut(BASE, 2),
}
APART = ("prompted", "compacted", "edited", "message removed", "taken back")


def _expected(here: str, there: str) -> Way:
    if here == "deleted":
        return Way.WHOLE
    if there in ("nothing new", "only taken back"):
        return Way.NOTHING
    is_taken_back = there in ("new ones taken back", "prompted after taking back")
    return Way.COPY if here in APART or is_taken_back else Way.APPEND


@pytest.mark.parametrize("there", [one for one in THERE if one != "taken back"])
@pytest.mark.parametrize("here", HERE)
def test_every_combination_is_decided(here: str, there: str) -> None:
    assert decide(Journey(BASE, THERE[there], HERE[here])).way is _expected(here, there)


@pytest.mark.parametrize("here", [one for one in HERE if one != "deleted"])
def test_a_revert_on_the_host_that_takes_all_that_is_new_leaves_nothing_to_bring(here: str) -> None:
    arrival = decide(Journey(BASE, THERE["taken back"], HERE[here]))
    assert arrival.way is Way.NOTHING
    assert "taken back on the host" in arrival.warnings[0]


@pytest.mark.parametrize(
    ("here", "there", "words"),
    [
        ("prompted", "grown", ["moved on"]),
        ("unchanged", "prompted after taking back", ["taken back on the host"]),
        ("edited", "prompted after taking back", ["moved on", "taken back on the host"]),
        ("deleted", "prompted after taking back", ["here without them"]),
        ("unchanged", "only taken back", ["nothing new"]),
        ("unchanged", "grown", []),
        ("unchanged", "nothing new", []),
    ],
)
def test_the_reasons_are_told(here: str, there: str, words: list[str]) -> None:
    warnings = decide(Journey(BASE, THERE[there], HERE[here])).warnings
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))


OPEN_ENDS: dict[str, list[Message]] = {
    "failed": [user(11, "brief"), assistant(12, parent=11, error={"name": "APIError"})],
    "killed": [user(11, "brief"), assistant(12, parent=11)],
    "never begun": [user(11, "brief")],
    "in a call": [user(11, "brief"), assistant(12, parent=11, finish="tool-calls")],
    "answered before": [*FRESH, user(13, "and more")],
}


@pytest.mark.parametrize("end", OPEN_ENDS)
def test_a_prompt_without_an_answer_gets_none_from_the_turn_that_asked_for_the_dispatch(end: str) -> None:
    """OpenCode's loop answers the newest prompt of a session, wherever that came from."""
    back = _with(BASE, *OPEN_ENDS[end])
    arrival = decide(Journey(BASE, back, BASE))
    assert (arrival.way, len(arrival.warnings)) == (Way.COPY, 1)
    assert "no finished answer" in arrival.warnings[0]
    assert decide(Journey(BASE, back, HERE["turn ended"])).way is Way.APPEND


@pytest.mark.parametrize("here", ["prompted", "edited", "compacted"])
def test_what_is_here_already_stays_whatever_happened_since(here: str) -> None:
    current = HERE[here]
    assert current is not None
    assert decide(Journey(BASE, THERE["grown"], _with(current, *FRESH))).way is Way.NOTHING
    assert decide(Journey(BASE, THERE["prompted after taking back"], _with(current, *FRESH))).way is Way.NOTHING


def test_a_broken_import_is_continued_down_to_the_part() -> None:
    half = {**FRESH[1], "parts": FRESH[1]["parts"][:1]}
    current = _with(BASE, FRESH[0], half)
    journey = Journey(BASE, THERE["grown"], current)
    assert decide(journey).way is Way.APPEND
    assert journey.missing == FRESH[1:]
    [rest] = continued(current, fit(journey.missing, delta_ms=0, after_ms=newest_ms(current), before_ms=NOW))
    assert rest["info"] == half["info"]
    assert rest["parts"][0] == half["parts"][0]
    result = _imported(current, additions(current, [rest]))
    assert result["messages"][-1] == rest
    assert decide(replace(journey, current=result)).way is Way.NOTHING


def test_a_copy_that_was_asked_for_is_made_where_there_is_something_new() -> None:
    assert decide(Journey(BASE, THERE["grown"], BASE), wants_copy=True) == Arrival(Way.COPY)
    assert decide(Journey(BASE, THERE["grown"], None), wants_copy=True).way is Way.WHOLE
    assert decide(Journey(BASE, THERE["nothing new"], BASE), wants_copy=True).way is Way.NOTHING


def test_a_session_that_began_on_the_host_comes_whole_and_once() -> None:
    back = session(*FRESH)
    assert decide(Journey(None, back, None)) == decide(Journey(session(), back, None))
    assert decide(Journey(None, back, None)).way is Way.WHOLE
    assert decide(Journey(None, back, back)).way is Way.NOTHING
    assert decide(Journey(None, back, _with(back, user(20)))).way is Way.NOTHING
    assert decide(Journey(None, back, _with(_cut(back, 1), user(20)))).way is Way.COPY
    assert Journey(None, back, None).left == session()
    assert Journey(None, back, None).fresh == FRESH


@pytest.mark.parametrize("there", ["grown", "prompted after taking back", "new ones taken back"])
def test_left_and_fresh_are_exactly_what_the_host_has(there: str) -> None:
    journey = Journey(BASE, THERE[there], BASE)
    assert [*journey.left["messages"], *journey.fresh] == without_reverted(THERE[there])["messages"]


# --- a family


PARENT = Journey(BASE, THERE["grown"], BASE)


@pytest.mark.parametrize(
    ("here", "there", "way"),
    [
        ("unchanged", "grown", Way.APPEND),
        ("turn ended", "grown", Way.APPEND),
        ("deleted", "grown", Way.APPEND),
        ("prompted", "grown", Way.COPY),
        ("unchanged", "prompted after taking back", Way.COPY),
        ("prompted", "nothing new", Way.APPEND),
        ("unchanged", "only taken back", Way.APPEND),
    ],
)
def test_a_child_that_cannot_be_continued_makes_the_whole_family_a_copy(here: str, there: str, way: Way) -> None:
    child = Journey(BASE, THERE[there], HERE[here])
    assert decide(PARENT, [Journey(None, session(*FRESH), None), child]).way is way


def test_a_child_that_was_made_on_the_host_and_is_half_here_is_continued() -> None:
    made_there = session(*FRESH)
    assert decide(PARENT, [Journey(None, made_there, _cut(made_there, 1))]).way is Way.APPEND
    assert decide(PARENT, [Journey(None, made_there, _with(_cut(made_there, 1), user(20)))]).way is Way.COPY


def test_a_child_that_lacks_something_is_brought_although_the_parent_is_whole() -> None:
    parent = Journey(BASE, THERE["grown"], THERE["grown"])
    assert decide(parent, [Journey(BASE, THERE["grown"], BASE)]).way is Way.APPEND
    assert decide(parent, [Journey(BASE, THERE["grown"], THERE["grown"])]).way is Way.NOTHING


def test_a_real_family_arrives_at_a_home_that_has_only_the_parent() -> None:
    sent, back, child = exported("open-call"), exported("killed"), exported("child")
    assert decide(Journey(sent, back, sent), [Journey(None, child, None)]).way is Way.APPEND
    assert decide(Journey(sent, back, back), [Journey(None, child, child)]).way is Way.NOTHING


# --- whatever happened


@dataclass(frozen=True)
class Story:
    """What left, what came back, what is here, and the clocks."""

    journeys: tuple[Journey, ...]
    skew_ms: int
    now_ms: int


def _counted(count: int, first: int, *, skew_ms: int = 0) -> list[Message]:
    """Turns with ascending ids and times."""
    made: list[Message] = []
    for number in range(first, first + count):
        times = {"created": number * 10 + skew_ms, "completed": number * 10 + skew_ms + 5}
        if number % 2:
            made.append(user(number, time={"created": number * 10 + skew_ms}))
        else:
            made.append(assistant(number, parent=number - 1, finish="stop", time=times))
    return made


@st.composite
def journeys(draw: st.DrawFn, ways: Collection[Way], first: int, skew_ms: int) -> Journey:
    """A session that went on here, there or on both sides, in a way that leads to one of these."""
    sent = session(*_counted(draw(st.integers(1, 5)), first))
    fresh = _counted(draw(st.integers(int(Way.NOTHING not in ways), 4)), first + 101, skew_ms=skew_ms)
    whole = _with(sent, *fresh)
    count, total = len(sent["messages"]), len(whole["messages"])
    reverts = st.integers(0, count - 1).map(lambda left: _with(_cut(sent, left), *fresh)) | st.integers(
        0, total - 1
    ).map(lambda index: _taken_back(whole, index))
    back = draw(st.just(whole) | reverts if Way.COPY in ways else st.just(whole))
    is_drastic = ways == {Way.COPY} and back is whole
    current = draw(st.sampled_from(_heres(sent, fresh, ways, skew_ms, is_drastic=is_drastic)))
    return Journey(sent, back, current)


def _heres(
    sent: Transcript, fresh: list[Message], ways: Collection[Way], skew_ms: int, *, is_drastic: bool
) -> list[Transcript | None]:
    count, last = len(sent["messages"]), sent["messages"][-1]["info"]
    first = int(sent["messages"][0]["info"]["id"][4:16], 16)
    times = {"created": (first + 40) * 10, "completed": (first + 40) * 10 + 5}
    ended = [assistant(first + 40, finish="stop", time=times, parentID=last["id"])] if last["role"] == "user" else []
    brought = fit(fresh[:1], delta_ms=-skew_ms, after_ms=newest_ms(sent), before_ms=newest_ms(sent) + 20)
    calm = [sent, _with(sent, *ended), _with(sent, *brought)]
    drastic = [_with(sent, *_counted(2, first + 50)), _with(sent, *_counted(1, first + 50)), _edited(sent)]
    drastic.append(_cut(sent, count - 1))
    if is_drastic:
        return [*drastic]
    return [*calm, *(drastic if Way.COPY in ways else []), *([None] if Way.WHOLE in ways else [])]


@st.composite
def stories(draw: st.DrawFn, *ways: Way) -> Story:
    """A family whose parent arrives in one of these ways, most of the time."""
    skew_ms = draw(st.sampled_from([0, -3, 50_000, -86_400_000, 86_400_000]))
    parent = draw(journeys(set(ways), 1, skew_ms))
    children = draw(st.lists(journeys({*ways, Way.WHOLE}, 1001, skew_ms), max_size=1))
    family = (parent, *map(_as_child, children))
    newest = max(newest_ms(one.current) for one in family if one.current) if any(one.current for one in family) else 0
    return Story(family, skew_ms, newest + draw(st.sampled_from([-50_000, 0, 1, 7, 60_000])))


def _as_child(journey: Journey) -> Journey:
    """The same under the child's id."""
    ids = {session()["info"]["id"]: CHILD}
    sent, current = (rename(one, ids) if one else None for one in (journey.sent, journey.current))
    return Journey(sent, rename(journey.back, ids), current)


def _placed(story: Story, messages: list[Message], newest: int) -> list[Message]:
    return fit(messages, delta_ms=-story.skew_ms, after_ms=newest, before_ms=story.now_ms)


def _imported(current: Transcript, added: Transcript) -> Transcript:
    """As OpenCode imports: unknown messages and parts are added; it shows messages by time of creation, then id."""
    held = {message["info"]["id"]: message for message in current["messages"]}
    for message in added["messages"]:
        known = held.setdefault(message["info"]["id"], {**message, "parts": []})
        there = {one["id"] for one in known["parts"]}
        parts = [*known["parts"], *(one for one in message["parts"] if one["id"] not in there)]
        held[message["info"]["id"]] = {**known, "parts": sorted(parts, key=lambda one: str(one["id"]))}
    return {**current, "messages": sorted(held.values(), key=_order)}


def _order(message: Message) -> tuple[Any, ...]:
    return message["info"]["time"]["created"], message["info"]["id"]


def _ids(transcripts: Iterable[Transcript]) -> set[str]:
    return {one for transcript in transcripts for one in message_ids(transcript)}


@given(stories(Way.APPEND), st.integers(0, 4))
def test_what_is_appended_is_never_interleaved_and_a_second_time_changes_nothing(story: Story, cut: int) -> None:
    assume(decide(story.journeys[0], story.journeys[1:]).way is Way.APPEND)
    arrived = []
    for one in story.journeys:
        current = one.current or one.left
        placed = additions(current, _placed(story, one.missing, newest_ms(current)))
        result = _imported(_imported(current, _cut(placed, cut)), placed)
        assert list(message_ids(result)) == [*message_ids(current), *message_ids(placed)]
        assert _ids([result]) >= {message["info"]["id"] for message in one.fresh}
        assert _imported(result, placed) == result
        arrived.append(replace(one, current=result))
    assert decide(arrived[0], arrived[1:]).way is Way.NOTHING


@given(stories(Way.COPY))
def test_a_copy_is_the_hosts_conversation_and_loses_nothing(story: Story) -> None:
    parent, *children = story.journeys
    assume(decide(parent, children).way is Way.COPY)
    placed = [_placed(story, one.fresh, newest_ms(one.left)) for one in story.journeys]
    homes = [
        additions(one.left, [*one.left["messages"], *new]) for one, new in zip(story.journeys, placed, strict=True)
    ]
    copies = as_copy(parent.left, placed[0], homes[1:], host="gpu", now_ms=NOW)
    originals = inverted(dict(zip(_all_ids(homes), _all_ids(copies), strict=True)))
    assert not {*_all_ids(copies)} & {*_all_ids(homes)}
    for one, home, copy in zip(story.journeys, homes, copies, strict=True):
        assert rename(copy, originals)["messages"] == home["messages"]
        assert message_ids(home) == message_ids(without_reverted(one.back))
        assert sorted(copy["messages"], key=_order) == copy["messages"]


def _all_ids(family: list[Transcript]) -> list[str]:
    return [id_ for one in family for id_ in (one["info"]["id"], *message_ids(one), *part_ids(one))]


@given(stories(*Way))
def test_nothing_is_lost(story: Story) -> None:
    parent, *children = story.journeys
    way = decide(parent, children).way
    for one in story.journeys:
        on_the_host = _ids([without_reverted(one.back)])
        carried = _ids([one.left]) | {message["info"]["id"] for message in one.fresh}
        assert carried == on_the_host
        if one.current is None or way is Way.COPY:
            continue
        removed_here = _ids([one.sent] if one.sent else []) - _ids([one.current])
        after = _ids([one.current]) | {message["info"]["id"] for message in one.missing}
        assert after | removed_here >= on_the_host
        assert not (one.missing and removed_here)


def test_the_table_holds_every_way() -> None:
    ways = {decide(Journey(BASE, there, here)).way for here in HERE.values() for there in THERE.values()}
    assert ways == set(Way)
