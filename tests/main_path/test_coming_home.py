"""The way home: nothing is damaged here, and nothing is removed there before it is proved to be here."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.main_path.texts import briefs, said
from tests.rig.sshd import free_port, wait_until
from tests.rig.stub import a_transcript

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.rig.world import World


def one_way_and_ended(world: World, prompt: str = "!say done") -> str:
    """Send a session as `kumo` and wait until it ended on the host; return its id."""
    session = world.local_session()
    assert world.send(prompt, "--session", session, "--name", "kumo").exit_code == 0
    world.await_end()
    return session


def test_collect_brings_a_one_way_dispatch_home_whenever_one_likes(world: World) -> None:
    session = one_way_and_ended(world)
    assert len(said(world.export_local(session))) == 2
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"], ran.data["collected"]) == (0, "done", "whole")
    assert said(world.export_local(session))[-1] == ("assistant", "done")
    assert world.run_directories() == []


def test_collecting_twice_changes_nothing(world: World) -> None:
    one_way_and_ended(world)
    first = world.cli("collect", "kumo", "--json")
    before = world.laptop.content()
    calls = world.laptop.calls("import")
    second = world.cli("collect", "kumo", "--json")
    assert second.data == first.data
    assert world.laptop.content() == before
    assert (world.laptop.calls("import"), world.count_runs()) == (calls, 1)


def test_a_detached_round_trip_is_waited_for_later(world: World) -> None:
    session = world.local_session()
    ran = world.round_trip("!bash sleep 2\n!say done", "--session", session, "--detach")
    assert (ran.exit_code, ran.data["state"]) == (0, "running")
    waited = world.cli("wait", ran.data["name"], "--json")
    assert (waited.exit_code, waited.data["dispatches"][0]["collected"]) == (0, "whole")
    assert said(world.export_local(session))[-1] == ("assistant", "done")


def test_p23_a_back_file_that_is_being_written_is_not_taken(world: World) -> None:
    session = world.local_session()
    gate = world.host.home / "gate"
    world.host.set(STUB_FAULT="export-gate", STUB_GATE=gate)
    world.send("!say done", "--session", session, "--name", "kumo")
    wait_until(lambda: [*world.run_directories()[0].glob("back.json.*part")] != [], "no export began", timeout_s=20)
    ran = world.cli("collect", "kumo", "--no-wait", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (6, "deadline")
    gate.touch()
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.data["new_messages"]) == (0, 2)


def test_p25_a_session_that_moved_on_is_left_alone_and_the_result_is_a_copy(world: World) -> None:
    session = one_way_and_ended(world)
    world.laptop.bring_in(a_transcript("and now this", "certainly", session_id=session))
    before = said(world.export_local(session))
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.data["collected"]) == (3, "copy")
    assert "moved on" in ran.data["warnings"][0]
    assert said(world.export_local(session)) == before
    copy = world.export_local(ran.data["copy_session_id"])
    assert copy["info"]["title"] == "A conversation (from pi)"
    assert [text for role, text in said(copy) if role == "assistant"] == ["hi there", "done"]
    assert copy["info"]["directory"] == str(world.laptop.project)


def test_p25_the_copy_is_made_once(world: World) -> None:
    session = one_way_and_ended(world)
    world.laptop.bring_in(a_transcript("and now this", session_id=session))
    first = world.cli("collect", "kumo", "--json")
    second = world.cli("collect", "kumo", "--json")
    assert second.data["copy_session_id"] == first.data["copy_session_id"]
    assert len(world.laptop.sessions()) == 2


def test_a_session_that_was_deleted_meanwhile_comes_home_whole(world: World) -> None:
    session = one_way_and_ended(world)
    world.laptop.run("session", "delete", session)
    ran = world.cli("collect", "kumo", "--json")
    assert ran.exit_code in (0, 3)
    texts = [text for role, text in said(world.export_local(session)) if role == "assistant"]
    assert texts == ["hi there", "done"]


@pytest.mark.parametrize("fault", ["import-refused", "db-fails", "export-fails"])
def test_p26_a_local_opencode_that_fails_loses_nothing(world: World, fault: str) -> None:
    session = one_way_and_ended(world, "!todo one;two\n!say done")
    world.laptop.set(STUB_FAULT=fault)
    ran = world.cli("collect", "kumo", "--json")
    assert ran.exit_code in (9, 12)
    assert "the result is safe on pi; try again with `remote-dispatch collect kumo`" in ran.error["hint"]
    assert len(world.run_directories()) == 1
    world.laptop.set()
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.data["state"]) == (0, "done")
    assert briefs(world.export_local(session)) == 1
    assert world.run_directories() == []


def test_p27_the_host_keeps_its_copy_until_the_read_back_is_proved(world: World) -> None:
    session = one_way_and_ended(world)
    world.laptop.set(STUB_FAULT="import-partial")
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (12, "integrity")
    [directory] = world.run_directories()
    assert (directory / "back.json.gz").exists()
    world.laptop.set()
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.data["collected"]) == (0, "whole")
    assert said(world.export_local(session))[-1] == ("assistant", "done")
    assert world.run_directories() == []


def test_p27_a_damaged_back_file_is_refused_and_nothing_is_changed(world: World) -> None:
    one_way_and_ended(world)
    before = world.laptop.content()
    [directory] = world.run_directories()
    whole = (directory / "back.json.gz").read_bytes()
    (directory / "back.json.gz").write_bytes(whole[:-20])
    ran = world.cli("collect", "kumo", "--json")
    assert (ran.exit_code, ran.error["kind"]) == (12, "integrity")
    assert world.laptop.content() == before
    (directory / "back.json.gz").write_bytes(whole)
    assert world.cli("collect", "kumo", "--json").exit_code == 0


@contextmanager
def recording_server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server that answers as `prompt_async` does, and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            directory = self.headers["x-opencode-directory"]
            asked.append({"path": self.path, "directory": directory, "body": json.loads(body)})
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_port}", asked
        server.shutdown()
        thread.join(10)


def test_p28_a_local_server_is_told_that_it_is_home(world: World) -> None:
    session = world.local_session(agent="plan", model={"id": "model", "providerID": "test"})
    with recording_server() as (url, asked):
        ran = world.round_trip("!say done", "--session", session, "--server", url)
    assert ran.exit_code == 0
    [request] = asked
    assert request["path"] == f"/session/{session}/prompt_async"
    assert request["directory"] == quote(str(world.laptop.project))
    assert request["body"]["model"] == {"providerID": "test", "modelID": "model"}
    assert "home from `pi`" in request["body"]["parts"][0]["text"]


def test_p28_a_server_that_does_not_hear_us_is_a_warning(world: World) -> None:
    session = world.local_session()
    url = f"http://localhost:{free_port()}"
    ran = world.round_trip("!say done", "--session", session, variables={"REMOTE_DISPATCH_SERVER": url})
    assert (ran.exit_code, ran.data["state"]) == (3, "done")
    assert "the result is home, but the local server could not be told" in ran.data["warnings"][0]
    assert url not in ran.stdout + ran.stderr
    assert said(world.export_local(session))[-1] == ("assistant", "done")


def test_a_result_of_another_session_is_refused(world: World) -> None:
    session = one_way_and_ended(world)
    [directory] = world.run_directories()
    outcome = json.loads((directory / "outcome.json").read_text())
    (directory / "outcome.json").write_text(json.dumps(outcome | {"dispatch": "20200101-000000-aaaaaaaa"}))
    ran = world.cli("collect", "kumo", "--json")
    assert ran.exit_code == 12
    assert len(said(world.export_local(session))) == 2


def test_two_collects_at_once_bring_everything_home_once(world: World) -> None:
    session = one_way_and_ended(world)
    both = [world.start("collect", "kumo", "--json") for _ in range(2)]
    endings = [one.finish().exit_code for one in both]
    assert 0 in endings
    assert briefs(world.export_local(session)) == 1
    assert len(said(world.export_local(session))) == 4
    assert world.cli("show", "kumo", "--json").data["collected"] == "whole"
