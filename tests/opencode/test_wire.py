"""HTTP through byte streams, against a tiny real server: what httpx promises holds, and nothing is left open."""

from __future__ import annotations

import asyncio
import gzip
import logging
from typing import TYPE_CHECKING

import httpx
import pytest

from remote_dispatch.errors import AuthenticationError, ConnectionLostError, HostUnreachableError, IntegrityError
from remote_dispatch.opencode.api import Api, NoSuchSessionError, RefusedError
from remote_dispatch.opencode.wire import BEHIND_A_STREAM, Access, Login, api_through, client
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.remote.stream import NothingListensError
from tests.rig.sshd import free_port
from tests.rig.tiny import HEALTH, Heard, Reply, TinyServer, of_json

if TYPE_CHECKING:
    from remote_dispatch.remote.stream import ByteStream

PASSWORD = "very-secret-word"
SESSION = "ses_07f1b2c3d4e5AbCdEfGhIjKlMn"


def healthy(heard: Heard) -> Reply:
    return of_json(HEALTH)


def through(server: TinyServer) -> Api:
    return api_through(LocalConnection(), "box", server.port, PASSWORD)


def http(server: TinyServer) -> httpx.AsyncClient:
    return client(BEHIND_A_STREAM, None, dial=lambda: LocalConnection().stream(server.port))


async def test_requests_go_through_one_stream_one_after_another_and_closing_leaves_none() -> None:
    async with TinyServer(healthy) as server:
        async with through(server) as api:
            assert [(await api.health()).version for _ in range(3)] == ["1.18.33"] * 3
            assert (server.connections, server.is_open) == (1, 1)
            assert server.heard[0].headers["authorization"].startswith("Basic ")
        await server.until(lambda: server.is_open == 0)


async def test_forty_requests_at_once_are_all_answered() -> None:
    async with TinyServer(lambda heard: of_json({"home": heard.headers["x-n"]})) as server, http(server) as web:
        answers = await asyncio.gather(*(web.get("/path", headers={"x-n": str(n)}) for n in range(40)))
        assert [one.json()["home"] for one in answers] == [str(n) for n in range(40)]


async def test_a_stream_that_the_other_end_closed_while_idle_is_not_used_again() -> None:
    async with TinyServer(lambda _: of_json(HEALTH, is_last=True)) as server, through(server) as api:
        await api.health()
        await server.until(lambda: server.is_open == 0)
        await api.prompt(SESSION, "/x", {})
        assert (server.connections, len(server.heard)) == (2, 2)


async def test_a_cancelled_request_closes_its_stream() -> None:
    async with TinyServer(lambda _: None) as server, http(server) as web:
        asking = asyncio.create_task(web.get("/session"))
        await server.until(lambda: bool(server.heard))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await server.until(lambda: server.is_open == 0)


async def test_a_body_that_is_not_read_to_its_end_closes_its_stream() -> None:
    async with TinyServer(lambda _: Reply(bytes(1_000_000))) as server, http(server) as web:
        async with web.stream("GET", "/session") as answer:
            assert await anext(answer.aiter_raw())
        await server.until(lambda: server.is_open == 0)


async def test_reading_has_a_time_limit() -> None:
    async with TinyServer(lambda _: None) as server, http(server) as web:
        with pytest.raises(httpx.ReadTimeout):
            await web.get("/session", timeout=httpx.Timeout(30, read=0.05))
        await server.until(lambda: server.is_open == 0)


async def test_dialling_has_a_time_limit_and_our_own_errors_pass() -> None:
    async def slow() -> ByteStream:
        await asyncio.Event().wait()
        raise AssertionError

    async with client(BEHIND_A_STREAM, None, dial=slow) as web:
        with pytest.raises(httpx.ConnectTimeout):
            await web.get("/session", timeout=httpx.Timeout(30, connect=0.05))
    async with api_through(LocalConnection(), "box", free_port(), PASSWORD) as api:
        with pytest.raises(NothingListensError):
            await api.health()


async def test_what_only_reads_is_asked_again_after_a_break_and_what_changes_something_is_not() -> None:
    async with (
        TinyServer(lambda heard: of_json(HEALTH, is_cut=len(server.heard) < 2)) as server,
        through(server) as api,
    ):
        await api.health()
        assert len(server.heard) == 2
    async with TinyServer(lambda heard: Reply(b"{}", is_cut=True)) as server, through(server) as api:
        with pytest.raises(ConnectionLostError, match="broke"):
            await api.prompt(SESSION, "/x", {})
        assert len(server.heard) == 1


async def test_text_with_half_a_surrogate_pair_can_be_sent() -> None:
    async with TinyServer(lambda _: Reply(status=204)) as server, through(server) as api:
        await api.prompt(SESSION, "/x", {"text": "\ud800"})
        assert server.heard[0].body == b'{"text": "\\ud800"}'


async def test_a_packed_answer_is_unpacked_and_an_endless_one_is_refused() -> None:
    packed = gzip.compress(b'"' + b"x" * 3_000_000 + b'"')
    reply = Reply(packed, headers={"Content-Encoding": "gzip"})
    async with TinyServer(lambda _: reply) as server:
        async with through(server) as api:
            assert await api.messages(SESSION) == []
        async with Api("box", http(server), limit_bytes=1_000_000) as api:
            with pytest.raises(IntegrityError, match="more than 1000000 bytes"):
                await api.messages(SESSION)


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(b"<html>", kind="text/html"), RefusedError, "not an OpenCode server"),
        (of_json({"ok": True}), RefusedError, "not an OpenCode server"),
        (Reply(), RefusedError, "not an OpenCode server"),
        (Reply(b"{"), RefusedError, "not JSON"),
        (Reply(b"[" * 100_000), RefusedError, "not JSON"),
        (Reply(status=302, headers={"Location": "http://10.0.0.5/"}), RefusedError, "not followed"),
        (Reply(status=401), AuthenticationError, "does not accept the login"),
        (of_json({"message": "no \x1b[31mway to 10.0.0.5:80"}, status=500), RefusedError, "no way to <address>"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_without_addresses(
    reply: Reply, kind: type[Exception], words: str
) -> None:
    async with TinyServer(lambda _: reply) as server, through(server) as api:
        with pytest.raises(kind, match=words) as caught:
            await api.health()
        for secret in (PASSWORD, "10.0.0.5", "127.0.0.1", str(server.port)):
            assert secret not in f"{caught.value} {caught.value!r}"


async def test_a_stream_of_events_that_is_none_is_an_error() -> None:
    async with TinyServer(lambda _: Reply(b"<html>", kind="text/html")) as server, through(server) as api:
        with pytest.raises(RefusedError, match="not an OpenCode server"):
            await anext(api.events())


async def test_a_session_that_is_not_there_is_told_apart() -> None:
    missing = of_json({"name": "NotFoundError", "data": {"message": "Session not found"}}, status=404)
    async with TinyServer(lambda _: missing) as server, through(server) as api:
        with pytest.raises(NoSuchSessionError):
            await api.session(SESSION)


async def test_a_refused_login_is_asked_for_once_more_and_used_when_it_is_another_one() -> None:
    logins = {"old": Login("opencode", "old"), "new": Login("opencode", "new")}

    async def login() -> Login:
        return logins["old"]

    async def renewed(refused: Login | None) -> Login:
        assert refused == logins["old"]
        return logins["new"]

    def answer(heard: Heard) -> Reply:
        return Reply(status=401) if len(server.heard) == 1 else Reply(status=204)

    async with TinyServer(answer) as server:
        stream = LocalConnection().stream
        async with Api("box", client(BEHIND_A_STREAM, Access(login, renewed), dial=lambda: stream(server.port))) as api:
            await api.prompt(SESSION, "/x", {"text": "hello"})
        assert [one.headers["authorization"] for one in server.heard] == [
            "Basic b3BlbmNvZGU6b2xk",
            "Basic b3BlbmNvZGU6bmV3",
        ]
        assert server.heard[1].body == b'{"text": "hello"}'


async def test_another_version_is_remarked_and_works() -> None:
    async with TinyServer(lambda _: of_json(HEALTH | {"version": "2.0.1"})) as server, through(server) as api:
        assert (await api.health()).version == "2.0.1"
        assert api.remarks == ("box runs OpenCode 2.0.1; 1.18.x is what is known to work",)
    async with TinyServer(healthy) as server, through(server) as api:
        await api.health()
        assert api.remarks == ()


async def test_an_open_way_over_the_network_is_remarked_without_its_address() -> None:
    async with Api("box", client("http://box.example:4096", None)) as api:
        assert api.remarks == ("box: the password and all that is said travel unencrypted; use https, or SSH",)
    async with Api("box", client("https://box.example", None)) as api:
        assert api.remarks == ()


async def test_nothing_is_logged_and_no_repr_shows_a_login(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with TinyServer(healthy) as server, through(server) as api:
        await api.health()
    assert not [one for one in caplog.records if one.name.startswith("http")]
    assert repr([Login("ada", PASSWORD), api]) == "[Login(), Api('box')]"


async def test_a_url_where_nobody_answers_is_unreachable() -> None:
    async with Api("box", client(f"http://127.0.0.1:{free_port()}", None)) as api:
        with pytest.raises(HostUnreachableError, match="does not answer"):
            await api.health()
