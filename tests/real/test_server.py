"""A local OpenCode server is told that the session is home, even after a failure, and goes on with it.

In `make test` the real server takes what we say to it; that it is said after a dispatch, tests/main_path shows with the
stub, and `make slow` here.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.errors import CommandError
from remote_dispatch.model import Origin
from remote_dispatch.opencode.server import Server, prompt
from tests.real.conftest import answers, spoken, stored
from tests.rig.sshd import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

PASSWORD = "open sesame"


async def test_a_server_has_a_turn_in_the_session_that_came_home_and_hears_nobody_without_its_password(
    machines: Machines,
) -> None:
    session = machines.session("hello", "at home")
    before = stored(machines.laptop, session)
    origin = Origin(agent="build", model="here/large", directory=str(machines.laptop.project))
    with serving(machines) as url:
        await prompt(Server(url, "opencode", PASSWORD), session, machines.laptop.project, "It is home.", origin)
        wait_until(lambda: len(answers(stored(machines.laptop, session))) == 2, "no turn was run", timeout_s=60)
        with pytest.raises(CommandError, match="HTTP status 401"):
            await prompt(Server(url, "opencode", None), session, machines.laptop.project, "x", Origin(directory="/x"))
    after = stored(machines.laptop, session)
    assert after["messages"][:2] == before["messages"]
    said, answer = (message["info"] for message in after["messages"][2:])
    assert (said["agent"], said["model"]["providerID"], spoken(after)[-2]) == ("build", "here", "It is home.")
    assert (answer["providerID"], answer["path"]["cwd"]) == ("here", str(machines.laptop.project))


@pytest.mark.slow
async def test_a_provider_that_refuses_the_host_is_a_failure_that_comes_home_and_the_local_server_goes_on(
    machines: Machines,
) -> None:
    session = machines.session("hello", "at home")
    before = stored(machines.laptop, session)
    with serving(machines) as url:
        variables = {"REMOTE_DISPATCH_SERVER": url, "OPENCODE_SERVER_PASSWORD": PASSWORD}
        ran = machines.send("!fail 401", "--agent", "plan", session=session, variables=variables)
        assert (ran.exit_code, ran.envelope["ok"], ran.data["warnings"]) == (1, False, []), ran.stderr
        assert (ran.data["state"], ran.data["kind"], ran.data["collected"]) == ("failed", "auth_failed", "whole")
        wait_until(lambda: len(answers(stored(machines.laptop, session))) == 2, "no turn was run", timeout_s=60)
        with pytest.raises(CommandError, match="HTTP status 401"):
            await prompt(Server(url, "opencode", None), session, machines.laptop.project, "x", Origin(directory="/x"))
    after = stored(machines.laptop, session)
    assert after["messages"][:2] == before["messages"]
    brief, refused, told, answer = (message["info"] for message in after["messages"][2:])
    assert (refused["error"]["name"], refused["agent"], refused["providerID"]) == ("APIError", "plan", "there")
    assert [(one["agent"], one["model"]["providerID"]) for one in (brief, told)] == [("build", "here")] * 2
    assert spoken(after)[-2].startswith("The conversation is home from `pi` (failed)")
    assert (answer["providerID"], answer["path"]["cwd"]) == ("here", str(machines.laptop.project))


@contextmanager
def serving(machines: Machines) -> Iterator[str]:
    """Serve the laptop's OpenCode with a password; return the URL."""
    laptop, port = machines.laptop, free_port()
    environment = {
        **laptop.opencode.environment, "OPENCODE_SERVER_PASSWORD": PASSWORD, "PWD": str(laptop.project),
    }  # fmt: skip
    log = laptop.home / "tmp/serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [laptop.bin / "opencode", "serve", "--port", str(port), "--hostname", "127.0.0.1"],
            cwd=laptop.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: b"listening on" in log.read_bytes(), "the server did not start", timeout_s=60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(timeout=10)
