"""In `opencode serve`, watched in an attached TUI: agent, model and variant stay what they were."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugin.conftest import PATIENCE_S, TOOL, call_tool, in_order
from tests.real.conftest import heard
from tests.rig.sshd import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.plugin.conftest import Place, Terminals

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

MODEL = {"providerID": "here", "modelID": "small"}
CHOICE = {"agent": "plan", "model": MODEL, "variant": "high"}


@pytest.mark.slow
def test_a_server_wakes_the_conversation_with_its_own_agent_model_and_variant(
    place: Place, terminals: Terminals
) -> None:
    with serving(place) as url:
        offered = {one["id"]: one for one in ask(f"{url}/experimental/tool?provider=here&model=small")}[TOOL]
        assert "Hosts: `pi`." in offered["description"]
        assert offered["parameters"]["required"] == []

        session = ask(f"{url}/session", {})["id"]
        terminal = terminals.open(place, "attach", url, "-s", session)
        task = "!sleep 2\n!say it is forty-two"
        text = "\n".join(("Look into it.", call_tool(mode="round-trip", task=task), "!say it is on its way"))
        ask(f"{url}/session/{session}/prompt_async", {**CHOICE, "parts": [{"type": "text", "text": text}]})
        terminal.wait_for(r"status=\w+")
        screen = terminal.wait_for(r"^ +I see \d+ messages", timeout_s=2 * PATIENCE_S)
        assert in_order(
            screen, "it is on its way", "You are now on the host", "it is forty-two", "has finished", "I see"
        )

    prompts = [one["info"] for one in place.stored["messages"] if one["info"]["role"] == "user"]
    assert [one["agent"] for one in prompts] == ["plan"] * 3
    assert [one["model"] for one in prompts] == [{**MODEL, "variant": "high"}] * 3
    assert [call.model for call in place.calls] == ["small"] * 3
    assert in_order(heard(place.calls[-1]), "it is on its way", "You are now on", "it is forty-two", "has finished")


def ask(url: str, body: object = None) -> Any:
    """Ask the server; None where it has nothing to say."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.loads(answer.read() or b"null")


@contextmanager
def serving(place: Place) -> Iterator[str]:
    """Serve OpenCode in this place; return the URL."""
    laptop, port = place.machines.laptop, free_port()
    log = laptop.home / "tmp/serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [laptop.bin / "opencode", "serve", "--port", str(port), "--hostname", "127.0.0.1"],
            cwd=place.directory,
            env={**laptop.opencode.environment, "PWD": str(place.directory)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: b"listening on" in log.read_bytes(), "the server did not start", timeout_s=PATIENCE_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(timeout=10)
