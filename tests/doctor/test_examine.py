"""Many hosts at the same time: each is reported as soon as it is finished, whatever becomes of the others."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from remote_dispatch.doctor.examine import REACHED_AT_ONCE, examine
from remote_dispatch.doctor.finding import Check, Finding, Report, Severity
from remote_dispatch.errors import UnknownNameError
from tests.doctor.conftest import Audience
from tests.rig.sshd import Sshd, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.doctor.conftest import Laptop

ALIAS = "box-lan"


@pytest.fixture
def box(laptop: Laptop) -> Iterator[Sshd]:
    """A host without OpenCode, which the laptop can log in to."""
    with Sshd(laptop.machine.home.parent / "box") as sshd:
        sshd.write_client_home(laptop.machine.home, alias=ALIAS)
        yield sshd


@dataclass
class Reacting(Audience):
    """Does something when it hears that this host is asked, or is finished."""

    host: str = ""
    on_look: Callable[[], object] = lambda: None
    on_end: Callable[[], object] = lambda: None

    def is_at(self, host: str | None, what: str) -> None:
        super().is_at(host, what)
        if host == self.host and "OpenCode" in what:
            self.on_look()

    def finished(self, report: Report) -> None:
        super().finished(report)
        if report.host == self.host:
            self.on_end()


def errors_of(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.severity is Severity.ERROR]


async def test_a_silent_host_does_not_hold_up_the_others(laptop: Laptop, box: Sshd) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    laptop.write_hosts({"silent": f"me@127.0.0.1:{silent.getsockname()[1]}", "box": ALIAS})
    audience = Reacting(host="box", on_end=silent.close)
    reports = await examine(None, laptop.means, audience)
    finished = [report.host for report in audience.reports]
    assert finished.index("box") < finished.index("silent")
    assert [report.host for report in reports] == [None, "box", "silent"]
    assert {one.check for one in errors_of(reports[2])} <= {Check.PORT, Check.LOGIN}
    assert len(errors_of(reports[2])) == 1


async def test_a_host_that_was_not_reached_has_all_else_skipped(laptop: Laptop) -> None:
    laptop.write_hosts({"gone": f"me@127.0.0.1:{free_port()}"})
    _, report = await examine(["gone"], laptop.means, Audience())
    (error,) = errors_of(report)
    assert error.check is Check.PORT
    after = [one for one in report.findings if one.check in list(Check)[list(Check).index(Check.RUN_DIRECTORY) :]]
    assert {one.check for one in after} == set(list(Check)[list(Check).index(Check.RUN_DIRECTORY) :])
    assert {one.severity for one in after} == {Severity.SKIPPED}
    checks = [list(Check).index(one.check) for one in report.findings]
    assert checks == sorted(checks)


async def test_a_connection_that_breaks_meanwhile_is_the_finding(laptop: Laptop, box: Sshd) -> None:
    laptop.write_hosts({"box": ALIAS})
    audience = Reacting(host="box", on_look=box.drop_connections)
    _, report = await examine(["box"], laptop.means, audience)
    (error,) = errors_of(report)
    assert (error.check, error.command) == (Check.PORT, "remote-dispatch doctor box")


async def test_a_name_that_nobody_knows_ends_the_call_before_anything_is_looked_at(laptop: Laptop) -> None:
    laptop.write_hosts({"box": ALIAS})
    audience = Audience()
    with pytest.raises(UnknownNameError, match="`bax`"):
        await examine(["box", "bax"], laptop.means, audience)
    assert not audience.waited_for


async def test_an_entry_that_is_wrong_is_the_finding_of_its_host(laptop: Laptop) -> None:
    laptop.write_hosts({"box": {"host": ALIAS, "port": "many"}})
    _, report = await examine(["box"], laptop.means, Audience(), asked=["box"])
    (error,) = errors_of(report)
    assert (error.check, error.command) == (Check.ENTRY, "remote-dispatch hosts edit")
    assert "`port`" in error.seen


async def test_what_a_host_says_of_itself_is_reported_without_an_address(laptop: Laptop, box: Sshd) -> None:
    place = box.remote_home / "me@203.0.113.7"
    place.mkdir()
    (place / "opencode").write_text("#!/bin/sh\nexit 3\n")
    (place / "opencode").chmod(0o755)
    box.stop()
    box.path = f"{place}:{box.path}"
    box.start()
    laptop.write_hosts({"box": ALIAS})
    _, report = await examine(["box"], laptop.means, Audience())
    assert [one.seen for one in errors_of(report)] == ["`~/<address>/opencode` does not start"]


async def test_many_dead_hosts_all_get_their_report(laptop: Laptop) -> None:
    names = [f"dead-{number:02}" for number in range(REACHED_AT_ONCE + 3)]
    port = free_port()
    laptop.write_hosts(dict.fromkeys(names, f"me@127.0.0.1:{port}"))
    audience = Audience()
    reports = await examine(None, laptop.means, audience)
    assert [report.host for report in reports] == [None, *names]
    assert len(audience.reports) == len(names) + 1
    assert "127.0.0.1" not in json.dumps([str(report) for report in reports])
