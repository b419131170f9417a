"""From the local session to what travels: ids that hurt nothing on the host, times that OpenCode can live with."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.dispatch import prepare
from remote_dispatch.dispatch.choose import Choice
from remote_dispatch.dispatch.permissions import Permit
from remote_dispatch.dispatch.prepare import (
    Outgoing,
    Source,
    ids_of,
    kept_ids,
    make_outgoing,
    new_source,
    origin_of,
    read_source,
)
from remote_dispatch.dispatch.store import Store
from remote_dispatch.errors import UnknownNameError, UsageError
from remote_dispatch.model import Model, Permissions
from remote_dispatch.opencode.program import Program
from remote_dispatch.remote.local import LocalConnection
from tests.dispatch.values import NOON, SESSION, a_probe, a_request, stored
from tests.rig.stub import OPENCODE_STUB, a_transcript

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.opencode.probe import Probed
    from remote_dispatch.runner.job import SessionFile

NOW_MS = 1_760_000_000_000
CHOICE = Choice("plan", Model("own", "large"), "high")


def _source() -> Source:
    parent = a_transcript("hello", "hi there")
    child = a_transcript("look", "seen", parent_id=parent["info"]["id"])
    return Source(parent, {child["info"]["id"]: child})


def _held(source: Source, *more: str) -> Probed:
    ids = ids_of(source.family)
    kinds = {"session": "ses_", "message": "msg_", "part": "prt_"}
    held = {kind: frozenset(one for one in (*ids, *more) if one.startswith(stem)) for kind, stem in kinds.items()}
    return a_probe(held)


def _outgoing(
    source: Source, probed: Probed | None = None, *, kept: frozenset[str] = frozenset(), is_copy: bool = False
) -> Outgoing:
    permitted = Permit(Permissions.DENY, {"bash": {"*": "deny"}, "question": "deny"})
    asked = a_request(session_id=source.session["info"]["id"], is_copy=is_copy)
    return make_outgoing(source, asked, probed or a_probe(), CHOICE, permitted, now_ms=NOW_MS, kept=kept)


def _unpacked(file: SessionFile) -> dict[str, Any]:
    assert isinstance(file.packed.content, bytes)
    transcript: dict[str, Any] = json.loads(gzip.decompress(file.packed.content))
    return transcript


# --- ids


def test_a_host_that_does_not_have_the_session_gets_it_under_its_own_ids() -> None:
    source = _source()
    out = _outgoing(source)
    assert (out.travel.id_map, out.travel.replaces) == ({}, False)
    assert ids_of([_unpacked(out.session), *map(_unpacked, out.children)]) == ids_of(source.family)
    assert (out.session.messages, out.session.parts) == (2, 2)


def test_an_old_copy_that_is_all_at_home_is_replaced() -> None:
    source = _source()
    travel = _outgoing(source, _held(source)).travel
    assert (travel.id_map, travel.replaces, travel.session_id) == ({}, True, source.session["info"]["id"])


def test_an_old_copy_with_something_that_is_not_home_is_left_alone() -> None:
    source = _source()
    for foreign in (
        "msg_ffffffffffffAAAAAAAAAAAAAA",
        "prt_ffffffffffffAAAAAAAAAAAAAA",
        "ses_ffffffffffffAAAAAAAAAAAAAA",
    ):
        out = _outgoing(source, _held(source, foreign))
        assert not out.travel.replaces
        assert out.travel.id_map.keys() == ids_of(source.family)
        travelling = ids_of([_unpacked(out.session), *map(_unpacked, out.children)])
        assert travelling == set(out.travel.id_map.values())
        assert not travelling & ids_of(source.family)
        assert out.travel.session_id == out.session.id
        assert _unpacked(out.children[0])["info"]["parentID"] == out.session.id


def test_what_is_only_in_a_back_file_that_we_keep_may_go() -> None:
    source, foreign = _source(), "msg_ffffffffffffAAAAAAAAAAAAAA"
    travel = _outgoing(source, _held(source, foreign), kept=frozenset({foreign})).travel
    assert (travel.id_map, travel.replaces) == ({}, True)


def test_an_independent_copy_travels_under_fresh_ids_and_replaces_nothing() -> None:
    source = _source()
    for probed in (_held(source), a_probe()):
        travel = _outgoing(source, probed, is_copy=True).travel
        assert not travel.replaces
        assert travel.id_map


def test_kept_ids_are_those_of_back_files_of_this_session(tmp_path: Path) -> None:
    store = Store(tmp_path / "dispatches")
    mine, child, other = a_transcript("a", "b"), a_transcript("c"), a_transcript("d")
    for session, files in ((SESSION, {"back": mine, "child": child}), ("ses_other", {"back": other})):
        folder = store.folder(stored(store, session_id=session).id)
        for name, transcript in files.items():
            path = folder.back if name == "back" else folder.back_child(transcript["info"]["id"])
            path.write_bytes(gzip.compress(json.dumps(transcript).encode()))
    assert kept_ids(store, SESSION) == ids_of([mine, child])


# --- what else changes


def test_the_session_names_the_chosen_agent_and_model_and_the_permissions() -> None:
    out = _outgoing(_source())
    info = _unpacked(out.session)["info"]
    assert info["agent"] == "plan"
    assert info["model"] == {"id": "large", "providerID": "own", "variant": "high"}
    for one in (out.session, *out.children):
        assert {"permission": "bash", "pattern": "*", "action": "deny"} in _unpacked(one)["info"]["permission"]


def test_a_history_in_the_hosts_future_is_moved_into_its_past() -> None:
    source = _source()
    newest = source.session["messages"][-1]["info"]["time"]["created"]
    behind = newest - NOW_MS - 60_000
    out = _outgoing(source, a_probe(clock_offset_ms=behind))
    assert out.travel.shift_ms == -62_000 - 1 + 1
    moved = _unpacked(out.session)["messages"][-1]["info"]["time"]["created"]
    assert moved == newest + out.travel.shift_ms
    assert moved < NOW_MS + behind


def test_the_local_transcript_is_not_touched() -> None:
    source = _source()
    before = json.dumps([source.session, source.children])
    _outgoing(source, _held(source, "msg_ffffffffffffAAAAAAAAAAAAAA"))
    assert json.dumps([source.session, source.children]) == before


# --- a new session


def test_a_new_session_is_called_by_the_first_line_of_its_prompt() -> None:
    source = new_source(a_request(session_id=None, prompt="\n  fix \x1b[2Jit\nand more"), "1.18.33", NOW_MS)
    assert source.session["info"]["title"] == "fix it"
    assert source.session["messages"] == []
    assert origin_of(source) is None
    long = new_source(a_request(session_id=None, prompt="x" * 500), "1.18.33", NOW_MS)
    assert len(long.session["info"]["title"]) == 80


@pytest.mark.parametrize("words", [None, "", " \n "])
def test_a_new_session_needs_a_prompt(words: str | None) -> None:
    with pytest.raises(UsageError, match="a new session needs a prompt"):
        new_source(a_request(session_id=None, prompt=words), "1.18.33", NOW_MS)


# --- reading the session from OpenCode


@pytest.fixture
def program(private_home: Path) -> Program:
    return Program(LocalConnection(), OPENCODE_STUB)


async def _bring_in(program: Program, directory: Path, *transcripts: dict[str, Any]) -> None:
    for one in transcripts:
        source = directory / "in.json"
        source.write_text(json.dumps(one))
        await program.import_(source, one["info"]["id"], directory)


async def _read(program: Program, session: dict[str, Any], directory: Path) -> Source:
    with Store(directory / "dispatches").reserved(NOON) as folder:
        return await read_source(program, session["info"]["id"], folder)


def _naming(data: Path, *names: str) -> dict[str, Any]:
    return a_transcript("hello", " ".join(f"{data}/tool-output/{name}" for name in names))


async def test_a_session_is_read_with_its_children_and_todos(program: Program, tmp_path: Path) -> None:
    source = _source()
    [child] = source.children.values()
    await _bring_in(program, tmp_path, source.session, child)
    read = await _read(program, source.session, tmp_path)
    assert ids_of(read.family) == ids_of(source.family)
    assert (read.todos, read.tool_outputs, read.warnings) == ((), {}, ())


async def test_an_unknown_session_is_one_error_and_no_group(program: Program, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no session"):
        await _read(program, a_transcript("never brought in"), tmp_path)


async def test_tool_outputs_travel_when_they_are_files_of_their_directory(
    program: Program, tmp_path: Path, private_home: Path
) -> None:
    data = private_home / ".local/share/opencode"
    session = _naming(data, "tool_one", "tool_gone", "tool_link")
    await _bring_in(program, tmp_path, session)
    (data / "tool-output").mkdir()
    (data / "tool-output/tool_one").write_text("long")
    (tmp_path / "secret").write_text("secret")
    (data / "tool-output/tool_link").symlink_to(tmp_path / "secret")
    read = await _read(program, session, tmp_path)
    assert read.tool_outputs == {"tool_one": data / "tool-output/tool_one"}
    assert read.warnings == ()


async def test_tool_outputs_are_bounded_in_number_and_size(
    program: Program, tmp_path: Path, private_home: Path
) -> None:
    data = private_home / ".local/share/opencode"
    many = [f"tool_m{number}" for number in range(prepare.TOOL_OUTPUT_FILES + 3)]
    session, big = _naming(data, *many), _naming(data, "tool_small", "tool_big")
    await _bring_in(program, tmp_path, session, big)
    (data / "tool-output").mkdir()
    for name in (*many, "tool_small"):
        (data / "tool-output" / name).write_text("x")
    with (data / "tool-output/tool_big").open("wb") as file:
        file.truncate(prepare.TOOL_OUTPUT_BYTES)
    read = await _read(program, session, tmp_path)
    assert list(read.tool_outputs) == many[: prepare.TOOL_OUTPUT_FILES]
    [warning] = read.warnings
    assert warning.startswith("only 64 of 67 tool-output files travel")
    read = await _read(program, big, tmp_path)
    assert list(read.tool_outputs) == ["tool_small"]
