"""Telling a running OpenCode server that a session came home, against a tiny real HTTP server."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from remote_dispatch.errors import CommandError
from remote_dispatch.model import Origin
from remote_dispatch.opencode.server import Server, prompt, server_from
from tests.rig.sshd import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

SESSION = "ses_07f1b2c3d4e5AbCdEfGhIjKlMn"
PASSWORD = "very-secret-word"
ORIGIN = Origin(agent="build", model="provider/a/b", directory="/home/ada/x")


@dataclass
class Desk:
    """What the server heard, and what it answers."""

    url: str = ""
    status: int = 204
    heard: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            desk.heard.append({"path": self.path, "headers": dict(self.headers.items()), "body": json.loads(body)})
            self.send_response(desk.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's word
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        desk.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield desk
        server.shutdown()
        thread.join(10)


async def test_the_server_is_asked_for_a_turn_with_the_sessions_own_agent_and_model(desk: Desk) -> None:
    await prompt(Server(desk.url, "opencode", None), SESSION, Path("/home/ada/my dir é"), "it is home", ORIGIN)
    [heard] = desk.heard
    assert heard["path"] == f"/session/{SESSION}/prompt_async"
    assert heard["body"] == {
        "parts": [{"type": "text", "text": "it is home"}],
        "agent": "build",
        "model": {"providerID": "provider", "modelID": "a/b"},
    }
    headers = {name.lower(): value for name, value in heard["headers"].items()}
    assert headers["x-opencode-directory"] == "/home/ada/my%20dir%20%C3%A9"
    assert "authorization" not in headers


async def test_what_the_session_did_not_name_is_left_to_the_server(desk: Desk) -> None:
    await prompt(Server(desk.url, "opencode", None), SESSION, Path("/x"), "home", Origin(directory="/x"))
    assert desk.heard[0]["body"].keys() == {"parts"}


async def test_a_password_logs_in(desk: Desk) -> None:
    await prompt(Server(desk.url, "ada", PASSWORD), SESSION, Path("/x"), "home", ORIGIN)
    assert desk.heard[0]["headers"]["Authorization"] == "Basic " + base64.b64encode(b"ada:very-secret-word").decode()


@pytest.mark.parametrize("status", [200, 302, 401, 404, 500])
async def test_anything_but_no_content_is_an_error(desk: Desk, status: int) -> None:
    desk.status = status
    with pytest.raises(CommandError, match=f"HTTP status {status}") as caught:
        await prompt(Server(desk.url, "ada", PASSWORD), SESSION, Path("/x"), "home", ORIGIN)
    _assert_no_secret(caught.value, desk.url)


async def test_a_server_that_is_not_there_is_an_error_without_its_address() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(CommandError, match="ConnectError") as caught:
        await prompt(Server(url, "ada", PASSWORD), SESSION, Path("/x"), "home", ORIGIN)
    _assert_no_secret(caught.value, url)


@pytest.mark.parametrize("url", ["nonsense", "ftp://box.lan", "http://[::1", "http://box.lan:99999", "http://\x00", ""])
async def test_an_address_that_is_none_is_an_error_without_it(url: str) -> None:
    with pytest.raises(CommandError) as caught:
        await prompt(Server(url, "ada", PASSWORD), SESSION, Path("/x"), "home", ORIGIN)
    _assert_no_secret(caught.value, "box.lan")


def test_neither_address_nor_password_are_in_a_repr() -> None:
    assert repr([Server("http://10.0.0.5:4096", "ada", PASSWORD)]) == "[Server(...)]"


def test_the_server_comes_from_the_option_or_the_environment() -> None:
    assert server_from({}, None) is None
    environment = {"REMOTE_DISPATCH_SERVER": "http://a:1/", "OPENCODE_SERVER_PASSWORD": PASSWORD}
    assert server_from(environment, None) == Server("http://a:1", "opencode", PASSWORD)
    assert server_from({**environment, "OPENCODE_SERVER_USERNAME": "ada"}, "http://b:2") == Server(
        "http://b:2", "ada", PASSWORD
    )


def _assert_no_secret(error: CommandError, url: str) -> None:
    shown = f"{error} {error!r} {error.output} {error.hint}"
    for secret in (PASSWORD, url, url.removeprefix("http://"), "127.0.0.1"):
        assert secret not in shown
