"""Requests of real sessions on the real server: found, shown as they are, and answered once."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest

from remote_dispatch.errors import ConnectionLostError, DivergedError, UsageError
from remote_dispatch.opencode.api import Api
from remote_dispatch.opencode.served import Option, PermissionRequest, Question, QuestionRequest, read_session
from remote_dispatch.sessions.requests import (
    Answers,
    Decision,
    Waiting,
    open_requests,
    pick,
    reply,
    short_ids,
    understand,
)
from tests.rig.tiny import Reply as TinyReply
from tests.rig.tiny import TinyServer, of_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from remote_dispatch.opencode.served import Request, Served
    from tests.rig.served import Bench
    from tests.rig.tiny import Heard

Found = TypeVar("Found")

PATIENCE_S = 30
SESSION_ID = "ses_07f1b2c3d4e5AbCdEfGhIjKlMn"


def rule(permission: str, action: str = "ask") -> dict[str, str]:
    return {"permission": permission, "pattern": "*", "action": action}


@dataclass
class Turn:
    """A session whose turn runs on the real server."""

    api: Api
    session: Served

    async def waiting(self, count: int = 1) -> tuple[Waiting, ...]:
        """Wait until so many requests are open."""

        async def look() -> tuple[Waiting, ...] | None:
            found = await open_requests(self.api, self.session.id, self.session.directory)
            return found if len(found) == count else None

        return await until(look, f"not {count} requests")

    async def answer(self, waiting: Waiting, word: str, message: str | None = None) -> bool:
        """Answer, and return whether the turn goes on."""
        answer = understand(waiting.request, [word], message)
        return (await reply(self.api, self.session.id, waiting, answer)).is_busy

    async def end(self) -> list[dict[str, Any]]:
        """Wait for the end, and return the tool parts."""

        async def look() -> list[dict[str, Any]] | None:
            if self.session.id in await self.api.statuses(self.session.directory):
                return None
            messages = await self.api.messages(self.session.id)
            if not messages[-1]["info"].get("time", {}).get("completed"):
                return None
            return [part for one in messages for part in one["parts"] if part["type"] == "tool"]

        return await until(look, "the turn did not end")


async def until(look: Callable[[], Awaitable[Found | None]], message: str) -> Found:
    deadline = time.monotonic() + PATIENCE_S
    while (found := await look()) is None:
        assert time.monotonic() < deadline, message
        await asyncio.sleep(0.05)
    return found


@asynccontextmanager
async def turn(bench: Bench, text: str, *rules: dict[str, str], directory: str | None = None) -> AsyncIterator[Turn]:
    """Prompt a session of these rules; it is gone afterwards."""
    async with bench.api() as api:
        session = await api.create(directory or bench.directory, permission=rules)
        try:
            await api.prompt(session.id, session.directory, {"parts": [{"type": "text", "text": text}]})
            yield Turn(api, session)
        finally:
            await api.abort(session.id)
            await api.delete(session.id)


def permission(waiting: Waiting) -> PermissionRequest:
    assert isinstance(waiting.request, PermissionRequest)
    return waiting.request


def question(waiting: Waiting) -> QuestionRequest:
    assert isinstance(waiting.request, QuestionRequest)
    return waiting.request


def error_of(part: dict[str, Any]) -> str:
    return str(part["state"].get("error", ""))


# --- permissions, on the real server


@pytest.mark.real
async def test_once_lets_one_call_pass_and_asks_again_for_the_next(served: Bench) -> None:
    async with turn(served, "!bash echo one\n!bash echo two", rule("bash")) as it:
        (first,) = await it.waiting()
        assert permission(first).metadata == {"command": "echo one"}
        assert permission(first).always == ("echo *",)
        assert not first.is_sub_agent
        replied = await reply(it.api, it.session.id, first, Decision("once"))
        (second,) = await it.waiting()
        assert replied.is_busy
        assert second.id != first.id
        await it.answer(second, "once")
        assert [part["state"]["status"] for part in await it.end()] == ["completed", "completed"]


@pytest.mark.real
async def test_always_asks_no_more_for_what_its_rules_name(served: Bench) -> None:
    async with turn(served, "!bash basename one\n!bash basename two", rule("bash")) as it:
        (first,) = await it.waiting()
        await it.answer(first, "always")
        assert [part["state"]["status"] for part in await it.end()] == ["completed", "completed"]


@pytest.mark.real
async def test_reject_ends_the_turn_and_reject_with_a_message_lets_it_go_on(served: Bench) -> None:
    async def ended() -> None:
        async with turn(served, "!bash echo one\n!say went on", rule("bash")) as it:
            (asked,) = await it.waiting()
            assert not await it.answer(asked, "reject")
            assert "rejected" in error_of((await it.end())[0])
            assert (await it.api.messages(it.session.id))[-1]["info"]["finish"] == "tool-calls"

    async def went_on() -> None:
        async with turn(served, "!bash echo one\n!say went on", rule("bash")) as it:
            (asked,) = await it.waiting()
            await it.answer(asked, "reject", "use printf instead")
            assert "use printf instead" in error_of((await it.end())[0])
            assert (await it.api.messages(it.session.id))[-1]["info"]["finish"] == "stop"

    await asyncio.gather(ended(), went_on())


@pytest.mark.real
async def test_an_edit_shows_its_diff(served: Bench) -> None:
    async with turn(served, "!write poem.txt roses\\nviolets", rule("edit")) as it:
        (asked,) = await it.waiting()
        assert permission(asked).permission == "edit"
        assert "+roses\n+violets\n" in permission(asked).metadata["diff"]
        await it.answer(asked, "once")
        await it.end()
    assert (served.server.project / "poem.txt").read_text() == "roses\nviolets\n"


@pytest.mark.real
async def test_one_call_may_ask_twice_and_the_reply_to_the_first_tells_of_the_second(served: Bench) -> None:
    outside = served.server.home.directory / "outside"
    outside.mkdir()
    async with turn(served, f"!bash touch {outside}/x", rule("bash"), rule("external_directory")) as it:
        (first,) = await it.waiting()
        assert permission(first).metadata["directories"] == [str(outside)]
        replied = await reply(it.api, it.session.id, first, Decision("once"))
        (second,) = replied.remaining
        assert permission(second).metadata == {"command": f"touch {outside}/x"}
        await it.answer(second, "once")
        await it.end()
    assert (outside / "x").exists()


# --- questions, on the real server


@pytest.mark.real
async def test_a_question_is_answered_by_the_number_of_an_option(served: Bench) -> None:
    async with turn(served, "!question Which colour?") as it:
        (asked,) = await it.waiting()
        assert question(asked).questions[0].question == "Which colour?"
        await it.answer(asked, "2")
        assert (await it.end())[0]["state"]["metadata"]["answers"] == [["no"]]


@pytest.mark.real
async def test_a_rejected_question_ends_the_turn(served: Bench) -> None:
    async with turn(served, "!question Which colour?\n!say went on") as it:
        (asked,) = await it.waiting()
        assert not await it.answer(asked, "reject")
        assert (await it.end())[0]["state"]["status"] == "error"


@pytest.mark.real
async def test_what_a_sub_agent_asks_is_found_and_answered_from_the_named_session(served: Bench) -> None:
    directory = served.server.home.directory / "asking"
    directory.mkdir()
    leave = {"agent": {"general": {"permission": {"question": "allow", "bash": "ask"}}}}
    (directory / "opencode.json").write_text(json.dumps(leave))
    text = "!task !question Which colour?\\n!bash echo inside\n!say the end"
    async with turn(served, text, directory=str(directory)) as it:
        (asked,) = await it.waiting()
        assert asked.is_sub_agent
        assert asked.request.session_id != it.session.id
        assert "scripted task" in asked.title
        replied = await reply(it.api, it.session.id, asked, Answers((("a colour of my own",),)))
        assert replied.is_busy
        (then,) = await it.waiting()
        assert permission(then).metadata == {"command": "echo inside"}
        await it.answer(then, "once")
        await it.end()
        (child,) = await it.api.children(it.session.id)
        parts = [part for one in await it.api.messages(child.id) for part in one["parts"] if part["type"] == "tool"]
        assert parts[0]["state"]["metadata"]["answers"] == [["a colour of my own"]]


# --- exactly once


@pytest.mark.real
async def test_of_two_answers_at_once_one_is_heard(served: Bench) -> None:
    async with turn(served, "!bash echo one", rule("bash")) as it:
        (asked,) = await it.waiting()
        outcomes = await asyncio.gather(
            *(reply(it.api, it.session.id, asked, Decision("once")) for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(one).__name__ for one in outcomes) == ["DivergedError", "Replied"]
        with pytest.raises(DivergedError, match="nothing was changed"):
            await reply(it.api, it.session.id, asked, Decision("once"))
        assert len(await it.end()) == 1


@pytest.mark.real
async def test_what_an_abort_left_behind_is_stale_even_while_the_next_turn_works(served: Bench) -> None:
    async with turn(served, "!bash echo one", rule("bash")) as it:
        (asked,) = await it.waiting()
        await it.api.abort(it.session.id)
        listed = {one.id for one in await it.api.permissions(it.session.directory)}
        assert asked.id in listed, "OpenCode forgets it now: the rule against stale requests has nothing to do any more"
        assert await open_requests(it.api, it.session.id, it.session.directory) == ()
        with pytest.raises(DivergedError):
            await reply(it.api, it.session.id, asked, Decision("once"))
        await it.api.prompt(
            it.session.id, it.session.directory, {"parts": [{"type": "text", "text": "!bash echo two"}]}
        )
        (fresh,) = await it.waiting()
        assert fresh.id != asked.id


class Frail:
    """A server whose connection breaks in the middle of its answer to a reply, which it has taken, or lost."""

    def __init__(self, *, takes: bool) -> None:
        self.takes = takes
        self.is_open = True
        self.replies = 0

    def __call__(self, heard: Heard) -> TinyReply:
        if heard.method == "POST":
            self.replies += 1
            self.is_open = not self.takes
            return of_json(True, is_cut=True)
        listed = {"id": "per_1", "sessionID": SESSION_ID, "permission": "bash"}
        path = heard.target.partition("?")[0]
        answers: dict[str, object] = {
            "/permission": [listed] if self.is_open else [],
            "/question": [],
            "/session/status": {SESSION_ID: {"type": "busy"}} if self.is_open else {},
        }
        return of_json(answers.get(path, {"id": SESSION_ID, "directory": "/srv"}))


@pytest.mark.parametrize("takes", [True, False], ids=["after it was taken", "before"])
async def test_a_connection_that_breaks_leaves_no_doubt_whether_the_request_still_waits(*, takes: bool) -> None:
    frail = Frail(takes=takes)
    async with TinyServer(frail) as server, Api("box", httpx.AsyncClient(base_url=server.url, trust_env=False)) as api:
        (asked,) = await open_requests(api, SESSION_ID, "/srv")
        if takes:
            assert not (await reply(api, SESSION_ID, asked, Decision("once"))).is_certain
        else:
            with pytest.raises(ConnectionLostError):
                await reply(api, SESSION_ID, asked, Decision("once"))
    assert frail.replies == 1


# --- words, without a server

COLOURS = Question("Which colour?", "Colour", (Option("Red"), Option("Green, dark"), Option("Blue")))
SIZES = replace(COLOURS, question="Which sizes?", is_multiple=True)


def asking(*questions: Question) -> QuestionRequest:
    return QuestionRequest("que_1", "ses_1", questions)


LEAVE = PermissionRequest("per_1", "ses_1", "bash")


@pytest.mark.parametrize(
    ("questions", "words", "answers"),
    [
        ((COLOURS,), ["3"], (("Blue",),)),
        ((COLOURS,), ["blue"], (("Blue",),)),
        ((COLOURS,), ["Green, dark"], (("Green, dark",),)),
        ((COLOURS,), ["a warm grey, please"], (("a warm grey, please",),)),
        ((SIZES,), ["1,3"], (("Red", "Blue"),)),
        ((SIZES,), ["1", "blue", "1"], (("Red", "Blue"),)),
        ((SIZES,), ["small, but not tiny"], (("small, but not tiny",),)),
        ((COLOURS, SIZES), ["1", "1,2"], (("Red",), ("Red", "Green, dark"))),
        ((Question("How many?"),), ["7"], (("7",),)),
        ((Question("How many?", "", (Option("8"), Option("16"))),), ["32"], (("32",),)),
        ((Question("How many?", "", (Option("3"), Option("1"))),), ["1"], (("1",),)),
        ((Question("And now?", "", (Option("Accept"), Option("Reject"))),), ["reject"], (("Reject",),)),
    ],
)
def test_answers_are_understood(
    questions: tuple[Question, ...], words: list[str], answers: tuple[tuple[str, ...], ...]
) -> None:
    assert understand(asking(*questions), words) == Answers(answers)


@pytest.mark.parametrize(
    ("request_", "words", "message", "fits"),
    [
        (LEAVE, ["yes"], None, "`once`, `always` or `reject`"),
        (LEAVE, [], None, "`once`, `always` or `reject`"),
        (LEAVE, ["once", "always"], None, "`once`, `always` or `reject`"),
        (LEAVE, ["once"], "because", "goes with `reject`"),
        (LEAVE, ["reject"], " ", "without `--message` a rejection ends the turn"),
        (asking(COLOURS), ["4"], None, "1 (`Red`), 2 (`Green, dark`), 3 (`Blue`), or text of your own"),
        (asking(COLOURS), [" "], None, "the answer is empty"),
        (asking(SIZES), [], None, "the answer is empty"),
        (asking(COLOURS), ["some", "words"], None, "in quotation marks"),
        (asking(COLOURS, SIZES), ["1"], None, "1 answers to 2 questions"),
        (asking(COLOURS), ["reject"], "because", "words of your own instead"),
        (asking(COLOURS), ["1"], "because", "goes with `reject`"),
        (asking(COLOURS), ["\udcff"], None, "not valid UTF-8"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(
    request_: Request, words: list[str], message: str | None, fits: str
) -> None:
    with pytest.raises(UsageError) as refused:
        understand(request_, words, message)
    assert fits in f"{refused.value.message}; {refused.value.hint}"


def test_a_rejected_question_and_a_rejected_permission_are_one_word() -> None:
    assert understand(asking(COLOURS, SIZES), ["reject"]) == understand(LEAVE, ["REJECT"]) == Decision("reject")


def test_ids_are_shown_as_short_as_they_are_clear() -> None:
    ids = ["per_001aaaaXYZW", "per_002bbbbXYZW", "que_003ccccQRST"]
    assert short_ids(ids) == {ids[0]: "aXYZW", ids[1]: "bXYZW", ids[2]: "QRST"}


def test_a_request_is_meant_by_any_clear_beginning_or_end() -> None:
    session = read_session({"id": SESSION_ID, "directory": "/d"})
    ids = ["per_001aaaaXYZW", "per_002bbbbXYZW"]
    waiting = [Waiting(replace(LEAVE, id=one), session, is_sub_agent=False) for one in ids]
    assert pick(waiting, "aXYZW") is pick(waiting, "per_001") is pick(waiting, ids[0]) is waiting[0]
    with pytest.raises(UsageError, match="several"):
        pick(waiting, "XYZW")
    with pytest.raises(DivergedError, match="nothing was changed"):
        pick(waiting, "W")
