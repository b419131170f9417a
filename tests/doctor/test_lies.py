"""What a host answers to the doctor is its own word: whatever it says, there is a report, and no address in it."""

from __future__ import annotations

import pytest

from remote_dispatch.doctor.discreet import discreet
from remote_dispatch.doctor.finding import Check, Finding, Fix, Severity
from remote_dispatch.doctor.judge import Here, judge
from remote_dispatch.doctor.on_host import read
from remote_dispatch.model import Host
from remote_dispatch.opencode.catalogue import parse_agents

pytestmark = pytest.mark.thorough
HEARD_AT = 1_700_000_000.0
PATH = "/home/me/bin/opencode"
HONEST = dict(
    line.split(" ", 1)
    for line in f"""\
now 1700000000000
home /home/me
machine x86_64
missing gzip
packages apt-get
directory_state there
ends_at_logout no
runs 20260101-000000-abcdefgh:ended
login_keys A_API_KEY
own_keys A_API_KEY
writes_state yes
writes_cache yes
writes_data yes
free_state 99999999
files_state 9
git 2.39
databases machine:1:2
opencode {PATH}
start_status 0
start_said 1.18.33
built_for 3e00
loader /lib/ld-x
other /usr/bin/opencode
other_version 1.2.3
looked yes""".splitlines()
)
LIES = {
    "an address": "me@203.0.113.7",
    "an address behind much else": f"/x/{'y ' * 300}me@203.0.113.7",
    "a version with an address": "1.18.33+203.0.113.7",
    "5,000 digits": "9" * 5_000,
    "a version of 5,000 digits": f"{'9' * 5_000}.1.1",
    "a digit that is no number": "\N{SUPERSCRIPT TWO}",
    "the digits of another script": "\N{ARABIC-INDIC DIGIT THREE}" * 3,
    "a hundred kilobytes": "x" * 100_000,
    "what a terminal obeys": "\x1b]0;owned\x07",
    "nothing": "",
}
MEANWHILE: tuple[dict[str, str], ...] = (
    {},
    {"start_status": "1"},
    {"asked_missing": "yes"},
    {"start_status": "127", "no_loader": "yes"},
    {"writes_data": "no-space"},
)


def report_on(answer: dict[str, str]) -> list[Finding]:
    host = Host.model_validate({"name": "pi", "host": "pi", "directory": "~/src"})
    said = "".join(f"{key} {value}\n" for key, value in answer.items()).encode()
    return [discreet(finding) for finding in judge(host, read(said, HEARD_AT)[0], Here("1.18.33"))]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_whatever_a_host_says_there_is_a_short_report_without_an_address(lie: str) -> None:
    for key in HONEST:
        for more in MEANWHILE:
            findings = report_on({**HONEST, **more, key: lie})
            text = "".join(map(str, findings))
            assert {one.check for one in findings} >= {Check.OPENCODE, Check.CLOCK}
            assert "203.0.113.7" not in text, key
            assert "me@" not in text, key
            assert "\\x1b" not in text, key
            assert len(text) < 12_000, key


def test_a_command_that_would_hold_an_address_is_left_out_and_so_is_its_fix() -> None:
    path = "~/me@203.0.113.7/opencode"
    finding = Finding(
        *(Check.OPENCODE, Severity.ERROR, f"OpenCode is `{path}`", "name it", f"hosts set pi opencode {path}"),
        fix=Fix.OPENCODE_FIELD,
        detail={"opencode": path},
    )
    seen = discreet(finding)
    assert (seen.command, seen.fix) == (None, None)
    assert (seen.seen, seen.detail) == ("OpenCode is `~/<address>/opencode`", {"opencode": "~/<address>/opencode"})


def test_a_model_with_its_version_can_still_be_typed() -> None:
    command = "remote-dispatch hosts set pi model google-vertex-anthropic/claude-sonnet-4@20250514"
    assert discreet(Finding(Check.MODEL, Severity.ERROR, "unknown", "name one", command)).command == command


def test_a_listing_that_is_nested_without_end_has_no_rules() -> None:
    assert parse_agents(f"build (primary)\n{'[' * 200_000}")["build"].rules == ()
