"""Every failure, provoked on the real OpenCode and judged by readings alone."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.demo.provider import ScriptedModel
from remote_dispatch.failure import Failure
from remote_dispatch.sessions.gate import Gate
from remote_dispatch.sessions.reading import read
from remote_dispatch.sessions.values import Phase
from tests.rig.served import Server
from tests.rig.sshd import free_port
from tests.sessions import play
from tests.sessions.play import ASK, QUICKLY, Played, Row

if TYPE_CHECKING:
    from pathlib import Path

    from remote_dispatch.opencode.api import Api
    from tests.rig.served import Bench

pytestmark = pytest.mark.real

UNAVAILABLE, LIMITED = Failure.PROVIDER_UNAVAILABLE, Failure.RATE_LIMITED
MESSAGE = "msg_ffffffffffff0123456789abcd"

REFUSED = {
    "401": Row("!fail 401", Failure.AUTH_FAILED),
    "403": Row("!fail 403", Failure.AUTH_FAILED),
    "400": Row("!fail 400", UNAVAILABLE),
    "402": Row("!fail 402", LIMITED),
    "404": Row("!fail 404", UNAVAILABLE),
    "429": Row("!fail 429\n!error rate_limit Rate limit reached" + QUICKLY, LIMITED, LIMITED),
    "429 in odd words": Row("!fail 429" + QUICKLY, LIMITED, UNAVAILABLE),
    "quota": Row("!fail 429\n!error insufficient_quota You exceeded your current quota" + QUICKLY, LIMITED, LIMITED),
    **{
        str(status): Row(f"!fail {status}" + QUICKLY, UNAVAILABLE, UNAVAILABLE)
        for status in (408, 409, 500, 502, 503, 529)
    },
    "500 twice": Row("!fail 500 2\n!say back again\n!retry-after-ms 300", None, UNAVAILABLE, answer="back again"),
    "429 for a day": Row("!retry-after 86400\n!error", Failure.ABORTED, act=play.abort_a_retry),
}
BROKEN = {
    "reset": Row("!reset", Failure.ABORTED, UNAVAILABLE, play.abort_a_retry),
    "cut": Row("!cut", Failure.ABORTED, UNAVAILABLE, play.abort_a_retry),
    "error in the stream": Row("!stream-error overloaded", Failure.ABORTED, UNAVAILABLE, play.abort_a_retry),
    "web page": Row("!html", UNAVAILABLE, UNAVAILABLE),
    "no finish reason": Row("!say again\n!finish none", UNAVAILABLE, UNAVAILABLE),
}
ANSWERS = {
    "good": Row("!think hm\n!say one\n!bash true\n!say two\n!say three", None, answer="two\nthree"),
    "length": Row("!say cut he\n!finish length", None, answer="cut he"),
    "content filter": Row("!say some\n!finish content_filter", Failure.CONTENT_FILTER, answer="some"),
    "empty": Row("!empty", Failure.NO_TEXT),
    "reasoning only": Row("!think hm\n!empty", Failure.NO_TEXT),
    "413": Row("!fail 413", None),
    "too long once": Row("!too-long", None),
    "too long": Row("!too-long always", Failure.CONTEXT_OVERFLOW),
    "error in a sub-agent": Row("!task !fail 401\n!say anyway", None, answer="anyway"),
}
PEOPLE = {
    "abort": Row("!bash sleep 60", Failure.ABORTED, act=play.abort_a_tool),
    "permission": Row("!bash true", Failure.REJECTED, Failure.PENDING_PERMISSION, play.reject, permission=ASK),
    "rejected with words": Row(
        "!bash true\n!say then not", None, Failure.PENDING_PERMISSION, play.reject_with_words, {}, ASK, "then not"
    ),
    "question": Row("!question", Failure.REJECTED, Failure.PENDING_QUESTION, play.reject, permission=ASK),
    "permission of a sub-agent": Row(
        "!task !read /etc/hostname\\n!say below\n!say up",
        None,
        Failure.PENDING_PERMISSION,
        play.allow_once,
        answer="up",
    ),
    "unknown model": Row("!say x", Failure.CONFIG_ERROR, body={"model": {"providerID": "scripted", "modelID": "none"}}),
    "unknown agent": Row("!say x", Failure.CONFIG_ERROR, body={"agent": "nobody", "messageID": MESSAGE}),
}


def by(provider: str) -> dict[str, Any]:
    return {"model": {"providerID": provider, "modelID": "large"}}


LIMITS = {
    "time limit": Row("!hang", Failure.TIMEOUT, body=by("brief")),
    "no headers": Row("!silence", Failure.ABORTED, Failure.TIMEOUT, play.abort_a_retry, by("headers")),
    "stalled stream": Row("!hang", Failure.ABORTED, Failure.TIMEOUT, play.abort_a_retry, by("chunks")),
    "closed port": Row("!say x", Failure.ABORTED, UNAVAILABLE, play.abort_a_retry, by("closed")),
    "no key": Row("!say x", Failure.AUTH_FAILED, body=by("keyless")),
    "question of a sub-agent": Row(
        "!task !question\\n!say below\n!say up", None, Failure.PENDING_QUESTION, play.answer_yes, answer="up"
    ),
}


class OddServer(Server):
    """A server with providers that have time limits, no key, or nobody listening."""

    def start(self) -> None:
        path = self.home.configuration / "opencode.json"
        configuration = json.loads(path.read_text())
        scripted = configuration["provider"]["scripted"]
        options: dict[str, dict[str, Any]] = {
            "brief": {"timeout": 1500},
            "headers": {"headerTimeout": 1500},
            "chunks": {"chunkTimeout": 1500},
            "closed": {"baseURL": f"http://127.0.0.1:{free_port()}/v1"},
        }
        for name, odd in options.items():
            configuration["provider"][name] = {**scripted, "options": {**scripted["options"], **odd}}
        keyless: dict[str, Any] = {"npm": "@ai-sdk/anthropic", "options": {"baseURL": scripted["options"]["baseURL"]}}
        configuration["provider"]["keyless"] = {**scripted, **keyless}
        configuration["enabled_providers"] = list(configuration["provider"])
        configuration["agent"] = {"general": {"permission": {"question": "allow"}}}
        path.write_text(json.dumps(configuration))
        super().start()


async def play_all(api: Api, directory: str, rows: dict[str, Row]) -> dict[str, Played]:
    """Play all at the same time. Retries that last a moment are seen in the events; readings may miss them."""
    async with play.retries_heard(api) as heard:
        played = await asyncio.gather(*(play.play(api, directory, row) for row in rows.values()))
    for one in played:
        one.on_the_way |= heard[one.readings[-1].session.id]
    return dict(zip(rows, played, strict=True))


def check(rows: dict[str, Row], results: dict[str, Played]) -> None:
    ends = {name: one.end for name, one in results.items() if one.end}
    assert {name: end.failure for name, end in ends.items()} == {name: row.end for name, row in rows.items()}
    missed = {name for name, row in rows.items() if row.on_the_way and row.on_the_way not in results[name].on_the_way}
    assert missed == set()
    told = {name: row.answer for name, row in rows.items() if row.answer is not None}
    assert {name: ends[name].answer for name in told} == told


async def test_every_accident_and_every_refusal_is_told_apart(served: Bench) -> None:
    rows = {**REFUSED, **BROKEN, **ANSWERS, **PEOPLE}
    async with served.api() as api:
        check(rows, await play_all(api, served.directory, rows))


async def test_limits_of_time_missing_keys_and_a_killed_server_are_told_apart(
    tmp_path: Path, real_opencode: Path
) -> None:
    with ScriptedModel() as model, OddServer(tmp_path, real_opencode, model.url) as server:
        async with server.api() as api:
            check(LIMITS, await play_all(api, str(server.project), LIMITS))
            made = await api.create(str(server.project))
            await api.prompt(made.id, made.directory, {"parts": [{"type": "text", "text": "!say hello\n!hang"}]})
            gate, deadline = Gate(), time.monotonic() + 20
            while not (standing := gate.judge(await read(api, made.id, made.directory))).status:
                assert time.monotonic() < deadline, standing
            await play.answer_begins(api, made.id)
        server.stop(signal.SIGKILL)
        server.start()
        async with server.api() as api:
            standing = gate.judge(await read(api, made.id, made.directory))
            assert standing.phase is Phase.ENDING
            killed = await play.follow(api, made, Row("killed", Failure.INTERRUPTED), gate)
    assert killed.end
    assert killed.end.failure is Failure.INTERRUPTED


@pytest.mark.slow
async def test_what_is_tried_six_times_ends_as_what_it_was_while_it_was_tried(
    tmp_path: Path, real_opencode: Path
) -> None:
    whole = {
        "reset": Row("!reset", UNAVAILABLE, UNAVAILABLE),
        "cut": Row("!cut", UNAVAILABLE, UNAVAILABLE),
        "error in the stream": Row("!stream-error overloaded", UNAVAILABLE, UNAVAILABLE),
        "closed port": Row("!say x", UNAVAILABLE, UNAVAILABLE, body=by("closed")),
        "no headers": Row("!silence", Failure.TIMEOUT, Failure.TIMEOUT, body=by("headers")),
        "stalled stream": Row("!hang", Failure.TIMEOUT, Failure.TIMEOUT, body=by("chunks")),
    }
    with ScriptedModel() as model, OddServer(tmp_path, real_opencode, model.url) as server:
        async with server.api() as api:
            check(whole, await play_all(api, str(server.project), whole))
