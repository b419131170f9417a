"""What the doctor says of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remote_dispatch.doctor.finding import Check, Finding, Fix, Severity
from remote_dispatch.doctor.local import Local, hosts_file_findings, look_here, opencode_finding
from remote_dispatch.plugin import install, user_place

if TYPE_CHECKING:
    from remote_dispatch.plugin import Place
    from tests.doctor.conftest import Laptop


def of(local: Local, check: Check) -> Finding:
    """The only finding of this check."""
    (found,) = [finding for finding in local.report.findings if finding.check is check]
    return found


def install_plugin(laptop: Laptop) -> Place:
    """Install the plugin for the user, with a command that answers."""
    program = laptop.machine.put_program("remote-dispatch", "#!/bin/sh\necho 0.1.0\n")
    place = user_place(laptop.environment)
    install(place, (str(program),), laptop.environment)
    return place


async def test_a_machine_in_order_has_nothing_but_ok(laptop: Laptop) -> None:
    laptop.write_hosts({"pi": "pi-lan", "lab": "lab-lan"})
    install_plugin(laptop)
    local = await look_here(laptop.means)
    assert [(one.check, one.severity) for one in local.report.findings] == [
        (Check.HOSTS_FILE, Severity.OK),
        (Check.OPENCODE_HERE, Severity.OK),
        (Check.DATABASE_HERE, Severity.OK),
        (Check.PLUGIN, Severity.OK),
    ]
    assert of(local, Check.HOSTS_FILE).seen == f"2 hosts in {laptop.hosts_file}"
    assert of(local, Check.OPENCODE_HERE).seen.startswith("OpenCode 1.18")
    assert local.here.opencode_version is not None
    assert local.here.database is not None
    assert local.here.database.count(":") == 2


async def test_a_new_user_is_told_how_to_begin(laptop: Laptop) -> None:
    local = await look_here(laptop.means)
    hosts, plugin = of(local, Check.HOSTS_FILE), of(local, Check.PLUGIN)
    assert (hosts.severity, hosts.command) == (Severity.NOTE, "remote-dispatch hosts import")
    assert (plugin.severity, plugin.command) == (Severity.NOTE, "remote-dispatch plugin install")
    assert plugin.fix is None
    assert local.report.severity is Severity.NOTE


def test_a_bad_entry_is_an_error_with_its_line_unless_another_host_is_meant(laptop: Laptop) -> None:
    laptop.hosts_file.write_text('{ "hosts": {\n  "pi": { "host": "pi-lan", "port": "no" },\n  "lab": "lab-lan" } }')
    laptop.hosts_file.chmod(0o600)
    registry = laptop.registry()
    (found,) = hosts_file_findings(registry)
    assert found.severity is Severity.ERROR
    assert found.seen.startswith(f"{laptop.hosts_file}:2: host `pi`: `port`:")
    assert found.command == "remote-dispatch hosts edit"
    assert [one.severity for one in hosts_file_findings(registry, ["lab"])] == [Severity.NOTE]
    assert [one.severity for one in hosts_file_findings(registry, ["pi"])] == [Severity.ERROR]


def test_a_file_with_values_that_others_may_read_is_a_warning(laptop: Laptop) -> None:
    laptop.write_hosts({"pi": {"host": "pi-lan", "env": {"TOKEN": "s3cret"}}}, mode=0o640)
    (found,) = hosts_file_findings(laptop.registry())
    assert (found.severity, found.fix) == (Severity.WARNING, Fix.FILE_MODE)
    assert found.command == f"chmod 600 {laptop.hosts_file}"
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("entry", "mode"), [({"host": "pi-lan"}, 0o644), ({"host": "pi-lan", "env": {"TOKEN": "s3cret"}}, 0o600)]
)
def test_a_file_without_values_or_of_the_user_alone_is_fine(
    laptop: Laptop, entry: dict[str, object], mode: int
) -> None:
    laptop.write_hosts({"pi": entry}, mode=mode)
    assert [one.severity for one in hosts_file_findings(laptop.registry())] == [Severity.OK]


def test_the_files_of_a_project_that_is_not_trusted_are_a_note(laptop: Laptop) -> None:
    laptop.write_hosts({"pi": "pi-lan"})
    (laptop.machine.project / "hosts.json").write_text('{"hosts": {"pi": "thief.example"}}')
    found = [one for one in hosts_file_findings(laptop.registry()) if one.severity is Severity.NOTE]
    assert [one.command for one in found] == ["remote-dispatch hosts trust"]
    assert str(laptop.machine.project / "hosts.json") in found[0].seen
    assert "thief" not in str(found)


async def test_without_opencode_its_database_is_not_looked_at(laptop: Laptop) -> None:
    laptop.environment["REMOTE_DISPATCH_OPENCODE"] = "/nonexistent/opencode"
    local = await look_here(laptop.means)
    found = of(local, Check.OPENCODE_HERE)
    assert found.severity is Severity.ERROR
    assert "REMOTE_DISPATCH_OPENCODE" in found.seen
    assert of(local, Check.DATABASE_HERE).severity is Severity.SKIPPED
    assert local.here.database is None


@pytest.mark.parametrize(
    ("version", "severity", "command"),
    [
        ("1.18.33", Severity.OK, None),
        ("v1.19.0-beta", Severity.OK, None),
        ("2.0.1", Severity.OK, None),
        ("1.17.9", Severity.ERROR, "opencode upgrade"),
        ("0.99", Severity.ERROR, "opencode upgrade"),
        ("hello", Severity.ERROR, "/opt/opencode --version"),
        (None, Severity.ERROR, "/opt/opencode --version"),
    ],
)
def test_opencode_must_answer_and_be_of_1_18_at_least(
    version: str | None, severity: Severity, command: str | None
) -> None:
    found = opencode_finding("/opt/opencode", version)
    assert (found.severity, found.command) == (severity, command)


async def test_a_database_that_cannot_be_read_is_an_error(laptop: Laptop) -> None:
    laptop.machine.opencode.data.mkdir(parents=True, exist_ok=True)
    (laptop.machine.opencode.data / "opencode.db").write_bytes(b"this is no database" * 100)
    local = await look_here(laptop.means)
    found = of(local, Check.DATABASE_HERE)
    assert (found.severity, found.command) == (Severity.ERROR, "opencode db path")
    assert of(local, Check.OPENCODE_HERE).severity is Severity.OK


async def test_a_plugin_of_another_version_is_a_warning_that_can_be_fixed(laptop: Laptop) -> None:
    place = install_plugin(laptop)
    place.plugin_file.write_text("// of last year\n")
    found = of(await look_here(laptop.means), Check.PLUGIN)
    assert (found.severity, found.fix) == (Severity.WARNING, Fix.PLUGIN)
    assert found.command == "remote-dispatch plugin install"


async def test_a_broken_configuration_of_opencode_is_a_warning(laptop: Laptop) -> None:
    install(user_place(laptop.environment), ("remote-dispatch",), laptop.environment)
    (configuration,) = laptop.machine.opencode.configuration.glob("opencode.json*")
    configuration.write_text('{ "plugin": [ }')
    local = await look_here(laptop.means)
    found = of(local, Check.PLUGIN)
    assert found.severity is Severity.WARNING
    assert str(configuration) in found.seen
    assert of(local, Check.OPENCODE_HERE).severity is Severity.OK
