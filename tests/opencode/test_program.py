"""OpenCode as a program on this machine: held to what it did, not to what it said."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.errors import CommandError, ConfigurationError, HostNotReadyError, UnknownNameError
from remote_dispatch.model import Todo
from remote_dispatch.opencode.program import checked_id, find_binary, literal
from tests.rig.stub import a_transcript, new_id

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.opencode.program import Program, SessionSummary, Surroundings
    from remote_dispatch.transcript import Transcript
    from tests.opencode.conftest import Box

ODD_IDS = ["", "-h", "ses_", "ses_x' or 1=1 --", "ses_" + "a" * 41, "ses_000000000001TTTTTTTTTTTTT\n", "../ses_1"]


async def _bring_in(box: Box, program: Program, transcript: dict[str, Any], directory: Path | None = None) -> str:
    source = box.root / "in.json"
    source.write_text(json.dumps(transcript))
    session = str(transcript["info"]["id"])
    await program.import_(source, session, directory or box.home)
    return session


async def test_a_session_larger_than_a_pipe_is_exported_whole(one_box: Box) -> None:
    program = one_box.program
    sent = a_transcript("hello " + "x" * 300_000, "hi \ud800 there")
    session = await _bring_in(one_box, program, sent)
    target = one_box.root / "out.json"
    back = await program.export(session, target)
    assert target.stat().st_size > 300_000
    assert [one["parts"][0]["text"] for one in back["messages"]] == [
        one["parts"][0]["text"] for one in sent["messages"]
    ]


async def test_an_export_that_is_cut_is_an_error(one_box: Box) -> None:
    program = one_box.program
    session = await _bring_in(one_box, program, a_transcript("hello"))
    one_box.set(STUB_FAULT="export-cut")
    with pytest.raises(Exception, match="transcript"):
        await program.export(session, one_box.root / "out.json")


async def test_an_unknown_session_is_named(one_box: Box) -> None:
    missing = new_id("ses")
    with pytest.raises(UnknownNameError, match=missing):
        await one_box.program.export(missing, one_box.root / "out.json")
    with pytest.raises(UnknownNameError, match=missing):
        await one_box.program.session(missing)


@pytest.mark.parametrize("odd", ODD_IDS)
async def test_an_odd_id_never_reaches_opencode(one_box: Box, odd: str) -> None:
    program = one_box.program
    for call in (
        program.export(odd, one_box.root / "out.json"),
        program.session(odd),
        program.surroundings(odd),
        program.put_todos(odd, (), 1),
    ):
        with pytest.raises(UnknownNameError, match="is not a session id"):
            await call
    assert one_box.calls() == []


def test_a_session_id_passes() -> None:
    assert checked_id("ses_07f1b2c3d4e5AbCdEfGhIjKlMn") == "ses_07f1b2c3d4e5AbCdEfGhIjKlMn"


async def test_a_refused_import_shows_nothing_of_the_conversation(one_box: Box) -> None:
    program = one_box.program
    transcript = a_transcript("the secret plan")
    transcript["messages"][0]["parts"][0]["messageID"] = "msg_nowhere"
    source = one_box.root / "in.json"
    source.write_text(json.dumps(transcript))
    refused = await program.connection.run('"$1" import "$2"; true', str(program.binary), str(source), timeout_s=20)
    assert b"the secret plan" in refused.stderr
    with pytest.raises(CommandError, match=r"`opencode import` failed with exit status 1$") as caught:
        await program.import_(source, transcript["info"]["id"], one_box.home)
    assert "secret" not in f"{caught.value} {caught.value.output} {caught.value.hint}"


async def test_an_import_that_says_nothing_of_the_session_is_refused_too(one_box: Box) -> None:
    source = one_box.root / "in.json"
    source.write_text("null")
    with pytest.raises(CommandError, match="opencode import"):
        await one_box.program.import_(source, new_id("ses"), one_box.home)


async def test_an_import_binds_the_session_to_the_directory_as_it_really_is(one_box: Box) -> None:
    real, link = one_box.home / 'real \' "place"', one_box.home / "link"
    real.mkdir()
    link.symlink_to(real)
    program = one_box.program
    session = await _bring_in(one_box, program, a_transcript("hello"), link)
    assert (await program.session(session)).directory == real


async def test_sessions_of_a_directory_are_found_whatever_its_name(one_box: Box) -> None:
    program = one_box.program
    place = one_box.home / "it's; drop table session --"
    place.mkdir()
    mine = await _bring_in(one_box, program, a_transcript("hello", "hi"), place)
    await _bring_in(one_box, program, a_transcript("child", parent_id=mine), place)
    await _bring_in(one_box, program, a_transcript("elsewhere"))
    [found] = await program.sessions(place, limit=5)
    assert (found.id, found.messages, found.title, found.directory) == (mine, 2, "A conversation", place)
    assert await program.sessions(one_box.home / "nothing") == []


async def test_a_title_cannot_move_the_cursor(one_box: Box) -> None:
    transcript = a_transcript("hello")
    transcript["info"]["title"] = "a\x1b[2Jb\nc"
    program = one_box.program
    session = await _bring_in(one_box, program, transcript)
    assert (await program.session(session)).title == "ab\nc"


async def test_children_come_parents_first_with_todos_and_the_data_directory(one_box: Box) -> None:
    program = one_box.program
    root = await _bring_in(one_box, program, a_transcript("root"))
    child = await _bring_in(one_box, program, a_transcript("child", parent_id=root))
    below = [await _bring_in(one_box, program, a_transcript("below", parent_id=child)) for _ in range(2)]
    todos = (Todo("one", "pending", "high"), Todo("two", "completed", "low"))
    await program.put_todos(root, todos, 1)
    around = await program.surroundings(root)
    assert around.children == (child, *below)
    assert around.todos == todos
    assert around.data_directory == one_box.home / ".local/share/opencode"


async def test_todos_are_kept_whatever_they_say_and_surplus_ones_go(one_box: Box) -> None:
    program = one_box.program
    session = await _bring_in(one_box, program, a_transcript("hello"))
    hostile = (
        Todo("'); drop table todo; --", "in_progress", "high"),
        Todo('--format json $(touch x) \\ " ; é\u2028\n', "pending", "it's"),
        Todo("", "pending", "low"),
    )
    await program.put_todos(session, hostile, 1)
    assert (await program.surroundings(session)).todos == hostile
    await program.put_todos(session, hostile[1:2], 2)
    assert (await program.surroundings(session)).todos == hostile[1:2]
    await program.put_todos(session, (), 3)
    assert (await program.surroundings(session)).todos == ()


async def test_more_todos_than_one_argument_holds_are_kept(one_box: Box) -> None:
    program = one_box.program
    session = await _bring_in(one_box, program, a_transcript("hello"))
    todos = tuple(Todo(f"{number} " + "é" * 1500, "pending", "low") for number in range(100))
    await program.put_todos(session, todos, 1)
    assert (await program.surroundings(session)).todos == todos


async def test_what_was_used_here_last_is_known(one_box: Box) -> None:
    program = one_box.program
    await program.query("select 1")
    assert await program.usual_choice() == (None, None)
    root = await _bring_in(one_box, program, a_transcript("hello"))
    later = a_transcript("below", parent_id=root)
    later["messages"][0]["info"]["agent"] = "general"
    await _bring_in(one_box, program, later)
    assert await program.usual_choice() == ("build", "test/model")


async def test_a_query_that_fails_says_why_without_control_characters(one_box: Box) -> None:
    with pytest.raises(CommandError, match="no such table: nowhere_at_all") as caught:
        await one_box.program.query("select * from nowhere_at_all")
    assert "\x1b" not in caught.value.output


def test_a_literal_keeps_quotes_and_refuses_what_no_query_can_hold() -> None:
    assert literal("it's '' ok") == "'it''s '''' ok'"
    with pytest.raises(ValueError, match="NUL"):
        literal("a\0b")


# --- the binary


def test_the_asked_binary_wins(one_box: Box) -> None:
    asked = one_box.install(one_box.root / "asked")
    one_box.install()
    assert find_binary({**one_box.environment, "REMOTE_DISPATCH_OPENCODE": str(asked)}) == asked


def test_an_asked_binary_that_cannot_run_is_a_mistake_in_the_settings(one_box: Box) -> None:
    one_box.install()
    for odd in (one_box.root / "gone", one_box.home):
        environment = {**one_box.environment, "REMOTE_DISPATCH_OPENCODE": str(odd)}
        with pytest.raises(ConfigurationError, match="REMOTE_DISPATCH_OPENCODE"):
            find_binary(environment)


def test_path_comes_before_the_usual_places(one_box: Box) -> None:
    usual = one_box.install(one_box.home / ".opencode/bin")
    assert find_binary({"HOME": str(one_box.home), "PATH": "/nowhere"}) == usual
    first = one_box.install()
    assert find_binary(one_box.environment) == first


@pytest.mark.usefixtures("needs_no_opencode_beside")
def test_no_binary_is_an_error_that_says_how_to_get_one(one_box: Box) -> None:
    with pytest.raises(HostNotReadyError, match="OpenCode was not found") as caught:
        find_binary({"HOME": str(one_box.home), "PATH": ""})
    assert "npm install" in str(caught.value.hint)


# --- the reader, and what stands in for it


@pytest.mark.parametrize("fault", ["reader-refuses", "reader-elsewhere", "no-reader"])
async def test_where_nothing_can_be_read_fast_opencode_is_asked_and_says_the_same(one_box: Box, fault: str) -> None:
    program = one_box.program
    session = await _bring_in(one_box, program, a_transcript("hello", "hi"))
    child = await _bring_in(one_box, program, a_transcript("below", parent_id=session))

    async def everything() -> tuple[Transcript, SessionSummary, Surroundings]:
        transcript = await program.export(session, one_box.root / "out.json")
        return transcript, await program.session(session), await program.surroundings(session)

    fast = await everything()
    assert fast[2].children == (child,)
    assert [call.split()[0] for call in one_box.calls()[2:]] == ["reader"] * 3
    one_box.set(STUB_FAULT=fault)
    assert await everything() == fast
    commands = [call.split()[1] for call in one_box.calls()[5:] if not call.startswith("reader")]
    assert commands == ["export", *([] if fault == "reader-elsewhere" else ["db", "db"])]


async def test_what_writes_is_left_to_opencode(one_box: Box) -> None:
    program = one_box.program
    session = await _bring_in(one_box, program, a_transcript("hello"))
    await program.put_todos(session, (Todo("one", "pending", "high"),), 1)
    assert all(call.startswith("--pure ") for call in one_box.calls())
