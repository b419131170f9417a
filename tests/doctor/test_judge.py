"""What facts of a host mean: the severity, and a cure that can be typed as it stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remote_dispatch.doctor.finding import Check, Finding, Fix, Severity
from remote_dispatch.doctor.judge import CHECKS, Here, Known, judge, skipped
from remote_dispatch.doctor.on_host import Binary, OnHost, Place
from remote_dispatch.model import Host
from remote_dispatch.opencode.catalogue import Agent, Catalogue, Rule

GB = 1024**3
BINARY = Binary("~/.opencode/bin/opencode", is_on_path=True, version="1.18.33", built_for="x86_64")
CATALOGUE = Catalogue(
    models=("acme/large", "acme/small", "opencode/free"),
    agents={
        "build": Agent("build", "primary"),
        "plan": Agent("plan", "primary"),
        "general": Agent("general", "subagent"),
    },
    default_model="acme/large",
)
HEALTHY = OnHost(
    machine="x86_64",
    packages="apt-get",
    git="2.39.5",
    places={name: Place("yes", 50 * GB, 1_000_000) for name in ("state", "cache", "data")},
    opencode=BINARY,
    catalogue=CATALOGUE,
)
HERE = Here("1.18.33", "machine:1:2")
ONE, TWO, THREE = (f"20260101-00000{number}-abcdefgh" for number in range(3))


def host(**fields: object) -> Host:
    return Host.model_validate({"name": "pi", "host": "pi", **fields})


def found(check: Check, seen: OnHost, here: Here = HERE, **fields: object) -> Finding:
    """The worst finding of a check."""
    order = (Severity.ERROR, Severity.WARNING, Severity.NOTE, Severity.OK, Severity.SKIPPED)
    findings = [finding for finding in judge(host(**fields), seen, here) if finding.check is check]
    return min(findings, key=lambda finding: order.index(finding.severity))


def offering(**changes: Any) -> OnHost:
    return replace(HEALTHY, catalogue=replace(CATALOGUE, **changes))


def starting(**changes: Any) -> OnHost:
    return replace(HEALTHY, opencode=replace(BINARY, **changes))


def on_disk(**changes: Any) -> OnHost:
    return replace(HEALTHY, places=HEALTHY.places | {"data": replace(HEALTHY.places["data"], **changes)})


def test_a_healthy_host_has_one_good_word_for_each_check_in_order() -> None:
    findings = judge(host(), HEALTHY, HERE)
    assert [finding.check for finding in findings] == list(CHECKS)
    assert {finding.severity for finding in findings} == {Severity.OK}
    assert not [finding for finding in findings if finding.cure or finding.command or finding.fix]


def test_a_host_of_which_nothing_is_known_has_one_error_and_skips_the_rest() -> None:
    first, *rest = judge(host(), OnHost(problem="it said nothing"), HERE)
    assert (first.check, first.severity, first.seen) == (Check.SHELL, Severity.ERROR, "it said nothing")
    assert tuple(rest) == skipped("nothing could be learned there")


def test_programs_that_a_run_needs_are_installed_by_the_hosts_own_package_manager() -> None:
    seen = found(Check.SHELL, replace(HEALTHY, missing=("gzip", "find", "sha256sum"), packages="apk"))
    assert (seen.severity, seen.is_there) == (Severity.ERROR, True)
    assert seen.command == "sudo apk add gzip findutils coreutils"


# --- the disk


@pytest.mark.parametrize(
    ("place", "severity", "words"),
    [
        ({"writing": "no-space", "free_bytes": 0}, Severity.ERROR, "is full"),
        ({"writing": "no-space", "free_bytes": GB, "free_files": 0}, Severity.ERROR, "inodes"),
        ({"writing": "quota"}, Severity.ERROR, "quota"),
        ({"free_bytes": 150 * 1024**2}, Severity.ERROR, "only 150 MB"),
        ({"free_bytes": 900 * 1024**2}, Severity.WARNING, "only 900 MB"),
        ({"free_bytes": None}, Severity.OK, "room"),
    ],
)
def test_space_on_the_fullest_disk(place: dict[str, Any], severity: Severity, words: str) -> None:
    seen = found(Check.DISK_SPACE, on_disk(**place))
    assert seen.severity is severity
    assert words in seen.seen


def test_a_full_disk_is_not_said_to_be_unwritable_besides() -> None:
    assert found(Check.RUN_DIRECTORY, on_disk(writing="no-space")).severity is Severity.SKIPPED


@pytest.mark.parametrize(
    ("how", "words"), [("read-only", "read-only"), ("forbidden", "by the user"), ("other", "no file")]
)
def test_a_place_that_takes_no_files(how: str, words: str) -> None:
    seen = found(Check.RUN_DIRECTORY, on_disk(writing=how))
    assert (seen.severity, seen.is_there) == (Severity.ERROR, True)
    assert words in seen.seen


# --- OpenCode


def test_without_opencode_setup_is_the_cure_and_what_needs_it_is_skipped() -> None:
    findings = judge(host(), replace(HEALTHY, opencode=None, catalogue=None), HERE)
    missing = next(finding for finding in findings if finding.check is Check.OPENCODE)
    assert (missing.severity, missing.fix) == (Severity.ERROR, Fix.SETUP)
    assert missing.command == "remote-dispatch hosts setup pi"
    assert [finding.check for finding in findings if finding.severity is Severity.SKIPPED] == [
        *(Check.VERSION, Check.CREDENTIALS, Check.MODEL, Check.AGENT, Check.PERMISSIONS)
    ]


def test_a_wrong_opencode_field_is_replaced_by_where_it_was_found() -> None:
    seen = found(Check.OPENCODE, replace(HEALTHY, is_asked_missing=True), opencode="~/wrong")
    assert (seen.severity, seen.fix) == (Severity.ERROR, Fix.OPENCODE_FIELD)
    assert seen.command == "remote-dispatch hosts set pi opencode '~/.opencode/bin/opencode'"
    assert seen.detail == {"opencode": "~/.opencode/bin/opencode"}


def test_an_opencode_off_the_path_is_good_to_know_and_no_more() -> None:
    assert found(Check.OPENCODE, starting(is_on_path=False)).severity is Severity.NOTE


def test_another_opencode_of_the_users_own_shell_can_be_chosen() -> None:
    other = Binary("~/my tools/opencode", version="1.30.0")
    seen = found(Check.OPENCODE, replace(HEALTHY, other=other))
    assert seen.severity is Severity.NOTE
    assert seen.command == "remote-dispatch hosts set pi opencode '~/my tools/opencode'"


def test_another_opencode_is_no_news_where_the_entry_has_chosen() -> None:
    seen = found(
        Check.OPENCODE, replace(HEALTHY, other=Binary("/usr/bin/opencode")), opencode="~/.opencode/bin/opencode"
    )
    assert seen.severity is Severity.OK


@pytest.mark.parametrize(
    ("binary", "words", "fix"),
    [
        ({"status": 124}, "in time", None),
        ({"status": 132}, "instructions", None),
        ({"status": 137}, "killed", None),
        ({"status": 126, "built_for": "aarch64"}, "built for aarch64, and this is x86_64", Fix.SETUP),
        ({"status": 127, "missing_loader": "ld-musl-x86_64.so.1"}, "another C library, musl", Fix.SETUP),
        ({"status": 127, "said": "env: 'node': No such file or directory"}, "needs `node`", Fix.SETUP),
        ({"status": 3, "said": "boom"}, "does not start: boom", Fix.SETUP),
        ({"status": 0, "said": "hello"}, "tells no version", None),
    ],
)
def test_an_opencode_that_does_not_start_has_its_cause(binary: dict[str, Any], words: str, fix: Fix | None) -> None:
    seen = found(Check.OPENCODE, replace(starting(version=None, **binary), catalogue=None))
    assert (seen.severity, seen.fix) == (Severity.ERROR, fix)
    assert words in seen.seen
    assert seen.command is not None


def test_a_32_bit_arm_is_one_machine_whatever_it_calls_itself() -> None:
    arm = replace(starting(version=None, status=1, built_for="arm"), machine="armv7l")
    assert "built for" not in found(Check.OPENCODE, arm).seen


@pytest.mark.parametrize(
    ("there", "here", "severity", "is_there"),
    [
        ("1.17.9", "1.17.9", Severity.ERROR, True),
        ("0.9.1", None, Severity.ERROR, True),
        ("1.18.1", "1.18.33", Severity.OK, False),
        ("1.18.33", "1.20.0", Severity.WARNING, True),
        ("1.20.0", "1.18.33", Severity.NOTE, False),
        ("2.0.0", "1.18.33", Severity.WARNING, False),
        ("1.18.33", None, Severity.OK, False),
    ],
)
def test_versions_are_compared(there: str, here: str | None, severity: Severity, is_there: bool) -> None:
    seen = found(Check.VERSION, starting(version=there), Here(here))
    assert (seen.severity, seen.is_there) == (severity, is_there)
    assert (seen.command == "opencode upgrade") is (severity is not Severity.OK)


def test_listings_that_fail_are_an_error_with_the_command_that_shows_why() -> None:
    hint = "run `opencode models` on the host"
    unlisted = replace(HEALTHY, catalogue=None, trouble="OpenCode there could not list its models", trouble_hint=hint)
    seen = found(Check.OPENCODE, unlisted)
    assert (seen.severity, seen.command, seen.is_there) == (Severity.ERROR, "opencode models", True)


def test_on_a_host_that_takes_no_files_opencode_is_not_blamed() -> None:
    for binary in (BINARY, replace(BINARY, version=None, status=1)):
        seen = replace(on_disk(writing="no-space"), catalogue=None, opencode=binary)
        errors = {finding.check for finding in judge(host(), seen, HERE) if finding.severity is Severity.ERROR}
        assert errors == {Check.DISK_SPACE}


# --- what it offers


def test_providers_are_told_by_name() -> None:
    assert found(Check.CREDENTIALS, HEALTHY).seen == "providers: `acme`"


def test_without_a_provider_the_login_is_the_cure() -> None:
    seen = found(Check.CREDENTIALS, offering(models=("opencode/free",)))
    assert (seen.severity, seen.command, seen.is_there) == (Severity.ERROR, "opencode auth login", True)
    assert "`remote-dispatch hosts setup pi --with-config --with-credentials`" in (seen.cure or "")
    assert found(Check.MODEL, offering(models=("opencode/free",))).severity is Severity.SKIPPED


def test_a_key_that_only_a_login_shell_has_is_the_cause() -> None:
    seen = found(Check.CREDENTIALS, replace(offering(models=()), login_keys=("ACME_API_KEY",)))
    assert "`ACME_API_KEY` is set in login shells only" in seen.seen


def test_a_hosted_model_that_the_entry_names_needs_no_provider() -> None:
    seen = offering(models=("opencode/free",))
    assert found(Check.CREDENTIALS, seen, model="opencode/free").severity is Severity.OK
    assert found(Check.MODEL, seen, model="opencode/free").severity is Severity.OK


def test_an_unknown_model_gets_the_nearest_one() -> None:
    seen = found(Check.MODEL, HEALTHY, model="acme/lage")
    assert seen.severity is Severity.ERROR
    assert seen.command == "remote-dispatch hosts set pi model acme/large"
    assert "`acme/small`" in (seen.cure or "")


def test_a_model_like_none_sends_to_the_hosts_own_list() -> None:
    seen = found(Check.MODEL, HEALTHY, model="zzz/qqq")
    assert (seen.command, seen.is_there) == ("opencode models", True)


def test_no_model_anywhere_is_a_note() -> None:
    assert found(Check.MODEL, offering(default_model=None)).severity is Severity.NOTE


def test_an_unknown_agent_gets_the_nearest_one() -> None:
    seen = found(Check.AGENT, HEALTHY, agent="bild")
    assert (seen.severity, seen.command) == (Severity.ERROR, "remote-dispatch hosts set pi agent build")


def test_a_sub_agent_cannot_lead() -> None:
    seen = found(Check.AGENT, HEALTHY, agent="general")
    assert seen.severity is Severity.ERROR
    assert "sub-agent" in seen.seen


def rule(permission: str, action: str, pattern: str = "*") -> Rule:
    return {"permission": permission, "pattern": pattern, "action": action}


@pytest.mark.parametrize(
    ("rules", "fields", "severity", "words"),
    [
        ([rule("*", "allow")], {}, Severity.OK, "asks for nothing"),
        ([rule("external_directory", "ask"), rule("read", "ask", "*.env")], {}, Severity.OK, "no more than usual"),
        ([rule("bash", "ask"), rule("edit", "ask")], {}, Severity.NOTE, "`bash`, `edit`"),
        ([rule("bash", "ask"), rule("bash", "allow")], {}, Severity.OK, "asks for nothing"),
        ([rule("bash", "ask"), rule("*", "allow")], {}, Severity.OK, "asks for nothing"),
        ([rule("bash", "ask"), rule("bash", "allow", "git *")], {}, Severity.NOTE, "`bash`"),
        ([rule("bash", "ask")], {"permission_rules": {"bash": "allow"}}, Severity.OK, "asks for nothing"),
        ([rule("bash", "ask")], {"permissions": "auto"}, Severity.OK, "is granted: `bash`"),
    ],
)
def test_permissions_that_will_be_asked_for(
    rules: list[Rule], fields: dict[str, Any], severity: Severity, words: str
) -> None:
    agents = CATALOGUE.agents | {"build": Agent("build", "primary", tuple(rules))}
    seen = found(Check.PERMISSIONS, offering(agents=agents), **fields)
    assert seen.severity is severity
    assert words in seen.seen


# --- what surrounds the work


@pytest.mark.parametrize(
    ("state", "severity"),
    [("there", Severity.OK), ("absent", Severity.NOTE), ("file", Severity.ERROR), ("forbidden", Severity.ERROR)],
)
def test_the_working_directory(state: str, severity: Severity) -> None:
    seen = found(Check.DIRECTORY, replace(HEALTHY, directory=state), directory="~/src")
    assert seen.severity is severity
    assert "`~/src`" in seen.seen


def test_without_git_the_hosts_own_package_manager_is_the_cure() -> None:
    seen = found(Check.GIT, replace(HEALTHY, git=None))
    assert (seen.severity, seen.command, seen.is_there) == (Severity.WARNING, "sudo apt-get install git", True)
    assert found(Check.GIT, replace(HEALTHY, git=None, packages=None)).command is None


@pytest.mark.parametrize(
    ("offset_ms", "severity", "words"),
    [
        (1_900, Severity.OK, "agrees"),
        (-30_000, Severity.NOTE, "30 seconds behind this one, which is evened out"),
        (3 * 3_600_000, Severity.WARNING, "3 hours ahead of this one"),
        (-400_000, Severity.WARNING, "6 minutes behind this one"),
        (86_400_000 * 5, Severity.WARNING, "5 days ahead"),
    ],
)
def test_clocks(offset_ms: int, severity: Severity, words: str) -> None:
    seen = found(Check.CLOCK, replace(HEALTHY, clock_offset_ms=offset_ms))
    assert seen.severity is severity
    assert words in seen.seen


def test_a_systemd_that_ends_everything_at_logout_is_an_error() -> None:
    seen = found(Check.LOGOUT, replace(HEALTHY, ends_at_logout=True))
    assert (seen.severity, seen.fix, seen.is_there) == (Severity.ERROR, None, True)
    assert "KillUserProcesses=no" in (seen.command or "")


# --- earlier dispatches, and this machine itself


def test_what_is_home_may_be_pruned() -> None:
    here = Here(dispatches={ONE: Known("kumo", is_home=True), TWO: Known("lima", is_home=True)})
    seen = found(Check.LEFTOVERS, replace(HEALTHY, runs={ONE: "ended", TWO: "idle"}), here)
    assert (seen.severity, seen.command) == (Severity.NOTE, "remote-dispatch prune")
    assert seen.seen.startswith("2 dispatches")
    assert "`kumo`, `lima`" in seen.seen


def test_what_is_not_home_has_its_own_next_command() -> None:
    here = Here(dispatches={ONE: Known("kumo", is_home=False, command="remote-dispatch collect kumo")})
    seen = found(Check.LEFTOVERS, replace(HEALTHY, runs={ONE: "ended"}), here)
    assert (seen.severity, seen.command) == (Severity.NOTE, "remote-dispatch collect kumo")


def test_what_is_at_work_is_no_leftover() -> None:
    here = Here(dispatches={ONE: Known("kumo", is_home=False)})
    seen = found(Check.LEFTOVERS, replace(HEALTHY, runs={ONE: "alive"}), here)
    assert (seen.severity, seen.seen) == (Severity.OK, "one dispatch of this machine is at work there")


def test_what_nobody_here_knows_is_told_and_never_removed() -> None:
    seen = found(Check.LEFTOVERS, replace(HEALTHY, runs={ONE: "ended", TWO: "alive", THREE: "idle"}), Here())
    assert (seen.severity, seen.command, seen.fix) == (Severity.NOTE, None, None)
    assert "3 dispatches" in seen.seen
    assert "one of them at work" in seen.seen


def test_this_very_machine_is_recognised_by_its_database() -> None:
    seen = found(Check.SAME_MACHINE, replace(HEALTHY, databases=frozenset({"machine:1:2", "machine:1:3"})))
    assert (seen.severity, seen.command) == (Severity.ERROR, "remote-dispatch hosts remove pi")
    assert found(Check.SAME_MACHINE, HEALTHY, Here()).severity is Severity.SKIPPED


def test_every_cure_of_every_finding_reads_as_one_sentence() -> None:
    worst = replace(
        HEALTHY,
        opencode=replace(BINARY, version=None, status=126),
        git=None,
        clock_offset_ms=9_999_999,
        ends_at_logout=True,
        runs={ONE: "ended"},
        directory="file",
        databases=frozenset({"machine:1:2"}),
        missing=("gzip",),
    )
    for finding in judge(host(directory="~/x", opencode="~/y"), worst, HERE):
        for text in filter(None, (finding.seen, finding.cure)):
            assert not text.endswith(".")
            assert text.splitlines() == [text]
        if finding.severity in (Severity.ERROR, Severity.WARNING):
            assert finding.cure
