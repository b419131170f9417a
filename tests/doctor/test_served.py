"""What the doctor finds of a host's OpenCode server, for named sessions."""

from __future__ import annotations

from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.demo.processes import end_processes_of
from remote_dispatch.doctor.examine import examine
from remote_dispatch.doctor.finding import Check, Finding, Fix, Report, Severity
from remote_dispatch.doctor.fix import cures_of
from remote_dispatch.doctor.on_host import look_script, read
from remote_dispatch.doctor.served import _usable, judge_server
from remote_dispatch.model import Host
from remote_dispatch.remote.local import LocalConnection
from remote_dispatch.servers import on_host
from remote_dispatch.servers.on_host import Activity, Running
from remote_dispatch.servers.state import Condition, ServerState
from tests.doctor.conftest import Audience
from tests.rig.sshd import free_port
from tests.servers.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.doctor.conftest import Laptop
    from tests.rig.served import Bench

ALL = [Check.SERVER, Check.SERVER_LOGIN, Check.SERVER_MODELS, Check.SERVER_MODELS, Check.SERVER_AGENTS]
BOX = Host(name="box", host="box-lan")


@pytest.fixture
def there(tmp_path: Path) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path / "home")
    yield stand_in
    end_processes_of(stand_in.home)


@pytest.fixture
def connection(there: StandIn) -> LocalConnection:
    return LocalConnection(environment=there.variables, directory=there.home)


async def by_url(bench: Bench, password: str | None = None, **fields: object) -> list[Finding]:
    host = Host.model_validate({"name": "web", "server": bench.server.url, **fields})
    environment = {"OPENCODE_SERVER_PASSWORD": password or bench.server.password}
    return list(await judge_server(host, None, environment))


@pytest.mark.real
async def test_a_server_that_is_as_it_should_be_has_nothing_but_good_findings(served: Bench) -> None:
    findings = await by_url(served)
    assert [one.check for one in findings] == ALL
    assert {one.severity for one in findings} == {Severity.OK}
    said = " ".join(one.seen for one in findings)
    assert "1.18" in said
    assert "`scripted`" in said
    assert "`scripted/large`" in said
    assert "`build`" in said


@pytest.mark.real
async def test_a_password_that_is_refused_is_an_error_of_its_own(served: Bench) -> None:
    (finding,) = await by_url(served, "a wrong word")
    assert (finding.check, finding.severity) == (Check.SERVER_LOGIN, Severity.ERROR)
    assert finding.cure
    assert "a wrong word" not in repr(finding)


@pytest.mark.real
async def test_what_the_entry_names_and_the_server_lacks_is_a_warning_with_the_command_that_lists(
    served: Bench,
) -> None:
    found = {one.check: one for one in await by_url(served, model="scripted/none", agent="nobody")}
    for check, command in ((Check.SERVER_MODELS, "models"), (Check.SERVER_AGENTS, "agents")):
        assert found[check].severity is Severity.WARNING
        assert found[check].command == f"remote-dispatch session {command} web"


async def test_a_url_where_nothing_listens_is_an_error_without_the_address(laptop: Laptop) -> None:
    port = free_port()
    laptop.write_hosts({"web": {"server": f"http://127.0.0.1:{port}"}})
    _, report = await examine(["web"], laptop.means, Audience())
    (error,) = [one for one in report.findings if one.severity is Severity.ERROR]
    assert error.check is Check.SERVER
    assert str(port) not in repr(report)


async def test_a_web_page_is_no_server_of_opencode() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as page:
        Thread(target=page.serve_forever, daemon=True).start()
        host = Host(name="web", server=f"http://127.0.0.1:{page.server_port}")
        (finding,) = await judge_server(host, None, {})
        page.shutdown()
    assert (finding.check, finding.severity) == (Check.SERVER, Severity.ERROR)
    assert "not an OpenCode server" in finding.seen


async def test_a_server_of_ours_that_is_down_is_a_note_that_can_be_fixed(
    there: StandIn, connection: LocalConnection
) -> None:
    (finding,) = await judge_server(BOX, connection, {})
    assert (finding.check, finding.severity, finding.fix) == (Check.SERVER, Severity.NOTE, Fix.START_SERVER)
    assert finding.command == "remote-dispatch session server start box"


def test_the_fix_of_a_server_asks_before_it_starts_one() -> None:
    note = Finding(Check.SERVER, Severity.NOTE, "down", fix=Fix.START_SERVER)
    (cure,) = cures_of([Report("box", (note,))])
    assert "server" in cure.question
    assert "box" in cure.question


@pytest.mark.thorough
async def test_a_server_is_looked_for_only_where_one_was_ever_started(
    there: StandIn, connection: LocalConnection
) -> None:
    async def is_served() -> bool:
        done = await connection.run(look_script(), "/nowhere", "", "1", timeout_s=60)
        return read(done.stdout, 0)[0].is_served

    assert not await is_served()
    await on_host.stop(connection, await on_host.start(connection, BOX), None)
    assert await is_served()


@pytest.mark.parametrize(
    ("running", "installed", "severity", "words"),
    [
        ({}, "1.18.40", Severity.NOTE, "1.18.40 is there by now"),
        ({"is_loopback_only": False}, "1.18.33", Severity.WARNING, "other machines"),
    ],
)
def test_an_open_door_and_a_newer_opencode_are_told(
    running: dict[str, bool], installed: str, severity: Severity, words: str
) -> None:
    facts = Running(4096, "secret", 7, "1.18.33", "/home/me", "/home/me", datetime.now(UTC), **running)
    state = ServerState(Condition.UP, is_ours=True, running=facts, version="1.18.33", activity=Activity((), 0))
    (told,) = [one for one in _usable(BOX, state, installed) if one.severity is not Severity.OK]
    assert (told.severity, told.command) == (severity, "remote-dispatch session server restart box")
    assert words in told.seen
