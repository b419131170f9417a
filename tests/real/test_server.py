"""A local OpenCode server is told that the session is home, and goes on with it."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.real.conftest import answers, spoken, stored
from tests.rig.sshd import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.conftest import Machines

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

PASSWORD = "open sesame"


def test_a_local_server_runs_the_next_turn_and_one_that_refuses_us_is_a_warning(machines: Machines) -> None:
    session, other = machines.session("hello", "at home"), machines.session("hello", "at home")
    with serving(machines) as url:
        variables = {"REMOTE_DISPATCH_SERVER": url, "OPENCODE_SERVER_PASSWORD": PASSWORD}
        ran = machines.send("!say from the host", session=session, variables=variables)
        assert (ran.exit_code, ran.data["warnings"]) == (0, []), ran.stderr
        wait_until(lambda: len(answers(stored(machines.laptop, session))) == 3, "no turn was run", timeout_s=60)
        refused = machines.send("!say from the host", "--server", url, session=other)
    after = stored(machines.laptop, session)
    assert spoken(after)[-2].startswith("The conversation is home from `pi` (done)")
    last = after["messages"][-1]["info"]
    assert (last["providerID"], last["path"]["cwd"]) == ("here", str(machines.laptop.project))
    assert (refused.exit_code, refused.data["state"]) == (3, "done"), refused.stderr
    assert "HTTP status 401" in refused.data["warnings"][0]


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
