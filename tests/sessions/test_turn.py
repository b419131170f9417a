"""Turns: sent exactly once, followed to a true end, tried again where it helps. Faults come from a server in memory."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.errors import DeadlinePassedError, DivergedError, HostNotReadyError, TurnFailedError, UsageError
from remote_dispatch.failure import Failure
from remote_dispatch.model import Model
from remote_dispatch.sessions.ask import STRICTER, Manners, Talk, ask
from remote_dispatch.sessions.happening import Happened, TextDelta, TodosChanged, ToolChanged
from remote_dispatch.sessions.prompt import FILE_LIMIT_BYTES, Prompt, Sent, attach, body_of, new_id
from remote_dispatch.sessions.stuck import check_progress, learned, place_of
from remote_dispatch.sessions.turn import check, follow, send
from remote_dispatch.sessions.values import NamedSession, Phase
from tests.rig.fake_server import DIRECTORY, SESSION, FakeServer

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.opencode.api import Api
    from remote_dispatch.sessions.happening import Update
    from tests.rig.served import Bench

PATIENT = Manners(retries=0)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def named_as(session_id: str, directory: str, **fields: Any) -> NamedSession:
    return NamedSession(name="kumo", host="box", session_id=session_id, directory=directory, created=NOW, **fields)


@dataclass
class Heard(Talk):
    """Remembers what was told."""

    prompts: list[str] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    retries: list[Failure] = field(default_factory=list)

    def sent(self, named: NamedSession, sent: Sent) -> None:
        self.prompts.append(sent.prompt.text)

    def update(self, update: Update) -> None:
        self.updates.append(update)

    def again(self, failure: Failure, delay_s: float) -> None:
        self.retries.append(failure)

    def told(self, kind: type[Any]) -> list[Any]:
        return [one.what for one in self.updates if isinstance(one, Happened) and isinstance(one.what, kind)]


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


async def a_session(api: Api, served: Bench, **fields: Any) -> NamedSession:
    made = await api.create(served.directory, **fields)
    return named_as(made.id, served.directory)


# --- in memory


def answering(server: FakeServer, text: str = "an answer") -> None:
    def begin(_: str) -> None:
        server.busy()
        server.answering(message_id=new_id("msg"))
        server.answered(text)
        server.idle()

    server.on_prompt = begin


async def test_a_prompt_whose_answer_is_lost_is_found_there_and_not_sent_again() -> None:
    server = FakeServer(lost_answers=1)
    answering(server)
    async with asyncio.timeout(20), server.api() as api:
        taken = await ask(api, named_as(SESSION, DIRECTORY), Prompt("do it"), PATIENT, Heard())
    assert len(server.posts) == 1
    assert taken.standing.end is not None
    assert taken.standing.end.answer == "an answer"


async def test_a_prompt_that_is_lost_twice_is_sent_three_times_with_the_same_ids_and_runs_once() -> None:
    server = FakeServer(lost_posts=2)
    answering(server)
    async with asyncio.timeout(20), server.api() as api:
        taken = await ask(api, named_as(SESSION, DIRECTORY), Prompt("do it"), PATIENT, Heard())
    assert len(server.posts) == 3
    assert server.posts[0] == server.posts[1] == server.posts[2]
    assert [one["info"]["role"] for one in server.messages[SESSION]] == ["user", "assistant"]
    assert taken.standing.end is not None
    assert taken.standing.end.answer == "an answer"


async def test_the_same_failure_twice_ends_the_tries_and_refuses_the_third_send() -> None:
    server = FakeServer()

    def fail(_: str) -> None:
        server.answering(message_id=new_id("msg"))
        server.answered("", finish="stop")

    server.on_prompt = fail
    named, heard = named_as(SESSION, DIRECTORY), Heard()
    async with asyncio.timeout(30), server.api() as api:
        for _ in range(2):
            taken = await ask(api, named, Prompt("do it"), Manners(retries=5), heard, sleep=_at_once)
            assert taken.failure is Failure.NO_TEXT
            assert taken.attempts == 2
            named = taken.named
        with pytest.raises(TurnFailedError, match="twice with `assistant_output_missing_text_part`"):
            await ask(api, named, Prompt("do it"), PATIENT, heard)
    assert len(heard.prompts) == 4


def test_only_the_same_failure_of_the_same_prompt_is_refused_and_a_good_end_forgets_it() -> None:
    place = place_of(Prompt("do it"))
    once = learned(named_as(SESSION, DIRECTORY), place, Failure.TIMEOUT, NOW)
    check_progress(once, place)
    check_progress(learned(once, place, Failure.RATE_LIMITED, NOW), place)
    twice = learned(once, place, Failure.TIMEOUT, NOW)
    check_progress(twice, place_of(Prompt("something else")))
    check_progress(learned(twice, place, None, NOW), place)
    assert learned(once, place, Failure.ABORTED, NOW) == once
    with pytest.raises(TurnFailedError) as refused:
        check_progress(twice, place)
    assert "--force" in (refused.value.hint or "")
    assert refused.value.exit_code == 6


# --- the prompt


def test_a_text_file_is_embedded_as_plain_text_and_an_image_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print('é')")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\0")
    assert attach(str(tmp_path / "a.py")).mime == "text/plain"
    assert attach(str(tmp_path / "a.png")).mime == "image/png"


@pytest.mark.parametrize("content", [b"\0\1\2", b"\xff\xfe", b"a" * (FILE_LIMIT_BYTES + 1)], ids=["nul", "odd", "big"])
def test_a_file_that_no_model_can_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(UsageError):
        attach(str(tmp_path / "a.bin"))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        attach(str(tmp_path / "nothing"))


def test_the_parts_of_a_prompt_have_ids_in_their_order_and_a_file_of_the_server_an_absolute_path() -> None:
    body = body_of(Prompt("look", files=(attach("remote:src/a b.py"), attach("remote:/etc/hosts"))), "msg_1", "/w")
    assert [one["id"] for one in body["parts"]] == sorted(one["id"] for one in body["parts"])
    assert [one.get("url") for one in body["parts"]] == [None, "file:///w/src/a%20b.py", "file:///etc/hosts"]
    assert set(body) == {"messageID", "parts"}


# --- the real server


@pytest.mark.real
async def test_three_posts_of_one_body_are_one_message_and_one_call(served: Bench) -> None:
    """What the server in memory does, the real one does."""
    async with served.api() as api:
        named = await a_session(api, served)
        body = body_of(Prompt("!say once"), message_id := new_id("msg"), served.directory)
        for _ in range(3):
            await api.prompt(named.session_id, served.directory, body)
        sent = Sent(message_id, Prompt("!say once"), time.monotonic())
        standing, _ = await follow(api, named.session_id, served.directory, sent)
        assert standing.phase is Phase.ENDED
        messages = [one["info"] for one in await api.messages(named.session_id)]
        assert [one["role"] for one in messages] == ["user", "assistant"]
        assert messages[0]["id"] == message_id
        assert sum(one.session_id == named.session_id for one in served.model.calls) == 1


@pytest.mark.real
async def test_a_turn_with_todos_and_tools_is_told_and_its_whole_answer_returned(served: Bench) -> None:
    heard = Heard()
    async with served.api() as api:
        named = await a_session(api, served)
        taken = await ask(api, named, Prompt("!todo a;b\n!bash sleep 0.5; echo hi\n!say the end"), PATIENT, heard)
    assert taken.failure is None
    assert taken.standing.end is not None
    assert taken.standing.end.answer == "the end"
    assert "".join(one.text for one in heard.told(TextDelta)) == "the end"
    assert [len(one.todos) for one in heard.told(TodosChanged)] == [2]
    # What changes twice before it is read, as on a loaded machine, is told once.
    assert [one.status for one in heard.told(ToolChanged) if one.tool == "bash"][-2:] == ["running", "completed"]
    assert taken.named.message_id == taken.sent.message_id
    assert taken.named.works_on.startswith("!todo")


@pytest.mark.real
async def test_a_busy_session_is_refused_or_aborted_first(served: Bench) -> None:
    async with served.api() as api:
        named = await a_session(api, served)
        await send(api, named, Prompt("!hang"))
        with pytest.raises(DivergedError) as refused:
            await send(api, named, Prompt("!say second"))
        assert "--abort-first" in (refused.value.hint or "")
        with pytest.raises(DeadlinePassedError):
            await follow(api, named.session_id, named.directory, None, timeout_s=0.2)
        taken = await ask(api, named, Prompt("!say second"), Manners(abort_first=True, retries=0), Heard())
        assert taken.standing.end is not None
        assert taken.standing.end.answer == "second"


@pytest.mark.real
async def test_a_turn_without_a_sign_of_life_is_aborted_and_says_so(served: Bench) -> None:
    async with served.api() as api:
        named = await a_session(api, served)
        taken = await ask(api, named, Prompt("!hang"), Manners(idle_timeout_s=0.5, retries=0), Heard())
        assert named.session_id not in await api.statuses(served.directory)
    assert taken.failure is Failure.TIMEOUT
    assert "no sign of life" in (taken.standing.end.detail or "" if taken.standing.end else "")


@pytest.mark.real
async def test_a_running_tool_is_no_silence(served: Bench) -> None:
    async with served.api() as api:
        named = await a_session(api, served)
        await ask(api, named, Prompt("!say warm"), PATIENT, Heard())
        prompt = Prompt("!bash sleep 18\n!say slept")
        taken = await ask(api, named, prompt, Manners(idle_timeout_s=15, retries=0), Heard())
    assert taken.failure is None


@pytest.mark.real
async def test_an_answer_that_is_not_json_is_asked_for_once_more_and_more_strictly(served: Bench) -> None:
    heard = Heard()
    async with served.api() as api:
        named = await a_session(api, served)
        taken = await ask(api, named, Prompt("!say no json"), Manners(expects_json=True), heard)
        assert taken.failure is Failure.NOT_JSON
        assert heard.prompts == ["!say no json", STRICTER]
        value = {"a": [1, None]}
        taken = await ask(api, named, Prompt(f"!say {json.dumps(value)}"), Manners(expects_json=True), heard)
    assert taken.failure is None
    assert taken.value == value
    assert taken.named.troubles == ()


@pytest.mark.real
async def test_the_sessions_last_agent_goes_on_unless_another_one_is_named(served: Bench) -> None:
    async with served.api() as api:
        named = await a_session(api, served, agent="plan")
        for prompt, agent in ((Prompt("!say a"), "plan"), (Prompt("!say b", agent="build"), "build")):
            await ask(api, named, prompt, PATIENT, Heard())
            assert (await api.session(named.session_id)).agent == agent
            last = (await api.messages(named.session_id))[-1]["info"]
            assert last["agent"] == agent


@pytest.mark.real
async def test_names_that_the_server_does_not_offer_are_refused_beforehand(served: Bench) -> None:
    async with served.api() as api:
        for prompt in (
            Prompt("x", agent="nobody"),
            Prompt("x", model=Model("scripted", "huge")),
            Prompt("x", model=Model("scripted", "large"), variant="odd"),
        ):
            with pytest.raises(HostNotReadyError) as refused:
                await check(api, served.directory, prompt)
            assert refused.value.hint


@pytest.mark.real
async def test_attached_files_reach_the_model_as_text(served: Bench, tmp_path: Path) -> None:
    (tmp_path / "note.md").write_text("the secret word is plum")
    async with served.api() as api:
        named = await a_session(api, served)
        await ask(api, named, Prompt("!say read", files=(attach(str(tmp_path / "note.md")),)), PATIENT, Heard())
    calls = [one for one in served.model.calls if one.session_id == named.session_id]
    assert "the secret word is plum" in json.dumps(calls[-1].messages)


@pytest.mark.real
async def test_a_request_that_nobody_answers_ends_the_waiting_and_not_the_turn(served: Bench) -> None:
    async with served.api() as api:
        rules = [{"permission": "bash", "pattern": "*", "action": "ask"}]
        named = await a_session(api, served, permission=rules)
        taken = await ask(api, named, Prompt("!bash echo hi\n!say done"), PATIENT, Heard())
        assert taken.failure is Failure.PENDING_PERMISSION
        assert taken.standing.phase is Phase.WAITING
        assert named.session_id in await api.statuses(served.directory)
        await api.reply_permission(taken.standing.requests[0].id, served.directory, "once")
        standing, _ = await follow(api, named.session_id, served.directory, taken.sent)
    assert standing.end is not None
    assert standing.end.answer == "done"
