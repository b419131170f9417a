"""Which OpenCode a host has and which is newest, and the host's own upgrade: with stand-ins for OpenCode and npm."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.acp.agent import agent, new_owner
from remote_dispatch.acp.client import Client
from remote_dispatch.acp.version import Installed, Standing, installed, number_in, update
from remote_dispatch.errors import CommandError, HostNotReadyError
from remote_dispatch.model import Host
from remote_dispatch.remote.local import LocalConnection
from tests.rig.scripted import install

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from remote_dispatch.acp.agent import Agent

HOST = Host(name="pi", host="alias-of-pi")
PATIENCE_S = 30
_PROGRAM = """#!/bin/sh
case $1 in
  --version) cat "$HOME/version" ;;
  upgrade)
    printf '%s\\n' "$UPGRADE_SAYS"
    [ -z "$UPGRADES_TO" ] || echo "$UPGRADES_TO" >"$HOME/version"
    exit "${UPGRADE_ENDS:-0}" ;;
  *) exec "$HOME/agent/opencode" "$@" ;;
esac
"""


@dataclass
class Machine:
    """A home with an OpenCode that has a version and can be upgraded, an agent too, and perhaps an npm."""

    home: Path

    def has(self, version: str) -> None:
        (self.home / "version").write_text(f"{version}\n")

    def put(self, name: str, text: str) -> None:
        program = self.home / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)

    def knows(self, newest: str) -> None:
        self.put("npm", f'#!/bin/sh\n[ "$*" = "view opencode-ai version" ] && echo {newest}\n')

    def connection(self, **variables: str) -> LocalConnection:
        path = f"{self.home / 'bin'}:/usr/bin:/bin"
        return LocalConnection(environment={"HOME": str(self.home), "PATH": path, "SHELL": "/bin/sh", **variables})

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[tuple[Client, Agent]]:
        """Have an agent of ours there, with a client."""
        async with (
            agent(self.connection(), HOST, str(self.home), owner=new_owner()) as one,
            Client(one.wire, "pi") as client,
        ):
            await client.initialize()
            yield client, one


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.put("opencode", _PROGRAM)
    # Real ones of this machine would be asked otherwise.
    for tool in ("npm", "pnpm", "brew"):
        made.put(tool, "#!/bin/sh\nexit 1\n")
    made.has("1.18.33")
    install(tmp_path / "agent")
    return made


# --- looking


async def test_the_hosts_own_package_tool_names_the_newest_version(machine: Machine) -> None:
    machine.knows("1.19.0")
    found = await installed(machine.connection(), HOST)
    assert (found.version, found.newest, found.source) == ("1.18.33", "1.19.0", "npm")
    assert found.standing is Standing.BEHIND


async def test_without_a_tool_that_knows_the_newest_version_is_unknown(machine: Machine) -> None:
    found = await installed(machine.connection(), HOST)
    assert (found.newest, found.source, found.standing) == (None, None, Standing.UNKNOWN)


async def test_what_a_tool_says_beside_a_version_is_no_version(machine: Machine) -> None:
    machine.put("npm", "#!/bin/sh\necho 'npm ERR! network 10.0.0.1'\n")
    assert (await installed(machine.connection(), HOST)).newest is None


async def test_a_host_without_opencode_says_how_to_get_it(machine: Machine) -> None:
    (machine.home / "bin" / "opencode").unlink()
    with pytest.raises(HostNotReadyError, match="not found there") as caught:
        await installed(machine.connection(), HOST)
    assert "hosts setup pi" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("words", "version"),
    [("1.18.33", "1.18.33"), ("opencode v2.0.9", "2.0.9"), ("2.0.0-beta.1\n", "2.0.0-beta.1"), ("unknown", None)],
)
def test_a_version_is_found_by_its_digits(words: str, version: str | None) -> None:
    assert number_in(words) == version


@pytest.mark.parametrize(
    ("version", "newest", "standing"),
    [
        ("1.18.33", "1.18.33", Standing.CURRENT),
        ("1.18.9", "1.18.33", Standing.BEHIND),
        ("2.0.0", "1.18.33", Standing.CURRENT),
        ("2.0.0-beta.1", "2.0.0", Standing.BEHIND),
        (None, "1.18.33", Standing.UNKNOWN),
    ],
)
def test_versions_are_compared_as_numbers(version: str | None, newest: str, standing: Standing) -> None:
    assert Installed(version, newest).standing is standing


# --- upgrading


async def test_an_upgrade_is_verified_by_what_the_program_says_afterwards(machine: Machine) -> None:
    machine.knows("1.19.0")
    connection = machine.connection(UPGRADES_TO="opencode v1.19.0")
    done = await update(connection, HOST, await installed(connection, HOST))
    assert (done.before, done.after, done.ended_agents, done.is_server_restarted) == ("1.18.33", "1.19.0", 0, False)


async def test_a_failed_upgrade_says_why_and_that_nothing_changed(machine: Machine) -> None:
    connection = machine.connection(UPGRADE_SAYS="Transport error (GET https://api.example.com/x)", UPGRADE_ENDS="1")
    with pytest.raises(CommandError, match=r"Transport error.*1\.18\.33 as before") as caught:
        await update(connection, HOST, await installed(connection, HOST))
    assert "api.example.com" not in caught.value.message


async def test_an_upgrade_that_claims_success_and_changes_nothing_is_a_failure(machine: Machine) -> None:
    machine.knows("1.19.0")
    connection = machine.connection(UPGRADE_SAYS="Done")
    with pytest.raises(CommandError, match=r"1\.18\.33 as before"):
        await update(connection, HOST, await installed(connection, HOST))


async def test_an_opencode_that_the_upgrade_broke_is_told(machine: Machine) -> None:
    connection = machine.connection(UPGRADES_TO="Segmentation fault")
    with pytest.raises(CommandError, match="no longer answers"):
        await update(connection, HOST, await installed(connection, HOST))


async def test_an_idle_agent_is_ended_before_the_upgrade(machine: Machine) -> None:
    connection = machine.connection(UPGRADES_TO="1.19.0")
    async with asyncio.timeout(PATIENCE_S), machine.agent() as (client, one):
        await client.new(str(machine.home))
        done = await update(connection, HOST, await installed(connection, HOST))
        assert done.ended_agents == 1
        assert (await one.ending()).is_killed


async def test_an_agent_that_works_keeps_the_upgrade_from_beginning(machine: Machine) -> None:
    connection = machine.connection(UPGRADES_TO="1.19.0")
    async with asyncio.timeout(PATIENCE_S), machine.agent() as (client, one):
        session = await client.new(str(machine.home))
        working = asyncio.create_task(client.prompt(session.id, [{"type": "text", "text": "!hang"}]))
        while not await one.side.statuses(str(machine.home)):
            await asyncio.sleep(0.02)
        with pytest.raises(HostNotReadyError, match="works there; nothing was changed"):
            await update(connection, HOST, await installed(connection, HOST))
        assert not working.done()
        working.cancel()
    assert (machine.home / "version").read_text() == "1.18.33\n"


async def test_no_password_of_an_agent_is_shown(machine: Machine) -> None:
    async with asyncio.timeout(PATIENCE_S), machine.agent():
        (working,) = (await installed(machine.connection(), HOST)).agents
        assert working.password is not None
        assert working.password not in repr(working)
