"""Only what is proved to be home, or never ran, is removed; and a user hears what would be lost."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch import transcript as transcripts
from remote_dispatch.dispatch.prune import Pruned, prune
from remote_dispatch.dispatch.remove import loss_of, loss_without_host, remove
from remote_dispatch.errors import DivergedError, HostUnreachableError, UnknownNameError
from remote_dispatch.model import Collected, Dispatch, State
from tests.dispatch.machines import Pair
from tests.dispatch.values import NOON, SESSION
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from pathlib import Path

RAN = (State.STAGING, State.RUNNING)
OWN = 'echo "$(cat /proc/sys/kernel/random/boot_id) $1 $(awk "{print \\$22}" /proc/$1/stat)" >"$2/lock/owner"'
"""Names a process as the owner of a run directory's lock."""
WHOLE: dict[str, Any] = {"collected": Collected.WHOLE}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair.at(tmp_path)


async def pruned(pair: Pair, **options: Any) -> Pruned:
    return await prune(pair.store, lambda host: pair.there.link(), **options)


def names(pair: Pair) -> list[str]:
    return [record.name for record in pair.store.all()]


async def test_what_is_home_goes_and_its_host_is_only_swept(pair: Pair) -> None:
    record = pair.record(*RAN, State.DONE, **WHOLE, is_cleaned_up=True)
    assert (await pruned(pair)).removed == [record.name]
    assert list(pair.store.root.iterdir()) == []
    assert pair.there.connections == 1


async def test_a_run_directory_that_was_left_goes_with_its_record(pair: Pair) -> None:
    record = pair.record(*RAN, State.DONE, **WHOLE)
    run = pair.put_run(record, back=a_transcript("a"))
    assert (await pruned(pair)).removed == [record.name]
    assert (names(pair), run.exists()) == ([], False)


@pytest.mark.parametrize("states", [(), (State.STAGING,), RAN, (*RAN, State.FINISHED), (*RAN, State.LOST)])
async def test_what_is_under_way_or_only_there_stays(pair: Pair, states: tuple[State, ...]) -> None:
    record = pair.record(*states)
    run = pair.put_run(record, back=a_transcript("a"))
    found = await pruned(pair)
    assert (found.removed, [one.name for one in found.kept]) == ([], [record.name])
    assert found.kept[0].command is not None
    assert (names(pair), run.exists()) == ([record.name], True)


@pytest.mark.parametrize("state", [State.CANCELLED, State.FAILED])
async def test_a_cancelled_or_failed_run_with_a_result_stays(pair: Pair, state: State) -> None:
    record = pair.record(*RAN, state)
    run = pair.put_run(record, back=a_transcript("a"))
    found = await pruned(pair)
    assert "its result is only on box" in found.kept[0].why
    assert found.kept[0].command == f"remote-dispatch collect {record.name}"
    assert run.exists()


async def test_a_run_whose_export_failed_stays(pair: Pair) -> None:
    record = pair.record(*RAN, State.FAILED, kind="export-failed")
    run = pair.put_run(record)
    assert (await pruned(pair)).removed == []
    assert run.exists()


async def test_what_ended_before_anything_ran_goes(pair: Pair) -> None:
    record = pair.record(State.STAGING, State.FAILED, kind="import-refused")
    run = pair.put_run(record, started=False)
    assert (await pruned(pair)).removed == [record.name]
    assert (names(pair), run.exists()) == ([], False)


async def test_a_result_whose_run_directory_is_gone_is_not_forgotten(pair: Pair) -> None:
    record = pair.record(*RAN, State.CANCELLED, kind="terminated")
    assert "never came home" in (await pruned(pair)).kept[0].why
    assert names(pair) == [record.name]


async def test_what_never_began_goes_although_its_run_directory_is_gone_already(pair: Pair) -> None:
    record = pair.record(State.STAGING, State.FAILED, kind="host-not-ready")
    assert (await pruned(pair)).removed == [record.name]


async def test_a_silent_host_keeps_its_dispatches_and_no_others(pair: Pair) -> None:
    left = pair.record(*RAN, State.DONE, **WHOLE)
    gone = pair.record(*RAN, State.DONE, **WHOLE, is_cleaned_up=True)
    pair.there.is_away = True
    found = await pruned(pair)
    assert (found.removed, names(pair)) == ([gone.name], [left.name])
    assert [(one.name, one.is_trouble) for one in found.kept] == [(left.name, True)]


async def test_an_odd_run_directory_keeps_its_own_dispatch_only(pair: Pair) -> None:
    odd, whole = pair.record(*RAN, State.DONE, **WHOLE), pair.record(*RAN, State.DONE, **WHOLE)
    (pair.put_run(odd) / "outcome.json").write_text("{}")
    found = await pruned(pair)
    assert (found.removed, [one.name for one in found.kept]) == ([whole.name], [odd.name])


async def test_a_host_that_is_in_no_hosts_file_keeps_its_dispatches(pair: Pair) -> None:
    record = pair.record(*RAN, State.DONE, **WHOLE)

    def nowhere(host: str) -> Any:
        raise UnknownNameError(f"no host is called `{host}`")

    found = await prune(pair.store, nowhere)
    assert (found.kept[0].name, found.kept[0].is_trouble) == (record.name, True)


async def test_only_what_ended_long_enough_ago_goes(pair: Pair) -> None:
    record = pair.record(*RAN, State.DONE, **WHOLE, is_cleaned_up=True)
    assert (await pruned(pair, before=NOON)).removed == []
    assert (await pruned(pair, before=NOON + timedelta(seconds=1))).removed == [record.name]


async def test_a_dry_run_says_the_same_and_changes_nothing(pair: Pair) -> None:
    left = pair.record(*RAN, State.DONE, **WHOLE)
    run = pair.put_run(left, back=a_transcript("a"))
    home = pair.record(*RAN, State.DONE, **WHOLE, is_cleaned_up=True)
    only_there = pair.record(*RAN, State.FINISHED)
    planned = await pruned(pair, is_dry_run=True)
    assert sorted(planned.removed) == sorted([left.name, home.name])
    assert (len(names(pair)), run.exists()) == (3, True)
    done = await pruned(pair)
    assert (sorted(done.removed), done.kept) == (sorted(planned.removed), planned.kept)
    assert names(pair) == [only_there.name]


async def test_again_changes_nothing(pair: Pair) -> None:
    pair.record(*RAN, State.DONE, **WHOLE)
    kept = pair.record(*RAN, State.FINISHED)
    await pruned(pair)
    assert (await pruned(pair)).removed == []
    assert names(pair) == [kept.name]


async def test_many_dispatches_of_one_host_take_one_connection(pair: Pair) -> None:
    for _ in range(3):
        pair.put_run(pair.record(*RAN, State.DONE, **WHOLE))
    assert len((await pruned(pair)).removed) == 3
    assert pair.there.connections == 1


async def test_free_locks_and_what_killed_senders_left_go(pair: Pair) -> None:
    async with pair.store.held("ses_one"):
        pass
    orphan = pair.store.root / "20260102-120000-orphaned"
    orphan.mkdir(parents=True)
    (orphan / "planning").touch()
    found = await pruned(pair)
    assert (found.orphans, found.locks) == ([orphan.name], 1)
    assert not orphan.exists()


# --- remove


async def loss(pair: Pair, record: Dispatch) -> tuple[str, str]:
    async with pair.there.link() as link:
        found = await loss_of(record, link, pair.store)
    return " / ".join(found.lines), " / ".join(found.stays)


async def test_what_is_home_is_no_loss_and_no_host_is_asked(pair: Pair) -> None:
    record = pair.record(*RAN, State.DONE, session_id=SESSION, **WHOLE, is_cleaned_up=True)
    assert await loss(pair, record) == ("", f"the result is home, in session {SESSION}")
    await remove(record, None, pair.store)
    assert (names(pair), pair.there.connections) == ([], 0)


async def test_a_result_that_is_only_there_is_counted_and_its_place_named(pair: Pair) -> None:
    session = a_transcript("one", "two", "three", "four")
    await pair.there.bring_in(session)
    name = session["info"]["id"]
    record = pair.record(*RAN, State.FINISHED, session_id=name, remote_directory="/srv/work")
    left = {**session, "messages": session["messages"][:1]}
    pair.store.folder(record.id).session.write_bytes(transcripts.dump(left))
    run = pair.put_run(record, back=session)
    lost, stays = await loss(pair, record)
    assert lost == "the result is only on box: 3 new messages are not home"
    assert f"session {name} in /srv/work" in stays
    async with pair.there.link() as link:
        await remove(record, link, pair.store)
    assert (names(pair), run.exists()) == ([], False)


async def test_where_opencode_there_says_nothing_the_loss_is_still_told(pair: Pair) -> None:
    record = pair.record(*RAN, State.FINISHED, session_id=a_transcript()["info"]["id"])
    pair.put_run(record, back=a_transcript("a"))
    pair.there.variables["STUB_FAULT"] = "db-fails"
    await pair.there.bring_in(a_transcript("something else"))
    assert (await loss(pair, record))[0] == "the result is only on box"


async def test_where_opencode_there_has_forgotten_the_session_nothing_is_counted(pair: Pair) -> None:
    await pair.there.bring_in(a_transcript("something else"))
    record = pair.record(*RAN, State.FINISHED, session_id=SESSION)
    pair.put_run(record, back=a_transcript("a"))
    assert await loss(pair, record) == (
        "the result is only on box",
        f"the session here stays as it is: {SESSION}",
    )


async def test_a_damaged_file_here_does_not_stand_in_the_way(pair: Pair) -> None:
    session = a_transcript("one", "two")
    record = pair.record(*RAN, State.FINISHED, session_id=await pair.there.bring_in(session))
    pair.put_run(record, back=session)
    pair.store.folder(record.id).session.write_bytes(b"{")
    assert "2 new messages are not home" in (await loss(pair, record))[0]


async def test_what_never_ran_is_no_loss(pair: Pair) -> None:
    for states in ((), (State.STAGING,), (State.STAGING, State.FAILED)):
        record = pair.record(*states, kind="directory" if State.FAILED in states else None)
        assert (await loss(pair, record))[0] == ""


async def test_what_lives_there_is_refused(pair: Pair) -> None:
    record = pair.record(*RAN)
    run = pair.put_run(record, outcome=False)
    (run / "lock").mkdir()
    await pair.there.connection.run(OWN, str(os.getpid()), str(run), timeout_s=10)
    with pytest.raises(DivergedError) as refused:
        await loss(pair, record)
    assert refused.value.hint is not None
    assert f"cancel {record.name}" in refused.value.hint
    async with pair.there.link() as link:
        with pytest.raises(DivergedError):
            await remove(record, link, pair.store)
    assert (names(pair), run.exists()) == ([record.name], True)


async def test_what_went_on_since_it_was_looked_at_is_not_removed(pair: Pair) -> None:
    record = pair.record(State.STAGING)
    pair.store.update(record.id, lambda now: now.advance(State.RUNNING, NOON))
    with pytest.raises(DivergedError, match="went on meanwhile"):
        await remove(record, None, pair.store)
    assert names(pair) == [record.name]


async def test_a_silent_host_refuses_and_the_hint_says_how_to_forget_it(pair: Pair) -> None:
    record = pair.record(*RAN)
    pair.there.is_away = True
    with pytest.raises(HostUnreachableError) as refused:
        await loss(pair, record)
    assert refused.value.hint is not None
    assert "--local" in refused.value.hint
    assert names(pair) == [record.name]


async def test_without_the_host_the_loss_is_told_as_far_as_it_is_known(pair: Pair) -> None:
    record = pair.record(*RAN, remote_directory="/srv/work")
    found = loss_without_host(record)
    assert "not home" in found.lines[0]
    assert "at work there when last heard of" in found.lines[1]
    assert str(record.run_directory) in found.stays[0]
    await remove(record, None, pair.store)
    assert names(pair) == []


async def test_another_command_at_work_on_it_is_waited_for_only_briefly(pair: Pair) -> None:
    record = pair.record(State.STAGING)
    async with pair.store.held(f"dispatch-{record.id}"):
        with pytest.raises(DivergedError, match="another command"):
            await remove(record, None, pair.store, patience_s=0.1)
    await remove(record, None, pair.store)
    assert names(pair) == []


async def test_what_another_command_works_on_stays(pair: Pair) -> None:
    record = pair.record(*RAN, State.DONE, **WHOLE)
    pair.put_run(record)
    async with pair.store.held(f"dispatch-{record.id}"):
        told = await pruned(pair)
    assert ([one.why for one in told.kept], told.removed) == (["another command works on it"], [])
    assert (await pruned(pair)).removed == [record.name]


async def test_what_is_partly_on_the_host_only_stays_whatever_its_end(pair: Pair) -> None:
    for end in (State.DONE, State.LOST):
        pair.record(*RAN, end, **{**WHOLE, "stays_there": True}, is_cleaned_up=True)
    assert (await pruned(pair)).removed == []
