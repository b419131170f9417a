"""Message by message: where each copy is, and whether it is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch.files import write_sealed
from remote_dispatch.dispatch.verify import RunFile, Verified, verify
from remote_dispatch.errors import HostNotReadyError, HostUnreachableError
from remote_dispatch.model import Collected, Dispatch, State
from tests.dispatch.machines import Pair, packed
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from pathlib import Path

ENDED = (State.STAGING, State.RUNNING, State.FINISHED)
DONE = (State.STAGING, State.RUNNING, State.DONE)
WHOLE: dict[str, Any] = {"collected": Collected.WHOLE}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair.at(tmp_path)


async def found(pair: Pair, record: Dispatch) -> Verified:
    return await verify(record, pair.there.link, pair.store, pair.here.program)


def columns(verified: Verified) -> list[str]:
    """Here, kept and host of each message, by their first letters."""
    return ["".join(str(copy)[0] for copy in (one.here, one.kept, one.host)) for one in verified.messages]


def first(session: dict[str, Any], count: int) -> dict[str, Any]:
    """The session as it was after so many messages."""
    return {**session, "messages": session["messages"][:count]}


async def a_dispatch(pair: Pair, *states: State, here: int = 4, kept: bool = True, **fields: Any) -> Dispatch:
    """Two messages left, the host added two; `here` says how many of the four are home."""
    session = a_transcript("one", "two", "three", "four")
    await pair.there.bring_in(session)
    await pair.here.bring_in(first(session, here))
    left = first(session, 2)
    record = pair.record(*states, session_id=session["info"]["id"], origin=transcripts.origin_of(left), **fields)
    folder = pair.store.folder(record.id)
    folder.session.write_bytes(transcripts.dump(left))
    if kept:
        folder.back.write_bytes(packed(session))
    return record


async def test_what_came_home_is_the_same_in_three_places(pair: Pair) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    verified = await found(pair, record)
    assert columns(verified) == ["eee"] * 4
    assert (verified.problems, verified.trouble, verified.run_file) == ((), None, RunFile.NONE)
    assert [one.role for one in verified.messages] == ["user", "assistant"] * 2


async def test_what_is_not_collected_yet_is_only_there_and_no_problem(pair: Pair) -> None:
    record = await a_dispatch(pair, *ENDED, here=2, kept=False)
    verified = await found(pair, record)
    assert columns(verified) == ["eee", "eee", "mme", "mme"]
    assert verified.problems == ()


async def test_what_was_never_sent_is_here_and_no_host_is_asked(pair: Pair) -> None:
    record = await a_dispatch(pair, here=2, kept=False)
    verified = await found(pair, record)
    assert columns(verified) == ["eem", "eem"]
    assert (verified.problems, pair.there.connections) == ((), 0)


async def test_a_message_that_came_home_and_is_gone_here_is_a_problem(pair: Pair) -> None:
    record = await a_dispatch(pair, *DONE, here=3, **WHOLE)
    verified = await found(pair, record)
    assert columns(verified)[3] == "mee"
    assert verified.problems == ("1 message is not here, although the result came home",)


async def test_a_session_that_was_deleted_here_after_it_came_home_is_a_problem(pair: Pair) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    await pair.here.change(f"delete from session where id = '{record.session_id}'")
    verified = await found(pair, record)
    assert columns(verified) == ["mee"] * 4
    assert verified.problems == ("4 messages are not here, although the result came home",)


@pytest.mark.parametrize(("place", "letters"), [("here", "dee"), ("there", "eed")])
async def test_an_edited_message_is_different_where_it_was_edited(pair: Pair, place: str, letters: str) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    await getattr(pair, place).change("update part set data = replace(data, 'four', 'five')")
    verified = await found(pair, record)
    assert columns(verified) == ["eee", "eee", "eee", letters]
    assert verified.problems == ("1 message is not the same in every copy",)


async def test_what_was_written_here_later_is_only_here(pair: Pair) -> None:
    record = await a_dispatch(pair, *ENDED, here=2, kept=False)
    later = a_transcript("later", session_id=record.session_id)
    await pair.here.bring_in(later)
    verified = await found(pair, record)
    assert (
        dict(zip([one.id for one in verified.messages], columns(verified), strict=True))[
            later["messages"][0]["info"]["id"]
        ]
        == "emm"
    )
    assert verified.problems == ()


async def test_a_silent_host_leaves_what_can_be_said_without_it(pair: Pair) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    pair.there.is_away = True
    verified = await found(pair, record)
    assert columns(verified) == ["eeu"] * 4
    assert isinstance(verified.trouble, HostUnreachableError)
    assert (verified.run_file, verified.problems) == (RunFile.UNKNOWN, ())


async def test_an_opencode_that_is_gone_there_is_told(pair: Pair) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    assert record.travel is not None
    record = record.but(travel=record.travel.model_copy(update={"opencode": "/nowhere/opencode"}))
    verified = await found(pair, record)
    assert columns(verified) == ["eeu"] * 4
    assert isinstance(verified.trouble, HostNotReadyError)


async def test_a_session_that_the_host_cannot_export_is_unknown_there(pair: Pair) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    pair.there.variables["STUB_FAULT"] = "export-cut"
    assert columns(await found(pair, record)) == ["eeu"] * 4


async def test_the_result_in_the_run_directory_is_hashed_there(pair: Pair) -> None:
    record = await a_dispatch(pair, *ENDED, here=2, kept=False)
    run = pair.put_run(record, back=a_transcript("one"))
    assert (await found(pair, record)).run_file is RunFile.INTACT
    (run / "back.json.gz").write_bytes(packed(a_transcript("another")))
    verified = await found(pair, record)
    assert verified.run_file is RunFile.DAMAGED
    assert verified.problems == ("the result in the run directory on box is damaged",)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-4], lambda data: b"", lambda data: data[:20] + b"!" + data[21:]]
)
async def test_a_damaged_file_that_is_kept_here_is_a_problem(pair: Pair, damage: Any) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    back = pair.store.folder(record.id).back
    back.write_bytes(damage(back.read_bytes()))
    verified = await found(pair, record)
    assert "a result as it came, kept here, is damaged" in verified.problems
    assert columns(verified) == ["eee", "eee", "eme", "eme"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}'])
async def test_a_list_of_ids_or_a_copy_that_is_damaged_is_a_problem(pair: Pair, text: str) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    pair.store.folder(record.id).copy.write_text(text)
    verified = await found(pair, record)
    assert verified.problems == ("the copy that was made, kept here, is damaged",)
    assert columns(verified) == ["eee"] * 4


async def test_a_kept_session_that_was_changed_is_not_what_the_others_are_held_to(pair: Pair) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    session = pair.store.folder(record.id).session
    session.write_bytes(session.read_bytes().replace(b"two", b"too"))
    verified = await found(pair, record)
    assert columns(verified) == ["eee", "ede", "eee", "eee"]
    assert verified.problems[0] == "the session as it left, kept here, was changed"


async def test_fresh_ids_of_the_journey_are_those_of_home_again(pair: Pair) -> None:
    session = a_transcript("one", "two")
    ids = transcripts.fresh_ids([session], 1_700_000_000_000)
    there = transcripts.rename(session, ids)
    added = a_transcript("three", "four", session_id=there["info"]["id"])
    await pair.there.bring_in(there)
    await pair.there.bring_in(added)
    both = {**there, "messages": [*there["messages"], *added["messages"]]}
    home_ids = transcripts.fresh_ids([added], 1_700_000_000_000) | transcripts.inverted(ids)
    await pair.here.bring_in(transcripts.rename(both, home_ids))
    record = pair.record(*DONE, session_id=session["info"]["id"], **WHOLE)
    assert record.travel is not None
    travel = record.travel.model_copy(update={"id_map": ids, "session_id": there["info"]["id"]})
    record = pair.store.save(record.but(travel=travel))
    folder = pair.store.folder(record.id)
    folder.session.write_bytes(transcripts.dump(session))
    folder.back.write_bytes(packed(both))
    write_sealed(folder.home_ids, home_ids)
    verified = await found(pair, record)
    assert columns(verified) == ["eee"] * 4
    assert [one.id for one in verified.sessions] == [session["info"]["id"]]


async def test_a_result_that_came_as_a_copy_is_looked_for_there(pair: Pair) -> None:
    record = await a_dispatch(pair, *DONE, here=2)
    folder = pair.store.folder(record.id)
    whole = transcripts.parse(await exported(pair.there, record))
    copies = transcripts.as_copy(first(whole, 2), whole["messages"][2:], host="box", now_ms=1_700_000_000_000)
    write_sealed(folder.copy, copies)
    await pair.here.bring_in(copies[0])
    copied = {"collected": Collected.COPY, "copy_session_id": copies[0]["info"]["id"]}
    record = pair.store.save(record.but(**copied))
    verified = await found(pair, record)
    assert columns(verified) == ["eee"] * 4
    await pair.here.change(f"delete from message where session_id = '{record.copy_session_id}' and data like '%user%'")
    assert columns(await found(pair, record)) == ["mee", "eee", "mee", "eee"]


async def test_sub_agents_sessions_are_compared_too(pair: Pair) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    child = a_transcript("look", "seen", parent_id=record.session_id)
    for machine in (pair.here, pair.there):
        await machine.bring_in(child)
    name = child["info"]["id"]
    pair.store.folder(record.id).back_child(name).write_bytes(packed(child))
    verified = await found(pair, record)
    assert [one.id for one in verified.sessions] == [record.session_id, name]
    assert columns(verified) == ["eee"] * 6
    await pair.here.change(f"delete from session where id = '{name}'")
    verified = await found(pair, record)
    assert columns(verified)[4:] == ["mee"] * 2
    assert verified.problems == ("2 messages are not here, although the result came home",)


async def test_nothing_is_left_behind_and_nothing_is_changed(pair: Pair) -> None:
    record = await a_dispatch(pair, *DONE, **WHOLE)
    before = {path: path.read_bytes() for path in pair.store.root.rglob("*") if path.is_file()}
    await found(pair, record)
    assert {path: path.read_bytes() for path in pair.store.root.rglob("*") if path.is_file()} == before
    assert not list((pair.there.home / ".cache/remote-dispatch").glob("*"))


async def exported(machine: Any, record: Dispatch) -> bytes:
    target = machine.home / "export.json"
    await machine.program.export(record.session_id, target)
    return bytes(target.read_bytes())
